"""Runs and measures one process: wall time, processor time, peak resident memory.

Not here: the commands, and the number of runs. This process must stay small, because the kernel counts the memory of a
parent into the peak of its child. So do not import DuckDB, numpy or matplotlib here.
"""

import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass, field

TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A contestant failed; the message has the reason."""


@dataclass
class Run:
    """One process, from start to exit."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds of processor time, user and system, of all its threads."""
    peak: int
    """Maximum resident bytes."""
    others: float
    """Cores used by other processes during the run."""
    printed: dict = field(repr=False)
    """The last JSON object that it printed."""


def busy():
    """Busy seconds of all cores since boot."""
    with open("/proc/stat") as stat:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


def settle(patience):
    """Waits up to a number of seconds until the machine is idle; returns the number of busy cores."""
    deadline = time.monotonic() + patience
    while True:
        before, start = busy(), time.monotonic()
        time.sleep(0.5)
        cores = (busy() - before) / (time.monotonic() - start)
        if cores < 0.1 or time.monotonic() > deadline:
            return cores


def environment(more=()):
    """The environment of this process without variables that affect contestants, and with `more`."""
    kept = {name: value for name, value in os.environ.items() if name not in ("TALLY_LOG", "date", "bucket")}
    return {**kept, **dict(more)}


def last_object(text):
    """The JSON object in the last line of a text."""
    lines = text.strip().splitlines()
    try:
        return json.loads(lines[-1])
    except (IndexError, ValueError):
        return {}


def run(command, more=(), messages_to=None):
    """Runs a command to its end, with `more` in its environment. Its messages go to a file that can be read meanwhile, if one is
    named. Raises `Failed` with its messages if it fails."""
    # Flush earlier writes to disk, so that no run includes the writes of another one.
    os.sync()
    said = open(messages_to, "w+") if messages_to else tempfile.TemporaryFile("w+")
    with tempfile.TemporaryFile("w+") as out, said as messages:
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
