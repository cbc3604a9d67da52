"""What all sides of the API share: refused requests, and waiting for a condition.

Not here: a server (plane.py)."""

import time

# The programs run at the lowest priority of the test, and a cold start on a busy machine is slow.
DEADLINE = 90


class Refused(Exception):
    """The API server refused a request."""

    def __init__(self, code, status):
        super().__init__(f"{code}: {status.get('message', status)}")
        self.code = code
        self.status = status


def wait_for(what, condition, deadline=None):
    """The first value of `condition` that is true; an empty list is not."""
    deadline = deadline or DEADLINE
    until = time.monotonic() + deadline
    while True:
        if value := condition():
            return value
        if time.monotonic() > until:
            raise AssertionError(f"waited {deadline} s in vain for {what}")
        time.sleep(0.1)
