"""Running one process and measuring all of it: wall time, processor time, peak resident memory.

Not here: what is run, and how many times. This process must stay small: the kernel counts the memory of the process
that starts another into the other's peak, so nothing here may load DuckDB, numpy or matplotlib.
"""

import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass, field

TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A contestant did not do its job; the message says how."""


@dataclass
class Run:
    """One process, from start to exit."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds of processor time, user and system, of all its threads."""
    peak: int
    """Bytes resident at most."""
    others: float
    """Cores that everything else on the machine kept busy meanwhile."""
    printed: dict = field(repr=False)
    """The JSON object that it printed last."""


def busy():
    """Seconds that the machine's cores were not idle since boot."""
    with open("/proc/stat") as stat:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


def settle(patience):
    """Waits until the rest of the machine is quiet, at most so many seconds; gives the cores still busy."""
    deadline = time.monotonic() + patience
    while True:
        before, start = busy(), time.monotonic()
        time.sleep(0.5)
        cores = (busy() - before) / (time.monotonic() - start)
        if cores < 0.1 or time.monotonic() > deadline:
            return cores


def environment(more=()):
    """This process's environment without what would change a contestant's work, and with `more`."""
    kept = {name: value for name, value in os.environ.items() if name not in ("TALLY_LOG", "date", "bucket")}
    return {**kept, **dict(more)}


def last_object(text):
    """The JSON object in the last line of a text."""
    lines = text.strip().splitlines()
    try:
        return json.loads(lines[-1])
    except (IndexError, ValueError):
        return {}


def run(command, more=()):
    """Runs a command to its end, with `more` in its environment. Raises `Failed` with its messages where it fails."""
    # What was written before is on its way to the disk no longer, so that nobody pays for somebody else's files.
    os.sync()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as messages:
        before, start = busy(), time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=messages, env=environment(more))
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        machine = busy() - before
        process.returncode = os.waitstatus_to_exitcode(status)
        messages.seek(0)
        out.seek(0)
        if process.returncode:
            raise Failed(f"{command[0]} ended with {process.returncode}: {messages.read()[-2000:]}")
        cpu = used.ru_utime + used.ru_stime
        others = max(0.0, machine - cpu) / wall
        return Run(wall, cpu, used.ru_maxrss * 1024, others, last_object(out.read()))
