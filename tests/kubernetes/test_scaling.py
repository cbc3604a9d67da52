"""Who owns the number of workers: the chart, a person with kubectl, or an autoscaler. The HPA is the real controller; its metric comes
from a stand-in for the Prometheus adapter. KEDA's operator does not run: a change of the scale subresource plays it.

Not here: other changes of modes (test_modes)."""

import unittest

import cluster
from cluster import Namespace, merged, wait_for, with_each_helm
from metrics import Metrics, available
from readiness import Readiness
from state import differences

KEDA = {"autoscaling": {"mode": "keda", "maxReplicas": 8}}
HPA = {"autoscaling": {"mode": "hpa", "minReplicas": 1, "maxReplicas": 6, "scaleDownStabilizationSeconds": 65,
                       "hpa": {"metricLabels": {"namespace": "telemetry"}}},
       "worker": {"slots": 2}}
NAME = "tally-worker"


class Scaling(unittest.TestCase):
    def replicas(self, namespace):
        return namespace.get("Deployment", NAME)["spec"]["replicas"]

    @with_each_helm
    def test_upgrades_leave_the_number_to_an_autoscaler(self, namespace):
        for values in (KEDA, HPA):
            namespace.install(values)
            # A field without owner is 1.
            self.assertEqual(self.replicas(namespace), 1)
            for number in (5, 0):
                namespace.scale(NAME, number)
                namespace.upgrade(merged(values, {"coordinator": {"maxJobs": 7 + number}, "worker": {"drainTimeoutSeconds": 60}}))
                self.assertEqual(differences(namespace), [])
                self.assertEqual(self.replicas(namespace), number)
                namespace.helm("rollback", "tally")
                self.assertEqual(self.replicas(namespace), number)
            namespace.helm("uninstall", "tally")

    @with_each_helm
    def test_a_change_to_an_autoscaler_begins_with_one_worker(self, namespace):
        namespace.install({"worker": {"replicas": 4}})
        namespace.upgrade(KEDA)
        self.assertEqual(self.replicas(namespace), 1)

    @with_each_helm
    def test_a_change_from_an_autoscaler(self, namespace):
        """The chart takes the number over. Kubernetes does not record an autoscaler as the owner of a number that had none."""
        for number in (5, 0):
            namespace.install(KEDA)
            namespace.scale(NAME, number)
            namespace.upgrade({"worker": {"replicas": 2}})
            self.assertEqual(self.replicas(namespace), 2)
            self.assertEqual(differences(namespace), [])
            namespace.helm("uninstall", "tally")

    @with_each_helm
    def test_a_change_to_an_autoscaler_and_back(self, namespace):
        namespace.install({"worker": {"replicas": 3}})
        namespace.upgrade(KEDA)
        namespace.scale(NAME, 5)
        namespace.upgrade({"worker": {"replicas": 3}})
        self.assertEqual(self.replicas(namespace), 3)
        self.assertEqual(differences(namespace), [])

    @with_each_helm
    def test_kubectl_scale_before_an_upgrade(self, namespace):
        """The docs scale both Deployments to 0 before some upgrades, which works. Another number than 0 has an owner, kubectl: Helm 3
        replaces it, Helm 4 reports a conflict until it is forced."""
        namespace.install()
        scale = ("scale", "deployment", "tally-coordinator", NAME)
        namespace.kubectl(*scale, "--replicas=0")
        wait_for("the end of all pods", lambda: not namespace.all("Pod"))
        namespace.upgrade({"coordinator": {"stateDir": "/data/other"}})
        self.assertEqual(differences(namespace), [])
        namespace.wait_for_pods("coordinator", 1)
        namespace.wait_for_pods("worker", 2)
        namespace.kubectl("scale", "deployment", NAME, "--replicas=4")
        if namespace.program == "helm-4":
            done = namespace.try_helm("upgrade", "tally", cluster.CHART, "--reset-values", values={})
            self.assertNotEqual(done.code, 0)
            self.assertRegex(done.err, r'(?s)conflict with "kubectl".*\.spec\.replicas')
            self.assertEqual(self.replicas(namespace), 4)
            namespace.upgrade(more=("--force-conflicts",))
        else:
            namespace.upgrade()
        self.assertEqual(differences(namespace), [])


class Controller(unittest.TestCase):
    """The chart's HorizontalPodAutoscaler, and the controller of Kubernetes."""

    def test_workers_follow_the_metric(self):
        with Metrics(cluster.plane()) as metrics, Namespace() as namespace, Readiness(namespace):
            wait_for("the external metric", lambda: available(namespace.plane))
            metrics.set(2)
            namespace.install(HPA)
            namespace.wait_for_pods("worker", 1)
            # 7 slots need 4 workers of 2 slots each.
            metrics.set(7)
            namespace.wait_for_pods("worker", 4)
            # Not above the maximum.
            metrics.set(100)
            namespace.wait_for_pods("worker", 6)
            # The selector is that of the values.
            self.assertIn("labelSelector=namespace%3Dtelemetry", metrics.server.asked[-1])
            namespace.upgrade(merged(HPA, {"coordinator": {"maxJobs": 5}}))
            self.assertEqual(differences(namespace), [])
            namespace.wait_for_pods("worker", 6)
            # An upgrade of the workers in between does not reset their number.
            namespace.upgrade(merged(HPA, {"worker": {"drainTimeoutSeconds": 60}}))
            namespace.wait_for_pods("worker", 6)
            # Down by at most half per minute, after the window. Kubernetes means half of the number a minute ago, so a window
            # below a minute would let workers go that have just come.
            metrics.set(0)
            namespace.wait_for_pods("worker", 3, deadline=180)
            status = namespace.get("HorizontalPodAutoscaler", NAME)["status"]
            limited = [each for each in status["conditions"] if each["type"] == "ScalingLimited"]
            self.assertEqual(limited[0]["status"], "True")
            # Back to a fixed number, which the chart takes over.
            namespace.upgrade({"worker": {"replicas": 2}})
            namespace.wait_for_pods("worker", 2)
            self.assertEqual(differences(namespace), [])

    def test_without_the_metric_the_number_stays(self):
        with Namespace() as namespace:
            namespace.install(HPA)
            namespace.scale(NAME, 3)

            def failing():
                conditions = namespace.get("HorizontalPodAutoscaler", NAME).get("status", {}).get("conditions", [])
                return any(each["type"] == "ScalingActive" and each["status"] == "False" for each in conditions)

            wait_for("the HPA's complaint", failing)
            self.assertEqual(self.replicas(namespace), 3)

    def replicas(self, namespace):
        return namespace.get("Deployment", NAME)["spec"]["replicas"]
