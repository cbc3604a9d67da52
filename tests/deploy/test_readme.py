"""Runs all commands of the README in order, as on a fresh clone.

Not run here: `tests/run`, which runs this test, and helm, whose commands test_docs sends to an API server. Cargo is replaced,
because the programs are already built."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

from chart import BIN, TOP

README = TOP / "README.md"
# Replaces cargo: supports only the two commands of the README.
CARGO = """#!/usr/bin/env bash
set -euo pipefail
case "$*" in
    "build --release --bins") ;;
    "run --release --bin tally -- "*) exec "$BUILT/tally" "${@:6}" ;;
    *) echo "not a command of the README: cargo $*" >&2; exit 1 ;;
esac
"""


def blocks(language):
    """The code blocks with this language, or without one."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", README.read_text(), re.M | re.S)
    return [block for name, block in found if name == language]


class Readme(unittest.TestCase):
    def test_each_command_runs(self):
        lines = [line for block in blocks("") for line in block.replace("\\\n", " ").splitlines() if line.strip()]
        own = [line for line in lines if not line.startswith("helm ")]
        # The two commands that must work on a fresh machine.
        self.assertIn("cargo run --release --bin tally -- demo", own)
        self.assertIn("tests/run", own)
        self.assertTrue(os.access(TOP / "tests" / "run", os.X_OK))
        own.remove("tests/run")
        self.assertGreater(len(own), 5)
        with tempfile.TemporaryDirectory() as folder:
            clone = pathlib.Path(folder)
            (clone / "tools").mkdir()
            (clone / "tools/cargo").write_text(CARGO)
            (clone / "tools/cargo").chmod(0o755)
            (clone / "target").mkdir()
            (clone / "target/release").symlink_to(BIN.resolve())
            (clone / "deploy").symlink_to(TOP / "deploy")
            kept = {name: value for name, value in os.environ.items()
                    if not name.startswith("TALLY_") and name not in ("date", "bucket", "CARGO_TARGET_DIR")}
            python = pathlib.Path(sys.executable).parent
            kept |= {"PATH": f"{clone}/tools:{kept['PATH']}:{python}", "BUILT": str(BIN.resolve())}
            said = {}
            before = "set -euo pipefail\n"
            for line in own:
                if line.startswith("export "):
                    before += line + "\n"
                    continue
                done = subprocess.run(["bash", "-c", before + line], cwd=clone, env=kept, capture_output=True, text=True,
                                      timeout=300)
                self.assertEqual(done.returncode, 0, f"{line}\n{done.stdout}{done.stderr}")
                said[line] = done.stdout
            self.check_demo(said["cargo run --release --bin tally -- demo"])
            self.assertTrue(list(clone.glob("tally-demo-*/addon_aggregates/*/*.parquet")))
            self.assertTrue(list(clone.glob("aggregates/submission_date_s3=20170227/part-*.snappy.parquet")))

    def check_demo(self, said):
        """The output contains the lines that the README shows."""
        [shown] = blocks("text")
        printed = {" ".join(line.split()) for line in said.splitlines()}
        for line in shown.splitlines():
            self.assertIn(" ".join(line.split()), printed)
