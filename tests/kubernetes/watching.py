"""Looks at the cluster all the time while a change takes place: some states exist only for a moment."""

from meanwhile import Meanwhile

PERIOD = 0.02


class watched(Meanwhile):
    """A context manager: the list of the results of `look`, which is called again and again."""

    def __init__(self, look):
        super().__init__()
        self.look, self.seen = look, []

    def __enter__(self):
        super().__enter__()
        return self.seen

    def follow(self):
        while not self.ended.wait(PERIOD):
            self.seen.append(self.look())
