"""Workers that start and stop with the load: KEDA's operator asks the coordinators by its external scaler, the HPA controller asks KEDA's
adapter, and workers are pods that run. From zero to several workers and back, and without a coordinator for longer than KEDA's cooldown;
no finished task runs again.

The trace of the test is written to the file that TALLY_SCALING_TRACE names, for `deploy/docs/plot`.

Not here: KEDA's admission webhook, whose schemas the API server has all the same."""

import os
import pathlib
import re
import tempfile
import time
import unittest

import cluster
import nodes
from cluster import CHART, HELM, Namespace, merged, wait_for
from keda import Keda
from days import MANY_TASKS, Day
from nodes import volume
from scaling_trace import Trace
from slow import CREEPING, SLOW
from test_nodes_drain import VALUES

MAX_WORKERS = 4
# Seconds.
POLL, COOLDOWN = 2, 10
SCALED = merged(VALUES, {"autoscaling": {
    "mode": "keda", "maxReplicas": MAX_WORKERS, "scaleDownStabilizationSeconds": 5,
    "keda": {"pollingInterval": POLL, "cooldownPeriod": COOLDOWN}}})
# The whole answer of KEDA may take some of its polls.
DEADLINE = 180


class Scaling(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.enterClassContext(Keda(cluster.plane()))

    def setUp(self):
        self.addCleanup(lambda: self.assertEqual(cluster.plane().agent.errors, []))

    def replicas(self, namespace):
        return namespace.get("Deployment", "tally-worker")["spec"]["replicas"]

    def wait_for_replicas(self, namespace, number):
        wait_for(f"{number} workers", lambda: self.replicas(namespace) == number, DEADLINE)

    def wait_for_all(self, namespace):
        self.wait_for_replicas(namespace, MAX_WORKERS)
        wait_for("all workers", lambda: nodes.rolled_out(namespace, "worker"), DEADLINE)

    def exact(self, namespace, day, job, output):
        found = nodes.finished(namespace, job)
        self.assertEqual(nodes.reruns(found), (0, 0), found)
        self.assertEqual(nodes.losses(namespace, job), [])
        day.check(output)

    def test_from_zero_to_zero(self):
        with Namespace() as namespace:
            folder = volume(namespace)
            namespace.install(SCALED)
            # A new installation starts with one worker, which KEDA removes.
            self.wait_for_none(namespace)
            day = Day(folder, 300_000)
            trace = Trace(namespace)
            try:
                with trace:
                    jobs = self.follow(namespace, day, trace)
            finally:
                if file := os.environ.get("TALLY_SCALING_TRACE"):
                    pathlib.Path(file).write_text(trace.csv())
            self.assertEqual(max(row["replicas"] for row in trace.rows), MAX_WORKERS)
            # No worker leaves. KEDA 2.20 removes none while a scaler fails, with or without a fallback.
            self.assertEqual({row["replicas"] for row in trace.rows if row["phase"] == "no coordinator"}, {MAX_WORKERS})
            for output, job in jobs.items():
                self.exact(namespace, day, job, output)
            # KEDA from zero and to zero, the HPA controller in between.
            self.assertLessEqual({"KEDAScaleTargetActivated", "KEDAScaleTargetDeactivated", "SuccessfulRescale"}, self.reasons(namespace))
            self.uninstall(namespace)

    def test_certificates_of_the_docs(self):
        """KEDA asks over TLS, with the certificate of a reader. Without an answer it would not start the worker that `helm test` needs."""
        page = (CHART.parents[1] / "docs" / "tls.md").read_text()
        [block] = [block for block in re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S) if "openssl" in block]
        with Namespace() as namespace, tempfile.TemporaryDirectory() as folder:
            volume(namespace)
            namespace.install(SCALED)
            wait_for("the coordinator", lambda: nodes.rolled_out(namespace, "coordinator"))
            commands = [f'kubectl() {{ {HELM}/kubectl "$@"; }}', f'helm() {{ {HELM}/{namespace.program} "$@"; }}',
                        block.replace("telemetry", namespace.name).replace("deploy/helm/tally", str(CHART))]
            done = namespace.run(["bash", "-euo", "pipefail", "-c", "\n".join(commands)], cwd=folder)
            self.assertEqual(done.code, 0, done.err)
            self.wait_for_none(namespace)
            namespace.helm("test", "tally", "--timeout", "4m")
            self.assertIn("KEDAScaleTargetActivated", self.reasons(namespace))
            self.uninstall(namespace)

    def reasons(self, namespace):
        return {event["reason"] for event in namespace.all("Event")}

    def wait_for_none(self, namespace):
        """A coordinator and no worker."""
        wait_for("the coordinator", lambda: nodes.rolled_out(namespace, "coordinator"))
        self.wait_for_replicas(namespace, 0)
        wait_for("the end of the first worker", lambda: not nodes.pods(namespace, "worker"))

    def uninstall(self, namespace):
        """KEDA's finalizer goes before KEDA does."""
        namespace.helm("uninstall", "tally")
        wait_for("the end of the ScaledObject", lambda: not namespace.all("ScaledObject"))

    def follow(self, namespace, day, trace):
        """The jobs, by their outputs."""
        trace.phase = "from zero"
        with nodes.slow_workers(namespace) as slow:
            slow.share = CREEPING
            jobs = {"first": self.submit(namespace, day, "first")}
            self.wait_for_all(namespace)
            slow.share = SLOW
            nodes.finished(namespace, jobs["first"])
            trace.phase = "down in the middle"
            jobs["second"] = self.submit(namespace, day, "second")
            leaving = self.progressed(namespace, jobs["second"], slow)
            namespace.upgrade(merged(SCALED, {"autoscaling": {"maxReplicas": MAX_WORKERS // 2}}))
            wait_for("fewer workers", lambda: len(nodes.pods(namespace, "worker")) == MAX_WORKERS // 2, DEADLINE)
            self.assertEqual(nodes.tally(namespace, "job", jobs["second"])["state"], "running")
        nodes.finished(namespace, jobs["second"])
        trace.phase = "burst"
        namespace.upgrade(SCALED)
        with nodes.slow_workers(namespace) as slow:
            jobs |= {output: self.submit(namespace, day, output) for output in ("third", "fourth", "fifth")}
            self.progressed(namespace, jobs["third"], slow)
            trace.phase = "no coordinator"
            self.lose_coordinator(namespace)
            trace.phase = "burst"
            slow.share = SLOW
            for job in jobs.values():
                nodes.finished(namespace, job)
        trace.phase = "to zero"
        self.wait_for_replicas(namespace, 0)
        wait_for("the end of all workers", lambda: not nodes.pods(namespace, "worker"), DEADLINE)
        self.assertEqual([nodes.exit_codes(pod) for pod in leaving], [[0]] * MAX_WORKERS)
        return jobs

    def submit(self, namespace, day, output):
        return nodes.submit(namespace, day, output, *MANY_TASKS)

    def progressed(self, namespace, job, slow):
        """All workers, when they have done a part of the job and creep."""
        slow.share = CREEPING
        self.wait_for_all(namespace)
        slow.share = SLOW
        nodes.wait_for_progress(namespace, job, 0.2)
        slow.share = CREEPING
        return nodes.pods(namespace, "worker")

    def lose_coordinator(self, namespace):
        """For longer than KEDA's failed polls and its cooldown together."""
        namespace.kubectl("scale", "deployment", "tally-coordinator", "--replicas=0")
        wait_for("the end of the coordinator", lambda: not nodes.pods(namespace, "coordinator"))
        time.sleep(3 * POLL + COOLDOWN + 8)
        namespace.kubectl("scale", "deployment", "tally-coordinator", "--replicas=1")
        wait_for("the coordinator", lambda: nodes.rolled_out(namespace, "coordinator"))
