"""Looks at the cluster all the time while a change takes place: some states exist only for a moment."""

import contextlib
import threading


@contextlib.contextmanager
def watched(look):
    """A list of the results of `look`, called in a thread until the context ends."""
    seen, errors, ended = [], [], threading.Event()

    def follow():
        try:
            while not ended.is_set():
                seen.append(look())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()
    if errors:
        raise errors[0]
