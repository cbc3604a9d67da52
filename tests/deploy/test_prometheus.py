"""A real Prometheus scrapes the chart's pods as real processes. No alert fires while jobs succeed, also with two lost workers.
Then a job fails, all workers of a job are lost, and the coordinator is killed: exactly the alerts of these faults fire, and
they resolve. The dashboard's queries show that run.

Not here: each alert on series that fire it and on similar ones, at real durations (`test_alerts`); faults of TLS, stores,
disks, Consul and peers, slow jobs and late days."""

import contextlib
import json
import re
import signal
import subprocess
import time
import unittest

from chart import BIN, FULL, MINIMAL, NAMESPACE, merged, one
from processes import pods, wait_for
from prometheus import Prometheus, sooner_query

VALUES = merged(MINIMAL, {
    "worker": {"slots": 1, "memoryMiB": 512, "spillGiB": 1},
    "monitoring": {kind: {"enabled": True} for kind in ("serviceMonitor", "prometheusRule", "dashboard")},
})
WORKERS = 3
DATE = "20170227"
FAULTS = {"TallyJobFailed", "TallyNoWorkers", "TallyWorkersLost", "TallyNoLeader"}
# Queries of the dashboard, as panel and legend, that may stay 0 in this run, and why. They have series, too.
ZERO = {
    ("Spill of workers", "{{pod}} used"): "the day fits into memory",
    ("Requests to object stores", "{{exported_service}} {{outcome}}"): "the tables are on a volume",
    ("Refused", "{{reason}}"): "all peers are known",
    ("Shuffle: retries", "again: {{reason}}"): "workers may be lost before others fetch from them",
    ("Shuffle: retries", "given up"): "as above",
    ("Shuffle: retries", "slow jobs"): "there are too few jobs to compare with",
}


class Scraped(unittest.TestCase):
    def test_the_right_alerts_fire_and_the_dashboard_shows_the_run(self):
        with pods(VALUES, workers=WORKERS) as self.running, Prometheus(self.running) as self.prometheus:
            self.began = time.time()
            self.generate()
            self.a_job_succeeds()
            self.two_workers_are_lost_in_a_job()
            self.no_alert_fired()
            self.a_job_fails()
            self.all_workers_are_lost_in_a_job()
            self.the_coordinator_is_killed()
            self.all_is_well_again()
            self.the_dashboard()

    def generate(self):
        """The tables of a day on the volume."""
        words = ["generate", "--clients=2000", "--narrow", f"--date={DATE}", f"--output={self.running.folder}/data/day"]
        subprocess.run([BIN / "tally", *words], check=True, capture_output=True)

    def submit(self, day, *words):
        tables = [f"--addons=/data/{day}/addons/v2", f"--main-summary=/data/{day}/main_summary/v3"]
        return self.running.exec("coordinator", ["tally", "submit", *tables, f"--date={DATE}", "--output=/data/output",
                                                 f"--coordinator={self.running.coordinator}", *words])

    def recorded(self, query, expected):
        def look():
            return True if self.prometheus.value(query) == expected else None
        wait_for(f"{query} to be {expected}", look)

    @contextlib.contextmanager
    def fires(self, *names):
        """Exactly these alerts begin in the block or after it, and fire. Those of an earlier fault may still fire."""
        since = time.time()
        yield
        wait_for(f"{names} to fire", lambda: True if set(names) <= self.prometheus.alerts(since) else None)
        self.assertEqual(self.prometheus.alerts(since), set(names))

    def resolved(self, name):
        wait_for(f"{name} to end", lambda: True if name not in self.prometheus.alerts() else None)

    def a_job_succeeds(self):
        up = self.prometheus.query("up == 1")
        self.assertEqual({labels["pod"] for labels, _ in up}, {f"{FULL}-{name}" for name in self.running.http})
        done = self.submit("day")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.recorded('sum(tally_jobs_ended_total{outcome="done"})', 1)
        self.recorded('sum(tally_publishes_total{outcome="done"})', 1)
        self.recorded("sum(tally_worker_read_rows_total) > bool 0", 1)

    def freeze_workers(self):
        """A job whose tasks run on workers that are stopped; returns these."""
        self.recorded("sum(tally_slots)", WORKERS)
        workers = [process for name, process in zip(self.running.http, self.running.processes)
                   if name.startswith("worker") and process.poll() is None]
        for worker in workers:
            worker.send_signal(signal.SIGSTOP)
        done = self.submit("day", "--detach")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.recorded("sum(tally_attempts_running) > bool 0", 1)
        return workers

    def replace_workers(self, count):
        for _ in range(count):
            self.running.start("worker", len(self.running.processes))
        self.prometheus.find_targets()

    def two_workers_are_lost_in_a_job(self):
        """The job succeeds, and two are not enough for an alert."""
        last, *others = self.freeze_workers()
        self.kill(*others)
        last.send_signal(signal.SIGCONT)
        self.replace_workers(len(others))
        self.recorded('sum(tally_jobs_ended_total{outcome="done"})', 2)
        self.recorded('sum(tally_workers_left_total{how="lost"})', 2)

    def no_alert_fired(self):
        groups = self.prometheus.api("rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        self.assertEqual({rule["health"] for rule in rules}, {"ok"}, groups)
        # Each alert had the time to fire.
        longest = max(rule["duration"] for rule in rules) + 1
        self.recorded(f'sum(tally_workers_left_total{{how="lost"}} offset {longest:.0f}s)', 2)
        self.assertEqual(self.prometheus.ever(), set())

    def a_job_fails(self):
        """Its tables are missing."""
        with self.fires("TallyJobFailed"):
            done = self.submit("other-day")
            self.assertEqual(done.returncode, 1, done.stdout + done.stderr)

    def all_workers_are_lost_in_a_job(self):
        """Two are killed; the last one stays frozen."""
        with self.fires("TallyNoWorkers", "TallyWorkersLost"):
            last, *others = self.freeze_workers()
            self.kill(*others)
            self.recorded('sum(tally_workers_left_total{how="lost"})', 2 + WORKERS)
        self.kill(last)
        self.replace_workers(1)
        self.resolved("TallyNoWorkers")
        self.recorded('sum(tally_jobs_ended_total{outcome="done"})', 3)

    def the_coordinator_is_killed(self):
        with self.fires("TallyNoLeader"):
            self.kill(self.running.processes[0])
        # Another pod with the same journal.
        self.running.start("coordinator", 1)
        self.prometheus.find_targets()
        self.resolved("TallyNoLeader")

    def all_is_well_again(self):
        wait_for("all alerts to end", lambda: True if not self.prometheus.alerts() else None)
        self.assertEqual(self.prometheus.ever(), FAULTS)

    def kill(self, *processes):
        for process in processes:
            process.kill()
            process.wait()
        self.prometheus.find_targets()

    def the_dashboard(self):
        dashboard = json.loads(one(self.running.objects, "ConfigMap", "-dashboard")["data"]["tally.json"])
        self.variables(dashboard)
        zero = set()
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                with self.subTest(panel["title"], query=target["expr"]):
                    series = self.shown(panel, target)
                    self.assertTrue(series, "no data")
                    for labels, _ in series:
                        self.assertLessEqual(set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])), set(labels))
                    if not max(value for _, values in series for value in values) > 0:
                        zero.add((panel["title"], target["legendFormat"]))
        self.assertLessEqual(zero, set(ZERO))

    def variables(self, dashboard):
        """What Grafana lets the user choose from."""
        [query] = [each["query"] for each in dashboard["templating"]["list"] if each["type"] == "query"]
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", query).groups()
        self.assertEqual(self.prometheus.api(f"label/{label}/values", **{"match[]": metric}), [NAMESPACE])

    def shown(self, panel, target):
        """Labels and values of each series of a panel: now, or over the whole run."""
        query = sooner_query(target["expr"].replace("$namespace", NAMESPACE))
        self.assertNotIn("$", query)
        if panel["type"] == "stat":
            return [(labels, [value]) for labels, value in self.prometheus.query(query)]
        found = self.prometheus.api("query_range", query=query, start=self.began, end=time.time(), step="500ms")["result"]
        series = [(each["metric"], [float(value) for _, value in each["values"] if value != "NaN"]) for each in found]
        return [(labels, values) for labels, values in series if values]
