"""Nodes are drained by `kubectl drain` in the middle of a job: evictions under the disruption budget, grace periods, and the migration of
outputs. No finished task runs again.

Not here: roll-outs (test_nodes_upgrade)."""

import signal
import threading
import unittest

import cluster
import nodes
from cluster import Namespace, merged, wait_for
from days import MANY_TASKS, Day
from nodes import volume
from slow import CREEPING
from test_nodes_install import SMALL, SPREAD, WAIT
from watching import watched

# Slow workers do not become lost.
PATIENT = merged(SMALL, {"worker": {"replicas": 3, **SPREAD}, "coordinator": {"extraEnv": [
    {"name": "TALLY_WORKER_TIMEOUT", "value": "60000"}]}})
VALUES = merged(PATIENT, {"coordinator": {"nodeSelector": {"kubernetes.io/hostname": "node-1"}}})


def drain(namespace, *names):
    namespace.kubectl("drain", *names, "--delete-emptydir-data", "--ignore-daemonsets", "--timeout=200s")


def ready_workers(namespace):
    """Without those that leave: their probes may not have failed yet."""
    return sum(pod.containers[0].is_ready() and not pod.is_ending() for pod in nodes.pods(namespace, "worker"))


class Drains(unittest.TestCase):
    def setUp(self):
        self.addCleanup(self.allow_all)

    def allow_all(self):
        """Pods may be assigned to every node again."""
        plane = cluster.plane()
        for name in plane.agent.nodes:
            plane.patch(f"/api/v1/nodes/{name}", {"spec": {"unschedulable": None}})
        self.assertEqual(plane.agent.errors, [])

    def check(self, namespace, day, job):
        found = nodes.finished(namespace, job)
        self.assertEqual(nodes.reruns(found), (0, 0), found)
        self.assertIn("worker_draining", {event["kind"] for event in nodes.events(namespace, job)})
        self.assertEqual(nodes.losses(namespace, job), [])
        day.check("out")

    def test_a_node_is_drained_in_the_middle_of_a_job(self):
        with Namespace() as namespace:
            folder = volume(namespace)
            namespace.install(VALUES, more=WAIT)
            day = Day(folder, 300_000)
            [leaving] = [pod for pod in nodes.pods(namespace, "worker") if pod.node.name == "node-2"]
            with nodes.slow_workers(namespace) as slow:
                job = nodes.submit(namespace, day, "out", *MANY_TASKS)
                nodes.wait_for_progress(namespace, job, 0.3)
                slow.share = CREEPING
                with watched(lambda: ready_workers(namespace)) as seen:
                    drain(namespace, "node-2")
                self.assertEqual(nodes.tally(namespace, "job", job)["state"], "running")
            # The budget permits one worker to be missing.
            self.assertGreaterEqual(min(seen), 2)
            self.check(namespace, day, job)
            self.assertEqual(nodes.exit_codes(leaving), [0])
            namespace.wait_for_pods("worker", 3)
            self.assertEqual({pod["spec"]["nodeName"] for pod in namespace.pods()}, {"node-1", "node-3"})

    def test_two_nodes_at_once(self):
        """The second one waits until the budget permits its eviction."""
        with Namespace() as namespace:
            folder = volume(namespace)
            namespace.install(VALUES, more=WAIT)
            day = Day(folder, 300_000)
            leaving = [pod for pod in nodes.pods(namespace, "worker") if pod.node.name != "node-1"]
            self.assertEqual(len(leaving), 2)
            with nodes.slow_workers(namespace) as slow:
                job = nodes.submit(namespace, day, "out", *MANY_TASKS)
                nodes.wait_for_progress(namespace, job, 0.2)
                slow.share = CREEPING
                with watched(lambda: ready_workers(namespace)) as seen:
                    threads = [threading.Thread(target=drain, args=(namespace, pod.node.name)) for pod in leaving]
                    for thread in threads:
                        thread.start()
                    for thread in threads:
                        thread.join()
            self.assertGreaterEqual(min(seen), 2)
            self.check(namespace, day, job)
            self.assertEqual([nodes.exit_codes(pod) for pod in leaving], [[0], [0]])

    def test_a_worker_that_hangs_is_killed_after_its_grace_period(self):
        """Its outputs are lost and made again, and the result is exact."""
        with Namespace() as namespace:
            folder = volume(namespace)
            namespace.install(merged(VALUES, {"worker": {"drainTimeoutSeconds": 1, "terminationGracePeriodSeconds": 12}}), more=WAIT)
            day = Day(folder, 300_000)
            [leaving] = [pod for pod in nodes.pods(namespace, "worker") if pod.node.name == "node-2"]
            with nodes.slow_workers(namespace) as slow:
                job = nodes.submit(namespace, day, "out", *MANY_TASKS)
                nodes.wait_for_progress(namespace, job, 0.3)
                slow.share = CREEPING
            nodes.process(leaving).signal(signal.SIGSTOP)
            drain(namespace, "node-2")
            self.assertEqual(nodes.exit_codes(leaving), [137])
            nodes.finished(namespace, job)
            day.check("out")
            wait_for("its successor", lambda: ready_workers(namespace) == 3)
