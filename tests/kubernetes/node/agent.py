"""Plays several nodes: keeps their objects and leases, starts the pods that are assigned to them, and has NetworkPolicies enforced between
them.

Not here: the life of a pod (pods.py), and requests that a kubelet serves (logs.py has one of them)."""

import contextlib
import datetime
import itertools
import pathlib
import threading

from api import Refused, wait_for

from . import logs, names
from .containers import now
from .network import Network
from .pods import Pod
from .policies import Policies
from .watch import Watch

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
# The machine is smaller: limits of CPU and memory are not enforced, but the scheduler counts with these.
CAPACITY = {"cpu": "8", "memory": "32Gi", "ephemeral-storage": "200Gi", "pods": "110"}
VERSION = "v1.35.4"


class Node:
    def __init__(self, agent, number):
        self.agent, self.name = agent, f"node-{number}"
        self.network = Network(number)
        # By uid. Those that have ended are ignored until their objects are gone.
        self.pods = {}
        self.finished = set()

    def register(self):
        status = {
            "capacity": CAPACITY, "allocatable": CAPACITY,
            # By its address alone, because nothing resolves its name.
            "addresses": [{"type": "InternalIP", "address": self.network.address}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": logs.PORT}},
            "nodeInfo": {"architecture": "amd64", "operatingSystem": "linux", "kubeletVersion": VERSION, "bootID": "", "machineID": "",
                         "containerRuntimeVersion": "tests://1", "kernelVersion": "", "kubeProxyVersion": "", "osImage": "tests",
                         "systemUUID": ""},
            "conditions": [{"type": kind, "status": "True" if kind == "Ready" else "False", "reason": "Tests", "message": "",
                            "lastHeartbeatTime": now(), "lastTransitionTime": now()}
                           for kind in ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")]}
        cluster = self.agent.cluster
        labels = {"kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        cluster.create("/api/v1/nodes", {"metadata": {"name": self.name, "labels": labels}, "spec": {
            "podCIDR": str(self.network.range), "podCIDRs": [str(self.network.range)]}})
        cluster.patch(f"/api/v1/nodes/{self.name}/status", {"status": status})
        cluster.create(LEASES, {"metadata": {"name": self.name}, "spec": {
            "holderIdentity": self.name, "leaseDurationSeconds": 40, "renewTime": precisely_now()}})

    def renew(self):
        self.agent.cluster.patch(f"{LEASES}/{self.name}", {"spec": {"renewTime": precisely_now()}})

    def removed(self, pod):
        self.finished.add(pod.uid)
        self.pods.pop(pod.uid, None)


def precisely_now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Agent:
    """A context manager. `image` is the root of the image's file system. What went wrong within it is raised at the end."""

    EVENTS = itertools.count(1)

    def __init__(self, cluster, image, folder, nodes, serves_logs=False):
        self.cluster, self.image, self.folder = cluster, pathlib.Path(image), pathlib.Path(folder)
        self.number, self.serves_logs = nodes, serves_logs
        self.nodes = {}
        self.errors = []
        self.ended = threading.Event()
        self.ends = contextlib.ExitStack()

    def __enter__(self):
        wait_for("the namespace of leases", lambda: self.cluster.find("/api/v1/namespaces/kube-node-lease"))
        for number in range(1, self.number + 1):
            node = Node(self, number)
            self.nodes[node.name] = node
            self.ends.callback(names.serve(self.cluster, node.network.address).shutdown)
            if self.serves_logs:
                self.ends.callback(logs.serve(self, node.network.address).shutdown)
            node.register()
        self.heart = threading.Thread(target=self.beat, daemon=True)
        self.heart.start()
        self.policies = Policies(self.cluster, self.errors.append)
        self.watch = Watch(self.cluster, "/api/v1/pods", self.changed, self.gone)
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.watch.stop()
        self.policies.stop()
        for pod in self.pods():
            pod.vanish()
        for pod in self.pods():
            pod.thread.join(60)
        self.ends.close()
        if self.errors:
            raise AssertionError(f"the nodes failed: {self.errors}")

    def beat(self):
        while not self.ended.wait(10):
            with contextlib.suppress(OSError, Refused):
                for node in self.nodes.values():
                    node.renew()

    def changed(self, found):
        node = self.nodes.get(found["spec"].get("nodeName"))
        if node is None or self.ended.is_set():
            return
        uid = found["metadata"]["uid"]
        if uid in node.pods:
            node.pods[uid].update(found)
        elif uid not in node.finished:
            node.pods[uid] = Pod(node, found)

    def gone(self, found):
        for node in self.nodes.values():
            if pod := node.pods.get(found["metadata"]["uid"]):
                pod.vanish()

    def failed(self, pod, error):
        self.errors.append(f"{pod.namespace}/{pod.name}: {error!r}")

    def event(self, pod, reason, message):
        """What users see with `kubectl describe`; also the reason that a test shows when it fails."""
        with contextlib.suppress(Refused, OSError):
            self.cluster.create(f"/api/v1/namespaces/{pod.namespace}/events", {
                "metadata": {"name": f"{pod.name}.{next(self.EVENTS)}"}, "type": "Warning", "reason": reason, "message": message,
                "involvedObject": {"kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid, "apiVersion": "v1"},
                "source": {"component": "node"}, "firstTimestamp": now(), "lastTimestamp": now(), "count": 1})

    # For tests.

    def pods(self, namespace=None, component=None):
        return [pod for node in self.nodes.values() for pod in list(node.pods.values())
                if namespace in (None, pod.namespace)
                and component in (None, pod.object["metadata"].get("labels", {}).get("app.kubernetes.io/component"))]

    def wait_until_ready(self):
        def ready():
            found = self.cluster.get("/api/v1/nodes")["items"]
            return all(not each["spec"].get("taints") for each in found)

        wait_for("nodes without taints", ready)
