"""The control plane with nodes: kube-scheduler, kube-proxy, and an agent that plays three nodes (the package `node`). For the tests
`test_nodes_*`, which also find here what they share: volumes, days with their expected results, and jobs.

All nodes are in one network namespace, so one kube-proxy serves them.

Not here: what the agent does not do (see its modules)."""

import itertools
import json
import os
import subprocess

from cluster import path, wait_for
from node import network
from node.agent import Agent
from plane import Plane
from slow import Slow

from chart import BIN, TOP  # noqa: E402  (cluster.py adds its folder)

from days import USER  # noqa: E402

NUMBER = 3
# Exit code of commands that find no leader.
NO_LEADER = 5
# The programs of the network: `nft` for kube-proxy.
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
VOLUMES = itertools.count(1)


class Nodes(Plane):
    """A context manager, as without nodes."""

    PROGRAMS = (*Plane.PROGRAMS, "kube-scheduler", "kube-proxy", "keda-operator", "keda-adapter")
    CONTROLLERS = "*"

    def __enter__(self):
        os.environ["PATH"] = f"{PATH}:{os.environ['PATH']}"
        network.prepare()
        return super().__enter__()

    def add_nodes(self):
        image = self.folder / "image"
        subprocess.run([TOP / "deploy" / "image" / "rootfs", BIN, image], check=True)
        (folder := self.folder / "pods").mkdir()
        self.start("kube-scheduler", f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--secure-port=0")
        self.agent = self.ends.enter_context(Agent(self, image, folder, NUMBER, serves_logs=True))
        self.start("kube-proxy", f"--kubeconfig={self.kubeconfig}", "--proxy-mode=nftables", f"--cluster-cidr={network.PODS}",
                   "--hostname-override=node-1", "--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0s",
                   "--conntrack-tcp-timeout-close-wait=0s", PATH=PATH)
        network.add_route_of_services(str(network.NODES[1]))
        self.resolve_names()
        self.agent.wait_until_ready()

    def resolve_names(self):
        """Programs outside pods (KEDA) find services by name, as pods with the network of their node do."""
        resolver = self.folder / "resolv.conf"
        resolver.write_text(f"search svc.cluster.local cluster.local\nnameserver {network.NODES[1]}\noptions ndots:5\n")
        subprocess.run(["mount", "--bind", resolver, "/etc/resolv.conf"], check=True)


def volume(namespace, name="tally-data", mode="ReadWriteMany"):
    """A volume for the claim, which is a folder of this machine that all nodes mount."""
    folder = namespace.plane.folder / f"volume-{next(VOLUMES)}"
    folder.mkdir()
    os.chown(folder, USER, USER)
    namespace.plane.create("/api/v1/persistentvolumes", {"metadata": {"name": f"{namespace.name}-{name}"}, "spec": {
        "capacity": {"storage": "20Gi"}, "accessModes": [mode], "storageClassName": "standard",
        "claimRef": {"namespace": namespace.name, "name": name, "kind": "PersistentVolumeClaim", "apiVersion": "v1"},
        "hostPath": {"path": str(folder)}}})
    return folder


def pods(namespace, component):
    """The pods that run on the nodes."""
    return namespace.plane.agent.pods(namespace.name, component)


def process(pod):
    """The process of a pod's first container."""
    return pod.containers[0].process


def slow_workers(namespace):
    """See slow.py."""
    return Slow(lambda: [process(pod) for pod in pods(namespace, "worker")])


def command(namespace, *words):
    """What a command prints in the pod of a coordinator, as with `kubectl exec`. Repeated while there is none, or none that leads."""
    address = f"tally-coordinator.{namespace.name}.svc:7070"

    def attempt():
        running = [process(pod) for pod in pods(namespace, "coordinator") if pod.containers[0].is_ready()]
        if not running or running[0] is None:
            return None
        done = running[0].run(["/usr/bin/tally", *words, f"--coordinator={address}", "--output-format=json"], 120)
        # The container may have ended in between.
        return None if done.returncode == NO_LEADER or done.stderr.startswith("nsenter") else done

    done = wait_for(f"an answer to {words}", attempt)
    if done.returncode:
        raise AssertionError((words, done.returncode, done.stdout, done.stderr))
    return done.stdout


def tally(namespace, *words):
    return json.loads(command(namespace, *words))


def submit(namespace, day, output, *words):
    """Submits a job over the day that runs in the background; returns its id."""
    return tally(namespace, "submit", *day.words(output), "--detach", *words)["job_id"]


def finished(namespace, job, deadline=None):
    """The job, when it has succeeded."""
    def over():
        found = tally(namespace, "job", job)
        return found if found["state"] in ("done", "failed", "cancelled") else None

    found = wait_for(f"the end of the job {job}", over, deadline)
    if found["state"] != "done":
        raise AssertionError(found)
    return found


def wait_for_progress(namespace, job, share):
    """Returns when this share of the job's map tasks is done, and fails if the job is over by then."""
    def done():
        found = tally(namespace, "job", job)
        [stage] = [stage for stage in found["stages"] if stage["name"] == "map"] or [None]
        return found if stage and stage["done"] >= share * stage["tasks"] > 0 else None

    found = wait_for(f"progress of the job {job}", done)
    if found["state"] != "running":
        raise AssertionError(f"too late: {found}")


def reruns(job):
    """How many finished tasks ran again, and how many attempts of map tasks failed. A reduce task that runs while outputs migrate may
    need another attempt."""
    return sum(stage["reruns"] for stage in job["stages"]), job["stages"][0]["failed_attempts"]


def rolled_out(namespace, component):
    """Whether all pods of the Deployment are new and ready."""
    found = namespace.plane.get(path("Deployment", namespace.name, f"tally-{component}"))
    wanted, status = found["spec"].get("replicas", 1), found["status"]
    return (status.get("observedGeneration") == found["metadata"]["generation"]
            and wanted == status.get("updatedReplicas", 0) == status.get("readyReplicas", 0) == status.get("replicas", 0))


def exit_codes(pod):
    return [each["exitCode"] for container in pod.containers for each in container.ended]


def events(namespace, job):
    """What `tally logs` prints."""
    return [json.loads(line) for line in command(namespace, "logs", job).splitlines()]


def losses(namespace, job):
    """The events of workers that were lost. One that leaves after its drain is not."""
    return [event for event in events(namespace, job) if event["kind"] == "worker_lost"]


def evict(pod):
    pod.cluster.create(f"{pod.path()}/eviction", {
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod.name, "namespace": pod.namespace}})
