"""The network of the cluster, in the network namespace that the test runs in: addresses of nodes, and a namespace with an address for
each pod. Pods are connected by routes, so all their packets pass the rules of this namespace.

Not here: services, names (names.py), policies (policies.py)."""

import ipaddress
import itertools
import os
import pathlib
import subprocess
import threading

PODS = ipaddress.ip_network("10.244.0.0/16")
NODES = ipaddress.ip_network("10.250.0.0/24")
# The range of services, as the API server has it.
SERVICES = "10.96.0.0/16"
# The next hop of all pods.
GATEWAY = "169.254.1.1"


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"{' '.join(words)}: {done.stderr}")


def prepare():
    """Refuses the machine's own namespaces, because all that is made here vanishes with those of the test."""
    routes = pathlib.Path("/proc/net/route").read_text().splitlines()[1:]
    if os.getpid() != 1 or routes:
        raise SystemExit("pods run in namespaces of their own, which the test must be started in")
    pathlib.Path("/run/netns").mkdir(exist_ok=True)
    run("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
    run("ip", "link", "set", "lo", "up")
    pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def add_route_of_services(address):
    """For programs outside pods: a packet needs a route before kube-proxy's rules replace its destination."""
    run("ip", "route", "add", SERVICES, "dev", "lo", "src", address)


class Network:
    """Addresses of one node and its pods."""

    def __init__(self, number):
        self.address = str(NODES[number])
        self.range = list(PODS.subnets(new_prefix=24))[number]
        self.free = itertools.count(2)
        self.lock = threading.Lock()
        run("ip", "address", "add", f"{self.address}/32", "dev", "lo")

    def add(self):
        """A namespace for a pod: its name and address. An address is used once."""
        with self.lock:
            number = next(self.free)
        address = str(self.range[number])
        name = f"pod-{address.replace('.', '-')}"
        # Names of interfaces have 15 characters.
        here = "v" + address.removeprefix("10.244.").replace(".", "-")
        run("ip", "netns", "add", name)
        run("ip", "link", "add", here, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", name, "link", "set", "eth0", "up")
        run("ip", "-n", name, "address", "add", f"{address}/32", "dev", "eth0")
        run("ip", "link", "set", here, "up")
        run("ip", "address", "add", f"{GATEWAY}/32", "dev", here)
        run("ip", "route", "add", f"{address}/32", "dev", here)
        run("ip", "-n", name, "route", "add", GATEWAY, "dev", "eth0")
        run("ip", "-n", name, "route", "add", "default", "via", GATEWAY)
        return name, address

    def remove(self, name):
        """The pair of interfaces goes with the namespace."""
        run("ip", "netns", "delete", name)
