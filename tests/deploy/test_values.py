"""Invalid values: each fails with an error that says what to change."""

import json
import pathlib
import unittest

import yaml

from chart import CHART, CONSUL, HELMS, MINIMAL, OTHER_DATASET, SCHEDULE, SIZES, TOGGLES, helm, merged, nested, template

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())

# Values, and parts of the error.
TOGETHER = [
    ({"storage": {"claim": {"create": False}}}, "there is no storage"),
    (merged(MINIMAL, nested("storage.claim.create", True)), "more than one source"),
    (merged(MINIMAL, nested("coordinator.replicas", 2)), "set consul.url, or coordinator.replicas to 1"),
    (merged(MINIMAL, nested("worker.terminationGracePeriodSeconds", 30)), "set it to at least 310, or leave it null"),
    ({"coordinator": {"podAntiAffinity": "required"}}, "needs all pods on one node"),
    (merged(MINIMAL, {"coordinator": {"podAntiAffinity": "required", "affinity": {"podAntiAffinity": {}}}}),
     "coordinator.affinity.podAntiAffinity are set"),
    (merged(MINIMAL, nested("coordinator.strategy.type", "RollingUpdate")), "coordinator.strategy is a rolling update"),
    (merged(MINIMAL, nested("coordinator.strategy.rollingUpdate.maxSurge", 1)), "coordinator.strategy is a rolling update"),
    (merged(MINIMAL, nested("worker.strategy", {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}})),
     "worker.strategy has the type Recreate, and rollingUpdate"),
    (merged(MINIMAL, {"worker": {"spillStorageClass": "a", "spillVolume": {"emptyDir": {}}}}), "remove one of them"),
    (merged(MINIMAL, nested("worker.spillVolume", {"nfs": {"server": "s", "path": "/p"}})), "worker.spillVolume.nfs is shared"),
    (merged(MINIMAL, nested("worker.extraContainers", [{"name": "worker", "image": "i"}])), "which is the chart's own name"),
    (merged(MINIMAL, nested("autoscaling.keda.paused", True)), "autoscaling.mode is none: set it to keda"),
    (merged(MINIMAL, nested("consul.url", "http://$(NODE):8500")), "consul.url has $(NODE)"),
    (merged(MINIMAL, nested("consul.prefix", "mine")), "consul.url is empty"),
    (merged(MINIMAL, CONSUL, {"consul": {"register": "agent"}, "networkPolicy": {"consulPeers": []}}), "name the agents"),
    (merged(MINIMAL, {"ingress": {"enabled": True, "host": "t.example.org"}}), "networkPolicy.webClients is empty"),
    (merged(MINIMAL, {"ingress": {"enabled": True}, "networkPolicy": {"enabled": False}}), "ingress.host is empty"),
    (merged(MINIMAL, {"gateway": {"enabled": True}, "networkPolicy": {"enabled": False}}), "gateway.parentRefs is empty"),
    (merged(MINIMAL, nested("test.podLabels", {"app.kubernetes.io/component": "x"})), "test.podLabels has app.kub"),
    (merged(MINIMAL, nested("schedule.jobLabels", {"app.kubernetes.io/name": "x"})), "schedule.jobLabels has app.kub"),
    (merged(MINIMAL, nested("worker.slots", 64)), "give more memory, or fewer worker.slots"),
    (merged(MINIMAL, {"autoscaling": {"mode": "keda", "minReplicas": 5, "maxReplicas": 4}}), "above autoscaling.maxReplicas"),
    (merged(MINIMAL, {"autoscaling": {"mode": "hpa"}}), "set it to 1, or autoscaling.mode to keda"),
    (merged(MINIMAL, nested("schedule.enabled", True)), "schedule.addons is empty"),
    (merged(MINIMAL, {"schedule": merged(SCHEDULE, {"output": ""})}), "schedule.output is empty"),
    (merged(MINIMAL, {"schedule": merged(SCHEDULE, {"dataset": "other"})}), "schedule.dataset is other, and schedule.tables is empty"),
    (merged(MINIMAL, {"schedule": merged(SCHEDULE, {"tables": {"a": "/data/a"}})}), "give each table once"),
    (merged(MINIMAL, {"schedule": merged(OTHER_DATASET, {"tables": {"events": "/data/o/e"}})}),
     "schedule.output and schedule.tables.events lie within"),
    (merged(MINIMAL, {"schedule": merged(OTHER_DATASET, {"tables": {"events": "/other/e"}})}), "schedule.tables.events is /other/e"),
    (merged(MINIMAL, {"schedule": merged(OTHER_DATASET, nested("datasetOptionsConfigMap.name", ""))}), "name the ConfigMap"),
    (merged(MINIMAL, {"schedule": merged(OTHER_DATASET, nested("datasetOptionsConfigMap.keys", {"excluded-accounts": "k"}))}),
     "give the option once"),
    (merged(MINIMAL, nested("schedule.datasetOptionsConfigMap.name", "x")), "write the key of each option"),
    (merged(MINIMAL, CONSUL, nested("consul.caSecret.name", "ca")), "write https://"),
    (merged(MINIMAL, nested("consul.tokenSecret.name", "t")), "consul.url is empty"),
    (merged(MINIMAL, nested("notifications.webhook.tokenSecret.name", "t")), "notifications.webhook.url is empty"),
    (merged(MINIMAL, nested("notifications.openlineage.tokenSecret.name", "t")), "notifications.openlineage.url is empty"),
    (merged(MINIMAL, {"objectStore": {"endpoint": "http://s3:8333", "caSecret": {"name": "ca"}}}),
     "write https://, or remove objectStore.caSecret"),
    ({"coordinator": {"stateDir": "file:///data/state"}, "storage": {"claim": {"create": False}}}, "there is no storage"),
    ({"coordinator": {"stateDir": "s3://b/state"}, "schedule": merged(SCHEDULE, {"addons": "file:///data/a"})},
     "there is no storage that holds it"),
    (merged(MINIMAL, {"schedule": merged(SCHEDULE, {"addons": "s3://b/a", "mainSummary": "s3://b/m", "output": "/data/"})}),
     "schedule.output is storage.mountPath"),
    (merged(MINIMAL, {"coordinator": {"stateDir": "/data/o/state"}, "schedule": SCHEDULE}),
     "coordinator.stateDir is /data/o/state, which lies within schedule.output"),
    (merged(MINIMAL, {"test": {"url": "s3://b/a/t"}, "schedule": merged(SCHEDULE, {"addons": "s3://b/a"})}),
     "test.url is s3://b/a/t, which lies within schedule.addons"),
    (merged(TOGGLES["tls by secrets"], nested("coordinator.extraEnv", [{"name": "TALLY_TLS_CERT", "value": "x"}])),
     "coordinator.extraEnv has TALLY_TLS_CERT"),
    ({"coordinator": {"stateDir": "s3://b/state"}, "schedule": SCHEDULE}, "schedule.addons is a path"),
    (merged(MINIMAL, nested("tls.mode", "secrets")), "tls.coordinatorSecret is empty"),
    (merged(TOGGLES["tls by secrets"], {"autoscaling": {"mode": "keda"}}), "tls.readerSecret is empty"),
    (merged(MINIMAL, nested("tls.mode", "certManager")), "issuerRef.name is empty"),
    (merged(MINIMAL, nested("tls.tokensSecret.name", "t")), "which go over TLS only"),
    (merged(MINIMAL, nested("worker.httpPort", 7071)), "worker.httpPort is 7071"),
    (merged(MINIMAL, nested("coordinator.httpPort", 7070)), "coordinator.httpPort is 7070"),
    (merged(MINIMAL, nested("coordinator.stateDir", "/var/state")), "not below storage.mountPath"),
    (merged(MINIMAL, nested("coordinator.stateDir", "/data/../state")), "not below storage.mountPath"),
    (merged(MINIMAL, nested("coordinator.stateDir", "file:///state")), "not below storage.mountPath"),
    (merged(MINIMAL, nested("storage.mountPath", "/etc/tally")), "take another folder, such as /data"),
    (merged(MINIMAL, nested("storage.mountPath", "/spill")), "take another folder, such as /data"),
    (merged(MINIMAL, nested("storage.mountPath", "/lib")), "take another folder, such as /data"),
    ({"storage": {"volume": {"emptyDir": {}}}}, "storage.volume.emptyDir is each pod's own"),
    (merged(MINIMAL, {"schedule": merged(SCHEDULE, {"addons": "/other/a"})}), "schedule.addons is /other/a, which no worker sees"),
    (merged(MINIMAL, {"schedule": merged(SCHEDULE, {"output": "/data/a/o"})}), "schedule.output and schedule.addons lie within"),
    (merged(MINIMAL, {"schedule": merged(SCHEDULE, {"mainSummary": "/data/o/m"})}), "schedule.mainSummary lie within"),
    (merged(MINIMAL, nested("schedule.date", "20170229")), "schedule.date is 20170229, and there is no such day"),
    (merged(MINIMAL, nested("schedule.cron", "30 3 * * 7")), "weekday (0 to 6)"),
    (merged(MINIMAL, nested("schedule.cron", "60 3 * * *")), "schedule.cron is 60 3 * * *"),
    (merged(MINIMAL, nested("schedule.cron", "@often")), "or @daily"),
    (merged(MINIMAL, nested("schedule.cron", "30 3 * XXX *")), "schedule.cron is 30 3 * XXX *"),
    (merged(MINIMAL, nested("schedule.cron", "5-1 3 * * *")), "where 5-1 ends before it begins"),
    (merged(MINIMAL, {"worker": {"cpu": "500m", "cpuLimit": "0.4"}}), "worker.cpu is 500m, above worker.cpuLimit"),
    (merged(MINIMAL, nested("coordinator.resources", {"requests": {"memory": "1025Mi"}, "limits": {"memory": "1Gi"}})),
     "coordinator.resources.requests.memory is 1025Mi, above the limit, 1Gi"),
    (merged(MINIMAL, nested("schedule.resources", {"requests": {"cpu": 2}, "limits": {"cpu": "1500m"}})),
     "schedule.resources.requests.cpu is 2, above the limit"),
    (merged(MINIMAL, nested("tls.workerSecret", "w")), "tls.mode is none, and tls.workerSecret is set"),
    (merged(MINIMAL, nested("tls.certManager.issuerRef.name", "own")), "set tls.mode to certManager, or remove it"),
    (merged(TOGGLES["tls by cert-manager"], nested("tls.operatorSecret", "o")), "tls.operatorSecret is set"),
    (merged(TOGGLES["tls by secrets"], nested("tls.certManager.issuerRef.name", "own")), "set tls.mode to certManager"),
    (merged(TOGGLES["tls by cert-manager"], nested("tls.certManager.duration", "720h")), "the second below the first"),
    (merged(MINIMAL, nested("commonLabels", {"app.kubernetes.io/name": "x"})), "commonLabels has app.kubernetes.io/name"),
    (merged(MINIMAL, nested("worker.podLabels", {"app.kubernetes.io/component": "x"})), "worker.podLabels has app.kub"),
    (merged(MINIMAL, nested("monitoring.dashboard.labels", {"helm.sh/chart": "x"})), "monitoring.dashboard.labels has helm.sh"),
    (merged(MINIMAL, nested("commonAnnotations", {"checksum/settings": "x"})), "commonAnnotations has checksum/settings"),
    (merged(MINIMAL, nested("worker.extraEnv", [{"name": "POD_IP"}])), "worker.extraEnv has POD_IP"),
    (merged(MINIMAL, nested("coordinator.extraEnv", [{"name": "A"}, {"name": "A"}])), "coordinator.extraEnv has A"),
    (merged(TOGGLES["object store"], nested("worker.extraEnv", [{"name": "AWS_REGION", "value": "x"}])),
     "worker.extraEnv has AWS_REGION"),
    (merged(MINIMAL, nested("worker.extraVolumes", [{"name": "spill", "emptyDir": {}}])), "worker.extraVolumes has spill"),
    (merged(MINIMAL, nested("worker.extraVolumeMounts", [{"name": "more", "mountPath": "/more"}])), "add it to worker.extraVolumes"),
    (merged(MINIMAL, nested("coordinator.extraVolumeMounts", [{"name": "data", "mountPath": "/data/"}])), "take another mountPath"),
    (merged(MINIMAL, nested("worker.extraVolumeMounts", [{"name": "data", "mountPath": "/etc/tally/tls"}])), "take another mountPath"),
]

# Lists and maps that Kubernetes would reject.
IN_POD = [
    ("worker.tolerations", [{"key": "a", "efect": "NoSchedule"}]),
    ("worker.tolerations", [{}]),
    ("worker.tolerations", [{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 5}]),
    ("worker.tolerations", [{"key": "a", "operator": "Exists", "value": "b"}]),
    ("coordinator.topologySpreadConstraints", [{"maxSkew": 0, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}]),
    ("coordinator.affinity", {"podAntiAfinity": {}}),
    ("coordinator.affinity", {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}),
    ("coordinator.affinity", {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "arch", "operator": "In"}]}]}}}),
    ("coordinator.extraEnv", [{"nam": "A"}]),
    ("coordinator.extraEnv", [{"name": "A", "valueFrom": {}}]),
    ("coordinator.extraEnv", [{"name": "A", "value": 1}]),
    ("worker.extraVolumes", [{"name": "a", "emptydir": {}}]),
    ("worker.extraVolumes", [{"name": "a"}]),
    ("worker.podLabels", {"a": 1}),
    ("worker.nodeSelector", {"pool": "a b"}),
    ("networkPolicy.clients", [{}]),
    ("networkPolicy.clients", [{"podSelektor": {}}]),
    ("networkPolicy.clients", [{"ipBlock": {"cidr": "300.0.0.0/8"}}]),
    ("networkPolicy.clients", [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": []}]}}]),
    ("imagePullSecrets", [{}]),
    ("podSecurityContext", {"runAsUsr": 1}),
    ("podSecurityContext", {"fsGroupChangePolicy": "Never"}),
    ("podSecurityContext", {"supplementalGroups": ["staff"]}),
    ("containerSecurityContext", {"capabilities": {"drop": "ALL"}}),
    ("worker.livenessProbe", {"httpGet": {"path": "/other"}}),
    ("worker.strategy", {"type": "Blue"}),
    ("worker.lifecycle", {"preStop": {}}),
    ("coordinator.extraContainers", [{"name": "a"}]),
    ("coordinator.extraInitContainers", [{"name": "a", "image": "b", "comand": ["c"]}]),
    ("worker.spillVolume", {"ephemeral": {}}),
    ("networkPolicy.egress", [{"from": []}]),
    ("networkPolicy.consulPeers", [{"podSelektor": {}}]),
    ("monitoring.prometheusRule.additionalRules", [{"alert": "A"}]),
    ("monitoring.prometheusRule.additionalRules", [{"alert": "A", "record": "a:b", "expr": "1"}]),
    ("monitoring.serviceMonitor.relabelings", [{"source_labels": ["a"]}]),
    ("autoscaling.keda.extraTriggers", [{"type": "cron"}]),
    ("gateway.parentRefs", [{"namespace": "infra"}]),
    ("extraObjects", [1]),
]

# One invalid value each.
ALONE = {
    "nameOverride": "1",
    "fullnameOverride": "a.b",
    "image.repository": "tally:1",
    "image.tag": "a b",
    "image.digest": "latest",
    "image.pullPolicy": "Sometimes",
    "storage.mountPath": "data",
    "storage.claim.size": "much",
    "storage.claim.accessMode": "Everybody",
    "objectStore.endpoint": "s3.example.org",
    "objectStore.caSecret.key": "ca crt",
    "consul.tokenSecret.key": "..",
    "consul.caSecret.key": "a/b",
    "tls.rolesConfigMap.key": "a\nb",
    "tls.tokensSecret.key": "x" * 300,
    "tls.certManager.issuerRef.group": "cert manager",
    "consul.url": "https://consul:8501?dc=a",
    "consul.prefix": "/",
    "consul.register": "dns",
    "tls.mode": "mutual",
    "tls.certManager.duration": "90d",
    "traces.endpoint": "collector:4317",
    "notifications.webhook.url": "hooks.example.org",
    "notifications.openlineage.url": "https://user:secret@marquez:5000",
    "notifications.openlineage.namespace": "",
    "log.level": "loud",
    "log.format": "xml",
    "coordinator.replicas": 0,
    "coordinator.maxJobs": 5000,
    "coordinator.stateDir": "s3://key:secret@bucket/state",
    "coordinator.resources": {"requests": {"memory": "1 GB"}},
    "coordinator.service.type": "ExternalName",
    "coordinator.service.port": 80,
    "worker.replicas": -1,
    "worker.slots": "2",
    "worker.cpu": "two",
    "worker.memoryMiB": "4Gi",
    "worker.spillGiB": 0,
    "worker.runtimeClassName": "g visor",
    "coordinator.podAntiAffinity": "always",
    "consul.partition": "a/b",
    "storage.claim.create": "yes",
    "ingress.host": "https://tally",
    "ingress.path": "tally",
    "autoscaling.keda.fallback.behavior": "none",
    "monitoring.serviceMonitor.scrapeTimeout": "fast",
    "monitoring.prometheusRule.freshnessHours": -1,
    "monitoring.prometheusRule.runbookUrl": "a b",
    "enabled": "yes",
    "worker.drainTimeoutSeconds": "5m",
    "worker.podDisruptionBudget.maxUnavailable": 0,
    "autoscaling.mode": "vpa",
    "autoscaling.maxReplicas": 0,
    "autoscaling.keda.push": "yes",
    "autoscaling.hpa.metricName": "tally-slots",
    "schedule.cron": "daily",
    "schedule.date": "2017-02-27",
    "schedule.dataset": "Other Dataset",
    "schedule.tables": {"events": "bucket/events"},
    "schedule.datasetOptions": {"list": 7},
    "schedule.datasetOptionsConfigMap.name": "Not A Name",
    "schedule.datasetOptionsConfigMap.keys": {"list": "a/b"},
    "schedule.addons": "bucket/addons",
    "schedule.timeout": "99999999h",
    "schedule.expectations": ["rows is large"],
    "schedule.readyMarker": "SUCCESS",
    "schedule.mainSummary": "s3://bucket//main",
    "schedule.timeZone": "Local",
    "monitoring.serviceMonitor.interval": "often",
    "test.clients": 0,
    "test.url": "s3://bucket",
}


def paths(values, at=()):
    """Every level of the values that has a fixed set of keys."""
    yield at
    for key, value in values.items():
        if isinstance(value, dict) and value and schema_of((*at, key)).get("additionalProperties") is False:
            yield from paths(value, (*at, key))


def is_of_kubernetes(path):
    """Whether a value is a type of Kubernetes: all of its keys are optional."""
    above = schema_of(path[:-1])["properties"] if path else {}
    return bool(path) and "$ref" in above.get(path[-1], {})


def schema_of(path):
    found = SCHEMA
    for key in path:
        found = found["properties"][key]
        if reference := found.get("$ref"):
            found = SCHEMA["definitions"][reference.rsplit("/", 1)[1]]
    return found


class Wrong(unittest.TestCase):
    def fails(self, values, *words):
        for program in HELMS:
            code, out, err = template(values, program)
            self.assertNotEqual(code, 0, out)
            for word in words:
                self.assertIn(word, err)

    def test_values_that_do_not_fit_together(self):
        for values, words in TOGETHER:
            with self.subTest(words):
                self.fails(values, words)

    def test_values_that_are_always_invalid(self):
        for path, value in [*ALONE.items(), *IN_POD]:
            with self.subTest(f"{path} {value}"):
                # The error names the key: Helm 4 writes /a/b, Helm 3 a.b.
                self.fails(merged(MINIMAL, nested(path, value)), path.rsplit(".", 1)[-1])

    def test_a_misspelt_key_at_any_depth(self):
        found = list(paths(VALUES))
        self.assertGreater(len(found), 25)
        for path in found:
            with self.subTest(".".join(path)):
                values = merged(MINIMAL, nested(".".join((*path, "mispelt")), True))
                code, _, err = template(values)
                self.assertNotEqual(code, 0)
                self.assertIn("mispelt", err)

    def test_every_value_has_a_place_in_the_schema_and_a_default(self):
        def check(values, path):
            schema = schema_of(path)
            if schema.get("additionalProperties") is not False or is_of_kubernetes(path):
                return
            # Umbrella charts set these.
            known = set(schema["properties"]) - ({"global", "enabled"} if path == () else set())
            self.assertEqual(set(values), known, ".".join(path))
            for key, value in values.items():
                if isinstance(value, dict) and value:
                    check(value, (*path, key))

        check(VALUES, ())

    def test_a_missing_value(self):
        """Because of null, or with a chart that is newer than the stored values of a release."""
        for path in paths(VALUES):
            schema = schema_of(path)
            if any(is_of_kubernetes(path[:length]) for length in range(1, len(path) + 1)):
                continue
            # Null: derived from other values.
            derived = {("worker",): {"terminationGracePeriodSeconds"}, ("storage", "claim"): {"create"}}
            free = {"global", "enabled"} if path == () else derived.get(path, set())
            self.assertEqual(set(schema["required"]), set(schema["properties"]) - free, ".".join(path))
        for path in ("tls", "objectStore", "worker.slots", "coordinator.service.port"):
            self.fails(merged(MINIMAL, nested(path, None)), path.rsplit(".", 1)[-1])

    def test_names_of_releases_that_no_service_may_have(self):
        for program in HELMS:
            for release in ("1day", "my.day"):
                code, _, err = helm(program, "template", release, str(CHART), values=MINIMAL)
                self.assertNotEqual(code, 0)
                self.assertIn(f"all objects would be named {release}-tally", err)

    def test_all_toggles_and_sizes_are_right(self):
        for name, values in {**TOGGLES, **SIZES}.items():
            with self.subTest(name):
                code, _, err = template(values)
                self.assertEqual(code, 0, err)

    def test_every_switch_is_a_toggle_of_some_case(self):
        """No boolean and no choice that only ever has one value in the tests."""
        seen = {}

        def note(values, path=()):
            for key, value in values.items():
                if isinstance(value, dict) and not is_of_kubernetes((*path, key)):
                    note(value, (*path, key))
                elif isinstance(value, bool) or key in ("mode", "format", "type", "register"):
                    seen.setdefault((*path, key), set()).add(value)

        note(VALUES)
        for values in [*TOGGLES.values(), *SIZES.values()]:
            note({key: value for key, value in values.items() if key in VALUES})
        self.assertEqual([path for path, values in seen.items() if len(values) < 2 and len(path) <= 3], [])


class Documented(unittest.TestCase):
    def test_the_readme_of_values_is_up_to_date(self):
        import subprocess
        import sys

        script = pathlib.Path(CHART).parent / "values-readme"
        done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
