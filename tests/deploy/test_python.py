"""The Python client on a real cluster: submit, wait, list, cancel, report; failures, a coordinator that restarts, TLS; and the
snippets of its page.

Not here: the wheel (`test_wheel`), the operator for Airflow (`test_airflow`), the HTTP API itself (`test_http_api`)."""

import contextlib
import datetime
import http.server
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from unittest import mock

import pandas

from chart import TOP, merged
from processes import pods, wait_for
from small_cluster import DATE, SmallCluster
from test_processes import VALUES, made_by_the_docs

sys.path.insert(0, str(TOP / "deploy" / "python"))
import tally  # noqa: E402

PAGE = TOP / "deploy" / "docs" / "python.md"


def snippets():
    """The blocks of Python on the page that use the client, in order."""
    return [block for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S) if "airflow" not in block]


def day(folder, output="out", **more):
    """The settings of a job over the day of a small cluster."""
    tables = {"addons": f"{folder}/day/addons/v2", "main_summary": f"{folder}/day/main_summary/v3"}
    return {"date": DATE, "tables": tables, "output": f"{folder}/{output}"} | more


@contextlib.contextmanager
def answers(*steps):
    """A server that answers each request with the next step: status and JSON, or None to close the connection. Yields its URL,
    and the method and path of each request."""
    rest, seen = list(steps), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("content-length", 0)))
            step = rest.pop(0) if rest else None
            if step is None:
                self.close_connection = True
                return
            status, body = step
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()


def problem(status, kind):
    return status, {"schema_version": 1, "error": {"kind": kind, "message": "not now", "hint": None, "leader": None}}


class OnACluster(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = cls.enterClassContext(SmallCluster())
        cls.client = tally.Client(f"http://{cls.cluster.http}", patience=10)

    def day(self, output, **more):
        return day(self.cluster.folder, output, **more)

    def frozen(self):
        """Workers that do not progress, until the test ends."""
        self.cluster.freeze()
        self.addCleanup(self.cluster.release)

    def command(self, *words):
        return json.loads(self.cluster.tally(*words))

    def test_submit_wait_jobs_and_report(self):
        self.frozen()
        job = self.client.submit(**self.day("one"))
        self.assertFalse(job.existing or job.ended)
        self.assertEqual((job.date, job.dataset, job.output), (DATE, "addon_aggregates", f"{self.cluster.folder}/one"))
        same = self.client.submit(**self.day("one", date=datetime.date(2017, 2, 27)))
        self.assertEqual((same.id, same.existing), (job.id, True))
        with self.assertRaises(tally.Conflict) as raised:
            self.client.submit(**self.day("one", expectations=["rows > 1"]))
        self.assertEqual(raised.exception.status, 409)
        self.assertIn(job.id, raised.exception.message)
        self.cluster.release()
        seen = []
        done = self.client.wait(job, timeout=100, on_progress=seen.append, interval=0.1)
        self.assertEqual(done, seen[-1])
        self.assertEqual({each.id for each in seen}, {job.id})
        summary = self.command("job", job.id)["summary"]
        self.assertEqual((done.summary.raw, done.summary.rows), (summary, summary["rows"]))
        self.assertGreater(done.ended_at, done.submitted_at)
        self.assertEqual([stage.name for stage in done.stages], ["map", "reduce", "write"])
        self.assertIn(job.id, [each.id for each in self.client.jobs()])
        self.assertEqual(self.client.jobs(limit=1)[0].id, self.client.job("latest").id)
        self.assertEqual({worker.state for worker in self.client.workers()}, {"attached"})
        self.check_report()

    def check_report(self):
        """The report is that of the command."""
        asked = {"output": f"{self.cluster.folder}/one", "start": "20170226", "end": DATE, "baseline": DATE}
        report = self.client.report_json(**asked)
        words = [f"--{name}={value}" for name, value in
                 zip(("output", "from", "to", "baseline"), asked.values())]
        said = subprocess.run([os.environ["TALLY_BIN_DIR"] + "/tally", "report", *words, "--output-format=json"],
                              capture_output=True, text=True, check=True)
        self.assertEqual(report, json.loads(said.stdout))
        frame = self.client.report(**asked)
        self.assertEqual(list(frame.index), [pandas.Timestamp("2017-02-26"), pandas.Timestamp("2017-02-27")])
        self.assertEqual(list(frame["state"]), ["missing", "published"])
        values = report["days"][1]["figures"]
        self.assertEqual(frame.loc["2017-02-27", "n_clients"], values["n_clients"]["value"])
        self.assertEqual(frame.loc["2017-02-27", "self_installers_change_percent"], 0.0)
        self.assertTrue(frame.isna().loc["2017-02-26", "n_clients"])
        self.assertEqual(str(frame["n_clients"].dtype), "Int64")
        self.assertEqual((frame.attrs["baseline"], frame.attrs["figures"]["self_installers"]["goal_percent"]), (DATE, 5))

    def test_a_report_without_pandas_says_what_is_missing(self):
        with mock.patch.dict(sys.modules, {"pandas": None}), self.assertRaises(tally.TallyError) as raised:
            self.client.report(output="/none", start=DATE, end=DATE)
        self.assertIn("report_json()", raised.exception.hint)

    def test_a_job_that_does_not_end_in_time_continues_and_is_cancelled(self):
        self.frozen()
        job = self.client.submit(**self.day("late"))
        with self.assertRaises(tally.WaitTimeout) as raised:
            self.client.wait(job, timeout=0.5, interval=0.1)
        self.assertEqual(raised.exception.job.id, job.id)
        self.assertFalse(self.client.job(job).ended)
        self.assertEqual(self.client.cancel(job).id, job.id)
        self.cluster.release()
        with self.assertRaises(tally.JobCancelled):
            self.client.wait(job.id, timeout=100, interval=0.1)

    def test_a_job_that_fails_says_why(self):
        job = self.client.submit(**self.day("none", date="20170226"))
        with self.assertRaises(tally.JobFailed) as raised:
            self.client.wait(job, timeout=100, interval=0.1)
        self.assertIn(raised.exception.job.reason, str(raised.exception))
        job = self.client.submit(**self.day("none", expectations=["rows < 1"]))
        with self.assertRaises(tally.UnmetExpectation) as raised:
            self.client.wait(job, timeout=100, interval=0.1)
        self.assertIn("rows < 1", str(raised.exception))

    def test_what_cannot_be_accepted_is_refused_with_the_words_of_the_coordinator(self):
        for change, words in (
            ({"date": "20170230"}, "is not a date"),
            ({"output": "out"}, "neither an absolute path nor a URL"),
            ({"tables": {"addons": "/a"}}, "main_summary is missing"),
            ({"dataset": "none"}, "there is no dataset"),
            ({"dataset_options": {"list": b"\xff"}}, "has no options"),
            ({"expectations": ["rows"]}, "expectation"),
            ({"ready_marker": "SUCCESS"}, "ready marker"),
        ):
            with self.subTest(words), self.assertRaises(tally.InvalidRequest) as raised:
                self.client.submit(**self.day("refused") | change)
            self.assertIn(words, raised.exception.message)
        with self.assertRaises(tally.InvalidRequest) as raised:
            self.client.report(output="/none", start=DATE, end="20170226")
        self.assertIn("from is after to", raised.exception.message)

    def test_an_unknown_job(self):
        for ask in (self.client.job, self.client.cancel, self.client.wait):
            with self.assertRaises(tally.NotFound) as raised:
                ask("20170227-none")
            self.assertEqual((raised.exception.status, raised.exception.kind), (404, "not_found"))
        for name in ("", "../jobs", "a b"):
            with self.assertRaises(tally.TallyError):
                self.client.job(name)

    def test_lists_of_several_pages(self):
        ids = [self.client.submit(**self.day(f"many-{at}", date="20170226")).id for at in range(3)]
        with mock.patch("tally.client.PAGE", 2):
            found = [job.id for job in self.client.jobs()]
        self.assertEqual(found, [job.id for job in self.client.jobs()])
        self.assertLessEqual(set(ids), set(found))

    def test_a_coordinator_that_restarts(self):
        self.frozen()
        job = self.client.submit(**self.day("restarted"))
        ended, followed = [], threading.Event()

        def wait():
            # Another coordinator of the list is not reachable at any time.
            client = tally.Client(f"http://127.0.0.1:9,http://{self.cluster.http}", patience=1)
            ended.append(client.wait(job, on_progress=lambda _: followed.set(), interval=0.1, timeout=100))

        waiting = threading.Thread(target=wait)
        waiting.start()
        self.assertTrue(followed.wait(60))

        def away():
            # Longer than the patience.
            time.sleep(2)
            with self.assertRaises(tally.Unavailable):
                tally.Client(f"http://{self.cluster.http}", patience=0.3).job(job)

        self.cluster.restart_coordinator(away)
        self.cluster.release()
        waiting.join(120)
        self.assertEqual([done.state for done in ended], ["done"])

    def test_the_snippets_of_the_page(self):
        shown = "\n".join(snippets())
        for there, here in (
            ("http://localhost:9090", f"http://{self.cluster.http}"),
            ("s3://bucket/addons/v2", f"{self.cluster.folder}/day/addons/v2"),
            ("s3://bucket/main_summary/v3", f"{self.cluster.folder}/day/main_summary/v3"),
            ("s3://bucket/aggregates", f"{self.cluster.folder}/snippets"),
        ):
            self.assertIn(there, shown)
            shown = shown.replace(there, here)
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | {"PYTHONPATH": str(TOP / "deploy" / "python")}
            done = subprocess.run([sys.executable, "-c", shown], cwd=folder, env=environment, capture_output=True, text=True,
                                  timeout=200)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("published", done.stdout)


class Repetitions(unittest.TestCase):
    """Against a server that answers as each test says."""

    def test_reads_are_repeated_and_submissions_only_if_they_had_no_effect(self):
        jobs = (200, {"jobs": [], "next_page_token": None})
        with answers(None, problem(503, "no_leader"), problem(429, "too_many_requests"), jobs) as (url, seen):
            self.assertEqual(tally.Client(url).jobs(), [])
            self.assertEqual(len(seen), 4)
        with answers(problem(503, "no_leader"), None, jobs) as (url, seen):
            with self.assertRaises(tally.Uncertain) as raised:
                tally.Client(url).submit(**day("/none"))
            self.assertIn("submit again", str(raised.exception))
            self.assertEqual(seen, ["POST /api/v1/jobs"] * 2)
        with answers(*[problem(500, "failed")] * 2) as (url, seen):
            with self.assertRaises(tally.RequestError):
                tally.Client(url).jobs()
            self.assertEqual(len(seen), 1)

    def test_a_client_gives_up_with_the_last_reason(self):
        with answers(*[problem(503, "no_leader")] * 50) as (url, seen):
            with self.assertRaises(tally.Unavailable) as raised:
                tally.Client(url, patience=0.5).workers()
            self.assertIn("not now", str(raised.exception))
            self.assertGreater(len(seen), 1)

    def test_an_answer_of_something_else(self):
        with answers((200, []), (404, {"detail": "Not Found"})) as (url, _):
            for expected in (tally.TallyError, tally.RequestError):
                with self.assertRaises(expected) as raised:
                    tally.Client(url).jobs()
                self.assertIn("check the URL", raised.exception.hint)

    def test_settings_that_cannot_be_used(self):
        for url in ("", "localhost:9090", "ftp://localhost", "http://localhost:x", "http://localhost/api"):
            with self.assertRaises(tally.TallyError):
                tally.Client(url)
        for refused in ({"url": "http://user:hidden@localhost"}, {"url": "http://localhost", "token": "hid den"},
                        {"url": "http://example.org", "token": "hidden"}):
            with self.assertRaises(tally.TallyError) as raised:
                tally.Client(**refused).jobs()
            self.assertNotIn("hid", str(raised.exception))
        with self.assertRaises(tally.TallyError) as raised:
            tally.Client("http://localhost", token_file="/none/token").jobs()
        self.assertIn("/none/token", str(raised.exception))
        with self.assertRaises(tally.TallyError) as raised:
            tally.Client("https://localhost", ca="/none/ca.crt")
        self.assertIn("ca=", str(raised.exception))


class Secured(unittest.TestCase):
    """With the certificates and the tokens that the docs create."""

    def test_a_job_over_tls_and_what_each_role_may_do(self):
        with tempfile.TemporaryDirectory() as folder:
            secrets, config = made_by_the_docs(folder)
        with pods(merged(VALUES, config), workers=1, secrets=secrets) as running:
            url = f"https://{running.http['coordinator-0']}"
            mounted = running.folder / "coordinator-0"
            ca = next(mounted.glob("*/ca.crt"))
            # As everywhere in the cluster, the authority counts, not the name.
            tls = {"ca": ca, "verify_hostname": False, "patience": 10}
            words = ["generate", "--clients=500", "--narrow", f"--date={DATE}", f"--output={running.folder}/data/day"]
            subprocess.run([os.environ["TALLY_BIN_DIR"] + "/tally", *words], check=True, capture_output=True)
            job = day(running.folder / "data")
            operator = tally.Client(url, certificate=mounted / "operator/tls.crt", key=mounted / "operator/tls.key", **tls)
            wait_for("workers", lambda: operator.workers() or None)
            done = operator.wait(operator.submit(**job), timeout=100, interval=0.1)
            self.assertGreater(done.summary.rows, 0)
            report = operator.report_json(output=job["output"], start=DATE, end=DATE)
            self.assertEqual(report["days"][0]["state"], "published")
            self.check_roles(url, tls, secrets["tally-tokens"]["tokens"].split()[2], job, done)

    def check_roles(self, url, tls, token, job, done):
        file = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory())) / "token"
        file.write_text("0123456789abcdef\n")
        reader = tally.Client(url, token_file=file, **tls)
        with self.assertRaises(tally.Unauthenticated):
            reader.jobs()
        # A new token is used without a new client.
        file.write_text(token + "\n")
        self.assertEqual([each.id for each in reader.jobs()], [done.id])
        for refused in (lambda: reader.submit(**job), lambda: reader.cancel(done),
                        lambda: reader.report_json(output=job["output"], start=DATE, end=DATE)):
            with self.assertRaises(tally.Forbidden):
                refused()
        with mock.patch.dict(os.environ, {"TALLY_TOKEN": token, "TALLY_TLS_CA": str(tls["ca"]), "TALLY_URL": url}):
            self.assertEqual(tally.Client(verify_hostname=False).job("latest").id, done.id)
        with self.assertRaises(tally.Unauthenticated):
            tally.Client(url, **tls).jobs()
        with self.assertRaises(tally.Forbidden) as raised:
            tally.Client(url.replace("https", "http"), token=token).jobs()
        self.assertIn("https://", raised.exception.hint)
        with self.assertRaises(tally.TallyError) as raised:
            tally.Client(url, token=token).jobs()
        self.assertIn("certificate", str(raised.exception))
