"""Makes workers slow, so that a small job lasts for long enough to be disturbed: they are stopped for most of the time,
in short pieces, so that their heartbeats and probes go on."""

import signal
import time

from meanwhile import Meanwhile

PERIOD = 0.2
# A job over a day of 300,000 clients takes a few seconds, or more than a minute.
SLOW, CREEPING = 0.1, 0.01


class Slow(Meanwhile):
    """A context manager. The processes that `running` returns run for this share of the time; it is called again and again."""

    def __init__(self, running, share=SLOW):
        super().__init__()
        self.running, self.share = running, share

    def follow(self):
        while not self.ended.is_set():
            there = [process for process in self.running() if process]
            for process in there:
                process.signal(signal.SIGSTOP)
            time.sleep(PERIOD * (1 - self.share))
            for process in there:
                process.signal(signal.SIGCONT)
            time.sleep(PERIOD * self.share)
