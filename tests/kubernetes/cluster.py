"""Namespaces of the control plane, and the commands that users run there: helm (3 and 4) and kubectl. Each test has a namespace
of its own.

Not here: the control plane (plane.py), pods that become ready (readiness.py), checks (the tests)."""

import base64
import contextlib
import functools
import gzip
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import yaml

from api import Refused, wait_for
from plane import Plane, needed

# What both kinds of chart tests need: values, and rendering without a cluster.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "deploy"))
from chart import CHART, CONSUL, CRDS, HELM, HELMS, MINIMAL, SCHEDULE, SIZES, TOGGLES, merged  # noqa: E402

__all__ = ["CHART", "CONSUL", "HELM", "HELMS", "MINIMAL", "SCHEDULE", "SIZES", "TOGGLES", "merged", "Namespace", "plane", "wait_for",
           "Refused", "KINDS", "path", "name_of", "with_each_helm"]

BIN = pathlib.Path(os.environ["KUBERNETES_BIN"])
SCHEMAS = pathlib.Path(__file__).resolve().parents[1] / "deploy" / "schemas"
# The kinds that the chart or a controller creates, with the prefix of their URLs and their plural.
KINDS = {
    "ConfigMap": ("api/v1", "configmaps"), "Event": ("api/v1", "events"), "PersistentVolumeClaim": ("api/v1", "persistentvolumeclaims"),
    "Pod": ("api/v1", "pods"), "ResourceQuota": ("api/v1", "resourcequotas"), "Secret": ("api/v1", "secrets"),
    "Service": ("api/v1", "services"), "ServiceAccount": ("api/v1", "serviceaccounts"),
    "Deployment": ("apis/apps/v1", "deployments"), "ReplicaSet": ("apis/apps/v1", "replicasets"),
    "HorizontalPodAutoscaler": ("apis/autoscaling/v2", "horizontalpodautoscalers"),
    "CronJob": ("apis/batch/v1", "cronjobs"), "Job": ("apis/batch/v1", "jobs"),
    "EndpointSlice": ("apis/discovery.k8s.io/v1", "endpointslices"),
    "NetworkPolicy": ("apis/networking.k8s.io/v1", "networkpolicies"), "Ingress": ("apis/networking.k8s.io/v1", "ingresses"),
    "PodDisruptionBudget": ("apis/policy/v1", "poddisruptionbudgets"),
    "Certificate": ("apis/cert-manager.io/v1", "certificates"),
    "HTTPRoute": ("apis/gateway.networking.k8s.io/v1", "httproutes"),
    "ScaledObject": ("apis/keda.sh/v1alpha1", "scaledobjects"),
    "TriggerAuthentication": ("apis/keda.sh/v1alpha1", "triggerauthentications"),
    "ServiceMonitor": ("apis/monitoring.coreos.com/v1", "servicemonitors"),
    "PrometheusRule": ("apis/monitoring.coreos.com/v1", "prometheusrules"),
}
NUMBERS = itertools.count(1)


def path(kind, namespace, name=""):
    prefix, plural = KINDS[kind]
    return f"/{prefix}/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")


def name_of(found):
    return found["metadata"]["name"]


def minimal_definition(kind):
    """The definition of a kind of the Prometheus operator, whose module is not served. It accepts any content: the schemas of
    tests/deploy check that."""
    group, plural = KINDS[kind][0].split("/")[1], KINDS[kind][1]
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": "Namespaced",
                 "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
                 "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}}]},
    }


def add_definitions(made):
    """The custom resources that the chart can use, of the projects themselves where they are available."""
    definitions = [minimal_definition(kind) for kind in ("ServiceMonitor", "PrometheusRule")]
    for file in sorted((BIN / "crds").glob("*.yaml")):
        definitions += [each for each in yaml.load_all(file.read_text(), yaml.CSafeLoader)
                        if each and each["kind"] == "CustomResourceDefinition"]
    at = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for each in definitions:
        made.create(at, each)

    def established():
        found = made.get(at)["items"]
        return len(found) == len(definitions) and all(
            any(one["type"] == "Established" and one["status"] == "True" for one in each.get("status", {}).get("conditions") or [])
            for each in found)

    wait_for("the custom resource definitions", established)
    for version in CRDS:
        wait_for(f"the API group {version}", lambda version=version: made.find(f"/apis/{version}"))


# The one control plane of this process.
RUNNING = []


def start(kind=Plane):
    """Starts the control plane, with a default storage class. `stop` ends it."""
    needed(kind.PROGRAMS)
    made = kind().__enter__()
    RUNNING.append(made)
    made.create("/apis/storage.k8s.io/v1/storageclasses", {
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "kubernetes.io/no-provisioner",
        "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}})
    made.add_nodes()
    add_definitions(made)


def plane():
    [made] = RUNNING
    return made


def stop():
    while RUNNING:
        RUNNING.pop().__exit__()


class Result:
    def __init__(self, done):
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr


class Namespace:
    """A context manager: a namespace with the labels."""

    def __init__(self, labels=None, program="helm-4"):
        self.plane = plane()
        self.labels = labels or {}
        self.program = program
        self.name = f"telemetry-{next(NUMBERS)}"

    def __enter__(self):
        self.plane.create("/api/v1/namespaces", {"metadata": {"name": self.name, "labels": self.labels}})
        # Pods are refused before the controllers have made their account.
        wait_for("the account of the namespace", lambda: self.find("ServiceAccount", "default"))
        return self

    def __exit__(self, *_):
        # No kubelet ends the pods that are bound to the node.
        now = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
        with contextlib.suppress(Refused):
            self.plane.delete(f"/api/v1/namespaces/{self.name}")
            self.plane.request("DELETE", path("Pod", self.name), now)

    def all(self, kind):
        return self.plane.get(path(kind, self.name))["items"]

    def find(self, kind, name):
        return self.plane.find(path(kind, self.name, name))

    def get(self, kind, name):
        return self.plane.get(path(kind, self.name, name))

    def create(self, kind, body):
        return self.plane.create(path(kind, self.name), {"apiVersion": KINDS[kind][0].split("/", 1)[1], "kind": kind, **body})

    def patch(self, kind, name, body):
        return self.plane.patch(path(kind, self.name, name), body)

    def scale(self, name, replicas):
        """What an autoscaler does: it sets the number by the subresource."""
        self.plane.patch(path("Deployment", self.name, name) + "/scale", {"spec": {"replicas": replicas}})

    def pods(self, component=None, release=None):
        """Pods that are not being deleted and have not ended."""
        found = []
        for pod in self.all("Pod"):
            labels = pod["metadata"].get("labels", {})
            if (component in (None, labels.get("app.kubernetes.io/component"))
                    and release in (None, labels.get("app.kubernetes.io/instance"))
                    and "deletionTimestamp" not in pod["metadata"]
                    and pod["status"].get("phase") not in ("Failed", "Succeeded")):
                found.append(pod)
        return found

    def wait_for_pods(self, component, number, release=None, deadline=None):
        """The pods, when there are that many and none more."""
        def fit():
            found = self.pods(component, release)
            return found if len(found) == number else None

        try:
            return wait_for(f"{number} pods of {component}", fit, deadline)
        except AssertionError as error:
            raise AssertionError(f"{error}; there are {len(self.pods(component, release))}; {self.complaints()}") from None

    def complaints(self):
        """Why controllers could not create pods."""
        return [each["message"] for each in self.all("Event") if each["reason"] == "FailedCreate"]

    def run(self, command, timeout=300, stdin=None, cwd=None):
        with tempfile.TemporaryDirectory() as folder:
            # Nothing of the user's configuration.
            environment = {"PATH": os.environ["PATH"], "HOME": folder, "KUBECONFIG": str(self.plane.kubeconfig)}
            return Result(subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=timeout,
                                         env=environment, input=stdin, cwd=cwd))

    def kubectl(self, *words):
        done = self.run([HELM / "kubectl", "--namespace", self.name, *words])
        if done.code:
            raise AssertionError((words, done.err))
        return done.out

    def try_helm(self, *words, values=None, program=None):
        more = [] if values is None else ["--values", "-"]
        return self.run([HELM / (program or self.program), *words, "--namespace", self.name, *more],
                        stdin=None if values is None else json.dumps(values))

    def helm(self, *words, values=None, program=None):
        done = self.try_helm(*words, values=values, program=program)
        if done.code:
            raise AssertionError((words, values, done.err))
        return done.out

    def install(self, values=None, release="tally", more=()):
        return self.helm("install", release, CHART, *more, values=values or {})

    def upgrade(self, values=None, release="tally", more=()):
        return self.helm("upgrade", release, CHART, "--reset-values", *more, values=values or {})

    def manifest(self, release="tally"):
        """The objects of the last revision, from the secret in which Helm stores it: much faster than `helm get manifest`."""
        found = self.plane.get(path("Secret", self.name) + f"?labelSelector=owner=helm,name={release}")["items"]
        last = max(found, key=lambda each: int(each["metadata"]["labels"]["version"]))
        stored = json.loads(gzip.decompress(base64.b64decode(base64.b64decode(last["data"]["release"]))))
        return [each for each in yaml.load_all(stored["manifest"], yaml.CSafeLoader) if each]


def with_each_helm(test):
    """Runs a test with each version of Helm, in a namespace of its own."""
    @functools.wraps(test)
    def run(self):
        for program in HELMS:
            with self.subTest(program), Namespace(program=program) as namespace:
                test(self, namespace)

    return run
