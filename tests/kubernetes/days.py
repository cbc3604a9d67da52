"""Generated days with the results that DuckDB computes from their files.

Not here: jobs over them."""

import functools
import os
import shutil
import subprocess
import sys

from chart import BIN, TOP

sys.path.insert(0, str(TOP / "tests" / "readers"))
import reference  # noqa: E402

DATE = "20170227"
# The user of the chart's pods.
USER = 65532
# Divides a job over a small day into many tasks.
MANY_TASKS = ("--shard-bytes=100KB", "--partitions=24", "--target-file-size=1MB")
# The tables of a day on the volume of the pods.
TABLES = ("--addons=/data/day/addons/v2", "--main-summary=/data/day/main_summary/v3")


@functools.cache
def made(parent, clients, date):
    """The folder of a day and its result."""
    folder = parent / f"day-{clients}-{date}"
    subprocess.run([BIN / "tally", "generate", f"--clients={clients}", "--narrow", f"--date={date}", f"--output={folder}/day"],
                   check=True, capture_output=True)
    addons, main_summary = (reference.files(folder / "day" / table, date) for table in ("addons/v2", "main_summary/v3"))
    reference.write(addons, main_summary, folder / "right.parquet")
    subprocess.run(["chown", "-R", f"{USER}:{USER}", folder], check=True)
    return folder


class Day:
    """A day on a volume, as links to files that tests share."""

    def __init__(self, volume, clients, date=DATE):
        self.volume, self.date = volume, date
        found = made(volume.parent, clients, date)
        self.right = found / "right.parquet"
        shutil.copytree(found / "day", volume / "day", copy_function=os.link)

    def words(self, output):
        """The flags of a job over it."""
        return [*TABLES, f"--output=/data/{output}", f"--date={self.date}"]

    def check(self, output):
        """Three readers find exactly the expected rows."""
        check = TOP / "tests" / "readers" / "check.py"
        done = subprocess.run([sys.executable, check, self.volume / output, self.right, self.date], capture_output=True, text=True)
        if done.returncode:
            raise AssertionError(done.stdout + done.stderr)
