"""The daily job with pods that run: a run of the CronJob's controller, and a retry, which computes the day of the scheduled time.

Not here: how a job of Kubernetes ends with each exit code (test_jobs)."""

import datetime
import re
import unittest

import cluster
import days
import nodes
from cluster import Namespace, merged, name_of, wait_for
from days import Day
from nodes import volume
from test_nodes_install import DAILY, SMALL, WAIT, job_condition

# The day before 2017-02-28, 03:30 UTC, which is 24804210 minutes after 1970.
MINUTE = 24804210
# The day of the scheduled time.
OPEN = {"schedule": {"date": ""}}


class Daily(unittest.TestCase):
    def setUp(self):
        self.addCleanup(lambda: self.assertEqual(cluster.plane().agent.errors, []))

    def test_a_scheduled_run(self):
        """The controller starts it, and it computes yesterday."""
        with Namespace() as namespace:
            folder = volume(namespace)
            yesterday = (datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)).strftime("%Y%m%d")
            day = Day(folder, 2000, yesterday)
            namespace.install(merged(SMALL, DAILY, OPEN, {"schedule": {"cron": "* * * * *"}}), more=WAIT)
            job = wait_for("the first run", lambda: (namespace.all("Job") or [None])[0], 150)
            namespace.patch("CronJob", "tally-daily", {"spec": {"suspend": True}})
            self.assertRegex(name_of(job), r"^tally-daily-\d+$")
            self.assertEqual(job_condition(namespace, name_of(job)), "Complete")
            day.check("aggregates")

    def test_a_retry_computes_the_scheduled_day(self):
        """A run of 2017 whose first pod is killed: the second one computes the same day, although it starts years later."""
        with Namespace() as namespace:
            folder = volume(namespace)
            day = Day(folder, 2000)
            # Without workers, the first try waits.
            namespace.install(merged(SMALL, DAILY, OPEN, {"worker": {"replicas": 0}}), more=WAIT)
            job = f"tally-daily-{MINUTE}"
            namespace.kubectl("create", "job", "--from=cronjob/tally-daily", job)
            [first] = wait_for("the first pod", lambda: [pod for pod in nodes.pods(namespace, "job") if nodes.process(pod)])
            submitted = wait_for("the job", lambda: nodes.tally(namespace, "jobs")["jobs"])
            nodes.process(first).kill()
            second = wait_for("the second pod", lambda: [pod for pod in nodes.pods(namespace, "job") if pod is not first])
            self.assertEqual(nodes.exit_codes(first), [137])
            namespace.scale("tally-worker", 2)
            self.assertEqual(job_condition(namespace, job), "Complete")
            # It followed the job of the first try.
            self.assertEqual([each["job_id"] for each in nodes.tally(namespace, "jobs")["jobs"]], [each["job_id"] for each in submitted])
            self.assertRegex(submitted[0]["job_id"], re.compile(f"^{days.DATE}-"))
            self.assertEqual(nodes.exit_codes(second[0]), [0])
            self.assertEqual([each.name for each in (folder / "aggregates").iterdir()], [f"submission_date_s3={days.DATE}"])
            day.check("aggregates")

    def test_an_eviction_is_no_failure(self):
        """The pod of the job is evicted with its node: the run goes on in another pod, and counts no failure."""
        with Namespace() as namespace:
            folder = volume(namespace)
            day = Day(folder, 2000)
            namespace.install(merged(SMALL, DAILY, {"worker": {"replicas": 0}, "schedule": {"backoffLimit": 0}}), more=WAIT)
            namespace.kubectl("create", "job", "--from=cronjob/tally-daily", "by-hand")
            [first] = wait_for("the first pod", lambda: [pod for pod in nodes.pods(namespace, "job") if nodes.process(pod)])
            wait_for("the job", lambda: nodes.tally(namespace, "jobs")["jobs"])
            nodes.evict(first)
            wait_for("the second pod", lambda: [pod for pod in nodes.pods(namespace, "job") if pod is not first])
            namespace.scale("tally-worker", 2)
            self.assertEqual(job_condition(namespace, "by-hand"), "Complete")
            day.check("aggregates")
