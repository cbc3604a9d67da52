"""The chart on nodes, from the installation to a finished job: scheduling, services and names, probes, and `helm test`. Results are
compared with those of DuckDB.

Not here: what happens while a job runs (the other modules of nodes)."""

import signal
import unittest

import cluster
import days
import nodes
from cluster import CHART, Namespace, SCHEDULE, merged, wait_for, with_each_helm
from days import Day
from nodes import volume
from test_admission import RESTRICTED

# Small workers. All nodes mount the volume.
SMALL = {
    "storage": {"claim": {"create": True, "accessMode": "ReadWriteMany"}},
    "worker": {"memoryMiB": 512, "spillGiB": 1, "drainTimeoutSeconds": 60},
}
DAILY = {"schedule": merged(SCHEDULE, {
    "addons": "/data/day/addons/v2", "mainSummary": "/data/day/main_summary/v3", "output": "/data/aggregates", "date": days.DATE})}
WAIT = ("--wait", "--timeout", "4m")
# As many workers on each node that takes pods.
SPREAD = {"topologySpreadConstraints": [{
    "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule", "nodeTaintsPolicy": "Honor",
    "labelSelector": {"matchLabels": {"app.kubernetes.io/component": "worker"}}}]}


def job_condition(namespace, job):
    """The type of the condition with which a job of Kubernetes ended."""
    def found():
        conditions = namespace.get("Job", job)["status"].get("conditions", [])
        return next((each["type"] for each in conditions if each["type"] in ("Complete", "Failed") and each["status"] == "True"), None)

    return wait_for(f"the end of {job}", found, 240)


class Install(unittest.TestCase):
    def setUp(self):
        self.addCleanup(self.check_agent)

    def check_agent(self):
        self.assertEqual(cluster.plane().agent.errors, [])

    @with_each_helm
    def test_from_install_to_a_finished_job(self, namespace):
        """The daily job, as the CronJob's template has it, in a namespace with restricted pods."""
        for key, value in RESTRICTED.items():
            namespace.kubectl("label", "namespace", namespace.name, f"{key}={value}")
        folder = volume(namespace)
        namespace.install(merged(SMALL, DAILY, {"worker": {"replicas": 3, **SPREAD}}), more=WAIT)
        self.assertEqual({pod.node.name for pod in nodes.pods(namespace, "worker")}, {"node-1", "node-2", "node-3"})
        day = Day(folder, 20_000)
        namespace.kubectl("create", "job", "--from=cronjob/tally-daily", "by-hand")
        self.assertEqual(job_condition(namespace, "by-hand"), "Complete")
        day.check("aggregates")
        [job] = nodes.tally(namespace, "jobs")["jobs"]
        self.assertEqual(nodes.reruns(job), (0, 0))
        self.assertIn("tally", namespace.kubectl("logs", "deployment/tally-coordinator"))
        # All processes end by SIGTERM, well within their grace periods.
        past = nodes.pods(namespace, None)
        namespace.helm("uninstall", "tally")
        wait_for("the end of the pods", lambda: not nodes.pods(namespace, None))
        self.assertEqual({code for pod in past for code in nodes.exit_codes(pod)}, {0})

    @with_each_helm
    def test_helm_test(self, namespace):
        """The command of the docs and of the notes."""
        folder = volume(namespace)
        namespace.install(SMALL, more=WAIT)
        namespace.helm("test", "tally", "--timeout", "16m")
        self.assertIsNone(namespace.find("Pod", "tally-test"))
        # It leaves nothing.
        self.assertEqual([file.name for file in folder.glob(".tally/tally/*")], ["state"])

    def test_helm_test_without_workers(self):
        """It fails by its own time limit, and its pod remains with its log."""
        with Namespace() as namespace:
            volume(namespace)
            namespace.install(merged(SMALL, {"worker": {"replicas": 0}, "test": {"timeoutSeconds": 30}}), more=WAIT)
            done = namespace.try_helm("test", "tally", "--timeout", "2m")
            self.assertNotEqual(done.code, 0)
            pod = namespace.get("Pod", "tally-test")
            self.assertEqual((pod["status"]["phase"], pod["status"]["reason"]), ("Failed", "DeadlineExceeded"))
            self.assertTrue(namespace.kubectl("logs", "tally-test"))
            # SIGTERM ends it, and it cancels its job.
            self.assertEqual([nodes.exit_codes(pod) for pod in nodes.pods(namespace, "test")], [[3]])
            self.assertEqual([job["state"] for job in nodes.tally(namespace, "jobs")["jobs"]], ["cancelled"])

    def test_without_values_all_pods_are_on_one_node(self):
        """Only one node can mount the claim of the default installation."""
        with Namespace() as namespace:
            volume(namespace, mode="ReadWriteOnce")
            namespace.install({"worker": {"replicas": 4}}, more=WAIT)
            namespace.helm("test", "tally", "--timeout", "5m")
            self.assertEqual(len({pod.node.name for pod in nodes.pods(namespace, None)}), 1)
            self.assertEqual(len(nodes.pods(namespace, "worker")), 4)

    def test_hung_processes_are_restarted(self):
        """A coordinator and a worker that do not answer: their liveness probes fail, SIGTERM has no effect, and SIGKILL ends them."""
        quick = {"livenessProbe": {"periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 3}}
        with Namespace() as namespace:
            folder = volume(namespace)
            namespace.install(merged(SMALL, {
                "coordinator": {**quick, "terminationGracePeriodSeconds": 5},
                "worker": {**quick, "drainTimeoutSeconds": 1, "terminationGracePeriodSeconds": 12}}), more=WAIT)
            hung = [nodes.pods(namespace, component)[0] for component in ("coordinator", "worker")]
            for pod in hung:
                nodes.process(pod).signal(signal.SIGSTOP)
            for pod in hung:
                wait_for(f"a restart of {pod.name}", lambda pod=pod: pod.containers[0].restarts)
                self.assertEqual(pod.containers[0].ended[-1]["exitCode"], 137)
                wait_for(f"{pod.name} to be ready", lambda pod=pod: pod.containers[0].is_ready())
            day = Day(folder, 2000)
            nodes.finished(namespace, nodes.submit(namespace, day, "aggregates"))
            day.check("aggregates")

    def test_a_wrong_setting(self):
        """The process ends with its message, the kubelet's pause grows, and Helm's wait fails."""
        with Namespace() as namespace:
            volume(namespace)
            values = merged(SMALL, {"coordinator": {"extraEnv": [{"name": "TALLY_MAX_JOBS", "value": "x"}]}})
            done = namespace.try_helm("install", "tally", CHART, "--wait", "--timeout", "20s", values=values)
            self.assertNotEqual(done.code, 0)
            [pod] = nodes.pods(namespace, "coordinator")
            status = namespace.get("Pod", pod.name)["status"]["containerStatuses"][0]
            self.assertEqual(status["state"]["waiting"]["reason"], "CrashLoopBackOff")
            self.assertEqual(status["lastState"]["terminated"]["exitCode"], 2)
            self.assertIn("--max-jobs <N> (from TALLY_MAX_JOBS in the environment)", namespace.kubectl("logs", pod.name))
