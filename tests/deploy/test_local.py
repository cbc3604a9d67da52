"""Clusters for people on one machine: the script without containers, and the compose file with them, whose commands run
here as processes."""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

from chart import BIN, TOP
from listening import processes
from services import SERVICES, Processes
from test_objects import flags

LOCAL = TOP / "deploy" / "local"


class Script(unittest.TestCase):
    def run_local(self, folder, *args, consul=True):
        environment = {"PATH": os.environ["PATH"], "HOME": folder}
        if consul:
            environment["CONSUL_BIN"] = os.environ["CONSUL_BIN"]
        return subprocess.run([LOCAL, "--bins", BIN, "--dir", f"{folder}/c", *args], capture_output=True, text=True,
                              timeout=240, env=environment)

    def test_a_job_on_the_whole_and_nothing_left(self):
        with tempfile.TemporaryDirectory() as folder:
            # While it runs: every socket that listens is on loopback.
            look = f"{sys.executable} {TOP}/tests/deploy/listening.py {BIN}/tally >{folder}/listening"
            script = f"tally demo --cluster --dir {folder}/demo --clients 2000 && {look}"
            done = self.run_local(folder, "--workers", "3", "bash", "-ec", script)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertIn("As the generator's totals say it must be", done.stdout)
            own = (pathlib.Path(folder) / "listening").read_text().splitlines()
            # Two coordinators and three workers, of two ports each.
            self.assertGreaterEqual(len(own), 10, own)
            for line in own:
                self.assertRegex(line, r"^(::ffff:)?127\.0\.0\.1 ")
            self.assertEqual([command for _, command in processes(folder)], [])
            for log in pathlib.Path(folder).glob("c/logs/worker-*.log"):
                self.assertIn("drained: nothing that is needed was lost", log.read_text())

    def test_its_exit_code_is_the_commands(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(self.run_local(folder, "bash", "-c", "exit 7").returncode, 7)

    def test_what_is_wrong_is_said(self):
        with tempfile.TemporaryDirectory() as folder:
            for args, words in ((["--worker", "3"], "no option --worker"), (["--workers", "x"], "--workers x is no number"),
                                (["--bins", "/nowhere"], "no /nowhere/tally")):
                done = self.run_local(folder, *args)
                self.assertEqual(done.returncode, 2)
                self.assertIn(words, done.stderr)


class Compose(unittest.TestCase):
    def own(self):
        """The services of Tally's own image that run all the time."""
        return {name: service for name, service in SERVICES.items() if name.startswith(("coordinator", "worker"))}

    def test_nothing_is_opened_beyond_loopback_and_nobody_is_root(self):
        for name, service in SERVICES.items():
            for port in service.get("ports", []):
                self.assertRegex(port, r"^127\.0\.0\.1:", name)
            self.assertNotIn("network_mode", service)
            self.assertNotIn("privileged", service)
        for name, service in self.own().items():
            self.assertEqual((service["user"], service["read_only"], service["cap_drop"]), ("65532:65532", True, ["ALL"]))

    def test_flags_exist_and_names_fit(self):
        known = {"coordinator": flags("tally", "coordinator"), "worker": flags("tally-worker")}
        self.assertEqual(len(self.own()), 5)
        for name, service in self.own().items():
            kind = name.split("-")[0]
            args = [arg for arg in service["command"] if arg.startswith("--")]
            for arg in args:
                self.assertIn(arg[2:].split("=")[0], known[kind], name)
            said = dict(arg[2:].split("=", 1) for arg in args if "=" in arg)
            self.assertEqual(said["advertise"], f"{name}:{said['listen'].split(':')[1]}")
            for depends in service["depends_on"]:
                self.assertIn(depends, SERVICES)
            if kind == "worker":
                drain = int(said["drain-timeout"].removesuffix("s"))
                self.assertGreater(int(service["stop_grace_period"].removesuffix("s")), drain + 10)
        image = (TOP / "deploy" / "image" / "Dockerfile").read_text()
        self.assertIn('ENTRYPOINT ["/usr/bin/tally"]', image)

    def test_its_commands_make_a_cluster(self):
        """Each service's command as a process, with this machine's ports and folders for those of containers."""
        with tempfile.TemporaryDirectory() as folder, Processes(folder) as running:
            running.start_consul()
            running.start_store()
            for name, service in self.own().items():
                program = service.get("entrypoint", ["/usr/bin/tally"])[0].replace("/usr/bin", str(BIN))
                running.start(name, [program, *service["command"]], service["environment"])
            service = SERVICES["tally"]
            done = running.run([BIN / "tally", "demo", "--cluster", "--dir=/data/demo", "--clients=2000",
                                "--connect-timeout=60s"], service["environment"])
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr + running.said())
            self.assertIn("As the generator's totals say it must be", done.stdout)
            # The journal is where the commands say, and nowhere else.
            self.assertEqual([path.name for path in (pathlib.Path(folder) / "data").iterdir()], ["demo"])
