"""`tally top` in a pseudo-terminal beside a real cluster: a job and its workers live, keys, sizes, a takeover, cancellation, the
terminal afterwards, and the cost of a job with 20,000 tasks.

Not here: what each screen contains, at all sizes and without a cluster (unit tests of `coordinator/cli/src/top`)."""

import os
import pathlib
import re
import signal
import subprocess
import time
import unittest

from chart import BIN
from processes import DEADLINE, wait_for
from small_cluster import SmallCluster
from terminal import COLOURED, DRAWING, ENTERED, Terminal

# From the stop of a worker until the screen says so.
SILENT_WITHIN = 3
TASKS = 20_000
# Limits for a job with that many tasks.
SECONDS = 10
MAX_MEMORY_KIB = 64 << 10
MAX_CPU_SHARE = 0.1
MAX_DRAWINGS_PER_SECOND = 2
TICKS = os.sysconf("SC_CLK_TCK")


def words(address, *more):
    return [BIN / "tally", "top", f"--coordinator={address}", *more]


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_memory_kib(pid):
    return int(re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path(f"/proc/{pid}/status").read_text())[1])


class Beside(unittest.TestCase):
    """A cluster, and the command beside it."""
    SLOTS = 1

    def setUp(self):
        self.cluster = self.enterContext(SmallCluster(slots=self.SLOTS))

    def top(self, **how):
        terminal = self.enterContext(Terminal(*words(self.cluster.grpc), **{"NO_COLOR": None, **how}))
        terminal.wait("live", "Workers (2)", "? keys")
        return terminal

    def held(self, *words, day="day"):
        """A job whose tasks run on frozen workers."""
        self.cluster.freeze()
        return self.cluster.submit("one", *words, day=day)


class Top(Beside):
    def test_a_job_is_shown_live(self):
        top = self.top(columns=120, rows=30)
        top.wait("has no jobs")
        self.assertTrue(top.is_raw())
        self.cluster.freeze()
        frozen = time.monotonic()
        wait_for("a silent worker", lambda: True if "silent for" in top.text() else None)
        self.assertLess(time.monotonic() - frozen, SILENT_WITHIN, top.text())
        # Tasks of a few files each, so that progress has steps.
        job = self.cluster.submit("one", "--shard-bytes=100B", day=self.cluster.many_files(6_000))
        top.wait(job, "map 0/")
        top.key("Enter")
        shown = top.wait(f"Job {job}", "Running tasks", "worker silent for", "Stages", "slots 2/2")
        self.assertIn("map", shown)
        self.assertNotIn(" left", shown, "a silent worker takes an unknown time")
        self.cluster.release()
        # "map 0/" was shown above.
        seen = {0}

        def done():
            if found := re.search(r"map ([\d,]+)/[\d,]+ tasks", top.text()):
                seen.add(int(found[1].replace(",", "")))
            return True if f"Job {job}  done" in top.text() else None
        wait_for("the end of the job", done)
        self.assertGreater(len(seen), 1, "progress has moved")
        # The result is at the end of the page.
        top.key("G")
        top.wait("n_clients", "peak memory", "slots 0/2")
        top.key("Escape")
        top.wait("Jobs (1)", "100 %", "done", "attached", without=["silent"])
        top.key("q")
        self.assertEqual(top.end(), 0)
        self.assertTrue(top.is_restored(), top.raw()[-300:])

    def test_the_size_of_the_terminal_changes(self):
        job = self.held()
        top = self.top()
        for columns, rows in ((60, 15), (200, 50), (20, 5), (80, 24)):
            top.resize(columns, rows)
            # The first line goes from one end to the other, and the last one has the keys.
            wait_for("the new size", lambda: True if len(top.lines()[0]) == columns - 1 else None)
            wait_for("the keys", lambda: True if "Enter open" in top.lines()[rows - 1] else None)
            if columns >= 60:
                top.wait(job, "silent for", "live")
        self.cluster.release()

    def test_the_terminal_is_restored_after_a_signal(self):
        for sent in (signal.SIGTERM, signal.SIGINT):
            top = self.top()
            top.process.send_signal(sent)
            self.assertEqual(top.end(), 130)
            self.assertTrue(top.is_restored(), top.raw()[-300:])
            self.assertIn(b"interrupted: the jobs of the cluster continue", top.raw())
        top = self.top()
        top.key("Interrupt")
        self.assertEqual(top.end(), 0)
        self.assertTrue(top.is_restored(), top.raw()[-300:])

    def test_another_leader_is_followed(self):
        job = self.held()
        top = self.top()
        top.key("Enter")
        top.wait(f"Job {job}", "Running tasks")
        self.cluster.restart_coordinator(lambda: top.wait("not connected", "No answer for", f"Job {job}"))
        top.wait("live", f"Job {job}", without=["No answer"])
        self.cluster.release()
        top.wait(f"Job {job}  done")

    def test_a_job_is_cancelled_after_a_question(self):
        job = self.held()
        top = self.top()
        top.wait(job)
        top.key("c")
        top.wait(f"Cancel job {job}?")
        top.key("n")
        top.wait("map 0/", without=["Cancel job"])
        top.key("c")
        top.wait(f"Cancel job {job}?")
        top.key("y")
        top.wait(f"job {job} is cancelled")
        self.cluster.release()
        wait_for("its end", lambda: True if "cancelled" in top.line(f"{job}  ") else None)

    def test_without_colours(self):
        top = self.top(NO_COLOR="1")
        self.cluster.freeze()
        top.wait("silent for")
        self.assertIsNone(COLOURED.search(top.raw()))
        top.key("?")
        top.wait("NO_COLOR", "Shift-Tab")
        coloured = self.top()
        coloured.wait("silent for")
        self.assertIsNotNone(COLOURED.search(coloured.raw()))
        self.cluster.release()


class Alone(unittest.TestCase):
    """Without a cluster."""

    def test_without_a_terminal_it_names_other_commands(self):
        done = subprocess.run(words("127.0.0.1:9"), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        for part in ("needs a terminal", "tally jobs --watch", "tally job ID --watch"):
            self.assertIn(part, done.stderr)
        with Terminal(*words("127.0.0.1:9"), TERM="dumb") as dumb:
            self.assertEqual(dumb.end(), 2)
            self.assertIn("needs a terminal", dumb.text())

    def test_without_a_leader_it_ends_like_other_commands(self):
        with Terminal(*words("127.0.0.1:9", "--connect-timeout=1s"), columns=200) as top:
            self.assertEqual(top.end(), 5)
            self.assertIn("no leading coordinator answered", top.text())
            self.assertNotIn(ENTERED, top.raw())


class ManyTasks(Beside):
    SLOTS = 7

    def test_a_job_with_many_tasks_is_cheap(self):
        # Each file is larger than a shard, so that it is a task of its own.
        job = self.held("--shard-bytes=100B", day=self.cluster.many_files(TASKS))
        top = self.top(columns=120, rows=40)
        top.key("Enter")
        top.wait(f"Job {job}", "Running tasks")
        self.cluster.release()
        cpu, size, begun = cpu_seconds(top.process.pid), len(top.raw()), time.monotonic()
        time.sleep(SECONDS)
        seconds = time.monotonic() - begun
        drawn = top.raw()[size:].count(DRAWING) / seconds
        cpu = (cpu_seconds(top.process.pid) - cpu) / seconds
        memory = peak_memory_kib(top.process.pid)
        print(f"{TASKS} tasks: {memory} KiB, {cpu:.3f} cores, {drawn:.1f} drawings and {(len(top.raw()) - size) / seconds:.0f} "
              f"bytes per second")
        self.assertLess(memory, MAX_MEMORY_KIB)
        self.assertLess(cpu, MAX_CPU_SHARE)
        self.assertLess(drawn, MAX_DRAWINGS_PER_SECOND + 0.5)
