"""A thread that follows something until it is stopped.

Not here: what it follows (probes.py, watch.py)."""

import threading


class Follower:
    """Runs `follow`, which a subclass has, in a thread from its creation on. `follow` returns soon after `ended` is set."""

    def __init__(self):
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.follow, daemon=True)
        self.thread.start()

    def stop(self):
        self.ended.set()
