"""The HTTP API of a real coordinator: its answers against its description and against the commands, live streams,
submission, cancellation, reports, and who may ask with TLS.

Not here: refusals without TLS (`service/api/tests.rs`), the web page (`test_web_page`)."""

import http.client
import json
import ssl
import subprocess
import tempfile
import threading
import unittest

import jsonschema

from chart import BIN, merged
from processes import DEADLINE, pods, wait_for
from small_cluster import DATE, SmallCluster
from test_processes import VALUES, made_by_the_docs

PREFIX = "/api/v1"


def closed(schema):
    """The schema without fields that it does not name: the description must be complete."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    if "properties" in found and isinstance(found.get("required"), list):
        found.setdefault("additionalProperties", False)
    return found


class Description:
    """The document of the API."""

    def __init__(self, text):
        self.document = json.loads(text)
        self.parts = closed(self.document["components"])

    def check(self, name, value):
        schema = {"$ref": f"#/components/schemas/{name}", "components": self.parts}
        jsonschema.Draft202012Validator(schema).validate(value)

    def answer(self, path, method="get", status="200"):
        """The name of the schema of an answer."""
        answer = self.document["paths"][path][method]["responses"][status]["content"]["application/json"]["schema"]
        return answer["$ref"].rsplit("/", 1)[1]


class Api:
    """Requests to one address. `tls` is a context, `token` a bearer token."""

    def __init__(self, address, tls=None, token=None):
        host, port = address.rsplit(":", 1)
        self.connect = lambda: (
            http.client.HTTPSConnection(host, int(port), timeout=DEADLINE, context=tls) if tls
            else http.client.HTTPConnection(host, int(port), timeout=DEADLINE)
        )
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def ask(self, path, method="GET", body=None, kind="application/json"):
        """Status and body."""
        connection = self.connect()
        headers = self.headers | ({} if body is None else {"Content-Type": kind})
        try:
            connection.request(method, PREFIX + path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def get(self, path):
        status, body = self.ask(path)
        assert status == 200, (path, status, body)
        return body

    def events(self, path, headers={}):
        """The events of a stream, as name, id and data, until it ends."""
        connection = self.connect()
        try:
            connection.request("GET", PREFIX + path, headers=self.headers | headers)
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            assert answer.getheader("content-type") == "text/event-stream"
            fields = {}
            while line := answer.readline():
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                elif "data" in fields:
                    yield fields["event"], fields.get("id"), json.loads(fields["data"])
                    fields = {}
        finally:
            connection.close()


class Follower(threading.Thread):
    """Reads a stream until its end."""

    def __init__(self, events):
        super().__init__(daemon=True)
        self.events, self.seen, self.error = events, [], None
        self.start()

    def run(self):
        try:
            self.seen.extend(self.events)
        except BaseException as error:
            self.error = error

    def finish(self):
        """The events, after the end."""
        self.join(DEADLINE)
        if self.error:
            raise self.error
        assert not self.is_alive(), self.seen
        return self.seen


class Answers(unittest.TestCase):
    def setUp(self):
        self.cluster = self.enterContext(SmallCluster())
        self.api = Api(self.cluster.http)
        self.description = Description(json.dumps(self.api.get("/openapi.json")))

    def checked(self, path, of):
        """The answer to GET, which has the documented form."""
        body = self.api.get(path)
        self.description.check(self.description.answer(PREFIX + of), body)
        return body

    def command(self, *words):
        """The lines of JSON that a command prints."""
        return [json.loads(line) for line in self.cluster.tally(*words).splitlines()]

    def running(self, job):
        """The job, once tasks of it run."""
        def look():
            found = self.checked(f"/jobs/{job}", "/jobs/{job}")
            return found if (found["detail"] or {}).get("running") else None
        return wait_for("running tasks", look)

    def test_a_job_from_its_start_to_its_end(self):
        self.cluster.freeze()
        job = self.cluster.submit("one")
        follower = Follower(self.api.events(f"/jobs/{job}/stream"))
        shown = self.running(job)
        self.assertEqual((shown["job_id"], shown["state"]), (job, "running"))

        def silent():
            workers = self.checked("/workers", "/workers")["workers"]
            return workers if workers and all(worker["silent"] for worker in workers) else None
        self.assertEqual(len(wait_for("silent workers", silent)), 2)
        self.cluster.release()
        self.check_stream(job, follower.finish())
        self.same_as_the_commands(job)
        jobs = self.checked("/jobs?page_size=1", "/jobs")
        self.assertEqual([each["job_id"] for each in jobs["jobs"]], [job])
        self.assertIsNone(jobs["next_page_token"])
        self.assertTrue(self.checked("/cluster", "/cluster")["permissions"]["cancel"])

    def check_stream(self, job, seen):
        self.assertEqual([seen[-2][0], seen[-1]], ["job", ("end", None, {})])
        states = [data for name, _, data in seen if name == "job"]
        self.assertGreater(len(states), 2)
        for state in states:
            self.description.check("Job", state)
        self.assertIn(states[0]["state"], ("running", "waiting_for_workers"))
        self.assertEqual(states[-1]["state"], "done")
        self.assertEqual(states[-1]["summary"]["job_id"], job)
        numbers, attempts = [], []
        for name, last, data in seen:
            if name == "attempts":
                self.description.check("Attempts", data)
                attempts += data["attempts"]
            if name == "events":
                self.description.check("Events", data)
                numbers += [event["number"] for event in data["events"]]
                self.assertEqual(int(last), numbers[-1])
        self.assertEqual(numbers, sorted(set(numbers)))
        # After the last event that was received there is none.
        again = list(self.api.events(f"/jobs/{job}/stream", {"Last-Event-ID": str(numbers[-1])}))
        self.assertEqual([name for name, *_ in again], ["attempts", "job", "end"])
        self.check_attempts(job, attempts, states[-1])

    def check_attempts(self, job, attempts, state):
        """Each task was done once, and the list is still known after the end."""
        self.assertEqual([each["number"] for each in attempts], list(range(1, len(attempts) + 1)))
        done = [(each["stage"], each["index"]) for each in attempts if each["end"] == "done"]
        tasks = [(stage["name"], index) for stage in state["stages"] for index in range(stage["tasks"])]
        self.assertEqual(sorted(done), sorted(tasks))
        self.assertTrue(any(each["seconds"] > 1 for each in attempts), "those on frozen workers")
        known = self.checked(f"/jobs/{job}/attempts?after=1", "/jobs/{job}/attempts")
        self.assertEqual((known["attempts"], known["left_out"]), (attempts[1:], 0))

    def same_as_the_commands(self, job):
        [shown] = self.command("job", job)
        self.assertEqual(self.checked(f"/jobs/{job[:-1]}", "/jobs/{job}"), shown)
        events = self.checked("/jobs/latest/events", "/jobs/{job}/events")
        self.assertTrue(events["over"])
        logged = [{"schema_version": 1, "job_id": job} | event for event in events["events"]]
        self.assertEqual(self.command("logs", job), logged)
        [jobs] = self.command("jobs")
        self.assertEqual(self.checked("/jobs", "/jobs"), jobs | {"next_page_token": None})

    def test_a_job_is_submitted_and_its_day_reported(self):
        folder = self.cluster.folder
        job = {"date": DATE, "tables": {"addons": f"{folder}/day/addons/v2", "main_summary": f"{folder}/day/main_summary/v3"},
               "output": f"{folder}/submitted", "target_file_size": 1000000, "ready_marker": "_SUCCESS"}
        self.description.check("Submission", job)
        self.cluster.freeze()

        def submit(kind="application/json", **change):
            status, body = self.api.ask("/jobs", "POST", json.dumps(job | change), kind)
            self.description.check(self.description.answer(PREFIX + "/jobs", "post", str(status)), body)
            return status, body
        status, shown = submit()
        self.assertEqual((status, shown["output"], shown["ready_marker"]), (201, job["output"], "_SUCCESS"))
        # The command joins the job, and so does the same request.
        self.assertEqual(self.cluster.submit("submitted", "--ready-marker=_SUCCESS"), shown["job_id"])
        self.assertEqual((submit()[0], submit()[1]["job_id"]), (200, shown["job_id"]))
        refused = ((submit(ready_marker="_OTHER"), 409), (submit(priority=1), 400), (submit("text/plain"), 415),
                   (submit(ready_marker="_" * (3 << 20)), 413))
        for (status, body), expected in refused:
            self.assertEqual(status, expected, body)
        self.cluster.release()
        wait_for("the end", lambda: self.api.get(f"/jobs/{shown['job_id']}")["state"] == "done" or None)
        report = self.checked(f"/objectives?output={job['output']}&from={DATE}&to=20170228", "/objectives")
        self.assertEqual([day["state"] for day in report["days"]], ["published", "missing"])
        [said] = self.command_without_cluster("report", f"--output={job['output']}", f"--from={DATE}", "--to=20170228")
        self.assertEqual(report, said)

    def command_without_cluster(self, *words):
        done = subprocess.run([BIN / "tally", *words, "--output-format=json"], capture_output=True, text=True, timeout=DEADLINE)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def test_a_job_is_cancelled(self):
        self.cluster.freeze()
        job = self.cluster.submit("one")
        self.running(job)
        status, body = self.api.ask(f"/jobs/{job}/cancel", "POST")
        self.assertEqual(status, 200, body)
        self.description.check("Job", body)
        self.cluster.release()
        wait_for("the end", lambda: self.api.get(f"/jobs/{job}")["state"] == "cancelled" or None)

    def test_the_cluster_is_followed(self):
        stream = self.api.events("/stream")
        first = [next(stream) for _ in range(3)]
        self.assertEqual([name for name, *_ in first], ["cluster", "jobs", "workers"])
        for (_, _, data), name in zip(first, ("Cluster", "Jobs", "Workers")):
            self.description.check(name, data)
        self.cluster.freeze()
        job = self.cluster.submit("one")
        for name, _, data in stream:
            if name == "jobs":
                self.description.check("Jobs", data)
                self.assertEqual(data["jobs"][0]["job_id"], job)
                break
        else:
            self.fail("the stream ended without the job")
        # Heartbeats are missing now.
        for name, _, data in stream:
            if name == "workers" and [worker["silent"] for worker in data["workers"]] == [True, True]:
                break
        else:
            self.fail("the stream ended without silent workers")
        stream.close()
        self.cluster.release()
        wait_for("the end", lambda: self.api.get(f"/jobs/{job}")["state"] == "done" or None)

    def test_failures_are_described(self):
        for path, of, status in (
            ("/jobs/none", "/jobs/{job}", 404),
            ("/jobs/none/events", "/jobs/{job}/events", 404),
            ("/jobs/none/stream", "/jobs/{job}/stream", 404),
            ("/jobs?page_size=none", "/jobs", 400),
            ("/jobs?page_size=201", "/jobs", 400),
            ("/jobs?pagesize=1", "/jobs", 400),
            ("/jobs/%FF", "/jobs/{job}", 400),
            ("/workers?page_token=%00", "/workers", 400),
            ("/objectives", "/objectives", 400),
            ("/objectives?output=/none&from=20170228&to=20170227", "/objectives", 400),
        ):
            found, body = self.api.ask(path)
            self.assertEqual(found, status, body)
            self.description.check(self.description.answer(PREFIX + of, status=str(status)), body)

    def test_the_description_is_valid(self):
        names = []
        for path, methods in self.description.document["paths"].items():
            for method, operation in methods.items():
                names.append(operation["operationId"])
                declared = {each["name"] for each in operation.get("parameters", []) if each["in"] == "path"}
                self.assertEqual(declared, {"job"} if "{job}" in path else set(), (method, path))
        self.assertEqual(len(names), len(set(names)))
        for name, schema in self.description.document["components"]["schemas"].items():
            with self.subTest(name):
                jsonschema.Draft202012Validator.check_schema(schema)
        text = json.dumps(self.description.document)
        for name in self.description.document["components"]["schemas"]:
            self.assertIn(f'"#/components/schemas/{name}"', text, "it is used")


class Secured(unittest.TestCase):
    """With the certificates and the token that the docs create: the token is a reader's."""

    def check_revoked(self, reader, mounted):
        """A stream ends when its token is no longer in the file."""
        stream = reader.events("/stream")
        self.assertEqual(next(stream)[0], "cluster")
        [file] = [file for file in mounted.glob("*/tokens") if file.is_file()]
        new = file.with_name("new")
        new.write_text("reader other another-0123456789abcdef\n")
        new.chmod(0o600)
        new.replace(file)
        *_, (name, _, data) = stream
        self.assertEqual((name, data["error"]["kind"]), ("failure", "unauthenticated"))
        self.assertEqual(reader.ask("/jobs")[0], 401)

    def test_the_roles_are_those_of_grpc(self):
        with tempfile.TemporaryDirectory() as folder:
            secrets, config = made_by_the_docs(folder)
        with pods(merged(VALUES, config), workers=0, secrets=secrets) as running:
            address = running.http["coordinator-0"]
            mounted = running.folder / "coordinator-0"
            [authority] = {path.read_text() for path in mounted.glob("*/ca.crt")}

            def context(certificate=None):
                made = ssl.create_default_context(cadata=authority)
                # As everywhere in the cluster, the authority counts, not the name.
                made.check_hostname = False
                if certificate:
                    made.load_cert_chain(certificate / "tls.crt", certificate / "tls.key")
                return made

            token = secrets["tally-tokens"]["tokens"].split()[2]
            reader = Api(address, context(), token)
            self.assertEqual(reader.ask("/jobs")[0], 200)
            self.assertEqual(reader.get("/cluster")["permissions"], {"view": True, "submit": False, "cancel": False})
            self.assertEqual(reader.ask("/jobs/none/cancel", "POST")[0], 403)
            self.assertEqual(next(reader.events("/stream"))[0], "cluster")
            operator = Api(address, context(mounted / "operator"))
            self.assertEqual(operator.ask("/jobs/none/cancel", "POST")[0], 404)
            # A coordinator's certificate, an unknown token, none, and a good one in plain text.
            self.assertEqual(Api(address, context(mounted / "tls")).ask("/jobs")[0], 403)
            self.assertEqual(Api(address, context(), "0123456789abcdef").ask("/jobs")[0], 401)
            self.assertEqual(Api(address, context()).ask("/workers")[0], 401)
            status, body = Api(address, token=token).ask("/jobs")
            self.assertEqual((status, body["error"]["kind"]), (403, "forbidden"))
            self.assertIn("https://", body["error"]["hint"])
            self.check_revoked(reader, mounted)
            self.assertEqual(running.end(), [0])
