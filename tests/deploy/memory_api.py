"""The few parts of Kubernetes' API that the agent of tests/kubernetes needs, in memory; and what controllers would do: a test creates the
pods of the chart itself.

Not here: a real API server, scheduler or controller. tests/kubernetes has them, and takes far longer."""

import copy
import itertools
import re
import threading
import uuid

from api import Refused

# /PREFIX/namespaces/NAMESPACE/KIND/NAME, with or without namespace and name.
PATH = re.compile(r"/(?:api|apis/[^/]+)/v1(?:/namespaces/(?P<namespace>[^/]+))?/(?P<kind>[a-z]+)(?:/(?P<name>[^/?]+))?(?P<rest>/status)?"
                  r"(?:\?.*name=(?P<service>\S+))?")


def merge(old, new):
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            merge(old[key], value)
        else:
            old[key] = value


class MemoryApi:
    def __init__(self):
        # By kind, namespace and name.
        self.objects = {}
        self.changes = []
        self.changed = threading.Condition()
        self.versions = itertools.count(1)

    def parse(self, path):
        # A namespace itself has none.
        if found := re.fullmatch(r"/api/v1/namespaces(/[^/]+)?", path):
            path = f"/api/v1/spaces{found[1] or ''}"
        return PATH.fullmatch(path)

    def request(self, method, path, body=None, kind=None):
        found = self.parse(path)
        key = found["kind"], found["namespace"], found["name"]
        with self.changed:
            if method == "POST":
                return self.add(key, body)
            if key not in self.objects:
                raise Refused(404, {"message": path})
            if method == "PATCH":
                merge(self.objects[key], body)
                return self.tell("MODIFIED", key)
            self.remove(key, body["gracePeriodSeconds"])

    def add(self, key, body):
        made = copy.deepcopy(body)
        made["metadata"] |= {"uid": str(uuid.uuid4()), "namespace": key[1]}
        made.setdefault("status", {"phase": "Pending"})
        key = (*key[:2], made["metadata"]["name"])
        self.objects[key] = made
        return self.tell("ADDED", key)

    def remove(self, key, grace):
        if grace:
            self.objects[key]["metadata"] |= {"deletionTimestamp": "now", "deletionGracePeriodSeconds": grace}
            self.tell("MODIFIED", key)
        else:
            self.tell("DELETED", key)
            del self.objects[key]

    def tell(self, what, key):
        found = self.objects[key]
        found["metadata"]["resourceVersion"] = str(next(self.versions))
        self.changes.append((key[0], {"type": what, "object": copy.deepcopy(found)}))
        self.changed.notify_all()
        return copy.deepcopy(found)

    def events(self, path, version):
        kind, at = self.parse(path)["kind"], int(version)
        while True:
            with self.changed:
                while len(self.changes) == at:
                    self.changed.wait()
                new, at = self.changes[at:], len(self.changes)
            yield from (event for of, event in new if of == kind)

    def get(self, path):
        found = self.parse(path)
        key = found["kind"], found["namespace"], found["name"]
        with self.changed:
            if found["kind"] == "endpointslices":
                return {"items": [self.endpoints(found["namespace"], found["service"])]}
            if found["name"] is None:
                items = [copy.deepcopy(each) for (kind, *_), each in self.objects.items() if kind == found["kind"]]
                return {"items": items, "metadata": {"resourceVersion": str(len(self.changes))}}
            if key not in self.objects:
                raise Refused(404, {"message": path})
            return copy.deepcopy(self.objects[key])

    def endpoints(self, namespace, service):
        """The ready pods of a service, as the controller of Kubernetes keeps them."""
        selector = self.objects["services", namespace, service]["spec"]["selector"]
        ready = [each["status"]["podIP"] for (kind, where, _), each in self.objects.items()
                 if kind == "pods" and where == namespace and selector.items() <= each["metadata"]["labels"].items()
                 and "deletionTimestamp" not in each["metadata"]
                 and any(one["type"] == "Ready" and one["status"] == "True" for one in each["status"].get("conditions", []))]
        return {"endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in ready]}

    def find(self, path):
        try:
            return self.get(path)
        except Refused:
            return None

    def create(self, path, body):
        return self.request("POST", path, body)

    def patch(self, path, body):
        return self.request("PATCH", path, body)
