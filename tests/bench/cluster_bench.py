"""The cluster's benchmark: one process against a coordinator and workers, in paired rounds; the cost of a lost worker. Started
by `cluster`.

Not here: the cluster (`cluster_nodes.py`), measuring one process (`measure.py`).
"""

import argparse
import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from statistics import median

import datasets
import days
import measure
from cluster_nodes import Cluster

HERE = Path(__file__).parent
# Name: number of workers, layout, and the fault of one worker at half of a stage.
SCENARIOS = {
    "paired": (2, "co-partitioned", None),
    "shuffled": (2, "shuffled", None),
    "mtls": (2, "co-partitioned", None),
    "mtls-shuffled": (2, "shuffled", None),
    "undisturbed": (4, "co-partitioned", None),
    "kill-map": (4, "co-partitioned", ("map", signal.SIGKILL)),
    "kill-reduce": (4, "co-partitioned", ("reduce", signal.SIGKILL)),
    "freeze-map": (4, "co-partitioned", ("map", signal.SIGSTOP)),
}
# The scenario that each scenario is compared with, in the same round.
AGAINST = {
    "paired": "run-paired",
    "shuffled": "run-shuffled",
    "mtls": "paired",
    "mtls-shuffled": "shuffled",
    "kill-map": "undisturbed",
    "kill-reduce": "undisturbed",
    "freeze-map": "undisturbed",
}
# The share of a stage from which the moment of its fault is close: `submit` prints it four times a second.
NEAR = {"map": 0.35, "reduce": 0.0}
# Maximum ratio to the time of the other scenario.
BOUNDS = {"paired": 1.1, "shuffled": 1.35, "mtls": 1.15, "mtls-shuffled": 1.15, "kill-map": 1.2, "kill-reduce": 1.3}


def arguments(argv):
    """The command line."""
    parser = argparse.ArgumentParser(prog="tests/bench/cluster", description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=lambda text: int(text.replace("_", "")), default=10_000_000, metavar="N",
                        help="clients of the days (default: 10000000)")
    parser.add_argument("--rounds", type=int, default=3, help="measured rounds (default: 3)")
    parser.add_argument("--warmups", type=int, default=1, help="rounds before that are not measured (default: 1)")
    parser.add_argument("--scenarios", type=lambda text: text.split(","), default=list(SCENARIOS), metavar="NAME,...",
                        help=f"of {','.join(SCENARIOS)}; those that are compared with another need it")
    parser.add_argument("--memory", default="1GiB", metavar="SIZE", help="limit of each worker (default: 1GiB)")
    parser.add_argument("--calm", type=float, default=60, metavar="SECONDS",
                        help="maximum wait before each run for an idle machine (default: 60)")
    parser.add_argument("--results", default=str(HERE / "results"), metavar="DIR",
                        help="folder for cluster-N.json and cluster-N.md (default: tests/bench/results)")
    options = parser.parse_args(argv)
    for name in options.scenarios:
        if name not in SCENARIOS:
            parser.error(f"no scenario {name}")
        other = AGAINST.get(name, "run-")
        if not other.startswith("run-") and other not in options.scenarios:
            parser.error(f"{name} is compared with {other}: name it, too")
    return options


def made(tally, python, folder, clients, layout):
    """A generated day, one per layout. It is generated unless a complete one exists."""
    kind = "" if layout == "co-partitioned" else "shuffled"
    return days.made(tally, python, folder, datasets.DEFAULT, clients, kind)


class Bench:
    """Programs, days and a folder for outputs."""

    def __init__(self, tally, python, folder, options):
        self.tally = tally
        self.python = python
        self.options = options
        self.scratch = Path(folder) / "outputs"
        self.scratch.mkdir(parents=True, exist_ok=True)
        layouts = {SCENARIOS[name][1] for name in options.scenarios}
        self.days = {name: made(tally, python, Path(folder), options.clients, name) for name in sorted(layouts)}

    def flags(self, day, output):
        """The arguments that define the job."""
        tables = day.tables()
        roots = [word for name, root in tables.items() for word in ("--table", f"{name}={root}")]
        return ["--date", days.DATE, *roots, "--output", str(output)]

    def fresh(self, day):
        """Prepares an empty output folder, and loads the day into the page cache."""
        output = self.scratch / "cluster"
        shutil.rmtree(output, ignore_errors=True)
        if self.options.calm:
            measure.settle(self.options.calm)
        day.warm()
        return output

    def check(self, name, day, output):
        """Raises unless the output is the expected one."""
        found = days.counted(self.python, "output", day.dataset.name, output)
        for figure in day.dataset.figures:
            if found[figure] != day.totals[figure]:
                raise measure.Failed(f"{name}: {figure} is {found[figure]}, not {day.totals[figure]}")

    def embedded(self, layout):
        """A run of one process with two threads."""
        day = self.days[layout]
        output = self.fresh(day)
        command = [self.tally, "run", "--threads", "2", "--output-format", "json", *self.flags(day, output)]
        done = measure.run([*command, "--spill-dir", str(self.scratch)])
        self.check("run", day, output)
        return {"wall": done.wall, "cpu": done.cpu, "peak": done.peak, "others": done.others}

    def cluster(self, name):
        """A job on its own cluster, from the start of `tally submit` to its end."""
        workers, layout, fault = SCENARIOS[name]
        day = self.days[layout]
        output = self.fresh(day)
        with Cluster(self.tally, workers, self.options.memory, self.scratch, name.startswith("mtls")) as cluster:
            injected = []
            messages = cluster.folder / "submit.log"
            injector = threading.Thread(target=inject, args=(cluster, fault, messages, injected))
            if fault:
                injector.start()
            done = measure.run(cluster.submit(*self.flags(day, output)), messages_to=messages)
            if fault:
                injector.join()
                if not injected:
                    raise measure.Failed(f"{name}: the job ended before the fault was injected")
            cpu, coordinator, peak = cluster.used()
            job = cluster.ask("jobs")["jobs"][0]
        self.check(name, day, output)
        summary = job["summary"]
        return {
            "wall": done.wall,
            "cpu": cpu + done.cpu,
            "coordinator_cpu": coordinator,
            "peak": peak,
            "shuffle_bytes_a_row": summary["shuffle_bytes"] / summary["rows"],
            "stages": {stage["name"]: round(stage["seconds"], 2) for stage in summary["stages"]},
            "reruns": sum(stage["reruns"] for stage in job["stages"]),
            "second_attempts": sum(stage["second_attempts"] for stage in job["stages"]),
        }

    def round(self):
        """Runs each scenario once; returns the figures by name."""
        found = {}
        for name in self.options.scenarios:
            if AGAINST.get(name, "").startswith("run-"):
                found[AGAINST[name]] = self.embedded(SCENARIOS[name][1])
            found[name] = self.cluster(name)
        return found


def inject(cluster, fault, messages, injected):
    """Waits until half of a stage is done, then signals a worker.

    Each question costs as much as a small task. So the progress that `submit` prints anyway is followed first, and questions
    are asked only when it is close to the moment.
    """
    stage, how = fault
    near = NEAR[stage]
    cluster.wait(f"{near:.0%} of the {stage} stage", lambda: share_done(messages, stage) >= near, deadline=600)
    cluster.wait(f"half of the {stage} stage", lambda: cluster.done(stage) >= 0.5, deadline=600, pause=0.04)
    cluster.send_signal(1, how)
    injected.append(stage)


def share_done(messages, stage):
    """The share of a stage's tasks that is done, as `submit` printed it last; less than 0 before its begin."""
    lines = messages.read_text().splitlines() if messages.exists() else []
    for line in reversed(lines):
        job = measure.last_object(line)
        for found in job.get("stages", []):
            if found["name"] == stage and found["tasks"]:
                return found["done"] / found["tasks"]
    return -1.0


def table(options, rounds):
    """The figures in Markdown: medians, and ratios taken within each round."""
    lines = [
        "| scenario | time | against | ratio (bound) | CPU | coordinator's CPU | largest process | shuffle bytes a row "
        "| tasks again | speculative attempts |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in rounds[0]:
        runs = [found[name] for found in rounds]
        mid = lambda key: median(run[key] for run in runs)
        other = AGAINST.get(name)
        ratio = median(found[name]["wall"] / found[other]["wall"] for found in rounds) if other else None
        bound = f" ({BOUNDS[name]})" if name in BOUNDS else ""
        known = "shuffle_bytes_a_row" in runs[0]
        cells = [
            f"`{name}`",
            f"{mid('wall'):.2f} s",
            f"`{other}`" if other else "",
            f"{ratio:.2f}{bound}" if other else "",
            f"{mid('cpu'):.2f} s",
            f"{mid('coordinator_cpu'):.2f} s" if known else "",
            f"{mid('peak') / 2**20:.0f} MiB",
            f"{mid('shuffle_bytes_a_row'):.1f}" if known else "",
            f"{mid('reruns'):.0f}" if known else "",
            f"{mid('second_attempts'):.0f}" if known else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(tally, python, folder, *argv):
    """Runs the requested scenarios with the programs and the folder that `cluster` passes."""
    options = arguments(argv)
    # Limited to two cores, like the other contestants.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    bench = Bench(tally, python, folder, options)
    rounds = []
    for number in range(-options.warmups, options.rounds):
        found = bench.round()
        times = "  ".join(f"{name} {run['wall']:.2f} s" for name, run in found.items())
        print(f"{f'round {number + 1}' if number >= 0 else 'warm-up'}:  {times}", flush=True)
        if number >= 0:
            rounds.append(found)
    text = table(options, rounds)
    results = Path(options.results)
    results.mkdir(parents=True, exist_ok=True)
    command = " ".join(["tests/bench/cluster", *argv])
    (results / f"cluster-{options.clients}.json").write_text(
        json.dumps({"command": command, "clients": options.clients, "rounds": rounds}, indent=1) + "\n")
    (results / f"cluster-{options.clients}.md").write_text(
        f"# Cluster, {options.clients:,} clients\n\n`{command}`\n\n{text}")
    print(f"\n{text}")
    shutil.rmtree(bench.scratch / "cluster", ignore_errors=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except measure.Failed as failed:
        sys.exit(str(failed))
