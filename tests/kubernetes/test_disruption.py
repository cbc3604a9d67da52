"""Disruption budgets and rolling updates, by the controllers of Kubernetes, with pods that become ready.

Not here: grace periods and drains, which need a kubelet."""

import unittest

from cluster import CONSUL, Namespace, Refused, merged, name_of, path, wait_for
from readiness import Readiness
from watching import watched


def evict(namespace, pod):
    namespace.plane.create(path("Pod", namespace.name, name_of(pod)) + "/eviction", {
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name_of(pod), "namespace": namespace.name}})


class Budgets(unittest.TestCase):
    def status(self, namespace, component):
        return namespace.get("PodDisruptionBudget", f"tally-{component}")["status"]

    def healthy(self, namespace, component, number):
        wait_for(f"{number} healthy pods of {component}",
                 lambda: self.status(namespace, component).get("currentHealthy") == number)

    def test_one_at_a_time(self):
        values = merged(CONSUL, {"coordinator": {"replicas": 3}, "worker": {"replicas": 4}})
        with Namespace() as namespace:
            with Readiness(namespace):
                namespace.install(values)
                for component, number in (("coordinator", 3), ("worker", 4)):
                    self.healthy(namespace, component, number)
            # New pods do not become ready: no stand-in.
            for component, number in (("coordinator", 3), ("worker", 4)):
                self.assertEqual(self.status(namespace, component)["disruptionsAllowed"], 1)
                first, second, *_ = namespace.pods(component)
                evict(namespace, first)
                with self.assertRaisesRegex(Refused, "disruption budget"):
                    evict(namespace, second)
                self.healthy(namespace, component, number - 1)
                self.assertEqual(self.status(namespace, component)["disruptionsAllowed"], 0)
                # A pod that is not ready may go, although the budget is spent: it blocks no drain.
                [unready] = [pod for pod in namespace.wait_for_pods(component, number) if pod["status"]["phase"] == "Pending"]
                running = {**unready["status"], "phase": "Running", "conditions": [
                    {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
                namespace.plane.patch(path("Pod", namespace.name, name_of(unready)) + "/status", {"status": running})
                evict(namespace, unready)

    def test_by_percentage_and_off(self):
        with Namespace() as namespace, Readiness(namespace):
            namespace.install({"worker": {"replicas": 8, "podDisruptionBudget": {"maxUnavailable": "25%"}}})
            self.healthy(namespace, "worker", 8)
            self.assertEqual(self.status(namespace, "worker")["disruptionsAllowed"], 2)
            namespace.upgrade({"worker": {"replicas": 8, "podDisruptionBudget": {"enabled": False}}})
            self.assertIsNone(namespace.find("PodDisruptionBudget", "tally-worker"))
            for pod in namespace.pods("worker")[:3]:
                evict(namespace, pod)


class Rollouts(unittest.TestCase):
    def numbers(self, namespace, component):
        """How many pods of the component are ready, and how many there are."""
        found = namespace.pods(component)
        ready = sum(any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", []))
                    for pod in found)
        return ready, len(found)

    def rolled_out(self, namespace, name):
        found = namespace.get("Deployment", name)
        wanted, status = found["spec"]["replicas"], found["status"]
        return (status.get("observedGeneration") == found["metadata"]["generation"]
                and wanted == status.get("updatedReplicas") == status.get("readyReplicas") == status.get("replicas"))

    def roll(self, values, changed, component):
        """The least number of ready pods and the largest number of pods while the change is rolled out."""
        name = f"tally-{component}"
        with Namespace() as namespace, Readiness(namespace):
            namespace.install(values)
            wait_for("the installation", lambda: self.rolled_out(namespace, name))
            before = namespace.get("Deployment", name)["metadata"]["generation"]
            with watched(lambda: self.numbers(namespace, component)) as seen:
                namespace.upgrade(merged(values, changed))
                wait_for("the roll-out", lambda: self.rolled_out(namespace, name))
            self.assertGreater(namespace.get("Deployment", name)["metadata"]["generation"], before)
        return min(ready for ready, _ in seen), max(number for _, number in seen)

    def test_new_workers_start_before_old_ones_leave(self):
        least, most = self.roll({"worker": {"replicas": 4}}, {"worker": {"drainTimeoutSeconds": 60}}, "worker")
        self.assertEqual((least, most), (4, 6))

    def test_a_single_coordinator_is_recreated(self):
        least, most = self.roll({}, {"coordinator": {"maxJobs": 3}}, "coordinator")
        self.assertEqual((least, most), (0, 1))

    def test_a_single_coordinator_with_consul_is_replaced_without_a_gap(self):
        least, most = self.roll(CONSUL, {"coordinator": {"maxJobs": 3}}, "coordinator")
        self.assertEqual((least, most), (1, 2))

    def test_several_coordinators_are_replaced_one_by_one(self):
        values = merged(CONSUL, {"coordinator": {"replicas": 3}})
        least, most = self.roll(values, {"coordinator": {"maxJobs": 3}}, "coordinator")
        self.assertGreaterEqual(least, 2)
        self.assertLessEqual(most, 4)
