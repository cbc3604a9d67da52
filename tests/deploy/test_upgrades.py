"""What an upgrade of the release, or another release beside it, changes: names, selectors, pods, elections.

Not here: the docs' upgrades (`test_docs`)."""

import json
import pathlib
import shutil
import tempfile
import unittest

import yaml

from apiserver import serving
from chart import (
    CHART, CONSUL, HELMS, MINIMAL, NAMESPACE, RELEASE, TOGGLES, helm, merged, objects, of_kind, one, pods, rendered, settings,
    template,
)


def strategy(found):
    return one(found, "Deployment", "-coordinator")["spec"]["strategy"]


def owned(installed):
    """An object with the annotations that Helm adds."""
    owner = {"meta.helm.sh/release-name": RELEASE, "meta.helm.sh/release-namespace": NAMESPACE}
    return merged(installed, {"metadata": {"annotations": owner}})


class Upgrades(unittest.TestCase):
    def test_a_newer_chart_replaces_no_pod(self):
        """Only what pods do replaces them: a drain of all workers is expensive."""
        values = TOGGLES["schedule"]
        with tempfile.TemporaryDirectory() as folder:
            newer = shutil.copytree(CHART, pathlib.Path(folder) / "tally")
            metadata = yaml.safe_load((newer / "Chart.yaml").read_text())
            (newer / "Chart.yaml").write_text(json.dumps({**metadata, "version": "9.9.9"}))
            after = rendered(values, chart=newer)
        before = objects(values)
        self.assertIn("tally-9.9.9", json.dumps(after))
        self.assertNotIn("tally-9.9.9", json.dumps([list(pods(found)) for found in ([each] for each in after)
                                                    if found[0]["kind"] != "Pod"]))
        for kind in ("Deployment", "CronJob"):
            for old, new in zip(of_kind(before, kind), of_kind(after, kind), strict=True):
                self.assertEqual(old["spec"], new["spec"])

    def test_two_coordinators_overlap_only_with_one_election(self):
        """Helm looks up the settings of the installed release."""
        consul = merged(MINIMAL, CONSUL)
        other = merged(consul, {"consul": {"prefix": "other"}})
        for name, installed, values, kind in (
            ("none", None, consul, "RollingUpdate"),
            ("the same", consul, merged(consul, {"coordinator": {"replicas": 2, "maxJobs": 3}}), "RollingUpdate"),
            ("no election before", MINIMAL, consul, "Recreate"),
            ("another election before", other, consul, "Recreate"),
            ("another namespace", consul, merged(consul, {"consul": {"namespace": "team"}}), "Recreate"),
            ("no election after", consul, MINIMAL, "Recreate"),
        ):
            maps = [] if installed is None else [owned(one(objects(installed), "ConfigMap", "-settings"))]
            with serving(maps) as url:
                for program in HELMS:
                    with self.subTest(f"{name} {program}"):
                        found = rendered(values, program, more=("--dry-run=server", "--disable-openapi-validation", "--kube-apiserver", url))
                        self.assertEqual(strategy(found)["type"], kind)

    def test_a_claim_does_not_change(self):
        """Kubernetes would refuse the claim, and perhaps only after other objects have changed."""
        installed = owned(one(objects({}), "PersistentVolumeClaim", "-data"))
        installed["spec"]["storageClassName"] = "standard"
        with serving([installed]) as url:
            for program in HELMS:
                for claim, message in (
                    ({}, ""),
                    ({"storageClass": "standard", "size": "20480Mi"}, ""),
                    ({"size": "1Ti"}, ""),
                    ({"size": "19Gi"}, "storage.claim.size is 19Gi, and the claim day-tally-data has 20Gi"),
                    ({"storageClass": "fast"}, "storage.claim.storageClass is fast, and the claim day-tally-data has standard"),
                    ({"accessMode": "ReadWriteMany"}, "storage.claim.accessMode is ReadWriteMany, and the claim"),
                ):
                    with self.subTest(f"{program} {claim}"):
                        code, out, err = template({"storage": {"claim": claim}}, program, more=(
                            "--dry-run=server", "--disable-openapi-validation", "--kube-apiserver", url))
                        self.assertEqual(code == 0, not message, err)
                        self.assertIn(message, err)

    def test_a_rollout_never_waits_for_a_node(self):
        """With as many nodes as coordinators, a new one has no node until an old one is gone."""
        self.assertEqual(strategy(objects(TOGGLES["required nodes"]))["rollingUpdate"], {"maxUnavailable": 1, "maxSurge": 1})
        # A single one is replaced without a gap.
        self.assertEqual(strategy(objects(merged(MINIMAL, CONSUL)))["rollingUpdate"], {"maxUnavailable": 0, "maxSurge": 1})
        for name in ("containers", "rolling"):
            for component in ("coordinator", "worker"):
                given = TOGGLES[name][component]["strategy"]
                self.assertEqual(one(objects(TOGGLES[name]), "Deployment", f"-{component}")["spec"]["strategy"], given)

    def test_releases_on_one_consul_have_elections_of_their_own(self):
        prefixes = set()
        values = merged(MINIMAL, CONSUL)
        for release, namespace in (("day", "a"), ("night", "a"), ("day", "b")):
            code, out, err = helm("helm-4", "template", release, str(CHART), "--namespace", namespace, values=values)
            self.assertEqual(code, 0, err)
            found = [each for each in yaml.safe_load_all(out) if each]
            prefixes |= {settings(found, f"{component}.toml")["consul-prefix"] for component in ("coordinator", "worker")}
        self.assertEqual(prefixes, {"a/day-tally", "a/night-tally", "b/day-tally"})
        found = objects(TOGGLES["consul on each node"])
        self.assertEqual(settings(found, "worker.toml")["consul-prefix"], "teams/day")

    def test_as_a_part_of_another_chart(self):
        """Helm passes the condition and the global values of an umbrella chart to this one."""
        with tempfile.TemporaryDirectory() as folder:
            umbrella = pathlib.Path(folder) / "umbrella"
            shutil.copytree(CHART, umbrella / "charts" / "tally")
            dependency = {"name": "tally", "version": "0.1.0", "condition": "tally.enabled"}
            (umbrella / "Chart.yaml").write_text(json.dumps(
                {"apiVersion": "v2", "name": "umbrella", "version": "1.0.0", "dependencies": [dependency]}))
            for program in HELMS:
                for enabled in (True, False):
                    values = {"global": {"team": "t"}, "tally": merged(MINIMAL, {"enabled": enabled})}
                    found = rendered(values, program, chart=umbrella)
                    self.assertEqual(len(of_kind(found, "Deployment")), 2 if enabled else 0, (program, enabled))

    def test_long_names_of_releases_do_not_collide(self):
        seen = []
        for last in "xy":
            code, out, err = helm("helm-4", "template", "a" * 52 + last, str(CHART), "--namespace", NAMESPACE, values={})
            self.assertEqual(code, 0, err)
            found = [each for each in yaml.safe_load_all(out) if each]
            seen.append({(each["kind"], each["metadata"]["name"]) for each in found})
        self.assertFalse(seen[0] & seen[1])
        for name, values in (("release", {"fullnameOverride": "b" * 63}), ("chart", {"nameOverride": "c" * 63})):
            with self.subTest(name):
                for each in objects(values):
                    self.assertLessEqual(len(each["metadata"]["name"]), 63)
