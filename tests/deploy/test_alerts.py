"""The alerts of the chart over series of Prometheus: each fires on some series, and not on similar ones. promtool of
Prometheus evaluates them.

Not here: the existence of the metrics (`test_processes`), the troubleshooting pages (`test_docs`)."""

import json
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

from chart import FULL, MINIMAL, NAMESPACE, TOGGLES, TOP, merged, objects, of_kind
from test_docs import anchors

PROMTOOL = os.environ["PROMTOOL_BIN"]
WITH_RULES = {name: TOGGLES[name] for name in ("rules", "rules with certificates", "full name", "own rules")}
DAY = 24 * 3600


def of(component, name, pod="a", **labels):
    """A series of the release."""
    labels = {"namespace": NAMESPACE, "service": f"{FULL}-{component}-metrics", "pod": pod, **labels}
    return name + "{" + ",".join(f"{key}={json.dumps(value)}" for key, value in labels.items()) + "}"


def coordinator(name, pod="a", **labels):
    return of("coordinator", f"tally_{name}", pod, **labels)


def worker(name, pod="a", **labels):
    return of("worker", f"tally_{name}", pod, **labels)


def failed(pod="a"):
    return coordinator("jobs_ended_total", pod, outcome="failed")


def published(pod="a"):
    return coordinator("last_publish_timestamp_seconds", pod)


def refusals(reason, pod="a"):
    return coordinator("refusals_total", pod, reason=reason)


def requests(outcome, pod="a"):
    """Prometheus renames labels that it also sets to `exported_...`."""
    return worker("object_store_requests_total", pod, exported_service="s3", method="GET", outcome=outcome)


def certificate(since, until):
    """The times of a certificate, in days from the start."""
    times = {"before": since, "after": until}
    return {worker(f"tls_certificate_not_{end}_seconds", certificate="process"): f"{int(days * DAY)}x60"
            for end, days in times.items()}


def ends_in(text):
    return {**ONE_WORKER, "certificate": "process", "description": (
        f"The certificate of the process in a ends in {text}, less than a tenth of its time. "
        "No client can connect after that.")}


ONE_WORKER = {"namespace": NAMESPACE, "service": f"{FULL}-worker-metrics", "pod": "a"}
SECONDS = 600
FEW = "{} within 15 minutes, for the reason {}; the logs name the peers."
UNUSABLE = ("The files of {} in a cannot be used for {}; the log names the reason. The old ones count for 5 minutes (tokens) "
            "or an hour (certificates).")
REQUESTS = "{} requests ended with {} in 15 minutes. They are sent again, later each time; jobs take longer."
ATTEMPTS = "{} ended with {} in 15 minutes; the log of the coordinator names them."
WAITING = "7 tasks could run and no worker takes any. Jobs fail after {} s without workers."

# For each alert: a scenario, the series, and the expected alerts by time, with their distinguishing labels and the
# annotations that contain a value. Each series has a sample every 30 s; `_` is a missing one: `0x20` is ten minutes of 0.
# Alerts are evaluated between samples, as in practice.
CASES = {
    "TallyNoLeader": [
        ("no coordinator leads", {coordinator("coordinator_leading", pod): "0x20" for pod in "ab"}, {"1m": [], "5m": [{}]}),
        ("there is no coordinator", {coordinator("coordinator_leading"): "1x10 _x40"}, {"5m": [], "13m": [{}]}),
        ("one of two leads", {coordinator("coordinator_leading", "a"): "0x20",
                              coordinator("coordinator_leading", "b"): "1x20"}, {"5m": [], "10m": []}),
        ("another takes over", {coordinator("coordinator_leading", "a"): "1x10 0x30",
                                coordinator("coordinator_leading", "b"): "0x12 1x30"}, {"6m": [], "10m": []}),
    ],
    "TallyNoJobsAccepted": [
        ("the leader takes none", {coordinator("coordinator_leading"): "1x30",
                                   coordinator("coordinator_accepting_jobs"): "0x30"}, {"4m": [], "6m": [{}]}),
        ("it does", {coordinator("coordinator_leading"): "1x30", coordinator("coordinator_accepting_jobs"): "1x30"},
         {"10m": []}),
        ("no coordinator leads", {coordinator("coordinator_leading"): "0x30", coordinator("coordinator_accepting_jobs"): "0x30"},
         {"10m": []}),
    ],
    "TallyNoWorkers": [
        ("tasks wait", {coordinator("tasks_runnable"): "7x20", coordinator("slots"): "0x20"},
         {"2m": [], "5m": [{"description": WAITING.format(SECONDS)}]}),
        ("workers are there", {coordinator("tasks_runnable"): "7x20", coordinator("slots"): "1x20"}, {"5m": []}),
        ("there is nothing to do", {coordinator("tasks_runnable"): "0x20", coordinator("slots"): "0x20"}, {"5m": []}),
        ("workers come in time", {coordinator("tasks_runnable"): "7x20", coordinator("slots"): "0x4 4x20"}, {"5m": []}),
    ],
    "TallyJobSlow": [
        ("one is", {coordinator("jobs_slow"): "0x4 1x20"}, {"2m": [], "5m": [{}]}),
        ("none is", {coordinator("jobs_slow"): "0x20"}, {"5m": []}),
    ],
    "TallyDayLate": [
        ("no day for two hours", {published(): "600x400"}, {"2h9m": [], "2h20m": [{}], "3h": [{}]}),
        ("a day each time", {published(): "600x230 6900x150"}, {"2h20m": [], "3h": []}),
        ("another leads, which knows the last day from the journal",
         {published("a"): "600x150 _x250", published("b"): "_x153 600x250"}, {"1h17m": [], "2h9m": [], "2h20m": [{}]}),
        ("no day ever", {coordinator("coordinator_leading"): "1x400"}, {"1h50m": [], "2h20m": [{}]}),
        ("a new cluster without a day", {coordinator("coordinator_leading"): "_x200 1x200"}, {"2h30m": [], "3h15m": []}),
        ("no day ever, and then one", {coordinator("coordinator_leading"): "1x400", published(): "_x300 9000x100"},
         {"2h20m": [{}], "3h": []}),
    ],
    "TallyStrangers": [
        ("many come at once", {refusals("role"): "0x20 30x80", refusals("rate"): "0x20 15x80"},
         {"9m": [], "20m20s": [{"reason": "role", "description": FEW.format(31, "role")}], "40m": []}),
        ("some come to each", {refusals("role", pod): "0x20 12x80" for pod in "ab"},
         {"20m20s": [{"reason": "role", "description": FEW.format(25, "role")}]}),
        ("few come", {refusals("role"): "0x20 15x80"}, {"20m20s": []}),
        ("many come in all", {refusals("role"): "1000+0.5x80"}, {"30m": []}),
    ],
    "TallyCertificateEnds": [
        ("one of 90 days has 8", certificate(-82, 8), {"4m": [], "10m": [ends_in("7d 23h 50m 0s")]}),
        ("one of an hour has 5 minutes", certificate(-50 / 1440, 15 / 1440), {"6m": [], "14m20s": [ends_in("40s")]}),
        ("it is over", certificate(-90, -1 / 24), {"10m": [ends_in("-1h 10m 0s")]}),
        ("one of 90 days has 10", certificate(-80, 10), {"10m": []}),
        ("one of ten years has 60 days", certificate(-3600, 60), {"10m": []}),
    ],
    "TallyFilesUnusable": [
        ("tokens cannot be read", {worker("security_files_failing_seconds", files="tokens"): "0x10 90x20"},
         {"4m": [], "8m": [{**ONE_WORKER, "files": "tokens", "description": UNUSABLE.format("tokens", "1m 30s")}]}),
        ("a certificate and its key are replaced one after the other",
         {worker("security_files_failing_seconds", files="certificates"): "0x10 5 0x20"}, {"4m": [], "5m40s": [], "8m": []}),
    ],
    "TallyJobFailed": [
        ("one fails", {failed(): "0x20 1x80"}, {"9m": [], "11m": [{}], "24m": [{}], "40m": []}),
        ("one fails after a takeover, and is the first that the new leader shows",
         {failed("a"): "0x60 _x80", failed("b"): "_x60 1x80"},
         {"29m": [], "30m20s": [{}], "44m": [{}], "46m": []}),
        ("the same, where the old leader had failures",
         {failed("a"): "4x60 _x80", failed("b"): "_x60 1x80"},
         {"29m": [], "30m20s": [{}], "46m": []}),
        ("one fails after a restart in its pod", {failed(): "5x60 _x2 1x80"}, {"29m": [], "32m": [{}], "50m": []}),
        ("one fails while nothing is scraped", {failed(): "3x60 _x80 4x80"}, {"29m": [], "72m": [{}], "90m": []}),
        ("nothing is scraped for a while", {failed(): "3x60 _x80 3x80"},
         {"29m": [], "70m20s": [], "72m": [], "84m": []}),
        ("they failed long ago", {failed(pod): "3x200" for pod in "ab"}, {"20m": [], "60m": []}),
        ("another stands by", {failed("a"): "3x200", failed("b"): "_x60 0x80"}, {"30m20s": [], "60m": []}),
        ("jobs are done, and cancelled", {coordinator("jobs_ended_total", outcome=outcome): "0x20 1+1x80"
                                          for outcome in ("done", "cancelled")}, {"15m": [], "30m": []}),
    ],
    "TallyWorkersLost": [
        ("three go", {coordinator("workers_left_total", how="lost"): "0x20 3x80"}, {"9m": [], "20m20s": [{}], "40m": []}),
        ("two go", {coordinator("workers_left_total", how="lost"): "0x20 2x80"}, {"20m": [], "20m20s": []}),
        ("two go when the coordinator began", {coordinator("workers_left_total", how="lost"): "0 2x80"},
         {"40s": [], "1m20s": [], "5m": []}),
        ("two go before a restart in its pod, and one after", {coordinator("workers_left_total", how="lost"): "0x20 2x5 0 1x80"},
         {"12m": [], "14m20s": [{}], "40m": []}),
        ("nothing is scraped for a while", {coordinator("workers_left_total", how="lost"): "5x20 _x60 5x40"},
         {"40m40s": [], "45m": []}),
        ("many are drained", {coordinator("workers_left_total", how="drained"): "0x20 50x80"}, {"20m20s": []}),
    ],
    "TallySpillNearLimit": [
        ("one of two is nearly full",
         {worker("worker_spill_used_bytes", "a"): "10x10 81x20", worker("worker_spill_used_bytes", "b"): "79x60",
          worker("worker_spill_limit_bytes", "a"): "100x60", worker("worker_spill_limit_bytes", "b"): "100x60"},
         {"5m": [], "8m": [{**ONE_WORKER, "description": (
             "a refuses work when it is. Raise worker.spillGiB or worker.memoryMiB, or run more workers.")}]}),
        ("none is", {worker("worker_spill_used_bytes"): "79x60", worker("worker_spill_limit_bytes"): "100x60"}, {"8m": []}),
    ],
    "TallyObjectStoreRefuses": [
        ("it throttles", {requests("throttled", pod): "0x20 80x80" for pod in "ab"},
         {"9m": [], "20m20s": [{"outcome": "throttled", "description": REQUESTS.format(164, "throttled")}], "40m": []}),
        ("it fails now and then", {requests(outcome): "0x20 90x80" for outcome in ("throttled", "failed", "broken")},
         {"20m20s": []}),
        ("it answers", {requests(outcome): "0+100x80" for outcome in ("ok", "refused")}, {"20m20s": []}),
    ],
    "TallyAttemptsFail": [
        ("many do", {coordinator("attempts_total", stage=stage, outcome="retryable"): "0x20 12x80"
                     for stage in ("map", "reduce")},
         {"9m": [], "20m20s": [{"outcome": "retryable", "description": ATTEMPTS.format(25, "retryable")}], "40m": []}),
        ("few do", {coordinator("attempts_total", stage="map", outcome=outcome): "0x20 18x80"
                    for outcome in ("retryable", "fetch_lost", "fatal")}, {"20m20s": []}),
        ("they are done", {coordinator("attempts_total", stage="map", outcome="done"): "0+100x80"}, {"20m20s": []}),
    ],
}
# Series of another release must not fire an alert, except this one, which fires without series of this release.
BY_ABSENCE = "TallyNoLeader"


def groups(values):
    [rule] = of_kind(objects(values), "PrometheusRule")
    return rule["spec"]["groups"]


def promtool(*args, **files):
    """Runs promtool on files in a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            # JSON is YAML.
            (pathlib.Path(folder) / f"{name}.yaml").write_text(json.dumps(content))
        done = subprocess.run([PROMTOOL, *args], cwd=folder, capture_output=True, text=True, timeout=600)
    return done.returncode, done.stdout + done.stderr


class Alerts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        values = merged(TOGGLES["rules with certificates"], {
            "coordinator": {"noWorkersTimeoutSeconds": SECONDS}, "monitoring": {"prometheusRule": {"freshnessHours": 2}}})
        cls.groups = groups(values)
        cls.rules = {rule["alert"]: rule for group in cls.groups for rule in group["rules"]}
        cls.runbooks = {name: rule["annotations"]["runbook_url"] for name, rule in cls.rules.items()}
        # Annotations without a value do not depend on the series.
        for rule in cls.rules.values():
            rule["annotations"] = {name: text for name, text in rule["annotations"].items()
                                   if "{{" in text or "7 tasks" in text}

    def look(self, cases):
        """Fails if the alerts at one of the times differ. Each case begins with its alert."""
        def expected(alert, found):
            said = {"description": found["description"]} if "description" in found else {}
            labels = {key: value for key, value in found.items() if key not in said}
            severity = self.rules[alert]["labels"]["severity"]
            return {"exp_labels": {"severity": severity, **labels}, "exp_annotations": said}

        tests = {
            "rule_files": ["rules.yaml"],
            # Not a divisor of 30 s, so that most evaluations are between samples.
            "evaluation_interval": "20s",
            "tests": [{
                "name": f"{alert}: {name}",
                "interval": "30s",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "alert_rule_test": [
                    {"alertname": alert, "eval_time": time, "exp_alerts": [expected(alert, each) for each in found]}
                    for time, found in times.items()],
            } for alert, name, series, times in cases],
        }
        # Without the other rules, which would be evaluated at each time, too.
        named = {alert for alert, *_ in cases}
        groups = [{**group, "rules": [rule for rule in group["rules"] if rule["alert"] in named]} for group in self.groups]
        code, said = promtool("test", "rules", "tests.yaml", tests=tests, rules={"groups": groups})
        self.assertEqual(code, 0, said)

    def test_prometheus_takes_the_rules(self):
        for name, values in WITH_RULES.items():
            with self.subTest(name):
                code, said = promtool("check", "rules", "rules.yaml", rules={"groups": groups(values)})
                self.assertEqual(code, 0, said)
                self.assertIn("SUCCESS", said)
        code, said = promtool("check", "rules", "rules.yaml",
                              rules={"groups": [{"name": "wrong", "rules": [{"alert": "A", "expr": "sum(a{) > 0"}]}]})
        self.assertNotEqual(code, 0, said)

    def test_each_alert_leads_to_its_section_of_the_docs(self):
        [page] = {url.split("#")[0] for url in self.runbooks.values()}
        known = anchors(TOP / page)
        for alert, url in self.runbooks.items():
            self.assertEqual(url.split("#")[1], alert.lower())
            self.assertIn(alert.lower(), known)
        # Where a team publishes the page.
        moved = [rule for group in groups(TOGGLES["own rules"]) for rule in group["rules"] if "annotations" in rule]
        for rule in moved:
            self.assertEqual(rule["annotations"]["runbook_url"], f"https://runbooks/tally#{rule['alert'].lower()}")

    def test_own_rules_and_no_freshness(self):
        rules = [rule.get("alert", rule.get("record")) for group in groups(TOGGLES["own rules"]) for rule in group["rules"]]
        self.assertEqual(rules[-2:], ["tally:slots", "Mine"])
        self.assertNotIn("TallyDayLate", rules)
        [late] = [rule for group in groups(TOGGLES["rules"]) for rule in group["rules"] if rule.get("alert") == "TallyDayLate"]
        self.assertEqual(re.findall(r"> (\d+)|offset (\d+)s", late["expr"])[:2], [(str(26 * 3600), ""), ("", str(26 * 3600))])

    def test_each_alert_is_tried_both_ways(self):
        self.assertEqual(set(CASES), set(self.rules))
        for alert, cases in CASES.items():
            with self.subTest(alert):
                self.assertTrue(any(any(times.values()) for _, _, times in cases), "it never fires")
                self.assertTrue(any(not any(times.values()) for _, _, times in cases), "it always fires")

    def test_each_fires_when_it_should_and_not_else(self):
        for alert, cases in CASES.items():
            with self.subTest(alert):
                self.look([(alert, *case) for case in cases])

    def test_other_releases_and_namespaces_fire_none(self):
        for own, other in ((f'"{FULL}-', '"night-tally-'), (f'namespace="{NAMESPACE}"', 'namespace="elsewhere"')):
            for alert, cases in CASES.items():
                looks = []
                # This release has a leader.
                more = {coordinator("coordinator_leading"): "1x400"} if alert == BY_ABSENCE else {}
                for name, series, times in cases:
                    others = {name.replace(own, other): values for name, values in series.items()}
                    self.assertFalse(set(others) & set(series))
                    looks.append((alert, name, {**others, **more}, {time: [] for time in times}))
                with self.subTest(f"{other} {alert}"):
                    self.look(looks)

    def test_a_leader_of_another_release_is_none(self):
        leads = coordinator("coordinator_leading").replace(FULL, "night-tally")
        self.look([(BY_ABSENCE, "another's leader", {leads: "1x40"}, {"5m": [{}]})])
