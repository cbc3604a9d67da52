"""Clusters for people on one machine: the script without containers, and the compose file with them, whose commands run
here as processes."""

import contextlib
import os
import pathlib
import random
import re
import socket
import subprocess
import sys
import tempfile
import unittest
import urllib.request

import yaml

from chart import BIN, TOP
from listening import processes
from processes import wait_for
from test_objects import flags

LOCAL = TOP / "deploy" / "local"
COMPOSE = yaml.safe_load((TOP / "deploy" / "compose" / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]


def free(low=20000, high=25000):
    """A port that nobody has, out of those that the system gives to no connection by itself."""
    while True:
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", random.randrange(low, high)))
            return found.getsockname()[1]


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


class Processes:
    """The services as processes, until the end of a `with`."""

    def __init__(self, folder):
        self.folder = folder
        self.ports = {}
        self.ends = contextlib.ExitStack()
        os.mkdir(f"{folder}/data")
        os.mkdir(f"{folder}/store")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.ends.close()

    def port(self, name, number):
        if (name, number) not in self.ports:
            # Beside each of its ports a SeaweedFS opens one that is 10,000 higher.
            self.ports[name, number] = free(15000, 20000) if name == "s3" else free()
        return self.ports[name, number]

    def translate(self, name, text):
        """A service's words here: everybody's own port is known to others by its name."""
        text = str(text).replace("0.0.0.0:9090", "127.0.0.1:0").replace("0.0.0.0:", f"{name}:")
        text = re.sub(r"\b(consul|s3|coordinator-\d|worker-\d):(\d+)",
                      lambda found: f"127.0.0.1:{self.port(found[1], found[2])}", text)
        text = re.sub(r"^(-[\w.]+\.port)=(\d+)$", lambda found: f"{found[1]}={self.port(name, found[2])}", text)
        text = text.replace("-ip=s3", "-ip=127.0.0.1").replace("=0.0.0.0", "=127.0.0.1")
        return re.sub(r"=/(data|store)\b", f"={self.folder}/\\1", text).replace("=/spill", f"={self.folder}/{name}")

    def environment(self, variables):
        # SeaweedFS is where Python's packages put it.
        path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
        return {"PATH": path, "HOME": self.folder} | {key: self.translate("", value) for key, value in variables.items()}

    def start(self, name, command, variables):
        log = self.ends.enter_context(open(f"{self.folder}/{name}.log", "w"))
        words = [self.translate(name, word) for word in command]
        process = subprocess.Popen(words, stdout=log, stderr=log, env=self.environment(variables))

        def end():
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

        self.ends.callback(end)

    def run(self, command, variables):
        words = [self.translate("", word) for word in command]
        return subprocess.run(words, capture_output=True, text=True, timeout=240, env=self.environment(variables))

    def said(self):
        return "".join(f"--- {log}\n{log.read_text()[-3000:]}" for log in pathlib.Path(self.folder).glob("*.log"))

    def start_consul(self):
        self.start("consul", [
            os.environ["CONSUL_BIN"], "agent", "-dev", "-bind=127.0.0.1", "-client=127.0.0.1",
            f"-http-port={self.port('consul', '8500')}", "-dns-port=-1", "-grpc-port=-1", f"-server-port={free()}",
            f"-serf-lan-port={free()}", f"-serf-wan-port={free()}"], {})

    def start_store(self):
        service, bucket = SERVICES["s3"], SERVICES["bucket"]
        # Two ports of newer versions that nobody needs.
        more = ["-s3.port.iceberg=0", "-s3.port.lance=0"]
        self.start("s3", ["weed", *service["command"], *more], service["environment"])
        [status] = [word for word in service["healthcheck"]["test"] if word.startswith("http://")]

        def healthy():
            with contextlib.suppress(OSError):
                with urllib.request.urlopen(self.translate("", status), timeout=5):
                    return True

        def made():
            done = self.run([*bucket["entrypoint"], *bucket["command"]], service["environment"])
            listed = self.run(["sh", "-c", "echo s3.bucket.list | weed shell -master=s3:9333"], service["environment"])
            return True if done.returncode == 0 and "telemetry" in listed.stdout else None

        wait_for("the S3 server", healthy)
        wait_for("the bucket", made)
