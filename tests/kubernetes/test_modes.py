"""Every change of a mode that the docs describe, as an upgrade of an installed release and back by a rollback, with each version of
Helm. After each step no object is missing, left over, or has a field of the other mode.

Not here: who owns the number of workers (test_scaling), what Kubernetes refuses (test_releases)."""

import unittest

from cluster import CHART, CONSUL, HELMS, Namespace, SCHEDULE, merged, wait_for, with_each_helm
from readiness import Readiness
from state import differences
from watching import watched

SECRETS = {"mode": "secrets", "coordinatorSecret": "c", "workerSecret": "w", "operatorSecret": "o", "readerSecret": "r"}
MANAGED = {"mode": "certManager", "certManager": {"issuerRef": {"name": "telemetry-ca"}}}
KEDA = {"autoscaling": {"mode": "keda"}}
STORE = {"storage": {"claim": {"create": False}}, "coordinator": {"stateDir": "s3://bucket/tally"},
         "objectStore": {"region": "us-west-2", "credentialsSecret": "keys"}}
# From a release without any value. Each begins where the one before ended, after a rollback.
MODES = {
    "consul": CONSUL,
    "several coordinators": merged(CONSUL, {"coordinator": {"replicas": 3, "podAntiAffinity": "preferred"}}),
    "consul with secrets": {"consul": {"url": "https://c:8501", "tokenSecret": {"name": "t"}, "caSecret": {"name": "a"},
                                       "clientCertificateSecret": {"name": "l"}}},
    "agents of nodes": {"consul": {"url": "http://$(HOST_IP):8500", "register": "agent"}},
    "certificates of secrets": {"tls": SECRETS},
    "certificates of cert-manager": {"tls": MANAGED},
    "keda": KEDA,
    "keda with certificates": merged(KEDA, {"tls": MANAGED, "autoscaling": {"keda": {"paused": True, "push": False}}}),
    "hpa": {"autoscaling": {"mode": "hpa", "minReplicas": 1, "hpa": {"metricLabels": {"namespace": "telemetry"}}}},
    "journal in a store": STORE,
    "another claim": {"storage": {"existingClaim": "tables"}},
    "another volume": {"storage": {"volume": {"nfs": {"server": "nfs", "path": "/t"}}}, "podSecurityContext": {"supplementalGroups": [5]}},
    "daily job": {"schedule": SCHEDULE},
    "daily job with certificates": {"schedule": merged(SCHEDULE, {"date": "20170227", "suspend": True}), "tls": SECRETS},
    "no budgets": {part: {"podDisruptionBudget": {"enabled": False}} for part in ("coordinator", "worker")},
    "budget by percentage": {"worker": {"podDisruptionBudget": {"maxUnavailable": "25%"}}},
    "no policies": {"networkPolicy": {"enabled": False}},
    "egress": {"networkPolicy": {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}},
    "node port": {"coordinator": {"service": {"type": "NodePort", "port": 7777}}},
    "load balancer": {"coordinator": {"service": {"type": "LoadBalancer"}, "httpPort": 9091}},
    "ingress": {"ingress": {"enabled": True, "host": "t.example.org"}, "networkPolicy": {"webClients": [{"podSelector": {}}]}},
    "gateway": {"gateway": {"enabled": True, "parentRefs": [{"name": "g"}]}, "networkPolicy": {"webClients": [{"podSelector": {}}]}},
    "monitoring": {"monitoring": {name: {"enabled": True} for name in ("serviceMonitor", "prometheusRule", "dashboard")}},
    "spill on a claim": {"worker": {"spillStorageClass": "standard"}},
    "spill on NVMe": {"worker": {"spillVolume": {"hostPath": {"path": "/mnt"}}}},
    "containers": {"worker": {"extraContainers": [{"name": "p", "image": "p", "ports": [{"containerPort": 8080}]}],
                              "strategy": {"type": "Recreate"}, "lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}},
    "own account": {"serviceAccount": {"create": False, "name": "default"}},
    "labels": {"commonLabels": {"team": "t"}, "commonAnnotations": {"a": "b"}, "worker": {"podLabels": {"tier": "batch"}}},
    "another name": {"nameOverride": "counts"},
    "a full name": {"fullnameOverride": "counts"},
    "extra objects": {"extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine", "labels": {
        "app.kubernetes.io/instance": "{{ .Release.Name }}"}}}]},
}
CLAIM = ("PersistentVolumeClaim", "tally-data")
CLAIMS = {("PersistentVolumeClaim", name) for name in ("tally-data", "tally-counts-data", "counts-data")}


class Modes(unittest.TestCase):
    def check(self, program):
        with Namespace(program=program) as namespace:
            namespace.install()
            for name, values in MODES.items():
                with self.subTest(f"{program}: {name}"):
                    namespace.upgrade(values)
                    self.assertEqual(differences(namespace, kept=CLAIMS), [])
                    self.go_back(namespace)
                    self.assertEqual(differences(namespace, kept=CLAIMS), [])

    def go_back(self, namespace):
        """By a rollback, or as the docs say if the claim was left behind: by an upgrade."""
        if any((each["kind"], each["metadata"]["name"]) == CLAIM for each in namespace.manifest()):
            namespace.helm("rollback", "tally")
        else:
            namespace.upgrade()

    @with_each_helm
    def test_a_rollback_does_not_take_back_a_claim(self, namespace):
        namespace.install()
        namespace.upgrade(MODES["another claim"])
        done = namespace.try_helm("rollback", "tally")
        self.assertNotEqual(done.code, 0)
        self.assertRegex(done.err, 'PersistentVolumeClaim with the name "tally-data" (not )?found')
        # An upgrade adopts it.
        namespace.upgrade()
        self.assertEqual(differences(namespace), [])

    def test_with_helm_4(self):
        self.check("helm-4")

    def test_with_helm_3(self):
        self.check("helm-3")


class Elections(unittest.TestCase):
    """Coordinators of two elections would compete for one journal."""

    def settings(self, namespace):
        """The settings with which coordinators exist, also those that are being deleted: their process may still run."""
        return {pod["metadata"]["annotations"]["checksum/settings"] for pod in namespace.all("Pod")
                if pod["metadata"]["labels"]["app.kubernetes.io/component"] == "coordinator"}

    def test_an_upgrade_that_changes_the_election(self):
        for program in HELMS:
            for name, before, after, overlap in (
                ("on", {}, CONSUL, 1),
                ("off", CONSUL, {}, 1),
                ("another prefix", CONSUL, merged(CONSUL, {"consul": {"prefix": "x"}}), 1),
                # The election is the same, so coordinators are replaced one by one.
                ("the same", CONSUL, merged(CONSUL, {"coordinator": {"maxJobs": 3}}), 2),
            ):
                with self.subTest(f"{program}: {name}"), Namespace(program=program) as namespace, Readiness(namespace):
                    namespace.install(before)
                    [old] = namespace.wait_for_pods("coordinator", 1)
                    ready = "containerStatuses"
                    wait_for("the old coordinator", lambda: ready in namespace.pods("coordinator")[0]["status"])

                    def replaced():
                        found = namespace.pods("coordinator")
                        return len(found) == 1 and found[0]["metadata"]["uid"] != old["metadata"]["uid"]

                    with watched(lambda: self.settings(namespace)) as seen:
                        namespace.upgrade(after)
                        wait_for("the new coordinators", replaced)
                    self.assertEqual(max(map(len, seen)), overlap)

    def test_a_rollback_over_a_change_of_the_election(self):
        """Helm renders nothing at a rollback: it restores the strategy of the older revision, whose coordinators overlap with the
        present ones. The docs say what to do instead."""
        with Namespace() as namespace, Readiness(namespace):
            namespace.install(CONSUL)
            namespace.upgrade({})
            self.assertEqual(namespace.get("Deployment", "tally-coordinator")["spec"]["strategy"]["type"], "Recreate")
            namespace.helm("rollback", "tally")
            self.assertEqual(namespace.get("Deployment", "tally-coordinator")["spec"]["strategy"]["type"], "RollingUpdate")
            # As the docs say: an upgrade with the values of the older revision finds the change.
            namespace.upgrade({})
            namespace.helm("upgrade", "tally", CHART, "--reset-values", values=CONSUL)
            self.assertEqual(namespace.get("Deployment", "tally-coordinator")["spec"]["strategy"]["type"], "Recreate")
