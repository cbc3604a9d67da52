"""The use of the cores during one `tally run`: sampled processor time of its threads, and stage boundaries.

Not here: plots (`plots.py`), medians (sampling costs time, so they exclude this run).
"""

import json
import os
import subprocess
import threading
import time

import measure

# The kernel updates the time of a running thread a few hundred times per second; finer samples are noise.
FINEST = 0.02


def compute_time(pid, names):
    """Seconds of processor time of a process's computing threads; `names` caches the names of its threads."""
    total = 0.0
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return total
    for thread in threads:
        try:
            if thread not in names:
                with open(f"/proc/{pid}/task/{thread}/comm") as comm:
                    names[thread] = comm.read()
            if names[thread].startswith("slot-"):
                with open(f"/proc/{pid}/task/{thread}/schedstat") as stat:
                    total += int(stat.read().split()[0]) / 1e9
        except OSError:
            continue  # It ended between the listing and the reading.
    return total


def process_time(pid):
    """Seconds of processor time of a process, including its ended threads; `None` after it exited."""
    try:
        # Same as clock_getcpuclockid(3).
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return None


def record(command, interval):
    """Runs a job and returns {"samples", "stages"}; times count from the process's start.

    A sample is [end, compute, own, others]: cores busy since the sample before, with its computing threads, with all of
    its threads, and with anything else on the machine.
    """
    interval = max(interval, FINEST)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=measure.environment())
    start = time.perf_counter()
    printed = {}

    def listen():
        for line in process.stdout:
            printed["line"], printed["at"] = line, time.perf_counter() - start

    listener = threading.Thread(target=listen)
    listener.start()
    samples, names = [], {}
    last = (0.0, 0.0, 0.0, measure.busy())
    while process.poll() is None:
        time.sleep(interval)
        own = process_time(process.pid)
        if own is None:
            break
        now = (time.perf_counter() - start, compute_time(process.pid, names), own, measure.busy())
        span, compute, total, machine = (b - a for a, b in zip(last, now))
        # The time of an ended thread is no longer listed.
        shares = [max(0.0, compute), total, max(0.0, machine - total)]
        samples.append([round(value, 4) for value in (now[0], *(share / span for share in shares))])
        last = now
    listener.join()
    if process.wait():
        raise measure.Failed(f"{command[0]} ended with {process.returncode}")
    return {"samples": samples, "stages": stages(json.loads(printed["line"]), printed["at"])}


def stages(summary, ended):
    """[name, start, end] of each stage; the job's clock is aligned with the arrival of its summary."""
    at = ended - summary["seconds"]
    found = []
    for stage in summary["stages"]:
        found.append([stage["name"], at, at + stage["seconds"]])
        at += stage["seconds"]
    return found


def busy_by_stage(timeline):
    """[name, seconds, cores the job kept busy, cores that others kept busy] of each stage, from the samples."""
    rows = []
    for name, start, end in timeline["stages"]:
        own = others = covered = 0.0
        since = 0.0
        for until, _, total, rest in timeline["samples"]:
            overlap = min(end, until) - max(start, since)
            since = until
            if overlap > 0:
                own, others, covered = own + total * overlap, others + rest * overlap, covered + overlap
        rows.append([name, end - start, own / covered if covered else 0.0, others / covered if covered else 0.0])
    return rows
