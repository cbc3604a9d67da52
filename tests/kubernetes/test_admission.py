"""What a cluster admits: pods in a namespace with the level `restricted` of Pod Security, and pods under a quota.

A Deployment is accepted even if its pods are refused, so these tests look at pods and events."""

import unittest

from cluster import CHART, HELMS, Namespace, SCHEDULE, SIZES, TOGGLES, merged, wait_for

RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
QUOTA = {key: "100" for key in ("requests.cpu", "limits.cpu", "pods")} | {
    key: "1Ti" for key in ("requests.memory", "limits.memory", "requests.ephemeral-storage", "limits.ephemeral-storage")}
# The values that the docs give for a namespace with a quota on `limits.cpu` and ephemeral storage.
LIMITED = {"limits": {"cpu": 1, "memory": "1Gi", "ephemeral-storage": "1Gi"}, "requests": {"ephemeral-storage": "1Gi"}}
UNDER_QUOTA = {
    "coordinator": {"resources": LIMITED}, "schedule": merged(SCHEDULE, {"resources": LIMITED}), "test": {"resources": LIMITED},
    "worker": {"cpuLimit": "2"},
}


def test_pod(namespace):
    """Creates the pod of `helm test`, and returns when it exists. Helm waits for its end; nothing runs it, so Helm gives up."""
    namespace.try_helm("test", "tally", "--timeout", "2s")
    return namespace.find("Pod", "tally-test")


class Admission(unittest.TestCase):
    def pods_of(self, namespace):
        """One pod of each kind, also of the daily job."""
        for component in ("coordinator", "worker"):
            wanted = namespace.get("Deployment", f"tally-{component}")["spec"]["replicas"]
            namespace.wait_for_pods(component, wanted)
        if namespace.find("CronJob", "tally-daily"):
            namespace.kubectl("create", "job", "--from=cronjob/tally-daily", "by-hand")
            namespace.wait_for_pods("job", 1)

    def test_restricted_pods(self):
        for program in HELMS:
            for name, values in {
                "nothing": {}, "daily": {"schedule": SCHEDULE}, "minimal": SIZES["minimal.yaml"],
                "small": SIZES["small.yaml"], "medium": merged(SIZES["medium.yaml"], {"autoscaling": {"mode": "none"}}),
                "store": merged(SIZES["store.yaml"], {"autoscaling": {"mode": "none"}}),
                "groups": {"podSecurityContext": {"runAsUser": 1000, "supplementalGroups": [5000]}},
                "csi": {"storage": {"volume": {"csi": {"driver": "d"}}}}, "tls": TOGGLES["tls by secrets"],
            }.items():
                with self.subTest(f"{program}: {name}"), Namespace(RESTRICTED, program) as namespace:
                    done = namespace.try_helm("install", "tally", CHART, values=values)
                    self.assertEqual(done.code, 0, done.err)
                    self.assertNotIn("would violate PodSecurity", done.err)
                    self.pods_of(namespace)
                    self.assertTrue(test_pod(namespace))
                    self.assertEqual(namespace.complaints(), [])

    def test_volumes_that_the_level_forbids(self):
        """The docs say so, and that these pods are refused shows that the test above can fail."""
        for volume in ({"hostPath": {"path": "/srv"}}, {"nfs": {"server": "s", "path": "/"}}):
            with self.subTest(str(volume)), Namespace(RESTRICTED) as namespace:
                namespace.install({"storage": {"volume": volume}})
                said = wait_for("the refusal of pods", namespace.complaints)
                self.assertIn('violates PodSecurity "restricted:latest"', said[0])
                self.assertEqual(namespace.pods(), [])

    def test_a_quota(self):
        for program in HELMS:
            with self.subTest(program), Namespace(program=program) as namespace:
                namespace.create("ResourceQuota", {"metadata": {"name": "all"}, "spec": {"hard": QUOTA}})
                namespace.install({"schedule": SCHEDULE})
                # Without limits, the quota refuses pods, and the message names what is missing.
                said = wait_for("the refusal of pods", lambda: namespace.complaints() if len(namespace.complaints()) > 1 else None)
                for each in said:
                    self.assertRegex(each, "must specify limits.cpu")
                namespace.helm("uninstall", "tally")
            with self.subTest(f"{program} with limits"), Namespace(program=program) as namespace:
                namespace.create("ResourceQuota", {"metadata": {"name": "all"}, "spec": {"hard": QUOTA}})
                namespace.install(UNDER_QUOTA)
                self.pods_of(namespace)
                self.assertTrue(test_pod(namespace))
                self.assertEqual(namespace.complaints(), [])
                # The limits of a coordinator, two workers, and the pods of the job and of the test.
                wait_for("the use of the quota", lambda: namespace.get("ResourceQuota", "all")["status"].get("used", {}).get(
                    "limits.cpu") == "7")
