"""Workers that start and stop with the load: KEDA's operator asks the coordinators by its external scaler, the HPA controller asks KEDA's
adapter, and workers are pods that run. From zero to several workers and back; no finished task runs again.

The trace of the test is written to the file that TALLY_SCALING_TRACE names, for `deploy/docs/plot`.

Not here: KEDA's admission webhook, whose schemas the API server has all the same."""

import os
import pathlib
import unittest

import cluster
import nodes
from cluster import Namespace, merged, wait_for
from keda import Keda
from days import MANY_TASKS, Day
from nodes import volume
from scaling_trace import Trace
from slow import CREEPING, SLOW
from test_nodes_drain import VALUES
from test_nodes_install import WAIT

MAX_WORKERS = 4
SCALED = merged(VALUES, {"autoscaling": {
    "mode": "keda", "maxReplicas": MAX_WORKERS, "scaleDownStabilizationSeconds": 5, "keda": {"pollingInterval": 2, "cooldownPeriod": 10}}})
# The whole answer of KEDA may take some of its polls.
DEADLINE = 180


class Scaling(unittest.TestCase):
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
        with Keda(cluster.plane()), Namespace() as namespace:
            folder = volume(namespace)
            namespace.install(SCALED)
            wait_for("the coordinator", lambda: nodes.rolled_out(namespace, "coordinator"))
            # A new installation starts with one worker, which KEDA removes.
            self.wait_for_replicas(namespace, 0)
            wait_for("the end of the first worker", lambda: not nodes.pods(namespace, "worker"))
            day = Day(folder, 300_000)
            with Trace(namespace) as trace:
                try:
                    self.follow(namespace, day, trace)
                finally:
                    if file := os.environ.get("TALLY_SCALING_TRACE"):
                        pathlib.Path(file).write_text(trace.csv())
            self.assertEqual(max(row["replicas"] for row in trace.rows), MAX_WORKERS)
            # KEDA from zero and to zero, the HPA controller in between.
            scaled = {event["reason"] for event in namespace.all("Event")}
            self.assertLessEqual({"KEDAScaleTargetActivated", "KEDAScaleTargetDeactivated", "SuccessfulRescale"}, scaled)
            # KEDA's finalizer goes before KEDA does.
            namespace.helm("uninstall", "tally")
            wait_for("the end of the ScaledObject", lambda: not namespace.all("ScaledObject"))

    def follow(self, namespace, day, trace):
        trace.phase = "from zero"
        with nodes.slow_workers(namespace) as slow:
            slow.share = CREEPING
            first = nodes.submit(namespace, day, "first", *MANY_TASKS)
            self.wait_for_all(namespace)
            slow.share = SLOW
            nodes.finished(namespace, first)
            trace.phase = "down in the middle"
            slow.share = CREEPING
            second = nodes.submit(namespace, day, "second", *MANY_TASKS)
            self.wait_for_all(namespace)
            slow.share = SLOW
            nodes.wait_for_progress(namespace, second, 0.2)
            slow.share = CREEPING
            leaving = nodes.pods(namespace, "worker")
            namespace.upgrade(merged(SCALED, {"autoscaling": {"maxReplicas": MAX_WORKERS // 2}}))
            wait_for("fewer workers", lambda: len(nodes.pods(namespace, "worker")) == MAX_WORKERS // 2, DEADLINE)
            self.assertEqual(nodes.tally(namespace, "job", second)["state"], "running")
        for job, output in ((first, "first"), (second, "second")):
            self.exact(namespace, day, job, output)
        trace.phase = "burst"
        namespace.upgrade(SCALED)
        jobs = [(nodes.submit(namespace, day, f"burst-{number}", *MANY_TASKS), f"burst-{number}") for number in range(3)]
        for job, output in jobs:
            self.exact(namespace, day, job, output)
        trace.phase = "to zero"
        self.wait_for_replicas(namespace, 0)
        wait_for("the end of all workers", lambda: not nodes.pods(namespace, "worker"), DEADLINE)
        self.assertEqual([nodes.exit_codes(pod) for pod in leaving], [[0]] * MAX_WORKERS)
