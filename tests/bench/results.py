"""Evaluates runs: medians, paired ratios and limits, as JSON and Markdown.

A result is one JSON file per day. `results.md` is generated from all of these files in a folder, so that a run over one
day does not change the others. Not here: plots.
"""

import json
from dataclasses import asdict
from pathlib import Path
from statistics import median

import datasets
import timeline
from contestants import about

MIB = 1 << 20
GIB = 1 << 30


def ratio(entry, one, other, what="wall"):
    """The median of the ratios of two contestants, round by round; `None` if one of them is missing."""
    runs = entry["contestants"]
    if one not in runs or other not in runs:
        return None
    return median(a[what] / b[what] for a, b in zip(runs[one], runs[other]))


def most(entry, name):
    """The highest memory peak of a contestant in bytes, if it ran."""
    runs = entry["contestants"].get(name)
    return max(run["peak"] for run in runs) if runs else None


def more_memory(entry):
    """The increase of the peak by the overactive client: median of the differences, round by round."""
    runs = entry["contestants"]
    if "tally-without" not in runs:
        return None
    return median(a["peak"] - b["peak"] for a, b in zip(runs["tally"], runs["tally-without"]))


def share(value):
    return f"{value:.2f}"


def memory(value):
    return f"{value / GIB:.2f} GiB" if value >= GIB else f"{value / MIB:.0f} MiB"


# The limits: description, minimum clients of the day, figure, format, maximum, target.
WANTED = [
    ("time of Tally / DuckDB", 0, lambda e: ratio(e, "tally", "duckdb"), share, 0.25, 0.15),
    ("time of Tally / bare decode", 0, lambda e: ratio(e, "tally", "decode"), share, 2.0, 1.2),
    ("time with 512 MiB / 2 GiB", 10**7, lambda e: ratio(e, "tally-512MiB", "tally"), share, 1.6, 1.2),
    ("peak memory", 10**7, lambda e: most(e, "tally"), memory, 2.2 * GIB, GIB),
    ("peak memory with 512 MiB", 10**7, lambda e: most(e, "tally-512MiB"), memory, 700 * MIB, None),
    ("memory for the overactive client", 0, more_memory, memory, 100 * MIB, None),
]
# The limits that detect gross slowness on any machine; three rounds deviate by up to a fifth.
GATE = [(*rule[:4], rule[4] * 1.2, rule[5]) for rule in WANTED[:2]]


def wanted(entry, rules):
    """[description, format, figure, maximum, target] of the limits for which a result has figures."""
    found = []
    for words, clients, figure, written, must, dream in rules:
        value = figure(entry) if entry["day"]["clients"] >= clients else None
        if value is not None:
            found.append((words, written, value, must, dream))
    return found


def spread(values, form):
    """Median, minimum and maximum."""
    return f"{form(median(values))} ({form(min(values))} – {form(max(values))})"


def runs_table(entry):
    """The contestants, fastest first."""
    lines = [
        "| | wall, s | processor, s | peak, MiB | ÷ DuckDB | ÷ bare decode |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    by_time = sorted(entry["contestants"].items(), key=lambda item: median(run["wall"] for run in item[1]))
    for name, runs in by_time:
        wall = spread([run["wall"] for run in runs], lambda value: f"{value:.2f}")
        cpu = f"{median(run['cpu'] for run in runs):.2f}"
        peak = spread([run["peak"] / MIB for run in runs], lambda value: f"{value:.0f}")
        against = [ratio(entry, name, other) for other in ("duckdb", "decode")]
        against = ["" if value is None else f"{value:.2f}" for value in against]
        label = f"{about(name)} {entry['versions'].get(name, '')}".strip()
        lines.append(f"| {label} | {wall} | {cpu} | {peak} | {' | '.join(against)} |")
    return lines


def wanted_table(entry):
    """The limits and the measured figures."""
    lines = ["| | must | dream | found | |", "|---|--:|--:|--:|---|"]
    for words, written, value, must, dream in wanted(entry, WANTED):
        better = "" if dream is None else written(dream)
        verdict = "missed" if value > must else "dream" if dream is not None and value <= dream else "met"
        lines.append(f"| {words} | {written(must)} | {better} | {written(value)} | {verdict} |")
    return lines if len(lines) > 2 else []


def stages_table(entry):
    """The use of the cores in each stage of an additional run."""
    lines = [
        "| stage | s | cores busy with the job | with others |",
        "|---|--:|--:|--:|",
    ]
    for name, seconds, own, others in timeline.busy_by_stage(entry["timeline"]):
        # Too few samples are not significant.
        own, others = (f"{own:.2f}", f"{others:.2f}") if seconds >= 3 * timeline.FINEST else ("", "")
        lines.append(f"| {name} | {seconds:.3f} | {own} | {others} |")
    return lines


def notes(entry):
    """The setting in which the figures were measured."""
    day, count = entry["day"], len(next(iter(entry["contestants"].values())))
    others = median(run["others"] for runs in entry["contestants"].values() for run in runs)
    lines = [
        f"{entry['date']}, Tally at {entry['commit']}. Medians of {count} rounds (least – most) after {entry['warmups']} "
        f"that do not count; ratios are medians over the rounds. {entry['threads']} threads each. The rest of the machine kept "
        f"{others:.2f} cores busy (median).",
        f"Day: {day['about']}; {day['bytes'] / 1e6:,.0f} MB.",
    ]
    lines += entry["remarks"]
    effort = [ratio(entry, "tally", other, "cpu") for other in ("duckdb", "decode")]
    if None not in effort:
        lines.append(
            f"In processor time, which a busy machine disturbs less, Tally takes {effort[0]:.2f} of DuckDB's and "
            f"{effort[1]:.2f} of the bare decode's."
        )
    inner = [run.get("own_seconds") for run in entry["contestants"].get("duckdb", [])]
    if inner and "tally" in entry["contestants"]:
        stricter = median(a["wall"] / b for a, b in zip(entry["contestants"]["tally"], inner))
        lines.append(
            f"By its own clock, which leaves Python's start and imports out, DuckDB takes {median(inner):.2f} s; against "
            f"that the whole process of Tally takes {stricter:.2f}."
        )
    lines.append(f"Machine: {entry['machine']}. Versions: {entry['versions']['tools']}.")
    lines.append(f"Command: `{entry['command']}`")
    return [f"- {line}" for line in lines]


def section(entry):
    """One result in Markdown."""
    title = f"{entry['day']['clients']:,} clients"
    if entry["day"]["name"] != str(entry["day"]["clients"]):
        title += f" ({entry['day']['name']})"
    parts = [[f"## {title}"], runs_table(entry), wanted_table(entry)]
    if entry["timeline"]:
        drawn = f"![cores over time](timeline-{entry['day']['name']}.svg)"
        parts += [["In one more run, sampled:"], stages_table(entry), [drawn]]
    parts.append(notes(entry))
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def entry(day, runs, recorded, setting):
    """A result as stored: `runs` has the contestants' runs by name, `setting` the values common to all days."""
    contestants = {}
    for name, all_rounds in runs.items():
        contestants[name] = [asdict(run) for run in all_rounds]
        for run in contestants[name]:
            run["own_seconds"] = run.pop("printed").get("seconds")
    known = {"name": day.name, "dataset": day.dataset.name, "about": day.about, "clients": day.clients, "bytes": day.bytes()}
    return {"day": known, **setting, "contestants": contestants, "timeline": recorded}


def keep(folder, kept):
    """Writes a result into a folder, and regenerates the folder's `results.md`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{kept['day']['name']}.json").write_text(json.dumps(kept, indent=1) + "\n")
    head = ["# Results", "", "Made by `tests/bench/run`; [how to read them](../README.md).", ""]
    head += ["![seconds and peak memory](times.svg)", ""]
    sections = "\n".join(section(one) for one in load(folder))
    (folder / "results.md").write_text("\n".join(head) + "\n" + sections)


def dataset(entry):
    """The dataset of a result. Results from the time of the first dataset do not name it."""
    return entry["day"].get("dataset", datasets.DEFAULT.name)


def load(folder):
    """All results of days in a folder, small days first. Results of clusters and fleets are in the same folder."""
    entries = [json.loads(path.read_text()) for path in Path(folder).glob("*.json")]
    return sorted((one for one in entries if "day" in one), key=lambda one: (one["day"]["clients"], one["day"]["name"]))
