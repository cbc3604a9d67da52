"""The chart's pods in namespaces of their own: the image's files, a user without privileges, a file system that is read-only, probes,
signals, grace periods, names and NetworkPolicies. tests/deploy/run.py starts this module in namespaces, where the machine permits them.

Not here: Kubernetes itself (tests/kubernetes), paths and ports of this machine (test_processes)."""

import signal
import subprocess
import sys
import tempfile
import unittest

from chart import SCHEDULE, merged, of_kind, one
from pods_on_nodes import SPACE, nodes, wait_for
from test_processes import made_by_the_docs

from consul import URL, Consul  # noqa: E402  (pods_on_nodes adds its folder)
from days import MANY_TASKS, Day  # noqa: E402
from leader import leads  # noqa: E402
from slow import CREEPING, Slow  # noqa: E402

VALUES = {
    "storage": {"claim": {"create": True, "accessMode": "ReadWriteMany"}},
    "worker": {"memoryMiB": 512, "spillGiB": 1, "drainTimeoutSeconds": 60},
    # Slow workers do not become lost.
    "coordinator": {"extraEnv": [{"name": "TALLY_WORKER_TIMEOUT", "value": "60000"}]},
}
# A process of somebody else.
STRANGER = {
    "restartPolicy": "Always", "securityContext": {"runAsUser": 1000, "fsGroup": 1000}, "volumes": [{"name": "state", "emptyDir": {}}],
    "containers": [{"name": "main", "image": "tally", "command": ["/usr/bin/tally"], "args": ["coordinator", "--state-dir=/state"],
                    "volumeMounts": [{"name": "state", "mountPath": "/state"}]}]}
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1)"


def reaches(pod, target, port):
    command = ["nsenter", f"--net=/run/netns/{pod.network}", sys.executable, "-c", CONNECT, target.addresses[0], str(port)]
    return subprocess.run(command, capture_output=True).returncode == 0


class Pods(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.release = cls.enterClassContext(nodes())
        cls.numbers = iter(range(100))

    def setUp(self):
        self.addCleanup(self.remove_all)

    def remove_all(self):
        """Pods that are left are killed. No pod may have failed on its node."""
        for pod in self.release.agent.pods():
            self.release.api.request("DELETE", f"{SPACE}/pods/{pod.name}", {"gracePeriodSeconds": 0})
        wait_for("the end of all pods", lambda: not self.release.agent.pods())
        self.assertEqual(self.release.agent.errors, [])

    def start(self, component, *numbers):
        """Pods on nodes of these numbers."""
        return [self.release.start(component, next(self.numbers), node) for node in numbers]

    def day(self, clients=300_000):
        if not (self.release.volume / "day").exists():
            type(self).made = Day(self.release.volume, clients)
        return self.made

    def submit(self, output):
        """A job of many small tasks whose workers creep when a third of its map tasks is done; returns its id."""
        [said] = self.release.command("submit", *self.day().words(output), "--detach", *MANY_TASKS)

        def third():
            found = self.release.job(said["job_id"])
            self.assertEqual(found["state"], "running")
            [stage] = [stage for stage in found["stages"] if stage["name"] == "map"]
            return stage["done"] > 0.3 * stage["tasks"] > 0

        wait_for("a third of the job", third)
        return said["job_id"]

    def finished(self, job):
        def over():
            found = self.release.job(job)
            return found if found["state"] in ("done", "failed", "cancelled") else None

        return wait_for("the end of the job", over)

    def exact(self, job, output):
        """The job ends well, no finished task ran again, and no worker was lost with anything. A reduce task that runs while outputs
        migrate may need another attempt: it looks for them where they were."""
        found = self.finished(job)
        self.assertEqual(found["state"], "done", found)
        self.assertEqual([stage["reruns"] for stage in found["stages"]], [0] * 3, found)
        self.assertEqual(found["stages"][0]["failed_attempts"], 0, found)
        kinds = {event["kind"] for event in self.release.command("logs", job)}
        self.assertNotIn("worker_lost", kinds)
        self.day().check(output)

    def test_the_pod_of_helm_test(self):
        """It succeeds, leaves nothing, and all processes end by SIGTERM."""
        self.release.install(VALUES)
        running = self.start("coordinator", 1) + self.start("worker", 1, 2, 3)
        self.release.ready(*running)
        self.assertEqual(self.helm_test(), "Succeeded")
        self.assertEqual([file.name for file in self.release.volume.glob(".tally/*/*")], ["state"])
        for each in reversed(running):
            self.release.delete(each)
        self.assertEqual(self.release.ended(*running), [[0]] * 4)

    def test_all_pods_are_replaced_in_the_middle_of_a_job(self):
        """As by `helm upgrade`: the coordinator is recreated, new workers start first, and the old ones drain."""
        self.release.install(VALUES)
        [coordinator], workers = self.start("coordinator", 1), self.start("worker", 1, 2, 3)
        self.release.ready(coordinator, *workers)
        with Slow(self.release.workers) as slow:
            job = self.submit("replaced")
            slow.share = CREEPING
            self.release.delete(coordinator)
            first = self.start("worker", 1, 2)
            self.assertEqual(self.release.ended(coordinator), [[0]])
            self.release.ready(*self.start("coordinator", 2), *first)
            for worker in workers[:2]:
                self.release.delete(worker)
            self.release.ready(*self.start("worker", 3))
            self.release.delete(workers[2])
            self.assertEqual(self.release.ended(*workers), [[0]] * 3)
            self.assertEqual(self.release.job(job)["state"], "running")
        self.exact(job, "replaced")

    def test_the_leader_leaves_in_the_middle_of_a_job(self):
        """Two coordinators with Consul: the other one leads at once, and adopts the job."""
        with Consul():
            self.release.install(merged(VALUES, {"consul": {"url": URL}, "coordinator": {"replicas": 2}}))
            coordinators, workers = self.start("coordinator", 1, 2), self.start("worker", 1, 2, 3)
            self.release.ready(*coordinators, *workers)
            [leader] = [pod for pod in coordinators if leads(pod)]
            with Slow(self.release.workers) as slow:
                job = self.submit("adopted")
                slow.share = CREEPING
                self.release.delete(leader)
                self.assertEqual(self.release.ended(leader), [[0]])
                self.assertEqual(self.release.job(job)["state"], "running")
            self.exact(job, "adopted")

    def test_a_worker_that_hangs_is_killed_after_its_grace_period(self):
        """It leaves in the middle of a job and does not drain. Its outputs are lost and made again, and the result is exact."""
        self.release.install(merged(VALUES, {"worker": {"drainTimeoutSeconds": 1, "terminationGracePeriodSeconds": 12}}))
        workers = self.start("worker", 1, 2, 3)
        self.release.ready(*self.start("coordinator", 1), *workers)
        with Slow(self.release.workers):
            job = self.submit("killed")
        workers[0].containers[0].process.signal(signal.SIGSTOP)
        self.release.delete(workers[0])
        self.assertEqual(self.release.ended(workers[0]), [[137]])
        self.assertEqual(self.finished(job)["state"], "done")
        self.day().check("killed")

    def test_a_hung_process_is_restarted(self):
        """Its liveness probe fails, SIGTERM has no effect, and SIGKILL ends it after the grace period."""
        quick = {"livenessProbe": {"periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 3}}
        self.release.install(merged(VALUES, {"coordinator": {**quick, "terminationGracePeriodSeconds": 5}}))
        [pod] = self.start("coordinator", 1)
        self.release.ready(pod)
        pod.containers[0].process.signal(signal.SIGSTOP)
        wait_for("its restart", lambda: pod.containers[0].restarts)
        self.assertEqual([each["exitCode"] for each in pod.containers[0].ended], [137])
        self.release.ready(pod)

    def test_a_retry_of_the_daily_job_computes_the_scheduled_day(self):
        """The first pod of a run of 2017 is killed before any worker is there. The second one follows the same job, years later."""
        day = self.day()
        tables = {"addons": "/data/day/addons/v2", "mainSummary": "/data/day/main_summary/v3", "output": "/data/daily"}
        self.release.install(merged(VALUES, {"schedule": merged(SCHEDULE, tables)}))
        self.release.ready(*self.start("coordinator", 1))
        # The day before 2017-02-28, 03:30 UTC, which is 24804210 minutes after 1970.
        template = self.template_of_job("day-tally-daily-24804210")
        first = self.release.create("first", *template, 2)
        [jobs] = wait_for("the job", lambda: [found for found in self.release.command("jobs") if found["jobs"]])
        self.assertEqual(len(jobs["jobs"]), 1)
        self.assertRegex(jobs["jobs"][0]["job_id"], "^20170227-")
        first.containers[0].process.kill()
        second = self.release.create("second", *template, 3)
        self.start("worker", 2, 3)
        for pod, phase in ((first, "Failed"), (second, "Succeeded")):
            wait_for(f"the end of {pod.name}", lambda pod=pod: pod.phase() in ("Failed", "Succeeded"))
            self.assertEqual(pod.phase(), phase)
        self.assertEqual(len(self.release.command("jobs")[0]["jobs"]), 1)
        day.check("daily")

    def template_of_job(self, name):
        """Labels and spec of a pod of the daily job in a job with that name."""
        template = one(self.release.objects, "CronJob", "-daily")["spec"]["jobTemplate"]["spec"]["template"]
        return template["metadata"]["labels"] | {"batch.kubernetes.io/job-name": name}, template["spec"]

    def test_certificates_of_the_docs(self):
        """Secrets are files that the group of the pod may read. A job over TLS, and `helm test`."""
        with tempfile.TemporaryDirectory() as folder:
            secrets, config = made_by_the_docs(folder)
        for name, data in secrets.items():
            self.release.secret(name, data)
        self.release.install(merged(VALUES, config))
        self.release.ready(*self.start("coordinator", 1), *self.start("worker", 2, 3))
        self.assertEqual(self.helm_test(), "Succeeded")

    def helm_test(self):
        """The phase in which the pod of `helm test` ends."""
        [test] = of_kind(self.release.objects, "Pod")
        pod = self.release.create("test", test["metadata"]["labels"], test["spec"], 2)
        wait_for("its end", lambda: pod.phase() in ("Succeeded", "Failed"))
        return pod.phase()

    def test_who_reaches_the_pods(self):
        """By the chart's NetworkPolicies, which the agent enforces by its own reading of their definition."""
        self.release.install(merged(VALUES, {"networkPolicy": {"clients": [{"podSelector": {"matchLabels": {"team": "data"}}}]}}))
        [coordinator], [worker, other] = self.start("coordinator", 1), self.start("worker", 2, 3)
        self.release.ready(coordinator, worker, other)
        strangers = [self.release.create(name, labels, STRANGER, 3) for name, labels in (("stranger", {}), ("client", {"team": "data"}))]
        self.release.ready(*strangers)
        for pod, wanted in ((coordinator, {7070, 7071, 9090}), (other, {7070, 7071}), (strangers[0], set()), (strangers[1], {7070})):
            found = {port for target, port in ((coordinator, 7070), (coordinator, 9090), (worker, 7071)) if reaches(pod, target, port)}
            self.assertEqual(found, wanted, pod.name)
