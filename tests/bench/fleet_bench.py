"""The cost of a coordinator alone: a job of 20,000 shards on 1,000 simulated workers that do nothing. Started by
`fleet`.

Not here: clusters of real workers (`cluster_bench.py`).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import days
import measure
from cluster_nodes import Cluster, cpu_and_peak

HERE = Path(__file__).parent
# One shard per file: number of names of each file of `addons`.
NAMES = 200
CLIENTS = 5_000
MAX_CPU = 2.0
MAX_MEMORY = 256 << 20


def arguments(argv):
    """The command line."""
    parser = argparse.ArgumentParser(prog="tests/bench/fleet", description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=1000, help="of one slot each (default: 1000)")
    parser.add_argument("--partitions", type=int, default=4000, help="of the shuffle (default: 4000)")
    parser.add_argument("--rounds", type=int, default=3, help="each with a cluster of its own (default: 3)")
    parser.add_argument("--calm", type=float, default=60, metavar="SECONDS",
                        help="wait at most so long before each round for the machine to be quiet (default: 60)")
    parser.add_argument("--results", default=str(HERE / "results"), metavar="DIR",
                        help="where fleet.json and fleet.md go (default: tests/bench/results)")
    return parser.parse_args(argv)


def made(tally, folder):
    """A day of many files: each file of `addons` has many names."""
    root = folder / "day-fleet"
    if (root / "whole").exists():
        return root
    shutil.rmtree(root, ignore_errors=True)
    flags = ["--clients", str(CLIENTS), "--narrow", "--date", days.DATE, "--output", str(root)]
    subprocess.run([tally, "generate", *flags], check=True)
    for file in sorted(root.glob("addons/**/*.parquet")):
        for number in range(1, NAMES):
            os.link(file, file.with_name(f"{file.stem}-{number}.parquet"))
    (root / "whole").touch()
    return root


def once(options, tally, root, scratch):
    """The figures of one job."""
    output = scratch / "fleet"
    shutil.rmtree(output, ignore_errors=True)
    if options.calm:
        measure.settle(options.calm)
    with Cluster(tally, 0, "1GiB", scratch) as cluster:
        simulated = [str(Path(tally).with_name("simulated_fleet")), cluster.address, str(options.workers)]
        with subprocess.Popen(simulated, stdout=subprocess.PIPE, text=True) as fleet:
            try:
                cluster.wait("the simulated workers", lambda: cluster.attached() == options.workers, pause=0.5)
                idle, _ = cpu_and_peak(cluster.coordinator.pid)
                flags = ["--date", days.DATE, "--addons", root / "addons/v2", "--main-summary", root / "main_summary/v3",
                         "--output", output, "--shard-bytes", "1", "--partitions", options.partitions]
                done = subprocess.run(cluster.submit(*flags), capture_output=True, text=True)
                if done.returncode:
                    raise measure.Failed(f"submit: {done.stderr[-2000:]}")
                seen = json.loads(fleet.communicate(timeout=60)[0])
                cpu, peak = cpu_and_peak(cluster.coordinator.pid)
            finally:
                fleet.kill()
    stages = {stage["name"]: stage for stage in json.loads(done.stdout)["stages"]}
    return {
        "shards": stages["map"]["tasks"],
        "cpu": cpu - idle,
        "cpu_attach": idle,
        "peak": peak,
        "stages": {name: round(stage["seconds"], 2) for name, stage in stages.items()},
        **seen,
    }


def table(options, rounds):
    """The figures in Markdown."""
    lines = [
        "| round | shards | tasks | tasks a second | wait for the next task: median, 99 %, longest | coordinator's CPU "
        f"(at most {MAX_CPU} s) | memory (at most {MAX_MEMORY >> 20} MiB) |",
        "|---|---|---|---|---|---|---|",
    ]
    for number, run in enumerate(rounds, 1):
        wait = run["wait_ms"]
        cells = [number, f"{run['shards']:,}", f"{run['tasks']:,}", f"{run['tasks_per_second']:,.0f}",
                 f"{wait['p50']:.0f}, {wait['p99']:.0f}, {wait['max']:.0f} ms", f"{run['cpu']:.2f} s",
                 f"{run['peak'] / 2**20:.0f} MiB"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main(tally, folder, *argv):
    """Measures with the programs and the folder that `fleet` passes; fails if a limit is exceeded."""
    options = arguments(argv)
    scratch = Path(folder) / "outputs"
    scratch.mkdir(parents=True, exist_ok=True)
    root = made(tally, Path(folder))
    rounds = [once(options, tally, root, scratch) for _ in range(options.rounds)]
    text = table(options, rounds)
    results = Path(options.results)
    results.mkdir(parents=True, exist_ok=True)
    command = " ".join(["tests/bench/fleet", *argv])
    (results / "fleet.json").write_text(json.dumps({"command": command, "rounds": rounds}, indent=1) + "\n")
    (results / "fleet.md").write_text(
        f"# A coordinator and {options.workers:,} simulated workers\n\n`{command}`\n\n{text}")
    print(text)
    shutil.rmtree(scratch / "fleet", ignore_errors=True)
    if any(run["cpu"] > MAX_CPU or run["peak"] > MAX_MEMORY for run in rounds):
        raise measure.Failed("the coordinator takes more than it may")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except measure.Failed as failed:
        sys.exit(str(failed))
