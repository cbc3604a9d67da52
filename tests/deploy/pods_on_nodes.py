"""The pods of the chart as processes in namespaces, by the agent of tests/kubernetes, on three nodes and one volume. What Kubernetes'
controllers would do, tests do themselves.

Not here: checks."""

import base64
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from chart import BIN, FULL, NAMESPACE, TOP, objects, of_kind, one

sys.path.insert(0, str(TOP / "tests" / "kubernetes"))

from api import wait_for  # noqa: E402
from days import USER  # noqa: E402
from memory_api import MemoryApi  # noqa: E402
from node import network  # noqa: E402
from node.agent import Agent  # noqa: E402

SPACE = f"/api/v1/namespaces/{NAMESPACE}"
# Exit code of commands that find no leader.
NO_LEADER = 5


class Release:
    """The objects of the chart, and the pods that run."""

    def __init__(self, agent, volume):
        self.agent, self.api, self.volume = agent, agent.cluster, volume
        self.api.create("/api/v1/persistentvolumes", {"metadata": {"name": "volume"}, "spec": {"hostPath": {"path": str(volume)}}})
        self.api.create(f"{SPACE}/persistentvolumeclaims", {
            "metadata": {"name": f"{FULL}-data"}, "spec": {"volumeName": "volume"}, "status": {"phase": "Bound"}})

    def install(self, values):
        """Its objects; no pod."""
        self.objects = objects(values)
        for kind, path in (("ConfigMap", f"{SPACE}/configmaps"), ("Service", f"{SPACE}/services"),
                           ("NetworkPolicy", f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies")):
            for each in of_kind(self.objects, kind):
                # No kube-proxy runs: names lead to the pods.
                self.api.create(path, each | ({"spec": each["spec"] | {"clusterIP": "None"}} if kind == "Service" else {}))

    def secret(self, name, data):
        coded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        self.api.create(f"{SPACE}/secrets", {"metadata": {"name": name}, "data": coded})

    def start(self, component, number, node):
        """A pod of a Deployment on that node; returns when it is ready."""
        template = one(self.objects, "Deployment", f"-{component}")["spec"]["template"]
        return self.create(f"{component}-{number}", template["metadata"]["labels"], {"restartPolicy": "Always", **template["spec"]}, node)

    def create(self, name, labels, spec, node):
        self.api.create(f"{SPACE}/pods", {"metadata": {"name": name, "labels": labels}, "spec": {
            "terminationGracePeriodSeconds": 30, **spec, "nodeName": f"node-{node}"}})
        return wait_for(f"the pod {name}", lambda: next((pod for pod in self.agent.pods() if pod.name == name), None))

    def ready(self, *pods):
        wait_for("ready pods", lambda: all(pod.containers[0].is_ready() for pod in pods))

    def delete(self, pod):
        """As a controller or an eviction does it: with the grace period of the pod."""
        self.api.request("DELETE", f"{SPACE}/pods/{pod.name}", {"gracePeriodSeconds": pod.spec["terminationGracePeriodSeconds"]})

    def ended(self, *pods):
        """The exit codes of pods that are gone."""
        wait_for("the end of pods", lambda: not set(pods) & set(self.agent.pods()))
        return [[each["exitCode"] for each in pod.containers[0].ended] for pod in pods]

    def workers(self):
        return [pod.containers[0].process for pod in self.agent.pods(component="worker")]

    def command(self, *words):
        """What a command prints in the pod of a coordinator. Repeated while there is none, or none that leads."""
        def attempt():
            for pod in self.agent.pods(component="coordinator"):
                process = pod.containers[0].process
                if process and pod.containers[0].is_ready():
                    done = process.run(["/usr/bin/tally", *words, f"--coordinator={FULL}-coordinator.{NAMESPACE}.svc:7070",
                                        "--output-format=json"], 120)
                    # The container may have ended in between.
                    return None if done.returncode == NO_LEADER or done.stderr.startswith("nsenter") else done

        done = wait_for(f"an answer to {words}", attempt)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def job(self, job):
        [found] = self.command("job", job)
        return found


@contextlib.contextmanager
def memory():
    """A folder in memory, which ends with the namespace of mounts if the process is killed."""
    with tempfile.TemporaryDirectory(prefix="tally-nodes-") as name:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4g", "tmpfs", name], check=True)
        try:
            yield pathlib.Path(name)
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)


@contextlib.contextmanager
def nodes():
    """The agent, and the root of volumes. Everything is in the namespaces of this process, and ends with it."""
    os.environ["PATH"] = f"/usr/sbin:/usr/bin:/sbin:/bin:{os.environ['PATH']}"
    network.prepare()
    with memory() as folder:
        api = MemoryApi()
        for space in ("kube-node-lease", NAMESPACE):
            api.create("/api/v1/namespaces", {"metadata": {"name": space}})
        subprocess.run([TOP / "deploy" / "image" / "rootfs", BIN, folder / "image"], check=True)
        for each in ("pods", "volume"):
            (folder / each).mkdir()
        os.chown(folder / "volume", USER, USER)
        with Agent(api, folder / "image", folder / "pods", 3) as agent:
            yield Release(agent, folder / "volume")
