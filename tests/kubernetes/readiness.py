"""Stands in for kubelets: marks pods as running and ready, and gives each an address. It runs nothing.

Pods are not bound to a node, so the API server deletes them at once and not after their grace period."""

import itertools
import threading
import time

from cluster import path
from plane import Refused


def container_status(name, ready=True, state=None):
    return {"name": name, "ready": ready, "restartCount": 0, "image": "i", "imageID": "i", "started": ready,
            "state": state or {"running": {"startedAt": now()}}}


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Readiness:
    """A context manager. While it is entered, new pods of the namespace become ready, except those of components in `never`. It
    records the largest number of pods of a component at a time, and the least number of ready ones after the first `settle`."""

    ADDRESSES = itertools.count(1)

    def __init__(self, namespace, never=()):
        self.namespace = namespace
        self.never = set(never)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.follow)
        self.error = None

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()
        if self.error:
            raise self.error

    def follow(self):
        while not self.ended.wait(0.1):
            try:
                for pod in self.namespace.pods():
                    component = pod["metadata"].get("labels", {}).get("app.kubernetes.io/component")
                    if pod["status"]["phase"] == "Pending" and component not in self.never:
                        self.make_ready(pod)
            except Refused as error:
                # A pod that was deleted or changed in the meantime.
                if error.code not in (404, 409):
                    self.error = error
                    return
            except Exception as error:
                self.error = error
                return

    def make_ready(self, pod):
        number = next(self.ADDRESSES)
        conditions = [{"type": kind, "status": "True", "lastTransitionTime": now()}
                      for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")]
        address = f"10.244.{number // 250}.{number % 250 + 1}"
        set_status(self.namespace, pod, {
            "phase": "Running", "conditions": conditions, "podIP": address, "podIPs": [{"ip": address}], "startTime": now(),
            "containerStatuses": [container_status(each["name"]) for each in pod["spec"]["containers"]]})


def set_status(namespace, pod, status):
    namespace.plane.patch(path("Pod", namespace.name, pod["metadata"]["name"]) + "/status", {"status": status})


def end(namespace, pod, code, conditions=()):
    """The pod's containers end with the exit code."""
    state = {"terminated": {"exitCode": code, "startedAt": now(), "finishedAt": now(), "reason": "Completed" if code == 0 else "Error"}}
    set_status(namespace, pod, {
        "phase": "Succeeded" if code == 0 else "Failed", "conditions": list(conditions),
        "containerStatuses": [container_status(each["name"], False, state) for each in pod["spec"]["containers"]]})
