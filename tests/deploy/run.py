"""Runs the tests of this folder that need no quiet machine, or the named modules, and prints the result like cargo, so that
tests/run counts it."""

import concurrent.futures
import os
import pathlib
import signal
import subprocess
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
# Modules that run at once: they mostly wait for other programs.
AT_ONCE = 2
# Only `tests/run --full` names them. On a machine that is busy with other modules, scrapes are missed, alerts are late, and
# probes of pods fail; packages compile for long, and Airflow is large.
ALONE = {"test_prometheus", "test_packages", "test_airflow", "test_pods"}
# Modules that start pods. All their processes, mounts and interfaces end with the first process of the namespaces.
IN_NAMESPACES = {"test_pods"}
NAMESPACES = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
sys.path.insert(0, str(HERE))


def run(names):
    tests = unittest.defaultTestLoader.loadTestsFromNames(names)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(tests)
    failed = len(result.failures) + len(result.errors)
    passed = result.testsRun - failed
    # No test may be skipped: requirements are set up before.
    if failed or result.skipped or not passed:
        raise SystemExit(f"test result: FAILED. {passed} passed; {failed} failed; {len(result.skipped)} passed over")
    print(f"test result: ok. {passed} passed; 0 failed")


def run_all():
    """Runs each module in its own process. A failed module does not stop the others."""
    names = sorted({file.stem for file in HERE.glob("test_*.py")} - ALONE)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        ended = [
            pool.submit(subprocess.run, [sys.executable, __file__, name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            for name in names
        ]
        try:
            results = []
            for name, done in zip(names, ended):
                results.append(done.result().returncode)
                sys.stdout.buffer.write(f"{name}:\n".encode() + done.result().stdout)
                sys.stdout.buffer.flush()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    failed = [name for name, code in zip(names, results) if code]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def main():
    # A shell makes background processes ignore Ctrl-C, and their children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    names = sys.argv[1:]
    if IN_NAMESPACES & {name.split(".")[0] for name in names} and os.getpid() != 1:
        os.execvp("unshare", [*NAMESPACES, sys.executable, __file__, *names])
    if names:
        run(names)
    else:
        run_all()


main()
