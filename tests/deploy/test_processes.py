"""The chart's pods as real processes: settings that the programs accept, probes that succeed, the command of the
`helm test` pod, and the metrics that the dashboard and rules use."""

import base64
import json
import os
import pathlib
import re
import shlex
import subprocess
import tempfile
import threading
import unittest

from chart import BIN, MINIMAL, SCHEDULE, TOP, merged, nested, notes, objects, of_kind, one
from processes import Pods, get, pods
from services import SERVICES, Processes

VALUES = merged(MINIMAL, {
    "worker": {"slots": 1, "memoryMiB": 512, "spillGiB": 1, "drainTimeoutSeconds": 30},
    "monitoring": {kind: {"enabled": True} for kind in ("serviceMonitor", "prometheusRule", "dashboard")},
})
# Labels that Prometheus adds to samples, and names of PromQL and Grafana.
OF_PROMETHEUS = {"namespace", "service", "pod"}


def samples(page):
    """Names of samples, with the values of each label."""
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


def made_by_the_docs(folder):
    """Runs the documented commands that create certificates: the secrets, and the values that name them. kubectl only does
    a dry run, and helm does nothing, because there is no cluster."""
    page = (TOP / "deploy" / "docs" / "tls.md").read_text()
    [block] = [block for block in re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S) if "openssl" in block]
    stubs = """
        kubectl() { "$HELM_BIN/kubectl" "$@" --dry-run=client --output=json >>secrets; }
        helm() { printf '%s\\n' "$@" >helm; }
    """
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", stubs + block], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    secrets, text = {}, (pathlib.Path(folder) / "secrets").read_text()
    while text.strip():
        made, end = json.JSONDecoder().raw_decode(text.lstrip())
        text = text.lstrip()[end:]
        secrets[made["metadata"]["name"]] = {key: base64.b64decode(value).decode() for key, value in made["data"].items()}
    config = {}
    for words in (pathlib.Path(folder) / "helm").read_text().splitlines():
        for path, _, value in (word.partition("=") for word in words.split(",") if word.startswith("tls.")):
            config = merged(config, nested(path, value))
    return secrets, config


class Running(unittest.TestCase):
    def test_the_pods_do_what_the_chart_says(self):
        with pods(VALUES, workers=2) as running:
            self.helm_test(running)
            left = [path.name for path in (running.folder / "data").glob(".tally/*/*")]
            self.assertEqual(left, ["state"])
            self.metrics(running)
            # Stopped like a kubelet does: all exit with success within their grace period.
            self.assertEqual(running.end(), [0, 0, 0])

    def test_pods_with_ipv6_addresses(self):
        """All connections use [::1]. IPv4 reaches the same ports."""
        values = merged(VALUES, {"schedule": SCHEDULE})
        with pods(values, workers=1, ip="::1") as running:
            for address in [running.coordinator, *running.http.values()]:
                self.assertRegex(address, r"^\[::1\]:\d+$")
            for address in running.http.values():
                self.assertEqual(get(address.replace("[::1]", "127.0.0.1"), "/healthz")[0], 200)
            self.helm_test(running)
            self.daily_job(running)
            self.assertEqual(running.end(), [0, 0])

    def daily_job(self, running):
        """The scheduled time decides the day: 24804210 minutes after 1970 it is 2017-02-28, 03:30."""
        data = running.folder / "data"
        words = ["generate", "--clients=1000", "--narrow", "--date=20170227", f"--output={data}/day"]
        subprocess.run([BIN / "tally", *words], check=True, capture_output=True)
        for name, table in (("a", "addons/v2"), ("m", "main_summary/v3")):
            (data / "day" / table).rename(data / name)
        done = running.daily_job("day-tally-daily-24804210")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual([path.name for path in (data / "o").iterdir()], ["submission_date_s3=20170227"])
        # A job by hand has no scheduled time: the day is yesterday, which has no tables.
        done = running.daily_job("by-hand")
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn("was accepted", done.stderr)
        self.assertNotIn("job 20170227-", done.stderr)

    def test_without_a_volume_the_workers_do_it_in_the_store(self):
        """Tables, output and journal in a bucket, and two coordinators with an election by Consul."""
        with tempfile.TemporaryDirectory() as folder, Processes(folder) as services:
            services.start_consul()
            services.start_store()
            store = services.environment(SERVICES["s3"]["environment"])
            keys = {name: store[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
            values = {
                "worker": VALUES["worker"],
                "coordinator": {"replicas": 2, "stateDir": "s3://telemetry/state/tally"},
                "consul": {"url": f"http://127.0.0.1:{services.port('consul', '8500')}"},
                "objectStore": {"credentialsSecret": "keys", "region": store["AWS_REGION"],
                                "endpoint": store["AWS_ENDPOINT_URL"]},
            }
            with pods(values, workers=2, secrets={"keys": keys}, coordinators=2) as running:
                self.helm_test(running)
                # Only the journal remains in the bucket, and nothing in the pod.
                left = services.keys("telemetry")
                self.assertTrue(left)
                for key in left:
                    self.assertRegex(key, "^state/tally/log/")
                self.assertEqual(list((running.folder / "test" / "own").iterdir()), [])
                self.assertEqual(running.end(), [0, 0, 0, 0])

    def test_with_tls_as_without(self):
        """With the secrets that the documented commands create. The commands of NOTES.txt are run."""
        with tempfile.TemporaryDirectory() as folder:
            secrets, config = made_by_the_docs(folder)
        values = merged(VALUES, config)
        with pods(values, workers=1, secrets=secrets) as running:
            self.helm_test(running)
            said = [shlex.split(line) for line in notes(values).replace("\\\n", " ").splitlines() if " exec " in line]
            submit, jobs = [words[words.index("--") + 1:] for words in said]
            self.assertEqual((submit[1], jobs[1]), ("submit", "jobs"))
            done = running.exec("coordinator", jobs)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("done", done.stdout)
            # The tables do not exist, but the job is accepted and started.
            done = running.exec("coordinator", submit)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn("/addons/v2", done.stderr)
            # The certificate of a coordinator's pod does not permit requests.
            done = running.exec("coordinator", [word.replace("/etc/tally/operator/", "/etc/tally/tls/") for word in jobs])
            self.assertEqual(done.returncode, 1, done.stdout)
            self.assertIn("role", done.stderr)
            self.by_token(running)
            # The alert on certificates exists only with TLS.
            self.metrics(running)
            self.assertEqual(running.end(), [0, 0])

    def by_token(self, running):
        """From another host, with the variables that NOTES.txt names."""
        token = running.folder / "token"
        token.write_text(running.secrets["tally-tokens"]["tokens"].split()[2])
        token.chmod(0o600)
        environment = {"TALLY_TLS_CA": running.folder / "coordinator-0" / "tls" / "ca.crt", "TALLY_TOKEN_FILE": token}
        command = [BIN / "tally", "jobs", "--coordinator", running.coordinator]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("done", done.stdout)

    def helm_test(self, running):
        """The pod of `helm test`, as specified: the workers run the job, not the pod."""
        done = running.helm_test()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr + running.said())
        self.assertIn("The result matches the generator's totals", done.stdout)
        rows = int(re.search(r"rows +([\d,]+)", done.stdout)[1].replace(",", ""))
        self.assertGreater(rows, 0)
        workers = [name for name in running.http if name.startswith("worker")]
        read = sum(self.value(running, name, "tally_worker_read_rows_total") for name in workers)
        self.assertGreater(read, rows)

    def value(self, running, name, metric):
        page = get(running.http[name], "/metrics")[1]
        return float(re.search(rf"^{metric} (\S+)$", page, re.M)[1])

    def metrics(self, running):
        """Dashboard and rules use existing metrics and labels."""
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
                    known = set().union(*(there[name] for name in names))
                    # Prometheus adds its own labels to each sample, and renames equal labels of the sample to `exported_...`.
                    exported = {f"exported_{key}" for key in known & OF_PROMETHEUS}
                    self.assertIn(label, known ^ OF_PROMETHEUS | exported, where)
        self.assertGreater(len(used), 15)
        # The metric that an HPA uses.
        hpa = objects(merged(MINIMAL, {"autoscaling": {"mode": "hpa", "minReplicas": 1}}))
        [metric] = one(hpa, "HorizontalPodAutoscaler", "-worker")["spec"]["metrics"]
        self.assertIn(metric["external"]["metric"]["name"], there)

    def test_a_wrong_setting_ends_a_pod_at_once(self):
        """The error names the key and the source of its value."""
        with tempfile.TemporaryDirectory() as folder:
            secrets, config = made_by_the_docs(folder)
        secrets["tally-worker"].pop("ca.crt")
        slots = {"worker": {"extraEnv": [{"name": "TALLY_SPILL_LIMIT", "value": "much"}]}}
        jobs = {"coordinator": {"extraEnv": [{"name": "TALLY_MAX_JOBS", "value": "x"}]}}
        for component, values, words in (
            ("worker", slots, "--spill-limit <SIZE> (from TALLY_SPILL_LIMIT in the environment)"),
            ("coordinator", jobs, "--max-jobs <N> (from TALLY_MAX_JOBS in the environment)"),
            ("worker", config, "error: --tls-ca /"),
        ):
            with self.subTest(words), tempfile.TemporaryDirectory() as folder:
                running = Pods(folder, merged(VALUES, values), secrets)
                spec = one(running.objects, "Deployment", f"-{component}")["spec"]["template"]["spec"]
                args, environment = running.command(component, spec)
                done = subprocess.run(args, capture_output=True, text=True, timeout=120, env=environment)
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertIn(words, done.stderr)

    def test_the_log_is_text_on_a_terminal(self):
        with tempfile.TemporaryDirectory(prefix="tally-log-") as folder:
            reader, terminal = os.openpty()
            command = [BIN / "tally", "coordinator", "--listen=127.0.0.1:0", f"--state-dir={folder}/state", "--log=info"]
            environment = {"PATH": os.environ["PATH"], "NO_COLOR": "1"}
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=terminal, env=environment)
            os.close(terminal)
            # Do not wait for a process without output.
            late = threading.Timer(120, process.kill)
            late.start()
            said = []
            try:
                with open(reader, encoding="utf-8") as lines:
                    while not said or "INFO" not in said[-1]:
                        said.append(lines.readline())
            finally:
                late.cancel()
                process.terminate()
                process.wait(60)
            self.assertRegex(said[-1], r"^\d{4}-\d\d-\d\dT\S+ +INFO .*\S")
            self.assertNotIn("{", "".join(said))

    def test_the_helm_test_fails_where_no_worker_is(self):
        with pods(VALUES, workers=0) as running:
            running.end()
            done = running.helm_test(lambda arg: arg.replace("--connect-timeout=60s", "--connect-timeout=1s"))
            self.assertEqual(done.returncode, 5, done.stdout + done.stderr)
