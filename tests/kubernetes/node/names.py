"""Names of services, as the DNS of a cluster answers them, on each node's address.

Not here: names outside the cluster, names of pods, IPv6, TCP."""

import contextlib
import socketserver
import struct
import threading

from api import Refused

SUFFIX = ["svc", "cluster", "local"]
TTL = 1


def addresses(cluster, labels):
    """The IPv4 addresses of a name; None if the name does not exist."""
    if len(labels) != 5 or labels[2:] != SUFFIX:
        return None
    name, namespace = labels[:2]
    service = cluster.find(f"/api/v1/namespaces/{namespace}/services/{name}")
    if service is None:
        return None
    # One by the name of a host has none.
    if (address := service["spec"].get("clusterIP", "None")) != "None":
        return [address]
    slices = cluster.get(f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io/service-name={name}")
    return [address for each in slices["items"] for point in each.get("endpoints") or [] if point["conditions"].get("ready")
            for address in point["addresses"]]


def question(data):
    """The labels and the type of the question, and its bytes."""
    labels, at = [], 12
    while data[at]:
        labels.append(data[at + 1:at + 1 + data[at]].decode().lower())
        at += 1 + data[at]
    return labels, struct.unpack("!H", data[at + 1:at + 3])[0], data[12:at + 5]


def answer(cluster, data):
    labels, kind, asked = question(data)
    found = addresses(cluster, labels)
    # Type A.
    records = found if found and kind == 1 else []
    # An authoritative answer; recursion is wanted and available. Code 3: there is no such name.
    head = data[:2] + struct.pack("!HHHHH", 0x8580 | (3 if found is None else 0), 1, len(records), 0, 0)
    body = b"".join(struct.pack("!HHHIH", 0xC00C, 1, 1, TTL, 4) + bytes(map(int, address.split("."))) for address in records)
    return head + asked + body


class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        data, socket = self.request
        # Without an answer, the resolver asks again.
        with contextlib.suppress(OSError, Refused, IndexError, struct.error, UnicodeDecodeError):
            socket.sendto(answer(self.server.cluster, data), self.client_address)


def serve(cluster, address):
    """A server at the address, until its `shutdown`."""
    server = socketserver.ThreadingUDPServer((address, 53), Handler)
    server.daemon_threads = True
    server.cluster = cluster
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
