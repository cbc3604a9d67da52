"""A coordinator and two workers as plain processes on loopback, with a small synthetic day.

Not here: checks; processes like the pods of the chart (`processes`)."""

import json
import pathlib
import signal
import subprocess
import tempfile

from chart import BIN
from processes import DEADLINE, wait_for

DATE = "20170227"
# Frozen workers do not become lost.
COORDINATOR = ["--worker-timeout=120000"]
TABLES = (("addons", "addons/v2"), ("main-summary", "main_summary/v3"))


class SmallCluster:
    """A context with the running processes. `grpc` and `http` are the coordinator's addresses, `coordinator` more of its flags."""

    def __init__(self, workers=2, clients=2000, slots=1, coordinator=()):
        self.workers, self.clients, self.slots, self.processes = workers, clients, slots, []
        self.coordinator = coordinator

    def __enter__(self):
        self.kept = tempfile.TemporaryDirectory(prefix="tally-small-")
        self.folder = pathlib.Path(self.kept.name)
        try:
            words = ["generate", f"--clients={self.clients}", "--narrow", f"--date={DATE}", f"--output={self.folder}/day"]
            subprocess.run([BIN / "tally", *words], check=True, capture_output=True)
            self.grpc, self.http = self.start_coordinator()
            for number in range(self.workers):
                (spill := self.folder / f"spill-{number}").mkdir()
                self.start(f"worker-{number}", "tally-worker", f"--coordinator={self.grpc}", f"--name=worker-{number}", f"--spill-dir={spill}",
                           f"--slots={self.slots}", f"--memory-limit={256 * self.slots}MiB")
            wait_for("attached workers", self.attached)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()
        self.kept.cleanup()

    def attached(self):
        [said] = self.tally("workers").splitlines()
        return True if len(json.loads(said)["workers"]) == self.workers else None

    def start_coordinator(self, at=("127.0.0.1:0", "127.0.0.1:0")):
        return self.start("coordinator", "tally", "coordinator", f"--state-dir={self.folder}/state", *COORDINATOR, *self.coordinator, at=at)

    def restart_coordinator(self, meanwhile):
        """Kills the coordinator, and starts another one at the same addresses."""
        old = self.processes.pop(0)
        old.kill()
        old.wait()
        meanwhile()
        self.start_coordinator((self.grpc, self.http))
        self.processes.insert(0, self.processes.pop())

    def start(self, name, program, *flags, at=("127.0.0.1:0", "127.0.0.1:0")):
        """Starts a process that listens at these addresses; returns its addresses for gRPC and HTTP."""
        files = [self.folder / f"{name}.{kind}" for kind in ("grpc", "http")]
        for file in files:
            file.unlink(missing_ok=True)
        listen = [f"--listen={at[0]}", f"--port-file={files[0]}", f"--http-listen={at[1]}", f"--http-port-file={files[1]}"]
        with open(self.folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen([BIN / program, *flags, *listen], stdout=log, stderr=log)
        self.processes.append(process)

        def addresses():
            if process.poll() is not None:
                raise AssertionError((self.folder / f"{name}.log").read_text())
            return [file.read_text().strip() for file in files] if all(file.is_file() for file in files) else None
        return wait_for(f"the addresses of {name}", addresses)

    def tally(self, command, *words):
        """What a command of this cluster prints."""
        args = [BIN / "tally", command, *words, f"--coordinator={self.grpc}", "--output-format=json"]
        done = subprocess.run(args, capture_output=True, text=True, timeout=DEADLINE)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def many_files(self, count):
        """A day whose tables have that many files together: links to one file each, which no job has to read."""
        for _, path in TABLES:
            file = max((self.folder / "day" / path).rglob("*.parquet"), key=lambda file: file.stat().st_size)
            there = self.folder / "many" / file.relative_to(self.folder / "day").parent
            there.mkdir(parents=True)
            for number in range(count // len(TABLES)):
                (there / f"part-{number:05}.parquet").hardlink_to(file)
        return "many"

    def submit(self, output, *words, day="day"):
        """Submits a job over the day; returns its id."""
        tables = [f"--{name}={self.folder}/{day}/{path}" for name, path in TABLES]
        said = self.tally("submit", *tables, f"--date={DATE}", f"--output={self.folder}/{output}", "--detach", *words)
        return json.loads(said)["job_id"]

    def freeze(self):
        """Stops the workers, which keep their connections."""
        for process in self.processes[1:]:
            process.send_signal(signal.SIGSTOP)

    def release(self):
        for process in self.processes[1:]:
            process.send_signal(signal.SIGCONT)
