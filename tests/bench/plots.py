"""Draws the results in a folder: `times.svg`, and `timeline-NAME.svg` of each day.

    plots.py FOLDER

A separate process, so that the measuring process stays small. Not here: figures that are not in the JSON files.
"""

import sys
from pathlib import Path
from statistics import median

import matplotlib

matplotlib.use("svg")
# Keep text as text, and make the output reproducible.
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "tally", "font.size": 9, "axes.axisbelow": True})

import matplotlib.pyplot as plt

import results
from contestants import about

COLOURS = {"tally": "#1b7f5c", "tally-512MiB": "#5fb595", "tally-without": "#5fb595", "decode": "#8a8f98"}
OTHER = "#c98a3a"
STAGES = ["#e8eef4", "#f6efe2"]


def save(figure, path):
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight", facecolor="white")
    plt.close(figure)


def bars(axes, entry, what, scale, unit):
    """One bar per contestant: the median, with minimum and maximum as a line."""
    names = sorted(entry["contestants"], key=lambda name: -median(run["wall"] for run in entry["contestants"][name]))
    for at, name in enumerate(names):
        values = [run[what] / scale for run in entry["contestants"][name]]
        middle = median(values)
        axes.barh(at, middle, 0.68, color=COLOURS.get(name, OTHER))
        axes.plot([min(values), max(values)], [at, at], color="#333333", linewidth=1)
        text = f"{middle:,.0f}" if what == "peak" else f"{middle:.2f}"
        axes.annotate(text, (max(values), at), (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(names)), [about(name).replace("`", "") for name in names])
    axes.set_xlabel(unit)
    axes.margins(x=0.18)
    axes.set_xlim(left=0)
    axes.grid(axis="x", color="#e3e3e3", linewidth=0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def draw_times(entries, path):
    """Seconds and peak memory, one row of panels per day."""
    heights = [len(entry["contestants"]) + 1.2 for entry in entries]
    figure, grid = plt.subplots(
        len(entries), 2, figsize=(10, 0.42 * sum(heights)), squeeze=False,
        gridspec_kw={"height_ratios": heights, "wspace": 0.08, "hspace": 0.55},
    )
    for (left, right), entry in zip(grid, entries):
        bars(left, entry, "wall", 1, "seconds, whole process")
        bars_sharing_names(right, left, entry)
        day = entry["day"]
        left.set_title(f"{day['clients']:,} clients ({day['about'].replace('`', '')})", loc="left", fontsize=9)
    save(figure, path)


def bars_sharing_names(right, left, entry):
    """The memory panel; the names are at the left panel."""
    bars(right, entry, "peak", results.MIB, "peak resident memory, MiB")
    right.set_yticklabels([])
    right.set_ylim(left.get_ylim())


def draw_timeline(entry, path):
    """Cores busy over time: the job's computing threads, its others, the rest of the machine; stages behind."""
    samples = entry["timeline"]["samples"]
    ends = [sample[0] for sample in samples]
    edges = [0.0, *ends]
    compute = [min(sample[1], sample[2]) for sample in samples]
    rest = [max(0.0, sample[2] - least) for sample, least in zip(samples, compute)]
    # The clock has ticks of 10 ms: an excess core in one sample is missing in the next.
    room = [max(0.0, entry["threads"] - sample[2]) for sample in samples]
    layers = [compute, rest, [min(sample[3], most) for sample, most in zip(samples, room)]]
    names = ["the job: computing threads", "the job: reading and the rest", "other processes"]
    figure, axes = plt.subplots(figsize=(10, 2.6))
    top = max(entry["threads"] * 1.25, 1)
    for at, (name, start, end) in enumerate(entry["timeline"]["stages"]):
        axes.axvspan(start, end, color=STAGES[at % 2], zorder=0)
        if end - start > 0.03 * ends[-1]:
            axes.annotate(name, ((start + end) / 2, top * 0.94), ha="center", va="top", color="#555555")
    floor = [0.0] * len(samples)
    for layer, name, colour in zip(layers, names, [COLOURS["tally"], COLOURS["tally-512MiB"], "#d5d5d5"]):
        upper = [a + b for a, b in zip(floor, layer)]
        axes.stairs(upper, edges, baseline=floor, fill=True, color=colour, label=name)
        floor = upper
    axes.axhline(entry["threads"], color="#333333", linewidth=0.8, linestyle="--")
    axes.set(xlim=(0, ends[-1]), ylim=(0, top), xlabel="seconds since the process started", ylabel="cores busy")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def main():
    folder = Path(sys.argv[1])
    entries = results.load(folder)
    draw_times(entries, folder / "times.svg")
    for entry in entries:
        if entry["timeline"]:
            draw_timeline(entry, folder / f"timeline-{entry['day']['name']}.svg")


main()
