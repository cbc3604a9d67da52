"""tests/tools/test-targets ends a hung target together with the processes that it started. Not here: what the targets test."""

import json
import os
import pathlib
import signal
import subprocess
import tempfile
import unittest

from chart import TOP
from processes import wait_for

# A target whose test started a process and hangs. The process holds the target's output open.
HUNG = """#!/bin/sh
sleep 1000 &
echo $! >"$PIDS/child"
echo "it hangs"
sleep 1000
"""


def ended(pid):
    """Whether the process has ended; one that nothing waits for counts as ended."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


class Targets(unittest.TestCase):
    def start(self, folder, limit):
        """Starts test-targets with one target, which hangs."""
        target, cargo = folder / "hung", folder / "cargo"
        target.write_text(HUNG)
        artifact = {
            "reason": "compiler-artifact",
            "target": {"name": "hung"},
            "executable": str(target),
            "manifest_path": str(folder / "Cargo.toml"),
            "profile": {"test": True},
        }
        cargo.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(artifact)}\nEND\n")
        for program in [target, cargo]:
            program.chmod(0o755)
        env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PIDS": str(folder), "TALLY_TEST_LIMIT": str(limit)}
        command = [str(TOP / "tests/tools/test-targets"), "--at-once", "1"]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def child(self, folder):
        """The process that the target started."""
        file = folder / "child"
        return int(wait_for("a child", lambda: (file.exists() and file.read_text().strip()) or None))

    def test_a_hung_target_ends_with_its_processes(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            running = self.start(folder, 2)
            output, _ = running.communicate(timeout=60)
            self.assertEqual(running.returncode, 1, output)
            self.assertIn("it hangs", output)
            self.assertIn("did not end within 2 s", output)
            child = self.child(folder)
            wait_for("the end of the child", lambda: ended(child) or None)

    def test_a_stopped_run_leaves_no_process(self):
        for number in [signal.SIGINT, signal.SIGTERM]:
            with self.subTest(number=number), tempfile.TemporaryDirectory() as folder:
                folder = pathlib.Path(folder)
                running = self.start(folder, 1000)
                child = self.child(folder)
                running.send_signal(number)
                running.communicate(timeout=60)
                self.assertNotEqual(running.returncode, 0)
                wait_for("the end of the child", lambda: ended(child) or None)


if __name__ == "__main__":
    unittest.main()
