"""A real cluster with a ready marker, a webhook and a collector of OpenLineage: what they get, also from the next coordinator.

The events are checked against OpenLineage's published schema (`openlineage/`). Not here: retries, slow receivers and full queues
(`coordinator/tests/notices.rs`), object stores (`tests/tests/ready_marker.rs`)."""

import collections
import datetime
import http.server
import json
import pathlib
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.request
import uuid

import jsonschema
import pyarrow.parquet
import referencing

from chart import BIN
from processes import wait_for
from small_cluster import DATE, SmallCluster
from test_http_api import Api

SPEC = pathlib.Path(__file__).resolve().parent / "openlineage"
SCHEMAS = [json.loads(file.read_text()) for file in SPEC.rglob("*.json")]
KNOWN = referencing.Registry().with_resources(
    (schema["$id"], referencing.Resource.from_contents(schema)) for schema in SCHEMAS)
RUN_EVENT = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
# Secrets: none may be in a log.
TOKEN = "token-for-the-webhook-4711"
HOOK = "hook5ecretThatIsPartOfThePath"
QUERY = "value-of-the-query-4711"

Request = collections.namedtuple("Request", "path headers body")


class Receiver:
    """An HTTP server that keeps what it gets, and answers with `status`."""

    def __init__(self):
        self.requests, self.refused, self.status = [], 0, 200
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                if receiver.status == 200:
                    receiver.requests.append(Request(self.path, headers, json.loads(body)))
                else:
                    receiver.refused += 1
                self.send_response(receiver.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = "127.0.0.1:%d" % self.server.server_port

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def of(self, key, count=1):
        """The requests whose key begins so, once there are that many."""
        def look():
            found = [each for each in self.requests if each.headers["idempotency-key"].startswith(key)]
            return found if len(found) >= count else None
        return wait_for(f"{count} notices of {key}", look)


def check(reference, value):
    """Validates a value against a part of the published schema."""
    jsonschema.Draft202012Validator({"$ref": reference}, registry=KNOWN).validate(value)


def facets(event):
    """All facets of an event with their names."""
    yield from event["run"]["facets"].items()
    yield from event["job"]["facets"].items()
    for dataset in event["inputs"] + event["outputs"]:
        for kind in ("facets", "inputFacets", "outputFacets"):
            yield from dataset.get(kind, {}).items()


def check_event(event):
    """Validates an event, and each facet against the schema that it names."""
    check(RUN_EVENT, event)
    assert event["schemaURL"] == RUN_EVENT
    assert datetime.datetime.fromisoformat(event["eventTime"]).tzinfo is not None, event["eventTime"]
    for name, facet in facets(event):
        check(facet["_schemaURL"], facet)
        # The facet has the name under which the schema lists it.
        file = facet["_schemaURL"].split("#")[0]
        [schema] = [schema for schema in SCHEMAS if schema["$id"] == file]
        assert name in schema["properties"], (name, file)


class Published(unittest.TestCase):
    def test_the_schema_refuses_what_it_should(self):
        """Otherwise the other tests check nothing."""
        with self.assertRaises(jsonschema.ValidationError):
            check(RUN_EVENT, {"eventTime": "2017-02-27T00:00:00Z", "producer": "urn:x", "schemaURL": RUN_EVENT})
        with self.assertRaises(jsonschema.ValidationError):
            [url] = [schema["$id"] for schema in SCHEMAS if "ErrorMessage" in schema["$id"]]
            check(url + "#/$defs/ErrorMessageRunFacet", {"_producer": "urn:x", "_schemaURL": url})


class Notified(unittest.TestCase):
    def setUp(self):
        self.webhook = self.enterContext(Receiver())
        self.collector = self.enterContext(Receiver())
        self.secrets = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="tally-notices-")))
        (token := self.secrets / "token").write_text(TOKEN + "\n")
        token.chmod(0o600)
        self.cluster = self.enterContext(SmallCluster(coordinator=[
            f"--notify-url=http://{self.webhook.address}/services/{HOOK}?key={QUERY}",
            f"--notify-token-file={token}",
            f"--openlineage-url=http://{self.collector.address}",
            "--openlineage-namespace=telemetry",
            "--log=debug",
        ]))
        self.api = Api(self.cluster.http)

    def day(self, output):
        return self.cluster.folder / output / f"submission_date_s3={DATE}"

    def ended(self, job):
        """The only notice of the end of a job that the webhook has."""
        [notice] = self.webhook.of(job + ":")
        return notice

    def events(self, job, end):
        """The events of a job from its start to its end."""
        [start], [last] = self.collector.of(f"{job}:START"), self.collector.of(f"{job}:{end}")
        for request in (start, last):
            self.assertEqual(request.path, "/api/v1/lineage")
            self.assertNotIn("authorization", request.headers)
            check_event(request.body)
            self.assertEqual(request.body["run"]["runId"], str(uuid.uuid5(uuid.NAMESPACE_URL, f"urn:tally:job:{job}")))
        self.assertEqual(start.body["eventType"], "START")
        self.assertEqual(last.body["eventType"], end)
        self.assertLess(self.collector.requests.index(start), self.collector.requests.index(last))
        return start.body, last.body

    def test_a_day_that_is_published(self):
        job = self.cluster.submit("out", "--ready-marker=_SUCCESS")
        notice = self.ended(job)
        self.check_webhook(job, notice)
        self.check_day(self.events(job, "COMPLETE"), self.day("out"))
        self.check_marker()
        self.check_silence()

    def check_webhook(self, job, notice):
        self.assertEqual(notice.path, f"/services/{HOOK}?key={QUERY}")
        self.assertEqual(notice.headers["authorization"], f"Bearer {TOKEN}")
        self.assertEqual(notice.headers["content-type"], "application/json")
        body = notice.body
        self.assertEqual((body["schema_version"], body["event"], body["state"]), (1, "job_ended", "done"))
        self.assertEqual(body["idempotency_key"], notice.headers["idempotency-key"])
        shown = self.api.get(f"/jobs/{job}")
        self.assertEqual(shown.pop("schema_version"), 1)
        self.assertEqual(body["job"], shown)

    def check_day(self, events, day):
        """The figures are those of the files, by another reader of Parquet."""
        start, complete = events
        files = sorted(day.glob("part-*.parquet"))
        footers = [pyarrow.parquet.read_metadata(file) for file in files]
        [output] = complete["outputs"]
        counts = output["outputFacets"]["outputStatistics"]
        self.assertEqual(counts["rowCount"], sum(footer.num_rows for footer in footers))
        self.assertEqual(counts["fileCount"], len(files))
        self.assertEqual(counts["size"], sum(file.stat().st_size for file in files))
        self.assertEqual((output["namespace"], output["name"]), ("file", str(day.parent)))
        columns = [field["name"] for field in output["facets"]["schema"]["fields"]]
        self.assertEqual(columns, footers[0].schema.to_arrow_schema().names)
        inputs = [(each["namespace"], each["name"]) for each in start["inputs"]]
        roots = [f"{self.cluster.folder}/day/{path}" for path in ("addons/v2", "main_summary/v3")]
        self.assertEqual(inputs, [("file", root) for root in roots])
        self.assertEqual(complete["job"]["namespace"], "telemetry")
        nominal = complete["run"]["facets"]["nominalTime"]
        self.assertEqual(nominal["nominalStartTime"], "2017-02-27T00:00:00Z")
        self.assertEqual(nominal["nominalEndTime"], "2017-02-28T00:00:00Z")

    def check_marker(self):
        marker = self.day("out") / "_SUCCESS"
        self.assertEqual(marker.read_bytes(), b"")
        self.assertTrue(json.loads(self.tally("verify", "out"))["valid"])
        # A job without a marker replaces the day.
        again = self.cluster.submit("out")
        self.assertEqual(self.ended(again).body["state"], "done")
        self.assertEqual([file.name for file in self.day("out").iterdir() if file.name.startswith("_")], [])

    def tally(self, command, output):
        words = [BIN / "tally", command, f"--output={self.cluster.folder}/{output}", f"--date={DATE}", "--output-format=json"]
        done = subprocess.run(words, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def check_silence(self):
        """No secret is in the log, and the metrics count what was delivered."""
        log = (self.cluster.folder / "coordinator.log").read_text()
        for secret in (TOKEN, HOOK, QUERY):
            self.assertNotIn(secret, log)
        self.assertGreaterEqual(self.count("webhook", "delivered"), 2)
        self.assertGreaterEqual(self.count("openlineage", "delivered"), 4)
        self.assertEqual(self.count("webhook", "dropped"), 0)

    def count(self, kind, outcome):
        with urllib.request.urlopen(f"http://{self.cluster.http}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        wanted = f'tally_notices_total{{kind="{kind}",outcome="{outcome}"}} '
        [value] = [line.removeprefix(wanted) for line in lines if line.startswith(wanted)]
        return float(value)

    def test_jobs_that_publish_nothing(self):
        failed = self.cluster.submit("one", "--ready-marker=_SUCCESS", day="nowhere")
        self.assertEqual(self.ended(failed).body["state"], "failed")
        _, fail = self.events(failed, "FAIL")
        reason = self.api.get(f"/jobs/{failed}")["reason"]
        self.assertEqual(fail["run"]["facets"]["errorMessage"]["message"], reason)
        self.cluster.freeze()
        cancelled = self.cluster.submit("two", "--ready-marker=_SUCCESS")
        self.collector.of(f"{cancelled}:START")
        self.assertEqual(self.api.ask(f"/jobs/{cancelled}/cancel", "POST")[0], 200)
        self.cluster.release()
        self.assertEqual(self.ended(cancelled).body["state"], "cancelled")
        _, abort = self.events(cancelled, "ABORT")
        self.assertNotIn("errorMessage", abort["run"]["facets"])
        self.assertFalse(self.day("one").exists() or self.day("two").exists())

    def test_the_next_coordinator_sends_what_is_missing(self):
        first = self.cluster.submit("first")
        self.ended(first)
        self.events(first, "COMPLETE")
        self.webhook.status = self.collector.status = 503
        second = self.cluster.submit("second")
        wait_for("the end", lambda: self.api.get(f"/jobs/{second}")["state"] == "done" or None)
        wait_for("tries", lambda: (self.webhook.refused and self.collector.refused) or None)

        def heal():
            self.webhook.status = self.collector.status = 200
        self.cluster.restart_coordinator(heal)
        self.assertEqual(self.ended(second).body["job"]["job_id"], second)
        self.collector.of(f"{second}:COMPLETE")
        # Once the journal has that, nothing is sent again.
        time.sleep(1)
        before = len(self.webhook.requests), len(self.collector.requests)
        self.cluster.restart_coordinator(lambda: None)
        third = self.cluster.submit("third")
        self.ended(third)
        self.events(third, "COMPLETE")
        self.assertEqual(len(self.webhook.requests), before[0] + 1)
        self.assertEqual(len(self.collector.requests), before[1] + 2)


if __name__ == "__main__":
    unittest.main()
