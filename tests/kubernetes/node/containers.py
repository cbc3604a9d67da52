"""One container of a pod over its restarts: process, probes, hooks, and the status that the API shows.

Not here: when a pod starts and ends, and in which phase it is (pods.py)."""

import contextlib
import http.client
import signal
import subprocess
import threading
import time

from .environment import NotYet, command, environment
from .probes import Probe, attempt
from .sandbox import Launch, Process

# Pauses before a restart, as the kubelet makes them: doubled with each one.
PAUSES = (10, 300)


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Container:
    def __init__(self, pod, spec):
        self.pod, self.spec, self.name = pod, spec, spec["name"]
        self.process = None
        self.restarts = 0
        # Ended processes: the state of each.
        self.ended = []
        self.waiting = {"reason": "ContainerCreating"}
        self.started_at = None
        self.restart_at = 0
        self.probes = {}
        self.stopping = None

    # The life of a process.

    def start(self):
        """Starts it, or notes why it cannot start yet."""
        try:
            variables = environment(self.pod.cluster, self.pod.object, self.spec, self.pod.addresses)
            launch = self.launch(command(self.spec, variables), variables)
        except NotYet as error:
            self.waiting = {"reason": "CreateContainerConfigError", "message": str(error)}
            self.restart_at = time.monotonic() + 1
            return
        number = len(self.ended)
        self.process = Process(self.pod.image, self.pod.folder / f"{self.name}.{number}", launch)
        self.restarts = number
        self.started_at, self.began = now(), time.monotonic()
        self.waiting = None
        self.start_probe("startupProbe")
        if not self.probes:
            self.start_probes()

    def launch(self, words, variables):
        general, own = self.pod.spec.get("securityContext", {}), self.spec.get("securityContext", {})
        user = own.get("runAsUser", general.get("runAsUser", 0))
        if user == 0:
            raise AssertionError(f"{self.name} would run as root: the test's node starts no such container")
        group = own.get("runAsGroup", general.get("runAsGroup", user))
        groups = {group, *general.get("supplementalGroups", []), *([general["fsGroup"]] if "fsGroup" in general else [])}
        return Launch(words, variables, [*self.pod.volumes.mounts(self.spec), *self.pod.files], user, group, sorted(groups),
                      self.pod.name, self.pod.network, own.get("readOnlyRootFilesystem", False))

    def start_probe(self, kind):
        if kind in self.spec:
            self.probes[kind] = Probe(self.spec[kind], self.spec, self.pod.addresses[0], self.run, self.pod.wake.set)

    def start_probes(self):
        for kind in ("livenessProbe", "readinessProbe"):
            self.start_probe(kind)

    def run(self, words, timeout):
        """The exit code of a command in the container; -1 if it takes too long."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.run(words, timeout).returncode
        return -1

    def observe(self):
        """Notes what happened since the last call, and acts on failed probes."""
        if not self.process:
            return
        code = self.process.exit_code()
        if code is not None:
            self.end(code)
            return
        startup = self.probes.get("startupProbe")
        if startup and startup.result and "livenessProbe" not in self.probes and "readinessProbe" not in self.probes:
            startup.stop()
            self.start_probes()
        for kind in ("startupProbe", "livenessProbe"):
            probe = self.probes.get(kind)
            if probe and probe.result is False and not self.stopping:
                self.pod.event("Unhealthy", f"{kind} of {self.name} failed; the container is restarted")
                self.stop(self.pod.spec["terminationGracePeriodSeconds"])

    def end(self, code):
        for probe in self.probes.values():
            probe.stop()
        reason = "Completed" if code == 0 else "Error"
        self.ended.append({"exitCode": code, "reason": reason, "startedAt": self.started_at, "finishedAt": now()})
        self.process, self.probes, self.stopping = None, {}, None
        if self.is_restarted():
            first, longest = PAUSES
            # A process that ran for a while is no crash loop.
            pause = 0 if time.monotonic() - self.began > 600 or len(self.ended) == 1 else min(first * 2 ** (len(self.ended) - 2), longest)
            self.restart_at = time.monotonic() + pause
            self.waiting = {"reason": "CrashLoopBackOff", "message": f"back-off {pause}s restarting failed container"}
            self.pod.event("BackOff", f"{self.name} ended with {code}; back-off {pause} s")

    def is_restarted(self):
        policy = self.pod.spec["restartPolicy"]
        if self.pod.is_ending() or not self.ended:
            return False
        return policy == "Always" or policy == "OnFailure" and self.ended[-1]["exitCode"] != 0

    def stop(self, grace):
        """Ends the process in a thread: hook, SIGTERM, and SIGKILL when the time is over."""
        if self.process and not self.stopping:
            self.stopping = threading.Thread(target=self.follow_stop, args=(self.process, time.monotonic() + grace), daemon=True)
            self.stopping.start()

    def follow_stop(self, process, deadline):
        for kind in ("startupProbe", "livenessProbe"):
            if kind in self.probes:
                self.probes[kind].stop()
        if hook := self.spec.get("lifecycle", {}).get("preStop"):
            self.run_hook(hook, deadline)
        process.signal(signal.SIGTERM)
        # A later deletion may shorten the time.
        while process.exit_code() is None and time.monotonic() < min(deadline, self.pod.deadline or deadline):
            time.sleep(0.05)
        if process.exit_code() is None:
            self.pod.event("Killing", f"{self.name} did not end within its grace period")
            process.kill()
        self.pod.wake.set()

    def run_hook(self, hook, deadline):
        if "sleep" in hook:
            time.sleep(min(hook["sleep"]["seconds"], max(0, deadline - time.monotonic())))
            return
        with contextlib.suppress(OSError, http.client.HTTPException):
            attempt({**hook, "timeoutSeconds": max(1, deadline - time.monotonic())}, self.spec, self.pod.addresses[0], self.run)

    def kill(self):
        if self.process:
            self.process.kill()

    # What the API shows.

    def is_started(self):
        startup = self.probes.get("startupProbe")
        return self.process is not None and (startup is None or bool(startup.result))

    def is_ready(self):
        if not self.is_started():
            return False
        probe = self.probes.get("readinessProbe")
        return bool(probe.result) if probe else "readinessProbe" not in self.spec

    def is_over(self):
        """It has ended, and does not start again."""
        return self.process is None and bool(self.ended) and not self.is_restarted()

    def status(self):
        if self.process:
            state = {"running": {"startedAt": self.started_at}}
        elif self.ended and not self.is_restarted():
            state = {"terminated": self.ended[-1]}
        else:
            state = {"waiting": self.waiting or {"reason": "ContainerCreating"}}
        before = self.ended[:-1] if "terminated" in state else self.ended
        return {
            "name": self.name, "image": self.spec["image"], "imageID": "tests", "ready": self.is_ready(), "started": self.is_started(),
            "restartCount": self.restarts, "state": state, "lastState": {"terminated": before[-1]} if before else {}}
