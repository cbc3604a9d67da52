"""Local clusters: the script without containers, and the compose file, whose commands run here as processes."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import unittest

from chart import BIN, TOP
from listening import processes
from processes import DEADLINE, wait_for
from services import SERVICES, Processes
from test_objects import flags

LOCAL = TOP / "deploy" / "local"


class Images(unittest.TestCase):
    def test_each_image_has_a_version(self):
        """An image that changes by itself could break a cluster, and cannot be repeated."""
        version = re.search(r'^version = "(.+)"', (TOP / "Cargo.toml").read_text(), re.M)[1]
        for name, service in SERVICES.items():
            [default] = re.fullmatch(r"\$\{\w+:-(.+)\}", service["image"]).groups()
            repository, _, tag = default.rpartition(":")
            self.assertRegex(tag, r"^\d+\.\d+", name)
            self.assertNotEqual(repository, "", name)
            if repository.endswith("tally"):
                self.assertEqual((repository, tag), ("localhost/tally", version))


class Script(unittest.TestCase):
    def command(self, folder, *args):
        environment = {"PATH": os.environ["PATH"], "HOME": folder, "CONSUL_BIN": os.environ["CONSUL_BIN"]}
        return {"args": [LOCAL, "--bins", BIN, "--dir", f"{folder}/a cluster", *args], "env": environment}

    def run_local(self, folder, *args):
        return subprocess.run(**self.command(folder, *args), capture_output=True, text=True, timeout=240)

    @contextlib.contextmanager
    def running(self, folder):
        """A cluster that waits for Ctrl-C, and its standard error."""
        with open(f"{folder}/said", "w+") as said, open(f"{folder}/refused", "w+") as refused:
            process = subprocess.Popen(**self.command(folder), stdout=said, stderr=refused)
            try:
                def ready():
                    self.assertIsNone(process.poll(), pathlib.Path(refused.name).read_text())
                    return True if "Ctrl-C stops the cluster" in pathlib.Path(said.name).read_text() else None

                wait_for("the cluster", ready)
                yield process, pathlib.Path(refused.name)
            finally:
                process.terminate()
                process.wait(DEADLINE)

    def test_a_job_on_the_whole_and_nothing_left(self):
        with tempfile.TemporaryDirectory() as folder:
            # While it runs, all listening sockets are on loopback.
            look = f"{sys.executable} {TOP}/tests/deploy/listening.py {folder} >{folder}/listening"
            script = f"tally demo --cluster --dir {folder}/demo --clients 2000 && {look}"
            done = self.run_local(folder, "--workers", "3", "bash", "-ec", script)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertIn("The result matches the generator's totals", done.stdout)
            own = (pathlib.Path(folder) / "listening").read_text().splitlines()
            # Two coordinators and three workers with two ports each, and four ports of Consul.
            self.assertGreaterEqual(len(own), 14, own)
            for line in own:
                self.assertRegex(line, r"^(::ffff:)?127\.0\.0\.1 ")
            self.assertEqual([command for _, command in processes(folder)], [])
            for log in pathlib.Path(folder).glob("a cluster/logs/worker-*.log"):
                self.assertIn("drained: nothing that is needed was lost", log.read_text())

    def test_a_folder_has_one_cluster_and_none_outlives_its_script(self):
        with tempfile.TemporaryDirectory() as folder:
            with self.running(folder) as (first, _):
                second = self.run_local(folder, "true")
                self.assertEqual(second.returncode, 2)
                self.assertIn(f"a cluster is running in {folder}/a cluster: stop it", second.stderr)
                first.kill()
                first.wait()
            # The next cluster waits for exiting processes.
            third = self.run_local(folder, "bash", "-c", "until [[ $(tally workers | grep -c attached) == 2 ]]; do sleep 0.2; done")
            self.assertEqual(third.returncode, 0, third.stderr)
            wait_for("the end of all", lambda: True if not list(processes(folder)) else None)

    def kill(self, name):
        [(found, _)] = processes(f"a cluster/spill/{name}")
        os.kill(int(found.name), signal.SIGKILL)

    def test_it_ends_with_ctrl_c_and_with_its_last_worker(self):
        with tempfile.TemporaryDirectory() as folder:
            with self.running(folder) as (process, _):
                process.send_signal(signal.SIGINT)
                self.assertEqual(process.wait(DEADLINE), 130)
            self.assertEqual(list(processes(folder)), [])
            with self.running(folder) as (process, refused):
                self.kill("worker-1")
                wait_for("the message", lambda: refused.read_text() or None)
                self.assertEqual(refused.read_text(), "deploy/local: worker-1 has ended; the cluster continues with 1 worker. "
                                                      f"Its log: {folder}/a cluster/logs/worker-1.log\n")
                self.assertIsNone(process.poll())
                self.kill("worker-0")
                self.assertEqual(process.wait(DEADLINE), 1)
                self.assertIn("worker-0 has ended, and the cluster cannot continue:", refused.read_text())
                self.assertNotIn("Killed", refused.read_text())
            self.assertEqual(list(processes(folder)), [])

    def test_a_worker_that_is_killed_below_a_command_is_named_and_the_others_do_its_work(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            until = f"tally workers >{folder}/workers; until [[ -e {folder}/killed ]]; do sleep 0.1; done"
            twice = "; ".join(["tally demo --cluster --clients 2000"] * 2)
            command = self.command(folder, "bash", "-ec", f"cd {folder}; {until}; sleep 1; {twice}")
            with subprocess.Popen(**command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
                wait_for("the workers", lambda: (folder / "workers").is_file() and (folder / "workers").read_text() or None)
                self.kill("worker-1")
                (folder / "killed").touch()
                stdout, stderr = process.communicate(timeout=240)
            self.assertEqual(process.returncode, 0, stdout + stderr)
            # Ids of workers begin with the names of their logs.
            self.assertRegex((folder / "workers").read_text(), r"(?m)^worker-1-[0-9a-f]{12} ")
            self.assertEqual(stdout.count("The result matches the generator's totals"), 2)
            self.assertIn("deploy/local: worker-1 has ended; the cluster continues with 1 worker.", stderr)
            self.assertNotIn("Killed", stderr)
            self.assertEqual(list(processes(str(folder))), [])

    def test_its_exit_code_is_the_commands(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(self.run_local(folder, "bash", "-c", "exit 7").returncode, 7)

    def test_what_is_wrong_is_said(self):
        with tempfile.TemporaryDirectory() as folder:
            for args, code, words in (
                (["--worker", "3"], 2, "unknown option --worker"), (["--workers", "x"], 2, "--workers x is not a positive number"),
                (["--workers", "0"], 2, "give 1 or more"), (["--workers"], 2, "--workers needs a value"),
                (["--bins", "/nowhere"], 2, "/nowhere/tally does not exist"),
                (["--slots", "x", "true"], 1, "invalid value 'x' for '--slots <N>'"),
            ):
                done = self.run_local(folder, *args)
                self.assertEqual(done.returncode, code)
                self.assertIn(words, done.stderr)
            self.assertEqual(list(processes(folder)), [])


class Compose(unittest.TestCase):
    def own(self):
        """The long-running services of Tally's image."""
        return {name: service for name, service in SERVICES.items() if name.startswith(("coordinator", "worker"))}

    def test_nothing_is_opened_beyond_loopback_and_no_process_is_root(self):
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
        """Each service's command as a process, with local ports and folders instead of those of containers."""
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
            self.assertIn("The result matches the generator's totals", done.stdout)
            # The journal is only where the commands configure it.
            self.assertEqual([path.name for path in (pathlib.Path(folder) / "data").iterdir()], ["demo"])
