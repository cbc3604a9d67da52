"""Runs the tests of this folder, or those modules that are named, and says the end in cargo's words, so that
tests/run counts it."""

import pathlib
import signal
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))


def main():
    # A shell ignores Ctrl-C for what it starts in the background, and what is started from there would, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    names = sys.argv[1:] or sorted(file.stem for file in HERE.glob("test_*.py"))
    tests = unittest.defaultTestLoader.loadTestsFromNames(names)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(tests)
    failed = len(result.failures) + len(result.errors)
    passed = result.testsRun - failed
    # Nothing may be passed over: what is needed is set up before.
    if failed or result.skipped or not passed:
        raise SystemExit(f"test result: FAILED. {passed} passed; {failed} failed; {len(result.skipped)} passed over")
    print(f"test result: ok. {passed} passed; 0 failed")


main()
