"""What a test does beside its own steps: a thread that runs as long as a context.

Not here: what it does (slow.py, readiness.py, watching.py, scaling_trace.py)."""

import threading


class Meanwhile:
    """A context manager. `follow`, which a subclass has, runs in a thread and returns soon after `ended` is set. Its error is raised at
    the end of the context."""

    def __init__(self):
        self.ended = threading.Event()
        self.error = None
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()
        if self.error:
            raise self.error

    def run(self):
        try:
            self.follow()
        except Exception as error:
            self.error = error
