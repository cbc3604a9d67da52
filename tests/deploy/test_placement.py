"""Where pods run, and as whom: nodes, volumes, users, quotas.

Not here: the security that all pods have (`test_objects`)."""

import unittest

from chart import (
    CONSUL, MINIMAL, SCHEDULE, TOGGLES, merged, objects, of_kind, one, own_container, pods, rendered,
)

OPENSHIFT = ("--api-versions", "security.openshift.io/v1")


def spec(found, component):
    return one(found, "Deployment", f"-{component}")["spec"]["template"]["spec"]


class Placement(unittest.TestCase):
    def test_without_any_value_it_installs(self):
        """A claim of the default storage class, one coordinator without an election, and workers that fit on its node."""
        found = objects({})
        [claim] = of_kind(found, "PersistentVolumeClaim")
        self.assertNotIn("storageClassName", claim["spec"])
        self.assertEqual(claim["spec"]["accessModes"], ["ReadWriteOnce"])
        self.assertEqual(one(found, "Deployment", "-coordinator")["spec"]["replicas"], 1)
        needed = {"cpu": 0.0, "memory": 0}
        for each in of_kind(found, "Deployment"):
            requests = own_container(each["spec"]["template"]["spec"])["resources"]["requests"]
            cpu = requests["cpu"]
            cores = int(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu)
            memory = requests["memory"]
            mib = int(memory[:-2]) * (1024 if memory.endswith("Gi") else 1)
            # During an update, half of the workers run twice.
            count = each["spec"]["replicas"] * (1.5 if each["metadata"]["name"].endswith("worker") else 1)
            needed["cpu"] += cores * count
            needed["memory"] += mib * count
        # A node of 4 cores and 8 GiB, where system pods run too.
        self.assertLess(needed["cpu"], 3.6)
        self.assertLess(needed["memory"], 7.5 * 1024)
        for _, _, own in pods(found):
            for volume in own["volumes"]:
                self.assertNotIn("hostPath", volume)

    def test_pods_share_the_node_of_a_volume_for_one_node(self):
        shared = TOGGLES["claim"]
        for values, together in (({}, True), (TOGGLES["claim of one node"], True), (shared, False), (MINIMAL, False)):
            found = objects(merged(values, {"schedule": SCHEDULE}))
            labels = {name: meta["labels"] for name, meta, _ in pods(found)}
            for name, _, own in pods(found):
                near = own.get("affinity", {}).get("podAffinity", {})
                terms = near.get("requiredDuringSchedulingIgnoredDuringExecution", [])
                if name.startswith("CronJob") or not together:
                    # The pod of the daily job does not mount the volume.
                    self.assertEqual(terms, [], name)
                    continue
                [term] = terms
                self.assertEqual(term["topologyKey"], "kubernetes.io/hostname")
                wanted = term["labelSelector"]["matchLabels"]
                [among] = term["labelSelector"]["matchExpressions"]
                fitting = {each for each, own in labels.items()
                           if all(own.get(key) == value for key, value in wanted.items())
                           and own[among["key"]] in among["values"]}
                # Its own labels fit, too: otherwise the first pod would never be scheduled.
                self.assertEqual(fitting, {each for each in labels if not each.startswith("CronJob")})
        near = spec(objects(TOGGLES["claim of one node"]), "coordinator")["affinity"]
        self.assertEqual(set(near["podAffinity"]), {"preferredDuringSchedulingIgnoredDuringExecution",
                                                    "requiredDuringSchedulingIgnoredDuringExecution"})

    def test_coordinators_avoid_each_other_and_no_others(self):
        affinity = spec(objects(TOGGLES["required nodes"]), "coordinator")["affinity"]["podAntiAffinity"]
        [term] = affinity["requiredDuringSchedulingIgnoredDuringExecution"]
        self.assertEqual(term["labelSelector"]["matchLabels"], {
            "app.kubernetes.io/name": "tally", "app.kubernetes.io/instance": "day", "app.kubernetes.io/component": "coordinator"})
        affinity = spec(objects(TOGGLES["claim of one node"]), "coordinator")["affinity"]["podAntiAffinity"]
        [soft] = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
        self.assertEqual(soft["podAffinityTerm"], term)

    def test_openshift_assigns_users_and_groups(self):
        assigned = ("runAsUser", "runAsGroup", "fsGroup")
        found = rendered(merged(MINIMAL, {"schedule": SCHEDULE}), more=OPENSHIFT)
        also = objects(TOGGLES["users of the platform"])
        for name, _, own in [*pods(found), *pods(also)]:
            for key in assigned:
                self.assertNotIn(key, own["securityContext"], name)
            self.assertIs(own["securityContext"]["runAsNonRoot"], True)
        for _, _, own in pods(objects(MINIMAL)):
            self.assertEqual([own["securityContext"][key] for key in assigned], [65532] * 3)
        # A user that the values name stays.
        for _, _, own in pods(rendered(TOGGLES["groups"], more=OPENSHIFT)):
            self.assertEqual(own["securityContext"]["runAsUser"], 1000)
            self.assertEqual(own["securityContext"]["supplementalGroups"], [5000])
            self.assertEqual(own_container(own)["securityContext"]["capabilities"], {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]})

    def test_the_cluster_autoscaler_may_remove_nodes_of_workers(self):
        key = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
        for name in ("minimal", "spill on NVMe", "spill on a claim"):
            template = one(objects(TOGGLES[name]), "Deployment", "-worker")["spec"]["template"]
            local = [volume["name"] for volume in template["spec"]["volumes"] if "emptyDir" in volume]
            self.assertEqual(template["metadata"]["annotations"].get(key), ",".join(local) or None, name)
        given = merged(MINIMAL, {"worker": {"podAnnotations": {key: "spill,more"}}})
        template = one(objects(given), "Deployment", "-worker")["spec"]["template"]
        self.assertEqual(template["metadata"]["annotations"][key], "spill,more")

    def test_spilled_data_on_other_disks(self):
        found = {}
        for name in ("spill on a claim", "spill on NVMe", "spill on any claim"):
            [volume] = [each for each in spec(objects(TOGGLES[name]), "worker")["volumes"] if each["name"] == "spill"]
            found[name] = volume
        claim = found["spill on a claim"]["ephemeral"]["volumeClaimTemplate"]["spec"]
        self.assertEqual((claim["storageClassName"], claim["resources"]["requests"]["storage"]), ("fast", "5Gi"))
        self.assertEqual(found["spill on NVMe"]["hostPath"]["path"], "/mnt/nvme")
        other = found["spill on any claim"]["ephemeral"]["volumeClaimTemplate"]["spec"]
        self.assertEqual(other["accessModes"], ["ReadWriteOncePod"])

    def test_a_quota_on_limits_of_cpu_admits_every_pod(self):
        limits = {"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}
        values = merged(MINIMAL, {"coordinator": limits, "worker": {"cpuLimit": "1"}, "test": limits,
                                  "schedule": merged(SCHEDULE, limits)})
        seen = [(name, own_container(own)["resources"]["limits"]) for name, _, own in pods(objects(values))]
        self.assertEqual(len(seen), 4)
        for name, limit in seen:
            self.assertEqual(limit["cpu"], "1", name)

    def test_containers_and_probes_beside_those_of_the_chart(self):
        found = objects(TOGGLES["containers"])
        for component in ("coordinator", "worker"):
            own = spec(found, component)
            self.assertEqual([each["name"] for each in own["initContainers"]], ["wait"])
            self.assertEqual([each["name"] for each in own["containers"]], [component, "proxy"])
            self.assertEqual((own["runtimeClassName"], own["schedulerName"]), ("gvisor", "yunikorn"))
            container = own_container(own)
            self.assertEqual(container["lifecycle"], {"preStop": {"sleep": {"seconds": 5}}})
            # Other times, the same questions.
            self.assertEqual(container["startupProbe"], {
                "httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 2, "failureThreshold": 600})
            self.assertEqual(container["livenessProbe"]["initialDelaySeconds"], 5)
            self.assertEqual(container["readinessProbe"]["periodSeconds"], 1)
            self.assertEqual(container["readinessProbe"]["httpGet"]["path"], "/readyz")

    def test_a_plain_image_is_of_no_public_registry(self):
        """`tally` without a host would be an image of strangers on a public registry."""
        images = {own_container(own)["image"].rsplit(":", 1)[0] for _, _, own in pods(objects({}))}
        self.assertEqual(images, {"localhost/tally"})

    def test_labels_of_jobs_and_tests(self):
        found = objects(TOGGLES["labelled jobs"])
        template = one(found, "CronJob", "-daily")["spec"]["jobTemplate"]
        self.assertEqual(template["metadata"]["labels"]["queue"], "daily")
        self.assertEqual(template["metadata"]["annotations"], {"j": "k"})
        meta = template["spec"]["template"]["metadata"]
        self.assertEqual((meta["labels"]["l"], meta["annotations"]), ("m", {"n": "o"}))
        [pod] = of_kind(found, "Pod")
        self.assertEqual((pod["metadata"]["labels"]["p"], pod["metadata"]["annotations"]["r"]), ("q", "s"))
        self.assertEqual(pod["metadata"]["annotations"]["helm.sh/hook"], "test")

    def test_workers_stay_while_keda_cannot_reach_the_coordinators(self):
        found = one(objects(TOGGLES["keda"]), "ScaledObject", "-worker")
        self.assertEqual(found["spec"]["fallback"], {
            "failureThreshold": 3, "replicas": 1, "behavior": "currentReplicasIfHigher"})
        paused = one(objects(TOGGLES["keda that is paused"]), "ScaledObject", "-worker")
        self.assertEqual(paused["spec"]["fallback"]["replicas"], 3)
        self.assertEqual(paused["metadata"]["annotations"]["autoscaling.keda.sh/paused"], "true")
        self.assertEqual([each["type"] for each in paused["spec"]["triggers"]], ["external-push", "cron"])
        without = one(objects(TOGGLES["keda without fallback"]), "ScaledObject", "-worker")
        self.assertNotIn("fallback", without["spec"])
        self.assertNotIn("annotations", without["metadata"])

    def test_an_election_in_namespaces_of_consul(self):
        from chart import settings

        found = objects(TOGGLES["consul enterprise"])
        for component in ("coordinator", "worker"):
            configured = settings(found, f"{component}.toml")
            self.assertEqual((configured["consul-namespace"], configured["consul-partition"]), ("data", "eu"))
            configured = settings(objects(merged(MINIMAL, CONSUL)), f"{component}.toml")
            self.assertNotIn("consul-namespace", configured)
