#!/usr/bin/env python3
"""Writes the measured figures into the documentation: each block between `<!-- figures: NAME -->` and `<!-- /figures -->`
of a page is generated from the files in `results/`.

    tests/bench/figures.py           writes the blocks of all pages
    tests/bench/figures.py --check   fails if the figures of a page differ

Not here: measuring.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import median

import datasets
import results

TOP = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parent / "results"
BLOCK = re.compile(r"(<!-- figures: ([a-z-]+) -->\n)(.*?)(<!-- /figures -->)", re.S)


def recorded(name):
    return json.loads((RESULTS / "recorded.json").read_text())[name]


def millions(clients):
    return f"{clients / 1e6:g} M"


def speed():
    """One row per contestant, one column per day."""
    days = [entry for entry in results.load(RESULTS)
            if {"tally", "duckdb"} <= entry["contestants"].keys() and results.dataset(entry) == datasets.DEFAULT.name]
    names = {
        "tally": "Tally", "tally-512MiB": "Tally, `--memory-limit 512MiB`", "decode": "bare decode",
        "duckdb": "DuckDB", "polars": "Polars",
    }
    head = "| | " + " | ".join(f"{millions(entry['day']['clients'])} clients" for entry in days) + " |"
    lines = [head, "|---|" + "---|" * len(days)]
    for name, shown in names.items():
        cells = []
        for entry in days:
            runs = entry["contestants"][name]
            wall, peak = median(run["wall"] for run in runs), median(run["peak"] for run in runs)
            cells.append(f"{wall:.2f} s, {peak / results.GIB:.2f} GiB")
        version = days[-1]["versions"].get(name, "")
        shown = f"{shown} {version}".strip() if name in ("duckdb", "polars") else shown
        lines.append(f"| {shown} | " + " | ".join(cells) + " |")
    ratios = " and ".join(f"{results.ratio(entry, 'tally', 'duckdb'):.2f}" for entry in days)
    machine = days[-1]["machine"].split(", Linux")[0]
    lines += ["", f"Medians of whole processes with {days[-1]['threads']} threads each, warm page cache ({machine}).",
              f"Tally takes {ratios} of DuckDB's time. The bare decode reads the needed columns with the parquet crate and drops them."]
    original = recorded("original")
    lines += ["", f"A day of **{original['clients'] / 1e6:.0f} M clients** ({original['addon_rows'] / 1e9:.1f} billion add-on rows, "
              f"{original['needed_bytes'] / 1e9:.1f} GB of needed columns), not in the cache, took",
              f"**{original['seconds']} s** and {original['peak_gib']} GiB on 2 cores."]
    return lines


def of_cluster(file):
    """The medians of each scenario, and the ratio of two scenarios' times, as in the table of the results."""
    rounds = json.loads((RESULTS / f"{file}.json").read_text())["rounds"]

    def middle(scenario, key):
        return median(each[scenario][key] for each in rounds)

    def ratio(one, other, key="wall"):
        return median(each[one][key] / each[other][key] for each in rounds)

    return middle, ratio


def cluster():
    plain, ratio = of_cluster("cluster-10000000")
    mixed, mixed_ratio = of_cluster("cluster-10000000-shuffled")

    def row(what, middle, ratios, one, other):
        return (f"| {what} | {middle(one, 'wall'):.1f} s | {middle(other, 'wall'):.1f} s | {ratios(one, other):.2f} |")

    return [
        "| 10 M clients | time | compared with | ratio |", "|---|---|---|---|",
        row("cluster, compared with one process", plain, ratio, "paired", "run-paired"),
        row("the same, rows shuffled over all files", mixed, mixed_ratio, "shuffled", "run-shuffled"),
        row("kill -9 of one of 4 workers at half of the map stage, compared with no failure", plain, ratio, "kill-map", "undisturbed"),
        row("kill -9 of one of 4 workers at half of the reduce stage", plain, ratio, "kill-reduce", "undisturbed"),
        row("a worker that hangs (SIGSTOP) from half of the map stage", mixed, mixed_ratio, "freeze-map", "undisturbed"),
        "",
        f"Medians of {len(json.loads((RESULTS / 'cluster-10000000.json').read_text())['rounds'])} rounds on 2 cores. "
        "Results: [cluster](../../tests/bench/results/cluster-10000000.md),",
        "[shuffled rows and a hung worker](../../tests/bench/results/cluster-10000000-shuffled.md).",
    ]


def mtls():
    _, ratio = of_cluster("cluster-10000000-mtls")
    return [f"A job over 10 M clients with mutual TLS takes {ratio('mtls', 'paired'):.2f} times as long as in plain text, and "
            f"{ratio('mtls', 'paired', 'cpu'):.2f} times the processor",
            "time ([results](../../tests/bench/results/cluster-10000000-mtls.md))."]


def fleet():
    rounds = json.loads((RESULTS / "fleet.json").read_text())["rounds"]

    def span(key, form, scale=1.0):
        values = sorted(key(each) / scale for each in rounds)
        return f"{form(values[0])} to {form(values[-1])}"

    def hundreds(value):
        return f"{round(value, -2):,.0f}"

    peak = max(each["peak"] for each in rounds) / results.MIB
    return [
        f"1,000 simulated workers with {rounds[0]['shards']:,} shards and 4,000 partitions against a real coordinator "
        "([results](../../tests/bench/results/fleet.md)):", "",
        "| | |", "|---|---|",
        f"| tasks per second | {span(lambda each: each['tasks_per_second'], hundreds)} |",
        f"| wait of a free worker for its next task (median) | {span(lambda each: each['wait_ms']['p50'], lambda ms: f'{ms:.0f}')} ms |",
        f"| processor time of the coordinator for the job | {span(lambda each: each['cpu'], lambda s: f'{s:.1f}')} s |",
        f"| processor time for the attach of the workers | {median(each['cpu_attach'] for each in rounds):.1f} s |",
        f"| peak memory of the coordinator | {peak:.0f} MiB |",
    ]


def store():
    found = recorded("store")
    lines = [
        "| clients | from disk | from the store | bare GET of the same ranges | store ÷ (disk + bare GET) | GETs per GiB |",
        "|---|---|---|---|---|---|",
    ]
    for day in found["days"]:
        lines.append(f"| {millions(day['clients'])} ({day['rounds']} rounds) | {day['disk']:g} s | {day['store']:g} s | "
                     f"{day['bare_get']:g} s | {day['ratio']:.2f} | {day['gets_per_gib']:,} |")
    return [*lines, "", "Medians of `store_bench` ([method](../../tests/bench/README.md#object-stores)), two threads. SeaweedFS on loopback shared "
            "the 2 cores, as did other work.",
            f"A job fetches {found['fetched_over_needed']} times the bytes of needed column chunks and footers."]


def sizing():
    plain, _ = of_cluster("cluster-10000000")
    mixed, _ = of_cluster("cluster-10000000-shuffled")
    found, original = recorded("sizing"), recorded("original")
    per_row = f"{plain('paired', 'shuffle_bytes_a_row'):.0f} and {mixed('shuffled', 'shuffle_bytes_a_row'):.0f} bytes per output row"
    return [
        "| per million clients | | measured by |", "|---|---|---|",
        f"| processor time | {plain('paired', 'cpu') / 10:.1f} core-seconds | a cluster of 2 workers, 10 M clients "
        "([results](../../tests/bench/results/cluster-10000000.md)) |",
        f"| bytes read | {found['read_mib']} MiB | `bytes_read` of `tally run`; only the needed columns |",
        f"| shuffle | {found['shuffle_mib']} MiB if files hold whole samples, {found['shuffle_mib_shuffled']} MiB if rows are in any file | "
        f"`tally run`; {per_row} in the benchmark |",
        f"| the coordinator | {plain('paired', 'coordinator_cpu') / 10:.3f} core-seconds | the same benchmark |", "",
        f"A day of {original['clients'] / 1e6:.0f} M clients took {original['seconds']} s on 2 cores.",
    ]


def spill():
    limits = recorded("spill")["limits"]
    return [
        "| `--memory-limit`, 10 M clients in one process | " + " | ".join(each["limit"] for each in limits) + " |",
        "|---|" + "---|" * len(limits),
        "| spilled | " + " | ".join(f"{each['spilled_mib']} MiB" if each["spilled_mib"] else "nothing" for each in limits) + " |",
        "| peak memory | " + " | ".join(f"{each['peak_mib']} MiB" for each in limits) + " |",
    ]


def failover():
    found = recorded("failover")
    least, most = found["after_kill"]
    return ["| end of the leader | a standby leads after |", "|---|---|", f"| SIGTERM | {found['after_sigterm']} s |",
            f"| kill -9 | {least} to {most} s ({found['how']}) |"]


BLOCKS = {made.__name__: made for made in (speed, cluster, mtls, fleet, store, sizing, spill, failover)}


def filled(text):
    """A page with all of its blocks regenerated."""
    return BLOCK.sub(lambda found: found[1] + "\n".join(BLOCKS[found[2]]()) + "\n" + found[4], text)


def pages():
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"], cwd=TOP,
                            capture_output=True, text=True, check=True)
    return [TOP / name for name in listed.stdout.split() if (TOP / name).is_file()]


def main():
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        raise SystemExit(__doc__)
    for page in pages():
        text = page.read_text()
        if filled(text) == text:
            continue
        if check:
            raise SystemExit(f"{page.relative_to(TOP)} has other figures than tests/bench/results: run tests/bench/figures.py")
        page.write_text(filled(text))


if __name__ == "__main__":
    main()
