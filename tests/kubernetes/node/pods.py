"""One pod on a node, from its assignment to its removal: network, volumes, containers, deadlines, and its status in the API.

Not here: a single container (containers.py), which pods there are (agent.py), containers of init that keep running (sidecars)."""

import shutil
import threading
import time

from api import Refused

from .containers import Container, now
from .environment import NotYet
from .sandbox import Mount
from .volumes import Volumes

STRATEGIC = "application/strategic-merge-patch+json"


class Pod:
    """Its thread ends when the pod is removed."""

    def __init__(self, node, found):
        self.node, self.cluster, self.image = node, node.agent.cluster, node.agent.image
        self.object = found
        self.spec = found["spec"]
        self.uid, self.name, self.namespace = (found["metadata"][key] for key in ("uid", "name", "namespace"))
        self.folder = node.agent.folder / self.uid
        self.wake = threading.Event()
        # When it must have ended, by the clock of `time.monotonic`; None while it may run.
        self.deadline = None
        # No object of the pod is left: nothing may run.
        self.is_vanished = False
        self.network = self.volumes = None
        self.addresses = "", node.network.address
        self.containers = [Container(self, spec) for spec in self.spec["containers"]]
        self.initial = [Container(self, spec) for spec in self.spec.get("initContainers", [])]
        self.start_time = now()
        self.began = time.monotonic()
        self.reason = None
        self.waits_for = None
        self.conditions = {}
        self.reported = None
        self.thread = threading.Thread(target=self.live, name=f"{self.namespace}/{self.name}", daemon=True)
        self.thread.start()

    # What the agent says.

    def update(self, found):
        self.object = found
        if "deletionTimestamp" in found["metadata"]:
            deadline = time.monotonic() + found["metadata"].get("deletionGracePeriodSeconds", 0)
            if self.deadline is None or deadline < self.deadline:
                self.deadline = deadline
                self.wake.set()

    def vanish(self):
        self.is_vanished = True
        self.wake.set()

    def is_ending(self):
        return self.deadline is not None or self.is_vanished or self.reason is not None

    # The thread.

    def live(self):
        try:
            self.update(self.object)
            self.prepare()
            while not self.step():
                self.wake.wait(0.1)
                self.wake.clear()
        except Exception as error:
            self.node.agent.failed(self, error)
        finally:
            self.clean()

    def prepare(self):
        self.folder.mkdir()
        self.network, address = self.node.network.add()
        self.addresses = address, self.node.network.address
        hosts, resolver = self.folder / "hosts", self.folder / "resolv.conf"
        hosts.write_text(f"127.0.0.1 localhost\n::1 localhost\n{address} {self.name}\n")
        search = " ".join(f"{part}svc.cluster.local" for part in (f"{self.namespace}.", "")) + " cluster.local"
        resolver.write_text(f"search {search}\nnameserver {self.node.network.address}\noptions ndots:5\n")
        self.files = [Mount(hosts, "/etc/hosts"), Mount(resolver, "/etc/resolv.conf")]

    def step(self):
        """Acts on what has changed; true when nothing is left to do."""
        if self.is_vanished:
            return True
        limit = self.spec.get("activeDeadlineSeconds")
        if limit and not self.reason and time.monotonic() - self.began > limit and self.phase() in ("Pending", "Running"):
            self.reason = "DeadlineExceeded"
        every = [*self.initial, *self.containers]
        for container in every:
            container.observe()
        if self.is_ending():
            grace = (self.deadline or time.monotonic() + self.spec["terminationGracePeriodSeconds"]) - time.monotonic()
            for container in every:
                container.stop(grace)
        elif self.has_volumes():
            self.start_containers()
        self.report()
        if self.deadline is not None and not any(container.process for container in every):
            self.remove()
            return True
        return False

    def has_volumes(self):
        if self.volumes is None:
            try:
                self.volumes = Volumes(self.cluster, self.object, self.folder, self.addresses)
                self.waits_for = None
            except NotYet as error:
                if self.waits_for != str(error):
                    self.event("FailedMount", str(error))
                self.waits_for = str(error)
        return self.volumes is not None

    def start_containers(self):
        for container in self.initial:
            if not (container.ended and container.ended[-1]["exitCode"] == 0):
                if not container.is_over():
                    self.start(container)
                return
        for container in self.containers:
            self.start(container)

    def start(self, container):
        if not container.process and not container.is_over() and time.monotonic() >= container.restart_at:
            container.start()

    def clean(self):
        for container in [*self.initial, *self.containers]:
            if container.process:
                container.process.kill()
                container.process.outer.wait(30)
        if self.network:
            self.node.network.remove(self.network)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.node.removed(self)

    # The status.

    def phase(self):
        if self.initial and any(each.is_over() and each.ended[-1]["exitCode"] for each in self.initial):
            return "Failed"
        if all(each.is_over() for each in self.containers):
            good = all(each.ended[-1]["exitCode"] == 0 for each in self.containers) and not self.reason
            return "Succeeded" if good else "Failed"
        # Ended before it started.
        if self.is_ending() and not any(each.process or each.ended for each in self.containers):
            return "Failed"
        return "Running" if any(each.process or each.ended for each in self.containers) else "Pending"

    def condition(self, kind, value):
        """The time of a condition changes with its value."""
        status = "True" if value else "False"
        if self.conditions.get(kind, {}).get("status") != status:
            self.conditions[kind] = {"type": kind, "status": status, "lastTransitionTime": now()}

    def status(self):
        phase = self.phase()
        ready = phase == "Running" and all(each.is_ready() for each in self.containers)
        initialized = all(each.ended and each.ended[-1]["exitCode"] == 0 for each in self.initial)
        for kind, value in (("PodReadyToStartContainers", True), ("Initialized", initialized), ("ContainersReady", ready), ("Ready", ready)):
            self.condition(kind, value)
        own, host = self.addresses
        found = {
            "phase": phase, "podIP": own, "podIPs": [{"ip": own}], "hostIP": host, "hostIPs": [{"ip": host}],
            "startTime": self.start_time, "conditions": list(self.conditions.values()),
            "containerStatuses": [each.status() for each in self.containers]}
        if self.initial:
            found["initContainerStatuses"] = [each.status() for each in self.initial]
        return found | ({"reason": self.reason} if self.reason else {})

    def report(self):
        """Conditions of others, such as that of an eviction, stay: lists are merged by their keys."""
        found = self.status()
        if found == self.reported:
            return
        try:
            self.cluster.request("PATCH", f"{self.path()}/status", {"metadata": {"uid": self.uid}, "status": found}, STRATEGIC)
            self.reported = found
        except OSError:
            # The API server is too busy: again in the next step.
            pass
        except Refused as error:
            # Removed in the meantime, which the agent says soon.
            if error.code not in (404, 409):
                raise

    def remove(self):
        try:
            self.cluster.request("DELETE", self.path(), {
                "kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}})
        except Refused as error:
            if error.code not in (404, 409):
                raise

    def path(self):
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    def event(self, reason, message):
        self.node.agent.event(self, reason, message)
