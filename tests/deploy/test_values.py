"""Values that are wrong: each fails, and with a sentence that says what to change."""

import json
import pathlib
import unittest

import yaml

from chart import CHART, CONSUL, HELMS, MINIMAL, SCHEDULE, SIZES, TOGGLES, merged, nested, template

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())

# Values, and words of what is said.
TOGETHER = [
    ({}, "there is no storage"),
    (merged(MINIMAL, nested("storage.claim.create", True)), "more than one source"),
    (merged(MINIMAL, nested("coordinator.replicas", 2)), "set consul.url, or coordinator.replicas to 1"),
    (merged(MINIMAL, nested("worker.terminationGracePeriodSeconds", 30)), "set it to at least 310, or leave it null"),
    (merged(MINIMAL, nested("worker.slots", 64)), "give more memory, or fewer worker.slots"),
    (merged(MINIMAL, {"autoscaling": {"mode": "keda", "minReplicas": 5, "maxReplicas": 4}}), "above autoscaling.maxReplicas"),
    (merged(MINIMAL, {"autoscaling": {"mode": "hpa"}}), "set it to 1, or autoscaling.mode to keda"),
    (merged(MINIMAL, nested("schedule.enabled", True)), "schedule.addons is empty"),
    (merged(MINIMAL, {"schedule": merged(SCHEDULE, {"output": ""})}), "schedule.output is empty"),
    (merged(MINIMAL, CONSUL, nested("consul.caSecret.name", "ca")), "write https://"),
    (merged(MINIMAL, nested("consul.tokenSecret.name", "t")), "consul.url is empty"),
    (merged(MINIMAL, nested("tls.mode", "secrets")), "tls.coordinatorSecret is empty"),
    (merged(TOGGLES["tls by secrets"], {"autoscaling": {"mode": "keda"}}), "tls.readerSecret is empty"),
    (merged(MINIMAL, nested("tls.mode", "certManager")), "issuerRef.name is empty"),
    (merged(MINIMAL, nested("tls.tokensSecret.name", "t")), "which go over TLS only"),
    (merged(MINIMAL, nested("worker.httpPort", 7071)), "worker.httpPort is 7071"),
    (merged(MINIMAL, nested("coordinator.httpPort", 7070)), "coordinator.httpPort is 7070"),
    (merged(MINIMAL, nested("coordinator.stateDir", "/var/state")), "not below storage.mountPath"),
]

# One value that no one may have.
ALONE = {
    "image.digest": "latest",
    "image.pullPolicy": "Sometimes",
    "storage.mountPath": "data",
    "storage.claim.size": "much",
    "storage.claim.accessMode": "Everybody",
    "consul.url": "consul:8500",
    "consul.register": "dns",
    "tls.mode": "mutual",
    "tls.certManager.duration": "90d",
    "traces.endpoint": "collector:4317",
    "log.format": "xml",
    "coordinator.replicas": 0,
    "coordinator.maxJobs": 5000,
    "coordinator.stateDir": "s3://bucket/state",
    "coordinator.service.type": "ExternalName",
    "coordinator.service.port": 80,
    "worker.replicas": -1,
    "worker.slots": "2",
    "worker.cpu": "two",
    "worker.memoryMiB": "4Gi",
    "worker.spillGiB": 0,
    "worker.drainTimeoutSeconds": "5m",
    "worker.podDisruptionBudget.maxUnavailable": 0,
    "worker.tolerations": [{"key": "a", "efect": "NoSchedule"}],
    "worker.extraEnv": [{"nam": "A"}],
    "worker.extraVolumes": [{"name": "a", "emptydir": {}}],
    "worker.affinity": {"podAntiAfinity": {}},
    "autoscaling.mode": "vpa",
    "autoscaling.maxReplicas": 0,
    "autoscaling.keda.push": "yes",
    "autoscaling.hpa.metricName": "tally-slots",
    "schedule.cron": "daily",
    "schedule.date": "2017-02-27",
    "schedule.addons": "s3://bucket/addons",
    "schedule.timeZone": "",
    "networkPolicy.clients": [{"podSelektor": {}}],
    "monitoring.serviceMonitor.interval": "often",
    "test.clients": 0,
}


def paths(values, at=()):
    """Every level of the values that has a fixed set of keys."""
    yield at
    for key, value in values.items():
        if isinstance(value, dict) and value and schema_of((*at, key)).get("additionalProperties") is False:
            yield from paths(value, (*at, key))


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

    def test_values_that_nobody_may_have(self):
        for path, value in ALONE.items():
            with self.subTest(path):
                # The key is named: Helm 4 writes /a/b, Helm 3 a.b.
                self.fails(merged(MINIMAL, nested(path, value)), path.rsplit(".", 1)[1])

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
            if schema.get("additionalProperties") is not False:
                return
            known = set(schema["properties"]) - {"global"}
            if path and path[-1] == "volume":
                return
            self.assertEqual(set(values), known, ".".join(path))
            for key, value in values.items():
                if isinstance(value, dict) and value:
                    check(value, (*path, key))

        check(VALUES, ())

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
                if isinstance(value, dict):
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
