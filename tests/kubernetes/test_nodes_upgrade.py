"""An upgrade in the middle of a job: coordinators are recreated or replaced, all workers are replaced, and no finished task runs again.

Not here: other versions of the programs (the image is the same), fields that an upgrade may not change (test_releases)."""

import unittest

import cluster
import nodes
from cluster import Namespace, merged, wait_for, with_each_helm
from consul import URL, Consul
from days import MANY_TASKS, Day
from leader import leads
from nodes import volume
from slow import CREEPING
from test_nodes_drain import PATIENT, VALUES
from test_nodes_install import WAIT

# Changed settings, so that all pods are replaced.
CHANGED = {"coordinator": {"maxJobs": 7}, "worker": {"drainTimeoutSeconds": 70}}
# Coordinators on any nodes.
TWO = merged(PATIENT, {"consul": {"url": URL}, "coordinator": {"replicas": 2, "podAntiAffinity": "required"}})


class Upgrades(unittest.TestCase):
    def setUp(self):
        self.addCleanup(lambda: self.assertEqual(cluster.plane().agent.errors, []))

    def roll(self, namespace, values, change):
        """Changes the release with `change` in the middle of a job. All pods that run then must be replaced."""
        folder = volume(namespace)
        namespace.install(values, more=WAIT)
        day = Day(folder, 1_000_000)
        before = nodes.pods(namespace, None)
        with nodes.slow_workers(namespace) as slow:
            job = nodes.submit(namespace, day, "out", *MANY_TASKS)
            nodes.wait_for_progress(namespace, job, 0.3)
            slow.share = CREEPING
            change()
            # Helm does not wait for pods that leave.
            wait_for("the end of the old pods", lambda: not set(before) & set(nodes.pods(namespace, None)), 240)
            self.assertEqual(nodes.tally(namespace, "job", job)["state"], "running")
        self.exact(namespace, day, job)
        self.assertEqual([nodes.exit_codes(pod) for pod in before], [[0]] * len(before))
        self.assertTrue(nodes.rolled_out(namespace, "worker") and nodes.rolled_out(namespace, "coordinator"))

    def exact(self, namespace, day, job):
        found = nodes.finished(namespace, job)
        self.assertEqual(nodes.reruns(found), (0, 0), found)
        self.assertEqual(nodes.losses(namespace, job), [])
        day.check("out")

    @with_each_helm
    def test_an_upgrade_in_the_middle_of_a_job(self, namespace):
        """The only coordinator is recreated: for a moment there is none."""
        self.roll(namespace, VALUES, lambda: namespace.upgrade(merged(VALUES, CHANGED), more=WAIT))

    @with_each_helm
    def test_a_rollback_in_the_middle_of_a_job(self, namespace):
        def change():
            namespace.upgrade(merged(VALUES, CHANGED), more=WAIT)
            namespace.helm("rollback", "tally", *WAIT)

        self.roll(namespace, VALUES, change)

    def test_two_coordinators_with_consul(self):
        """They are replaced one by one, each on a node of its own."""
        with Consul(), Namespace() as namespace:
            self.roll(namespace, TWO, lambda: namespace.upgrade(merged(TWO, CHANGED), more=WAIT))
            self.assertEqual(len({pod.node.name for pod in nodes.pods(namespace, "coordinator")}), 2)

    def test_the_leader_is_evicted(self):
        """Another coordinator leads at once, and adopts the job."""
        with Consul(), Namespace() as namespace:
            folder = volume(namespace)
            namespace.install(TWO, more=WAIT)
            day = Day(folder, 300_000)
            with nodes.slow_workers(namespace) as slow:
                job = nodes.submit(namespace, day, "out", *MANY_TASKS)
                nodes.wait_for_progress(namespace, job, 0.3)
                slow.share = CREEPING
                [leader] = [pod for pod in nodes.pods(namespace, "coordinator") if leads(pod)]
                nodes.evict(leader)
                wait_for("its end", lambda: leader not in nodes.pods(namespace, "coordinator"))
                self.assertEqual(nodes.exit_codes(leader), [0])
                self.assertEqual(nodes.tally(namespace, "job", job)["state"], "running")
            self.exact(namespace, day, job)
