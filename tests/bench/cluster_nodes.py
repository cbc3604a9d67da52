"""A cluster for the benchmark: a coordinator and workers with one slot each, as processes on loopback.

Not here: the measurements (`cluster_bench.py`).
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import measure

LEAVE = 30
"""Seconds in which a process must exit."""


def cpu_and_peak(pid):
    """Processor seconds and maximum resident bytes of a running process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    peak = 0
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            peak = int(line.split()[1]) * 1024
    return (int(fields[11]) + int(fields[12])) / measure.TICKS, peak


def certificates(folder):
    """An authority and a certificate for each role; returns the flags of each role."""
    openssl = lambda *words: subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder)
    openssl("req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "2", "-subj", "/CN=bench", "-keyout", "ca.key",
            "-out", "ca.pem")
    flags = {}
    for role in ("coordinator", "worker", "operator"):
        (folder / "names").write_text(f"subjectAltName=URI:spiffe://tally/{role}\n")
        openssl("req", "-newkey", "ed25519", "-nodes", "-subj", f"/CN={role}", "-keyout", f"{role}.key", "-out", "csr")
        openssl("x509", "-req", "-in", "csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2", "-extfile", "names",
                "-out", f"{role}.pem")
        (folder / f"{role}.key").chmod(0o600)
        pair = ["--tls-cert", str(folder / f"{role}.pem"), "--tls-key", str(folder / f"{role}.key")]
        flags[role] = ["--tls-ca", str(folder / "ca.pem"), *pair]
    return flags


class Cluster:
    """A context manager that starts and stops the cluster. Processes are killed by their ids."""

    def __init__(self, tally, workers, memory, scratch, tls=False):
        self.tally = tally
        self.count = workers
        self.memory = memory
        self.folder = Path(tempfile.mkdtemp(prefix="cluster-", dir=scratch))
        self.processes = []
        self.workers = []
        self.address = None
        self.roles = certificates(self.folder) if tls else {}

    def __enter__(self):
        try:
            self.coordinator = self.start(
                "coordinator", self.tally, "coordinator", "--state-dir", self.folder / "state",
                *self.roles.get("coordinator", []))
            self.address = self.port("coordinator")
            for number in range(self.count):
                name = f"worker-{number}"
                binary = Path(self.tally).with_name("tally-worker")
                flags = ["--coordinator", self.address, "--slots", 1, "--memory-limit", self.memory,
                         *self.roles.get("worker", [])]
                self.workers.append(self.start(name, binary, *flags, "--spill-dir", self.folder / name))
            self.wait("all workers", lambda: self.attached() == self.count)
            return self
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __exit__(self, *_):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, name, *command):
        """A process with a log and a port file."""
        with open(self.folder / f"{name}.log", "w") as log:
            command = [*map(str, command), "--listen", "127.0.0.1:0", "--port-file", str(self.folder / f"{name}.port")]
            environment = measure.environment({"TALLY_LOG": "warn"})
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        self.processes.append(process)
        return process

    def wait(self, what, condition, deadline=60, pause=0.01):
        """Polls until `condition` holds."""
        end = time.monotonic() + deadline
        while not (value := condition()):
            dead = [process.args[0] for process in self.processes if process.poll()]
            if time.monotonic() > end or dead:
                logs = "\n".join(log.read_text()[-1000:] for log in self.folder.glob("*.log"))
                raise measure.Failed(f"waited in vain for {what}; ended: {dead}\n{logs}")
            time.sleep(pause)
        return value

    def port(self, name):
        """The address of a process."""
        file = self.folder / f"{name}.port"
        return self.wait(f"the address of {name}", lambda: file.exists() and file.read_text().strip())

    def ask(self, *command):
        """The JSON output of a `tally` command; `None` without a leader."""
        line = [self.tally, *command, "--coordinator", self.address, "--output-format", "json", *self.operator()]
        done = subprocess.run(line, capture_output=True, text=True, env=measure.environment())
        return json.loads(done.stdout) if done.returncode == 0 else {}

    def attached(self):
        """Number of workers that accept tasks."""
        return sum(worker["state"] == "attached" for worker in self.ask("workers").get("workers", []))

    def submit(self, *flags):
        """The command that submits a job and waits for its end."""
        return [self.tally, "submit", "--coordinator", self.address, "--output-format", "json", *self.operator(),
                *map(str, flags)]

    def operator(self):
        """The flags of a command with the operator role."""
        return self.roles.get("operator", [])

    def done(self, stage):
        """The share of a stage's tasks that a running job has done."""
        for job in self.ask("jobs").get("jobs", []):
            for found in job["stages"]:
                if found["name"] == stage and found["tasks"]:
                    return found["done"] / found["tasks"]
        return 0.0

    def send_signal(self, worker, how):
        """Sends a signal to one worker."""
        process = self.workers[worker]
        os.kill(process.pid, how)
        if how == signal.SIGKILL:
            process.wait()
            self.processes.remove(process)

    def used(self):
        """Processor seconds of all remaining processes, of the coordinator alone, and the largest peak."""
        each = [cpu_and_peak(process.pid) for process in self.processes]
        return sum(cpu for cpu, _ in each), each[0][0], max(peak for _, peak in each)
