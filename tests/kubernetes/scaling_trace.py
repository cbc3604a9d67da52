"""How workers followed the load: samples of the Deployment and of the coordinator's metrics, for `deploy/docs/plot`.

Not here: checks."""

import contextlib
import re
import time
import urllib.request

import nodes
from api import Refused
from meanwhile import Meanwhile

PERIOD = 0.25
COLUMNS = {
    "attached": 'tally_workers{state="attached"}', "draining": 'tally_workers{state="draining"}',
    "runnable": "tally_tasks_runnable", "running": "tally_attempts_running"}


def numbers(namespace):
    """The coordinator's metrics, as text; None where none answers."""
    for pod in nodes.pods(namespace, "coordinator"):
        try:
            with urllib.request.urlopen(f"http://{pod.addresses[0]}:9090/metrics", timeout=2) as answer:
                page = answer.read().decode()
        except OSError:
            continue
        values = dict(re.findall(r"^(tally_\S+) ([\d.]+)$", page, re.M))
        return {column: values.get(name) for column, name in COLUMNS.items()}
    return dict.fromkeys(COLUMNS)


class Trace(Meanwhile):
    """A context manager: samples until it ends. `phase` is a word for the plot."""

    def __init__(self, namespace):
        super().__init__()
        self.namespace, self.phase, self.rows = namespace, "", []

    def follow(self):
        began = time.monotonic()
        is_last = False
        # One sample after the end, because the last change may just have been made.
        while not is_last:
            is_last = self.ended.wait(PERIOD)
            with contextlib.suppress(OSError, Refused):
                self.sample(time.monotonic() - began)

    def sample(self, seconds):
        replicas = self.namespace.get("Deployment", "tally-worker")["spec"]["replicas"]
        row = {"seconds": seconds, "phase": self.phase, "replicas": replicas, **numbers(self.namespace)}
        # Workers remain when no coordinator can tell.
        for name in ("attached", "draining"):
            if row[name] is None:
                row[name] = self.rows[-1][name] if self.rows else 0
        self.rows.append(row)

    def changes(self):
        """Without samples that differ neither from the one before nor from the one after."""
        values = [list(row.values())[1:] for row in self.rows]
        return [row for number, row in enumerate(self.rows)
                if number in (0, len(values) - 1) or not values[number - 1] == values[number] == values[number + 1]]

    def csv(self):
        def text(row):
            return ",".join("" if value is None else str(value).removesuffix(".0") for value in row)

        lines = [["seconds", "phase", "replicas", *COLUMNS]]
        lines += [[f"{row['seconds']:.2f}", *list(row.values())[1:]] for row in self.changes()]
        return "".join(text(line) + "\n" for line in lines)
