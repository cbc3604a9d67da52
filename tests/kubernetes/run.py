"""Runs the named modules of this folder on one control plane, and prints the result like cargo, so that tests/run counts it. The
programs of the control plane end with it, also when it is interrupted.

Modules whose names begin with `test_nodes` need a control plane with nodes, so they are not mixed with others (tests/kubernetes/run)."""

import signal
import sys
import time
import unittest

import cluster
from nodes import Nodes
from plane import Plane


class Timed(unittest.TextTestResult):
    """Prints the duration of each test."""

    def startTest(self, test):
        self.began = time.monotonic()
        super().startTest(test)

    def addSuccess(self, test):
        super().addSuccess(test)
        self.stream.writeln(f"    {time.monotonic() - self.began:.0f} s")


def stopped(*_):
    raise KeyboardInterrupt


def main():
    # A shell makes background processes ignore Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stopped)
    names = sys.argv[1:]
    [kind] = {Nodes if name.startswith("test_nodes") else Plane for name in names}
    tests = unittest.defaultTestLoader.loadTestsFromNames(names)
    began = time.monotonic()
    try:
        cluster.start(kind)
        print(f"the control plane is ready after {time.monotonic() - began:.0f} s", flush=True)
        result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, resultclass=Timed).run(tests)
    finally:
        cluster.stop()
    # Several subtests of one test may fail.
    failed = len({getattr(test, "test_case", test).id() for test, _ in result.failures + result.errors})
    passed = result.testsRun - failed
    print(f"the tests took {time.monotonic() - began:.0f} s")
    # No test may be skipped: requirements are set up before.
    if failed or result.skipped or passed <= 0:
        raise SystemExit(f"test result: FAILED. {passed} passed; {failed} failed; {len(result.skipped)} ignored")
    print(f"test result: ok. {passed} passed; 0 failed; 0 ignored")


main()
