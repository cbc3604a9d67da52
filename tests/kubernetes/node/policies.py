"""Enforces NetworkPolicies between pods by rules of nftables, which are made again from all policies, pods and namespaces after each change.
Packets of the node itself, such as probes, are always admitted.

Not here: IPv6, and ports of other protocols than TCP and UDP."""

import ipaddress
import subprocess
import threading

from .watch import Watch


def matches(selector, labels):
    """Whether the labels fit; an empty selector fits all."""
    if not (selector.get("matchLabels", {}).items() <= labels.items()):
        return False
    for each in selector.get("matchExpressions", []):
        value = labels.get(each["key"])
        fits = {"In": value in each.get("values", []), "NotIn": value not in each.get("values", []),
                "Exists": value is not None, "DoesNotExist": value is None}
        if not fits[each["operator"]]:
            return False
    return True


class Rules:
    """The rules for a state of the cluster: lists of objects."""

    def __init__(self, policies, pods, namespaces):
        self.policies = policies
        self.pods = [pod for pod in pods if pod["status"].get("podIP") and pod["status"]["phase"] in ("Pending", "Running")]
        self.namespaces = {each["metadata"]["name"]: each["metadata"].get("labels", {}) for each in namespaces}

    def text(self):
        """A script for nft that replaces the table as a whole."""
        chains, jumps = [], []
        for pod in self.pods:
            for direction, own in (("Ingress", "daddr"), ("Egress", "saddr")):
                applied = [policy for policy in self.policies if self.applies(policy, pod, direction)]
                if applied:
                    name = f"{direction.lower()}-{pod['status']['podIP'].replace('.', '-')}"
                    rules = sorted({rule for policy in applied for rule in self.admitted(policy, pod, direction)})
                    chains.append("\n".join([f"chain {name} {{", *rules, "drop", "}"]))
                    jumps.append(f"ip {own} {pod['status']['podIP']} jump {name}")
        # A pod reaches itself, also by the address of its service.
        own = [f"ip saddr {address} ip daddr {address} accept" for address in (pod["status"]["podIP"] for pod in self.pods)]
        # Both sides must admit a connection, so a chain that admits it returns.
        forward = ["chain forward {", "type filter hook forward priority filter; policy accept;", "ct state established,related accept",
                   *own, *jumps, "}"]
        return "\n".join(["add table ip policies", "delete table ip policies", "table ip policies {", *chains, *forward, "}"])

    def applies(self, policy, pod, direction):
        spec = policy["spec"]
        return (policy["metadata"]["namespace"] == pod["metadata"]["namespace"] and direction in spec["policyTypes"]
                and matches(spec["podSelector"], pod["metadata"].get("labels", {})))

    def admitted(self, policy, pod, direction):
        key, side, other = ("ingress", "from", "saddr") if direction == "Ingress" else ("egress", "to", "daddr")
        for rule in policy["spec"].get(key, []):
            for peer in self.peers(policy, rule.get(side)):
                address = f"ip {other} {peer} " if peer else ""
                for port in self.ports(rule.get("ports"), pod if direction == "Ingress" else self.pod_at(peer)):
                    yield f"{address}{port}return"

    def peers(self, policy, peers):
        """Addresses or ranges; "" is any."""
        if not peers:
            yield ""
        for peer in peers or []:
            if "ipBlock" in peer:
                whole = ipaddress.ip_network(peer["ipBlock"]["cidr"])
                if whole.version == 4:
                    yield from map(str, without(whole, peer["ipBlock"].get("except", [])))
                continue
            for pod in self.pods:
                namespace = pod["metadata"]["namespace"]
                near = (matches(peer["namespaceSelector"], self.namespaces.get(namespace, {})) if "namespaceSelector" in peer
                        else namespace == policy["metadata"]["namespace"])
                if near and matches(peer.get("podSelector", {}), pod["metadata"].get("labels", {})):
                    yield pod["status"]["podIP"]

    def pod_at(self, address):
        return next((pod for pod in self.pods if pod["status"]["podIP"] == address), None)

    def ports(self, ports, target):
        """Names are those of the target's containers."""
        if not ports:
            yield ""
        for each in ports or []:
            protocol = each.get("protocol", "TCP").lower()
            port = each.get("port")
            if port is None:
                yield f"ip protocol {protocol} "
            elif isinstance(port, int):
                yield f"{protocol} dport {port}-{each['endPort']} " if "endPort" in each else f"{protocol} dport {port} "
            elif target:
                for container in target["spec"]["containers"]:
                    yield from (f"{protocol} dport {found['containerPort']} " for found in container.get("ports", [])
                                if found.get("name") == port)


def without(whole, excluded):
    found = [whole]
    for each in map(ipaddress.ip_network, excluded):
        found = [part for network in found
                 for part in (network.address_exclude(each) if each.subnet_of(network) else [network])]
    return found


class Policies:
    """Keeps the rules up to date until it is stopped."""

    KINDS = ("/apis/networking.k8s.io/v1/networkpolicies", "/api/v1/pods", "/api/v1/namespaces")

    def __init__(self, cluster, failed):
        self.failed = failed
        self.wake, self.ended = threading.Event(), threading.Event()
        self.watches = [Watch(cluster, path, self.changed, self.changed) for path in self.KINDS]
        threading.Thread(target=self.follow, daemon=True).start()

    def changed(self, _):
        self.wake.set()

    def stop(self):
        self.ended.set()
        self.wake.set()
        for watch in self.watches:
            watch.stop()

    def follow(self):
        last = None
        while True:
            self.wake.wait()
            if self.ended.wait(0.05):
                return
            self.wake.clear()
            text = Rules(*(list(watch.there.values()) for watch in self.watches)).text()
            if text != last:
                done = subprocess.run(["nft", "-f", "-"], input=text, capture_output=True, text=True)
                if done.returncode:
                    self.failed(f"nft: {done.stderr}")
                last = text
