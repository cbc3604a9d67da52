"""The operator in a real Airflow: the DAG of its page runs as a test DAG, against a real cluster.

`AIRFLOW_PYTHON` is the Python of an environment with Airflow (`tests/tools/airflow`). Not here: the client (`test_python`)."""

import json
import os
import pathlib
import re
import subprocess
import tempfile
import threading
import unittest

from chart import TOP
from processes import wait_for
from small_cluster import DATE, SmallCluster
from test_http_api import Api
from test_python import PAGE

# The day after the one that is computed.
LOGICAL = "2017-02-28"
LIMIT = 400
# Runs a DAG once, and prints its state, the states of its tasks, and what they pushed to XCom.
RUN = """
import datetime, json, sys
sys.path.insert(0, sys.argv[1])
import the_dag
run = the_dag.dag.test(logical_date=datetime.datetime.fromisoformat(sys.argv[2]).replace(tzinfo=datetime.timezone.utc))
[task] = run.get_task_instances()
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
with create_session() as session:
    pushed = {row.key: XComModel.deserialize_value(row) for row in session.query(XComModel).filter_by(run_id=run.run_id)}
print("RESULT " + json.dumps({"run": str(run.state), "task": str(task.state), "tries": task.try_number, "xcom": pushed}))
"""


def dag_of_the_page():
    [block] = [block for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S) if "airflow" in block]
    return block


class Operator(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.home = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="tally-airflow-")))
        cls.cluster = cls.enterClassContext(SmallCluster())
        cls.api = Api(cls.cluster.http)
        host, port = cls.cluster.http.rsplit(":", 1)
        connection = {"conn_type": "generic", "schema": "http", "host": host, "port": int(port)}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TALLY_", "AIRFLOW"))}
        cls.environment = kept | {
            "AIRFLOW_HOME": str(cls.home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "PYTHONPATH": str(TOP / "deploy" / "python"),
            "PYTHONUNBUFFERED": "1", "AIRFLOW_CONN_TALLY_DEFAULT": json.dumps(connection),
        }
        cls.python("-m", "airflow", "db", "migrate")

    @classmethod
    def python(cls, *words, on_line=lambda line: None):
        """Runs Python with Airflow. Returns what it prints, of which `on_line` gets each line at once."""
        said = []
        with subprocess.Popen([os.environ["AIRFLOW_PYTHON"], *words], env=cls.environment, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True) as process:
            limit = threading.Timer(LIMIT, process.kill)
            limit.start()
            for line in process.stdout:
                said.append(line)
                on_line(line)
            limit.cancel()
        assert process.returncode == 0, "".join(said)[-6000:]
        return "".join(said)

    def run_dag(self, output, change=lambda text: text, on_line=lambda line: None):
        """Runs the DAG of the page with the tables of the cluster. Returns its result and its log."""
        text = dag_of_the_page()
        for there, here in (
            ("s3://bucket/addons/v2", f"{self.cluster.folder}/day/addons/v2"),
            ("s3://bucket/main_summary/v3", f"{self.cluster.folder}/day/main_summary/v3"),
            ("s3://bucket/aggregates", f"{self.cluster.folder}/{output}"),
            # There is no day before.
            ("rows >= 0.8 * previous", "rows >= 1"),
            ('DAG("addon_aggregates", schedule="@daily"):', f'DAG("{output}", schedule="@daily") as dag:'),
            ('task_id="compute",', 'task_id="compute", poll_interval=0.2,'),
        ):
            self.assertIn(there, text)
            text = text.replace(there, here)
        dags = self.home / "dags"
        dags.mkdir(exist_ok=True)
        (dags / "the_dag.py").write_text(change(text))
        said = self.python("-c", RUN, dags, LOGICAL, on_line=on_line)
        [result] = re.findall(r"^RESULT (.*)", said, re.M)
        return json.loads(result), said

    def jobs(self, output):
        return [job for job in self.api.get("/jobs")["jobs"] if job["output"].endswith(f"/{output}")]

    def test_a_day_is_computed_and_its_summary_pushed(self):
        result, said = self.run_dag("computed")
        self.assertEqual((result["run"], result["task"]), ("success", "success"), said)
        [job] = self.jobs("computed")
        self.assertEqual(result["xcom"], {"job_id": job["job_id"], "return_value": job["summary"]})
        self.assertEqual((job["date"], job["state"], job["expectations"]), (DATE, "done", ["rows >= 1"]))
        self.assertTrue(list(pathlib.Path(job["output"]).glob(f"submission_date_s3={DATE}/*.parquet")))

    def test_a_task_follows_the_job_that_an_attempt_before_has_left(self):
        self.cluster.freeze()
        self.addCleanup(self.cluster.release)
        job = self.cluster.submit("left", "--expect=rows >= 1")
        follows = "is already running: following it"
        result, said = self.run_dag("left", on_line=lambda line: follows in line and self.cluster.release())
        self.assertEqual((result["task"], result["xcom"]["job_id"]), ("success", job), said)
        self.assertIn(follows, said)
        self.assertEqual(len(self.jobs("left")), 1)

    def test_a_task_that_exceeds_its_time_cancels_the_job(self):
        self.cluster.freeze()
        self.addCleanup(self.cluster.release)
        change = lambda text: "import datetime\n" + text.replace(
            'task_id="compute",', 'task_id="compute", execution_timeout=datetime.timedelta(seconds=5),')
        result, said = self.run_dag("exceeded", change)
        self.assertEqual((result["run"], result["task"]), ("failed", "failed"), said)
        self.cluster.release()
        wait_for("the end", lambda: self.jobs("exceeded")[0]["state"] == "cancelled" or None)

    def test_what_another_attempt_would_repeat_fails_the_task_without_a_retry(self):
        for there, here, words in (
            ("rows >= 1", "rows < 1", "rows < 1"),
            ("| ds_nodash }}", "| ds }}", "is not a date"),
        ):
            retries = lambda text: text.replace(there, here).replace('task_id="compute",', 'task_id="compute", retries=3,')
            result, said = self.run_dag("refused", retries)
            self.assertEqual((result["task"], result["tries"]), ("failed", 1), said)
            self.assertIn(words, said)
