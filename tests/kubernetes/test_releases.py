"""A release from install to uninstall, on a real control plane, with each version of Helm: what it creates, what remains, what
two releases in a namespace share (nothing), and which changes Kubernetes refuses.

Not here: changes of modes (test_modes), the number of workers (test_scaling)."""

import unittest

from cluster import CHART, Refused, SCHEDULE, merged, name_of, wait_for, with_each_helm
from readiness import Readiness
from state import differences, owned

CLAIM = ("PersistentVolumeClaim", "tally-data")


def volume(namespace, name):
    """A volume for a claim of the default class."""
    namespace.plane.create("/api/v1/persistentvolumes", {"metadata": {"name": f"{namespace.name}-{name}"}, "spec": {
        "capacity": {"storage": "20Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "standard",
        "claimRef": {"namespace": namespace.name, "name": name, "kind": "PersistentVolumeClaim", "apiVersion": "v1"},
        "hostPath": {"path": "/nowhere"}}})


class Releases(unittest.TestCase):
    @with_each_helm
    def test_a_release_without_any_value(self, namespace):
        volume(namespace, "tally-data")
        with Readiness(namespace):
            said = namespace.install(more=("--wait", "--timeout", "3m"))
            self.assertIn("helm test tally", said)
            self.assertEqual(differences(namespace), [])
            # The API server chose the default class, and a controller bound the claim.
            claim = namespace.get(*CLAIM)
            self.assertEqual((claim["spec"]["storageClassName"], claim["status"]["phase"]), ("standard", "Bound"))
            self.assertEqual([len(namespace.pods(of)) for of in ("coordinator", "worker")], [1, 2])
            namespace.upgrade({"worker": {"replicas": 3}, "schedule": SCHEDULE}, more=("--wait", "--timeout", "3m"))
            namespace.wait_for_pods("worker", 3)
            self.assertEqual(differences(namespace), [])
            self.assertTrue(namespace.find("CronJob", "tally-daily"))
            namespace.helm("rollback", "tally", "--wait", "--timeout", "3m")
            namespace.wait_for_pods("worker", 2)
            self.assertEqual(differences(namespace), [])
            self.assertEqual(namespace.complaints(), [])
            namespace.helm("uninstall", "tally")
            self.assertEqual(owned(namespace, "tally"), {CLAIM})
            wait_for("the end of all pods", lambda: not namespace.all("Pod"))
            # The claim, and so the journal, is there for the next release of this name.
            said = namespace.install()
            self.assertEqual(namespace.get(*CLAIM)["metadata"]["uid"], claim["metadata"]["uid"])

    @with_each_helm
    def test_two_releases_in_a_namespace_share_nothing(self, namespace):
        values = merged({"consul": {"url": "http://consul:8500"}, "coordinator": {"replicas": 2}, "schedule": SCHEDULE})
        names = ("day", "night")
        with Readiness(namespace):
            for release in names:
                namespace.install(values, release)
            for release in names:
                for component in ("coordinator", "worker"):
                    namespace.wait_for_pods(component, 2, release)
            self.check_selectors(namespace, names)
            namespace.helm("uninstall", "day")
            self.assertEqual(differences(namespace, "night"), [])
            wait_for("the end of the other's pods", lambda: not namespace.pods(release="day"))
            self.assertEqual(len(namespace.pods(release="night")), 4)

    def check_selectors(self, namespace, names):
        """What each service, budget and policy selects: the pods of its release and component, and no others."""
        for release in names:
            for component in ("coordinator", "worker"):
                own = {pod["metadata"]["uid"]: pod for pod in namespace.pods(component, release)}
                services = [name for name in (f"{release}-tally-{component}-metrics", f"{release}-tally-coordinator")
                            if component in name]
                for name in services:
                    def found(name=name):
                        slices = [each for each in namespace.all("EndpointSlice")
                                  if each["metadata"]["labels"]["kubernetes.io/service-name"] == name]
                        return {point["targetRef"]["uid"] for each in slices for point in each.get("endpoints") or []}

                    wait_for(f"the endpoints of {name}", lambda: len(found()) >= len(own))
                    self.assertEqual(found(), set(own), name)
                budget = f"{release}-tally-{component}"
                wait_for(f"the status of {budget}", lambda: namespace.get("PodDisruptionBudget", budget)["status"].get(
                    "currentHealthy") == len(own))
                status = namespace.get("PodDisruptionBudget", budget)["status"]
                self.assertEqual((status["expectedPods"], status["disruptionsAllowed"]), (len(own), 1))
                policy = namespace.get("NetworkPolicy", budget)["spec"]["podSelector"]["matchLabels"]
                chosen = {pod["metadata"]["uid"] for pod in namespace.pods()
                          if policy.items() <= pod["metadata"]["labels"].items()}
                self.assertEqual(chosen, set(own))

    @with_each_helm
    def test_the_longest_names(self, namespace):
        """53 characters are Helm's limit. Two that differ in the last one coexist, and controllers can derive names from them."""
        releases = ["d" * 52 + last for last in "ab"]
        for release in releases:
            namespace.install({"schedule": SCHEDULE}, release)
            self.assertEqual(differences(namespace, release), [])
        for release in releases:
            for component, number in (("coordinator", 1), ("worker", 2)):
                namespace.wait_for_pods(component, number, release)
        for cron in namespace.all("CronJob"):
            namespace.kubectl("create", "job", f"--from=cronjob/{name_of(cron)}", f"{name_of(cron)[:50]}-by-hand")
        wait_for("the pods of the jobs", lambda: len(namespace.pods("job")) == 2)
        self.assertEqual(namespace.complaints(), [])

    @with_each_helm
    def test_what_kubernetes_refuses_to_change(self, namespace):
        """The chart refuses what a claim never permits, before anything changes. The API server refuses growth without a provisioner,
        and the next upgrade repairs the release."""
        volume(namespace, "tally-data")
        with Readiness(namespace):
            namespace.install(more=("--wait", "--timeout", "3m"))
            pods = {name_of(pod) for pod in namespace.wait_for_pods("worker", 2)}
            for change, message in (
                ({"storageClass": "other"}, "storage.claim.storageClass is other, and the claim tally-data has standard"),
                ({"accessMode": "ReadWriteMany"}, "storage.claim.accessMode is ReadWriteMany, and the claim tally-data has ReadWriteOnce"),
                ({"size": "10Gi"}, "storage.claim.size is 10Gi, and the claim tally-data has 20Gi"),
                ({"size": "50Gi"}, "only dynamically provisioned pvc can be resized"),
            ):
                with self.subTest(str(change)):
                    done = namespace.try_helm("upgrade", "tally", CHART, "--reset-values",
                                              values={"storage": {"claim": change}, "worker": {"replicas": 5}})
                    self.assertNotEqual(done.code, 0)
                    self.assertIn(message, done.err)
                    if "the claim" in message:
                        self.assertEqual({name_of(pod) for pod in namespace.pods("worker")}, pods)
            # The values of the present claim, and its class by name, are no change.
            namespace.upgrade({"storage": {"claim": {"storageClass": "standard", "size": "20480Mi"}}})
            self.assertEqual(differences(namespace), [])
            namespace.wait_for_pods("worker", 2)

    @with_each_helm
    def test_the_api_server_refuses_these_changes_itself(self, namespace):
        """Why the chart has a check: the claim is immutable."""
        volume(namespace, "tally-data")
        namespace.install()
        wait_for("the bound claim", lambda: namespace.get(*CLAIM)["status"].get("phase") == "Bound")
        for spec, message in (({"storageClassName": "other"}, "immutable"), ({"accessModes": ["ReadWriteMany"]}, "immutable"),
                              ({"resources": {"requests": {"storage": "10Gi"}}}, "can not be less")):
            with self.assertRaisesRegex(Refused, message):
                namespace.patch(*CLAIM, {"spec": spec})
