"""The contestants: their commands, and the check of their results.

Not here: measuring, statistics.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import days
import measure

PEERS = Path(__file__).with_name("peers")
# The bare decode gets the allocator setting of `tally`, which keeps freed memory and is a tenth faster.
KEEP_MEMORY = "glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=67108864:glibc.malloc.top_pad=16777216"

ABOUT = {
    "tally": "Tally (`tally run`, limit 2 GiB)",
    "duckdb": "DuckDB",
    "polars": "Polars, streaming",
    "decode": "bare decode of the needed columns",
    "tally-without": "Tally, the day without that client",
}


def about(name):
    """The description of a contestant."""
    return ABOUT.get(name) or f"Tally, `--memory-limit {name.removeprefix('tally-')}`"


@dataclass
class Tools:
    """The programs that the contestants run."""

    tally: str
    decode: str
    python: str
    threads: int


@dataclass
class Contestant:
    """One of the programs over one day."""

    name: str
    tools: Tools
    day: days.Day
    output: Path

    def command(self):
        """The command."""
        threads, tables, dataset = str(self.tools.threads), self.day.tables(), self.day.dataset
        if self.name == "decode":
            return [self.tools.decode, threads, days.DATE, dataset.name, *tables.values()]
        if self.name in ("duckdb", "polars"):
            script = str(PEERS / f"{self.name}_day{dataset.suffix.replace('-', '_')}.py")
            return [self.tools.python, script, threads, days.DATE, *tables.values(), str(self.output)]
        _, _, limit = self.name.partition("-")
        return [
            *(self.tools.tally, "run", "--date", days.DATE, "--threads", threads, "--output-format", "json"),
            *("--dataset", dataset.name, "--output", str(self.output)),
            *(word for name, root in tables.items() for word in ("--table", f"{name}={root}")),
            *("--spill-dir", str(self.output.parent)),
            *(["--memory-limit", limit] if limit else []),
        ]

    def environment(self):
        """Additional environment variables."""
        return {"GLIBC_TUNABLES": KEEP_MEMORY} if self.name == "decode" else {}

    def clear(self):
        """Removes the old output, so that its removal is not measured."""
        shutil.rmtree(self.output, ignore_errors=True)
        if self.name in ("duckdb", "polars"):
            self.output.mkdir(parents=True)

    def check(self, run):
        """Raises `measure.Failed` unless the result is the expected one."""
        if self.name == "decode":
            self.compare("rows", run.printed.get("rows"), sum(self.day.rows(self.tools.python).values()))
            return
        found = days.counted(self.tools.python, "output", self.day.dataset.name, self.output)
        if not self.day.totals:
            print(f"{self.name} says what is right for {self.day.name}: {found}")
            self.day.totals = found
        for figure in self.day.dataset.figures:
            self.compare(figure, found[figure], self.day.totals[figure])
            if figure in run.printed:
                self.compare(f"{figure} in its summary", run.printed[figure], self.day.totals[figure])

    def compare(self, what, found, expected):
        """Raises if two figures differ."""
        if found != expected:
            raise measure.Failed(f"{self.name} over {self.day.name}: {what} is {found}, not {expected}")
