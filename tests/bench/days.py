"""The days that are measured: made by `tally generate`, kept between runs, with the totals of a right result.

Not here: how a day is made; who computes over it.
"""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import measure

DATE = "20170227"
OVERACTIVE = ["--overactive-pings", "5000000", "--overactive-addons", "20"]


@dataclass
class Day:
    """A day's two tables and what is known of it."""

    name: str
    """Names its results."""
    about: str
    """How it was made, for people."""
    root: Path
    totals: dict
    """rows, n_clients, n_custom_theme_clients, and sum_of_count; empty where nobody knows them beforehand."""

    @property
    def clients(self):
        """Clients of the day, without the null client."""
        return self.totals["n_clients"] - 1

    def tables(self):
        """The roots of `addons` and `main_summary`."""
        return [str(self.root / "addons/v2"), str(self.root / "main_summary/v3")]

    def bytes(self):
        """Bytes of its files."""
        return sum(file.stat().st_size for file in self.root.rglob("*.parquet"))

    def warm(self):
        """Reads all of it, so that it is in the page cache: some machines take back between two runs what they gave."""
        buffer = bytearray(1 << 22)
        for file in self.root.rglob("*.parquet"):
            with file.open("rb", buffering=0) as opened:
                while opened.readinto(buffer):
                    pass


def counted(python, *args):
    """What `count.py` says."""
    command = [python, str(Path(__file__).with_name("count.py")), *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise measure.Failed(f"counting {args}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def made(tally, python, folder, clients, overactive=False):
    """A generated day; made now unless it is there as it should be."""
    name = f"{clients}-overactive" if overactive else str(clients)
    root = folder / f"day-{name}"
    totals = Path(f"{root}.totals.json")
    flags = ["--clients", str(clients), "--narrow", *(OVERACTIVE if overactive else [])]
    about = f"`tally generate {' '.join(flags)}`"
    if not whole(python, root, totals, clients + 1 + overactive):
        print(f"making {root}", flush=True)
        shutil.rmtree(root, ignore_errors=True)
        totals.unlink(missing_ok=True)
        subprocess.run([tally, "generate", *flags, "--date", DATE, "--output", str(root)], check=True)
    return Day(name, about, root, json.loads(totals.read_text()))


def whole(python, root, totals, n_clients):
    """Whether a day is there with all the rows that its totals tell of."""
    if not (root.is_dir() and totals.is_file()):
        return False
    try:
        expected = json.loads(totals.read_text())
        rows = counted(python, "day", root / "addons/v2", root / "main_summary/v3")
    except (ValueError, measure.Failed):
        return False
    kept = [expected.get("n_clients"), expected.get("addons_rows"), expected.get("main_summary_rows")]
    return kept == [n_clients, rows["addons_rows"], rows["main_summary_rows"]]


def given(root):
    """A day that is there already; its totals lie beside it, or the first contestant's count for all."""
    root = Path(os.path.abspath(root))
    totals = Path(f"{root}.totals.json")
    known = json.loads(totals.read_text()) if totals.is_file() else {}
    return Day(root.name, f"a day given with `--day` ({root.name})", root, known)
