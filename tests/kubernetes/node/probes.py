"""Probes of a container: startup, liveness and readiness, with the times of their specs.

Not here: what follows from a failure (containers.py), and probes by gRPC, which no pod of the chart has."""

import contextlib
import http.client
import socket

from .follower import Follower


def port_of(container, port):
    """Ports may have names."""
    if isinstance(port, int):
        return port
    return next(each["containerPort"] for each in container["ports"] if each["name"] == port)


def attempt(spec, container, address, run):
    """One attempt. `run` runs a command in the container and returns its exit code."""
    timeout = spec.get("timeoutSeconds", 1)
    if "httpGet" in spec:
        what = spec["httpGet"]
        with contextlib.closing(http.client.HTTPConnection(what.get("host") or address, port_of(container, what["port"]),
                                                           timeout=timeout)) as connection:
            connection.request("GET", what.get("path", "/"), headers={"User-Agent": "kube-probe/1.35"})
            return 200 <= connection.getresponse().status < 400
    if "tcpSocket" in spec:
        socket.create_connection((address, port_of(container, spec["tcpSocket"]["port"])), timeout).close()
        return True
    if "exec" in spec:
        return run(spec["exec"]["command"], timeout) == 0
    raise AssertionError(f"the test's node does not know the probe {spec}")


class Probe(Follower):
    """Repeats a probe in a thread until it is stopped. `told` is called with each change of the result: None before the first."""

    def __init__(self, spec, container, address, run, told):
        self.spec, self.container, self.address, self.run, self.told = spec, container, address, run, told
        self.result = None
        # Attempts that failed, for tests.
        self.failures = 0
        super().__init__()

    def follow(self):
        successes = failures = 0
        wait = self.spec.get("initialDelaySeconds", 0)
        while not self.ended.wait(wait):
            wait = self.spec.get("periodSeconds", 10)
            try:
                good = attempt(self.spec, self.container, self.address, self.run)
            except (OSError, http.client.HTTPException):
                good = False
            successes, failures = (successes + 1, 0) if good else (0, failures + 1)
            self.failures += not good
            if good and successes >= self.spec.get("successThreshold", 1):
                self.change(True)
            elif not good and failures >= self.spec.get("failureThreshold", 3):
                self.change(False)

    def change(self, result):
        if result != self.result and not self.ended.is_set():
            self.result = result
            self.told()
