"""The chart's pods as real processes: settings that the programs take, probes that they answer, the `helm test` pod's
own command, and the metrics that dashboard and rules speak of."""

import json
import re
import subprocess
import unittest

from chart import MINIMAL, merged, objects, of_kind, one
from processes import get, pods

VALUES = merged(MINIMAL, {
    "worker": {"slots": 1, "memoryMiB": 512, "spillGiB": 1, "drainTimeoutSeconds": 30},
    "monitoring": {kind: {"enabled": True} for kind in ("serviceMonitor", "prometheusRule", "dashboard")},
})
# What Prometheus itself adds to samples, and what PromQL and Grafana have of their own.
OF_PROMETHEUS = {"namespace", "service", "pod"}


def samples(page):
    """Names of samples with the values of each of their labels."""
    found = {}
    for line in page.splitlines():
        if line.startswith("#"):
            continue
        name, labels = re.match(r"(\w+)(?:\{(.*)\})? ", line).groups()
        own = found.setdefault(name, {})
        for key, value in re.findall(r'(\w+)="([^"]*)"', labels or ""):
            own.setdefault(key, set()).add(value)
    return found


def expressions(found):
    for rule in of_kind(found, "PrometheusRule"):
        for group in rule["spec"]["groups"]:
            for alert in group["rules"]:
                yield alert["alert"], alert["expr"]
    for panel in json.loads(one(found, "ConfigMap", "-dashboard")["data"]["tally.json"])["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


class Running(unittest.TestCase):
    def test_the_pods_do_what_the_chart_says(self):
        with pods(VALUES, workers=2) as running:
            self.helm_test(running)
            self.metrics(running)
            # Ended as a kubelet does: all go well, and within their grace period.
            self.assertEqual(running.end(), [0, 0, 0])

    def helm_test(self, running):
        """The pod of `helm test`, by its own command."""
        [pod] = of_kind(running.objects, "Pod")
        [container] = pod["spec"]["containers"]
        done = subprocess.run(running.command(container), capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("As the generator's totals say it must be", done.stdout)
        rows = int(re.search(r"rows +([\d,]+)", done.stdout)[1].replace(",", ""))
        self.assertGreater(rows, 0)
        # The workers did it, not the pod; and nothing is left on the volume but the journal.
        read = sum(self.value(running, name, "tally_worker_read_rows_total") for name in ("worker-0", "worker-1"))
        self.assertGreater(read, rows)
        left = [path.name for path in (running.folder / "data").glob(".tally/*/*")]
        self.assertEqual(left, ["state"])

    def value(self, running, name, metric):
        page = get(running.http[name], "/metrics")[1]
        return float(re.search(rf"^{metric} (\S+)$", page, re.M)[1])

    def metrics(self, running):
        """Dashboard and rules speak of metrics and labels that there are."""
        there = {}
        for name, address in running.http.items():
            self.assertEqual(get(address, "/healthz")[0], 200, name)
            status, page = get(address, "/metrics")
            self.assertEqual(status, 200)
            there |= samples(page)
        used = set()
        for where, expression in expressions(running.objects):
            names = re.findall(r"\b(?:tally|process)_\w+", expression)
            self.assertTrue(names, where)
            for name, matchers in re.findall(r"\b((?:tally|process)_\w+)\{([^}]*)\}", expression):
                used.add(name)
                self.assertIn(name, there, where)
                for key, value in re.findall(r'(\w+)=~?"([^"]*)"', matchers):
                    if key not in OF_PROMETHEUS:
                        self.assertLessEqual(set(value.split("|")), there[name].get(key, set()), (where, name, key))
            self.assertLessEqual(set(names), set(there), where)
            for labels in re.findall(r"by \(([^)]*)\)", expression):
                for label in labels.replace(" ", "").split(","):
                    known = set().union(*(there[name] for name in names)) | OF_PROMETHEUS
                    self.assertIn(label, known, where)
        self.assertGreater(len(used), 15)
        # The metric that an HPA goes by.
        hpa = objects(merged(MINIMAL, {"autoscaling": {"mode": "hpa", "minReplicas": 1}}))
        [metric] = one(hpa, "HorizontalPodAutoscaler", "-worker")["spec"]["metrics"]
        self.assertIn(metric["external"]["metric"]["name"], there)

    def test_the_helm_test_fails_where_nobody_works(self):
        with pods(VALUES, workers=0) as running:
            running.end()
            [pod] = of_kind(running.objects, "Pod")
            command = [arg.replace("--connect-timeout=60s", "--connect-timeout=1s")
                       for arg in running.command(pod["spec"]["containers"][0])]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
            self.assertEqual(done.returncode, 5, done.stdout + done.stderr)
