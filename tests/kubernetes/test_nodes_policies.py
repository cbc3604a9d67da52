"""Which pods reach which ports, by the chart's NetworkPolicies, as connections between pods that run.

Not here: a network plugin. The agent of the test enforces the policies by its own reading of their definition (node/policies.py)."""

import subprocess
import sys
import unittest

import cluster
import nodes
from cluster import Namespace, merged, wait_for
from nodes import volume
from test_nodes_install import SMALL, WAIT

PORTS = {"coordinator": (7070, 9090), "worker": (7071, 9090)}
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1)"


def stranger(namespace, name, labels=None):
    """A pod of somebody else, which runs until the namespace ends."""
    namespace.create("Pod", {"metadata": {"name": name, "labels": labels or {}}, "spec": {
        "automountServiceAccountToken": False,
        "containers": [{"name": "main", "image": "localhost/tally", "command": ["/usr/bin/tally"],
                        "args": ["coordinator", "--listen=127.0.0.1:0", "--http-listen=127.0.0.1:0", "--state-dir=/state"],
                        "volumeMounts": [{"name": "state", "mountPath": "/state"}]}],
        "volumes": [{"name": "state", "emptyDir": {}}], "securityContext": {"runAsUser": 1000, "fsGroup": 1000}}})
    return wait_for(f"the pod {name}", lambda: next(
        (pod for pod in nodes.pods(namespace, None) if pod.name == name and nodes.process(pod)), None))


def reaches(pod, address, port):
    command = ["nsenter", f"--net=/run/netns/{pod.network}", sys.executable, "-c", CONNECT, address, str(port)]
    return subprocess.run(command, capture_output=True).returncode == 0


def reached(pod, targets):
    """Component and port of all that the pod reaches."""
    return {(component, port) for component, target in targets.items() for port in PORTS[component]
            if reaches(pod, target.addresses[0], port)}


class Policies(unittest.TestCase):
    def setUp(self):
        self.addCleanup(lambda: self.assertEqual(cluster.plane().agent.errors, []))

    def check(self, pod, targets, wanted):
        """Rules follow a change after a moment."""
        try:
            wait_for(f"the rules of {pod.name}", lambda: reached(pod, targets) == wanted, 15)
        except AssertionError:
            self.assertEqual(reached(pod, targets), wanted, pod.name)

    def test_who_reaches_the_pods(self):
        values = merged(SMALL, {"networkPolicy": {"clients": [{"podSelector": {"matchLabels": {"team": "data"}}}],
                                                  "monitoringNamespaceLabels": {"purpose": "monitoring"}}})
        with Namespace() as namespace, Namespace({"purpose": "monitoring"}) as monitoring, Namespace() as other:
            volume(namespace)
            namespace.install(values, more=WAIT)
            own = {component: nodes.pods(namespace, component) for component in PORTS}
            targets = {component: found[0] for component, found in own.items()}
            everything = {(component, port) for component, ports in PORTS.items() for port in ports}
            metrics = {("coordinator", 9090), ("worker", 9090)}
            # Nothing keeps a pod from its own ports.
            self.check(own["worker"][1], targets, {("coordinator", 7070), ("worker", 7071)})
            self.check(own["coordinator"][0], targets, {("worker", 7071), ("coordinator", 7070), ("coordinator", 9090)})
            self.check(stranger(namespace, "stranger"), targets, set())
            self.check(stranger(namespace, "client", {"team": "data"}), targets, {("coordinator", 7070)})
            self.check(stranger(monitoring, "prometheus"), targets, metrics)
            self.check(stranger(other, "other", {"team": "data"}), targets, set())
            namespace.upgrade(merged(values, {"networkPolicy": {"enabled": False}}), more=WAIT)
            self.check(nodes.pods(other, None)[0], targets, everything)

    def test_outgoing_connections(self):
        """With rules for outgoing connections, pods reach each other and names, and nothing else; a job succeeds."""
        with Namespace() as namespace, Namespace() as other:
            volume(namespace)
            target = {"coordinator": stranger(other, "store")}
            # A port on all addresses.
            namespace.install(merged(SMALL, {"networkPolicy": {"egress": [
                {"to": [{"ipBlock": {"cidr": f"{target['coordinator'].addresses[0]}/32"}}], "ports": [{"protocol": "TCP", "port": 9}]}]}}),
                more=WAIT)
            namespace.helm("test", "tally", "--timeout", "5m")
            worker = nodes.pods(namespace, "worker")[0]
            # Packets that are dropped get no answer; a closed port refuses at once.
            self.assertEqual(answer(worker, target["coordinator"].addresses[0], 9), "ConnectionRefusedError")
            self.assertEqual(answer(worker, target["coordinator"].addresses[0], 10), "TimeoutError")


def answer(pod, address, port):
    """The kind of error of a connection."""
    command = ["nsenter", f"--net=/run/netns/{pod.network}", sys.executable, "-c", CONNECT, address, str(port)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stderr.splitlines()[-1].split(":")[0] if done.stderr else ""
