"""Stands in for the kubelet of the one node: binds pods, marks them as running and ready, gives each an address, and removes
those that are being deleted. It runs nothing.

Not here: a scheduler (no pod stays without a node), containers, probes, and grace periods."""

import itertools
import time

from cluster import path
from api import Refused
from meanwhile import Meanwhile
from plane import NODE


def container_status(name, ready=True, state=None):
    return {"name": name, "ready": ready, "restartCount": 0, "image": "i", "imageID": "i", "started": ready,
            "state": state or {"running": {"startedAt": now()}}}


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Readiness(Meanwhile):
    """A context manager. While it is entered, new pods of the namespace become ready, and deleted ones go."""

    ADDRESSES = itertools.count(1)

    def __init__(self, namespace):
        super().__init__()
        self.namespace = namespace

    def follow(self):
        """A pod that is being deleted stays for one more round, as a process that ends would."""
        leaving = set()
        while not self.ended.wait(0.2):
            for pod in self.namespace.all("Pod"):
                self.attend(pod, leaving)

    def attend(self, pod, leaving):
        component = pod["metadata"].get("labels", {}).get("app.kubernetes.io/component")
        try:
            if "deletionTimestamp" in pod["metadata"]:
                if pod["metadata"]["uid"] in leaving:
                    remove(self.namespace, pod)
                leaving.add(pod["metadata"]["uid"])
            # Pods of jobs end as the test says.
            elif pod["status"]["phase"] == "Pending" and component in ("coordinator", "worker"):
                self.make_ready(pod)
        except Refused as error:
            # A pod that was deleted or changed in the meantime.
            if error.code not in (404, 409):
                raise

    def make_ready(self, pod):
        number = next(self.ADDRESSES)
        if not pod["spec"].get("nodeName"):
            self.namespace.plane.create(path("Pod", self.namespace.name, pod["metadata"]["name"]) + "/binding", {
                "apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod["metadata"]["name"]},
                "target": {"apiVersion": "v1", "kind": "Node", "name": NODE}})
        conditions = [{"type": kind, "status": "True", "lastTransitionTime": now()}
                      for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")]
        address = f"10.244.{number // 250}.{number % 250 + 1}"
        set_status(self.namespace, pod, {
            "phase": "Running", "conditions": conditions, "podIP": address, "podIPs": [{"ip": address}], "startTime": now(),
            "containerStatuses": [container_status(each["name"]) for each in pod["spec"]["containers"]]})


def remove(namespace, pod):
    """What a kubelet does after the containers have ended."""
    namespace.plane.request("DELETE", path("Pod", namespace.name, pod["metadata"]["name"]), {
        "kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}})


def set_status(namespace, pod, status):
    namespace.plane.patch(path("Pod", namespace.name, pod["metadata"]["name"]) + "/status", {"status": status})


def end(namespace, pod, code, conditions=()):
    """The pod's containers end with the exit code."""
    state = {"terminated": {"exitCode": code, "startedAt": now(), "finishedAt": now(), "reason": "Completed" if code == 0 else "Error"}}
    set_status(namespace, pod, {
        "phase": "Succeeded" if code == 0 else "Failed", "conditions": list(conditions),
        "containerStatuses": [container_status(each["name"], False, state) for each in pod["spec"]["containers"]]})
