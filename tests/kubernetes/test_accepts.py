"""The API server accepts every object of the chart, for every value, with strict validation of fields, and KEDA's, cert-manager's
and the Gateway API's own schemas.

Not here: changes from one to another (test_modes)."""

import copy
import unittest

import cluster
from cluster import SIZES, TOGGLES, Refused, merged, name_of
from state import fresh

from chart import objects  # noqa: E402  (cluster.py adds its folder)


def as_job(pod):
    """A pod as the template of a job: its classes and its account need not exist."""
    metadata = {"name": name_of(pod), "namespace": pod["metadata"]["namespace"]}
    template = {"metadata": {"labels": pod["metadata"]["labels"]}, "spec": copy.deepcopy(pod["spec"])}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": template}}


class Accepts(unittest.TestCase):
    def test_every_object_with_every_value(self):
        plane = cluster.plane()
        kinds = set()
        for name, values in (TOGGLES | SIZES).items():
            if name == "names like numbers":
                # Its time zone is a word that YAML could take for another type, and no time zone.
                values = merged(values, {"schedule": {"timeZone": "Etc/UTC"}})
            for each in objects(values):
                with self.subTest(f"{name}: {each['kind']}/{name_of(each)}"):
                    kinds.add(each["kind"])
                    fresh(plane, as_job(each) if each["kind"] == "Pod" else each)
        self.assertEqual(kinds, set(cluster.KINDS) - {"Event", "EndpointSlice", "Job", "ReplicaSet", "ResourceQuota", "Secret"})

    def test_wrong_objects_are_refused(self):
        """The checks above can fail: an unknown field, a wrong type, and a value that only KEDA's own schema refuses."""
        plane = cluster.plane()
        found = {each["kind"]: each for each in objects(TOGGLES["tls by cert-manager"])}
        for kind, change, message in (
            ("Deployment", lambda spec: spec.update(replica=1), "unknown field"),
            ("CronJob", lambda spec: spec.update(schedule="every day"), "schedule"),
            ("CronJob", lambda spec: spec.update(timeZone="Europe/Nowhere"), "unknown time zone"),
            ("ScaledObject", lambda spec: spec.update(triggers=None), "triggers"),
            ("ScaledObject", lambda spec: spec.update(maxReplicas=1), "unknown field"),
            ("Certificate", lambda spec: spec["privateKey"].update(algorithm="DSA"), "Unsupported value"),
        ):
            with self.subTest(f"{kind} {message}"):
                wrong = copy.deepcopy(found[kind])
                change(wrong["spec"])
                with self.assertRaisesRegex(Refused, message):
                    fresh(plane, wrong)
