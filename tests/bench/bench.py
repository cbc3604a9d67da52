"""The benchmark: the whole job against DuckDB, Polars and the bare decode, in paired rounds. Started by `run`.

Not here: measuring one process (`measure.py`), the contestants (`contestants.py`), the evaluation of the runs (`results.py`).
"""

import argparse
import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path
from statistics import median

import datasets
import days
import measure
import results
import timeline
from contestants import Contestant, Tools

HERE = Path(__file__).parent
ALL = datasets.DEFAULT.contestants


def arguments(argv):
    """The command line."""
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=__doc__.splitlines()[0])
    numbers = lambda text: [int(number.replace("_", "")) for number in text.split(",") if number]
    parser.add_argument("--clients", type=numbers, default=[1_000_000, 10_000_000], metavar="N,...",
                        help="days to generate and measure (default: 1000000,10000000)")
    parser.add_argument("--dataset", default=datasets.DEFAULT.name, choices=list(datasets.ALL),
                        help="the dataset that is computed (default: addon_aggregates)")
    parser.add_argument("--day", action="append", default=[], metavar="DIR",
                        help="measure a day that is there, instead; may be repeated")
    parser.add_argument("--overactive", action="store_true",
                        help="measure instead what one client of 5 M pings of 20 add-ons does to a day of 1 M")
    parser.add_argument("--contestants", type=lambda text: text.split(","), metavar="NAME,...",
                        help=f"of {','.join(ALL)} (default: those that compute the dataset); tally-SIZE is any other memory limit")
    parser.add_argument("--polars-most", type=int, default=20_000_000, metavar="N",
                        help="exclude Polars from days of more clients (default: 20000000)")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (default: 5)")
    parser.add_argument("--warmups", type=int, default=1, help="rounds before that are not measured (default: 1)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each contestant (default: 2)")
    parser.add_argument("--calm", type=float, default=60, metavar="SECONDS",
                        help="maximum wait before each round for an idle machine (default: 60)")
    parser.add_argument("--results", default=str(HERE / "results"), metavar="DIR",
                        help="folder for JSON, Markdown and plots (default: tests/bench/results)")
    parser.add_argument("--gate", action="store_true",
                        help="fail if Tally takes more than 0.30 of DuckDB's time or 2.4 times the bare decode's")
    options = parser.parse_args(argv)
    options.dataset = datasets.ALL[options.dataset]
    if options.contestants is None:
        options.contestants = list(options.dataset.contestants)
    for name in options.contestants:
        if name not in options.dataset.contestants and not name.startswith("tally-"):
            parser.error(f"no contestant {name} computes {options.dataset.name}")
    if options.overactive and options.dataset is not datasets.DEFAULT:
        parser.error(f"--overactive is about {datasets.DEFAULT.name}")
    return options


def said(*command):
    """The standard output of a command."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE)
    return done.stdout.strip()


def machine():
    """Processor, cores, memory, kernel."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / results.GIB
    return f"{cpu}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}"


def setting(options, tools, argv):
    """The setting of a run, which is published with its figures."""
    peers = days.counted(tools.python, "version")
    crate = said("cargo", "pkgid", "parquet").rpartition("@")[2].rpartition("#")[2]
    version = said(tools.tally, "--version")
    rust = " ".join(said("rustc", "--version").split()[:2])
    commit = said("git", "rev-parse", "--short", "HEAD")
    engine = [str(HERE.parents[1] / name) for name in ("Cargo.toml", "Cargo.lock", "proto", "worker", "coordinator")]
    if said("git", "status", "--porcelain", "--", *engine):
        commit += " and changes"
    if os.environ.get("TALLY_BIN"):
        commit = "an unknown commit (TALLY_BIN)"
    shown = ["DIR" if argv[at - 1] in ("--day", "--results") else word for at, word in enumerate(argv)]
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit,
        "command": " ".join(["tests/bench/run", *shown]),
        "machine": machine(),
        "threads": options.threads,
        "warmups": options.warmups,
        "versions": {
            "duckdb": peers["duckdb"],
            "polars": peers["polars"],
            "decode": f"(parquet {crate})",
            "tools": f"{version}, {rust}, Python {platform.python_version()}",
        },
    }


def rounds(options, entrants):
    """Runs all entrants in turn, round after round, each round starting with another one. Returns their runs by
    label, without the warm-up."""
    runs = {label: [] for label in entrants}
    for number in range(-options.warmups, options.rounds):
        left = measure.settle(options.calm) if options.calm else 0.0
        title = f"round {number + 1}" if number >= 0 else "warm-up"
        print(f"{title}{f' (others keep {left:.1f} cores busy)' if left >= 0.1 else ''}:", end="", flush=True)
        # The first run after the wait starts on an idle machine, so the rounds rotate the order.
        order = list(entrants.items())
        turn = max(number, 0) % len(order)
        for label, contestant in order[turn:] + order[:turn]:
            contestant.clear()
            contestant.day.warm()
            done = measure.run(contestant.command(), contestant.environment())
            contestant.check(done)
            if number >= 0:
                runs[label].append(done)
            print(f"  {label} {done.wall:.2f} s {done.peak / results.MIB:.0f} MiB", end="", flush=True)
        print(flush=True)
    return runs


def measured(options, tools, day, scratch, common):
    """One day's result."""
    names, remarks = list(options.contestants), []
    # The first contestant that counts needs a reference.
    if not day.totals and "duckdb" in names:
        names.sort(key=lambda name: name != "duckdb")
    size = day.totals.get("n_clients", 0) or day.bytes() // 150
    if "polars" in names and size > options.polars_most + 2:
        names.remove("polars")
        remarks.append(f"Polars is left out above {options.polars_most:,} clients; `--polars-most` says otherwise.")
    print(f"{day.name}: {day.about}", flush=True)
    entrants = {name: Contestant(name, tools, day, scratch / name) for name in names}
    runs = rounds(options, entrants)
    recorded = None
    if "tally" in entrants:
        entrants["tally"].clear()
        if options.calm:
            measure.settle(options.calm)
        day.warm()
        wall = median(run.wall for run in runs["tally"])
        recorded = timeline.record(entrants["tally"].command(), wall / 80)
    for contestant in entrants.values():
        contestant.clear()
    return results.entry(day, runs, recorded, {**common, "remarks": remarks})


def overactive(options, tools, folder, scratch, common):
    """The result of the day with an overactive client."""
    python = tools.python
    usual = days.made(tools.tally, python, folder, options.dataset, 1_000_000)
    day = days.made(tools.tally, python, folder, options.dataset, 1_000_000, "overactive")
    print(f"{day.name}: {day.about}", flush=True)
    entrants = {
        "tally": Contestant("tally", tools, day, scratch / "with"),
        "tally-without": Contestant("tally", tools, usual, scratch / "without"),
    }
    runs = rounds(options, entrants)
    for contestant in entrants.values():
        contestant.clear()
    return results.entry(day, runs, None, {**common, "remarks": []})


def main(tally, decode, python, folder, *argv):
    """Runs the requested benchmarks with the programs and the folder that `run` passes; returns the exit code."""
    options = arguments(argv)
    tools, folder = Tools(tally, decode, python, options.threads), Path(folder)
    scratch = folder / "outputs"
    scratch.mkdir(parents=True, exist_ok=True)
    # Limit all contestants to as many cores as they have threads.
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[: options.threads])
    common = setting(options, tools, argv)
    if options.overactive:
        plans = [lambda: overactive(options, tools, folder, scratch, common)]
    else:
        given = [lambda root=root: days.given(root, options.dataset) for root in options.day]
        sizes = [] if given else options.clients
        made = [lambda n=n: days.made(tools.tally, tools.python, folder, options.dataset, n) for n in sizes]
        plans = [lambda day=day: measured(options, tools, day(), scratch, common) for day in given + made]
    broken = []
    for plan in plans:
        kept = plan()
        results.keep(options.results, kept)
        subprocess.run([tools.python, str(HERE / "plots.py"), options.results], check=True)
        print(f"\n{results.section(kept)}", flush=True)
        for words, written, value, must, _ in results.wanted(kept, results.GATE):
            if value > must:
                broken.append(f"{kept['day']['name']}: {words} is {written(value)}, more than {written(must)}")
    for line in broken if options.gate else []:
        print(line, file=sys.stderr)
    return 1 if options.gate and broken else 0


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except measure.Failed as failed:
        sys.exit(str(failed))
