"""A Prometheus server on loopback that scrapes the chart's pods (`processes`) as the ServiceMonitor says, with the chart's
rules, in less time: a minute of the rules lasts a second here.

Not here: what must fire (the tests); the rules at their real durations (`test_alerts`)."""

import datetime
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import urllib.parse

from chart import FULL, NAMESPACE, of_kind, one, own_container
from processes import get, wait_for

SERVER = pathlib.Path(os.environ["PROMTOOL_BIN"]).with_name("prometheus")
SPEED = 60
# How old the last sample of a series may be that a query still uses.
LOOKBACK = "5m"
MILLISECONDS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def sooner(duration):
    """A duration, shortened."""
    count, unit = re.fullmatch(r"(\d+)([smhd])", duration).groups()
    return f"{int(count) * MILLISECONDS[unit] // SPEED}ms"


def sooner_query(query):
    """A query with shorter windows and offsets. Nothing else changes: thresholds stay, also those in seconds."""
    return re.sub(r"(?<=\[)\w+(?=\])|(?<=\boffset )\w+", lambda found: sooner(found[0]), query)


def sooner_groups(found):
    """The groups of the chart's rules."""
    [rule] = of_kind(found, "PrometheusRule")
    return [{**group, "rules": [
        {**each, "expr": sooner_query(each["expr"]), **({"for": sooner(each["for"])} if "for" in each else {})}
        for each in group["rules"]]} for group in rule["spec"]["groups"]]


def targets(running):
    """The live pods of the services that the ServiceMonitor selects, with the labels that the Prometheus Operator adds."""
    [monitor] = of_kind(running.objects, "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    [endpoint] = monitor["spec"]["endpoints"]
    for service in of_kind(running.objects, "Service"):
        if not wanted <= service["metadata"]["labels"].items():
            continue
        for name, address in live(running).items():
            template = one(running.objects, "Deployment", f"-{name.rsplit('-', 1)[0]}")["spec"]["template"]
            if service["spec"]["selector"].items() <= template["metadata"]["labels"].items():
                service_name = service["metadata"]["name"]
                yield {"targets": [address], "labels": {
                    "__metrics_path__": endpoint["path"], "job": service_name, "namespace": NAMESPACE, "service": service_name,
                    "pod": f"{FULL}-{name}", "container": own_container(template["spec"])["name"],
                    "endpoint": endpoint["port"]}}


def live(running):
    """The HTTP addresses of the pods that did not end."""
    pairs = zip(running.http.items(), running.processes, strict=True)
    return {name: address for (name, address), process in pairs if process.poll() is None}


class Prometheus:
    """A context with the running server, which scrapes each live pod."""

    def __init__(self, running):
        self.running = running

    def __enter__(self):
        self.kept = tempfile.TemporaryDirectory(prefix="tally-prometheus-", ignore_cleanup_errors=True)
        self.folder = pathlib.Path(self.kept.name)
        [monitor] = of_kind(self.running.objects, "ServiceMonitor")
        interval = sooner(monitor["spec"]["endpoints"][0]["interval"])
        self.write("prometheus.yaml", {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": ["rules*.yaml"],
            "scrape_configs": [{"job_name": "pods", "file_sd_configs": [{"files": ["targets.json"]}]}],
        })
        self.find_targets()
        words = ["--config.file=prometheus.yaml", "--storage.tsdb.path=data", "--web.listen-address=127.0.0.1:0",
                 f"--query.lookback-delta={sooner(LOOKBACK)}"]
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen([SERVER, *words], cwd=self.folder, stdout=log, stderr=log)
        try:
            self.address = wait_for("the address of Prometheus", self.listens)
            wait_for("Prometheus", lambda: True if get(self.address, "/-/ready")[0] == 200 else None)
            self.begin_rules()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.kept.cleanup()

    def begin_rules(self):
        """After the first scrapes: until then, for some seconds, there is no leader."""
        wait_for("a scrape of each pod", lambda: True if self.value("count(up == 1)") == len(self.running.http) else None)
        self.write("rules.yaml", {"groups": sooner_groups(self.running.objects)})
        self.process.send_signal(signal.SIGHUP)
        wait_for("the rules", lambda: self.api("rules")["groups"] or None)

    def write(self, name, content):
        """JSON is YAML. The server never sees half of a file."""
        (self.folder / "new").write_text(json.dumps(content))
        (self.folder / "new").rename(self.folder / name)

    def find_targets(self):
        """As the operator does after a pod began or ended."""
        self.write("targets.json", list(targets(self.running)))

    def listens(self):
        said = (self.folder / "log").read_text()
        if self.process.poll() is not None:
            raise AssertionError(said)
        found = re.search(r'msg="Listening on" address=(\S+)', said)
        return found[1] if found else None

    def api(self, path, **parameters):
        """The data of an answer."""
        status, said = get(self.address, f"/api/v1/{path}?{urllib.parse.urlencode(parameters, doseq=True)}")
        answer = json.loads(said)
        assert answer["status"] == "success" and not answer.get("warnings"), (status, path, parameters, said)
        return answer["data"]

    def query(self, query, **parameters):
        """The labels and the value of each series now."""
        return [(each["metric"], float(each["value"][1])) for each in self.api("query", query=query, **parameters)["result"]]

    def value(self, query):
        """The only value, if there is one."""
        found = self.query(query)
        return found[0][1] if len(found) == 1 else None

    def alerts(self, since=0):
        """The names of the alerts that fire now, and whose condition began after that time."""
        return {each["labels"]["alertname"] for each in self.api("alerts")["alerts"] if each["state"] == "firing"
                and datetime.datetime.fromisoformat(each["activeAt"]).timestamp() >= since}

    def ever(self):
        """The names of the alerts that fired since the start."""
        return {labels["alertname"] for labels, _ in self.query('count_over_time(ALERTS{alertstate="firing"}[1h])')}
