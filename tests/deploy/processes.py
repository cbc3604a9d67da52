"""A cluster of real processes, started as the chart's pods are: the same commands, arguments and settings, with this
machine's folders and ports in the place of a pod's.

Not here: what is checked of it."""

import contextlib
import os
import pathlib
import re
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

from chart import BIN, objects, one, settings

DEADLINE = 120


def wait_for(what, condition):
    """The first value of `condition` that is not None."""
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        if (value := condition()) is not None:
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {DEADLINE} s in vain for {what}")


def get(address, path):
    """Status and body."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Pods:
    """The release's processes, and the words of its pods translated to this machine."""

    def __init__(self, folder, values):
        self.folder = pathlib.Path(folder)
        self.objects = objects(values)
        self.words = {"/data": str(self.folder / "data"), "/spill": str(self.folder / "spill")}
        self.processes = []
        self.http = {}
        (self.folder / "data").mkdir()

    def translate(self, text):
        text = re.sub(r"[a-z-]+\.telemetry\.svc:\d+", lambda _: self.words["coordinator"], text)
        for here, there in (("/data", self.words["/data"]), ("/spill", self.words["/spill"])):
            text = re.sub(rf"(^|[\"=]){here}(?=/|$|\")", lambda found: found[1] + there, text)
        return text

    def command(self, container):
        """A container's command and arguments, here."""
        program = container["command"][0].replace("/usr/bin", str(BIN))
        return [program, *(self.translate(arg) for arg in container["args"])]

    def start(self, component, number=0):
        """Starts one pod of a deployment. Its ports are any that are free."""
        [container] = one(self.objects, "Deployment", f"-{component}")["spec"]["template"]["spec"]["containers"]
        text = one(self.objects, "ConfigMap", "-settings")["data"][f"{component}.toml"]
        # The file has all that the pod has, but for addresses, which flags say, and these come first.
        file = self.folder / f"{component}.toml"
        file.write_text(self.translate(text))
        ports = {name: self.folder / f"{component}-{number}.{name}" for name in ("grpc", "http")}
        args = [arg for arg in self.command(container) if not arg.startswith(("--config=", "--advertise="))]
        args += [f"--config={file}", "--listen=127.0.0.1:0", f"--port-file={ports['grpc']}",
                 "--http-listen=127.0.0.1:0", f"--http-port-file={ports['http']}"]
        if component == "worker":
            args.append(f"--spill-dir={self.folder / f'spill-{number}'}")
        log = open(self.folder / f"{component}-{number}.log", "wb")
        self.processes.append(subprocess.Popen(args, stdout=log, stderr=log, env={"PATH": os.environ["PATH"]}))

        def told(name):
            def read():
                if self.processes[-1].poll() is not None:
                    raise AssertionError((self.folder / f"{component}-{number}.log").read_text())
                return ports[name].read_text() if ports[name].is_file() else None
            return wait_for(f"{component}'s {name} port", read)

        if component == "coordinator":
            self.words["coordinator"] = told("grpc")
        self.http[f"{component}-{number}"] = told("http")
        return self.http[f"{component}-{number}"]

    def end(self):
        for process in reversed(self.processes):
            process.terminate()
        return [process.wait(DEADLINE) for process in reversed(self.processes)]

    def kill(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()


@contextlib.contextmanager
def pods(values, workers):
    """A coordinator and workers that are ready."""
    with tempfile.TemporaryDirectory(prefix="tally-chart-") as folder:
        running = Pods(folder, values)
        try:
            running.start("coordinator")
            for number in range(workers):
                running.start("worker", number)
            for name, address in running.http.items():
                wait_for(f"a ready {name}", lambda address=address: get(address, "/readyz")[0] == 200 or None)
            yield running
        finally:
            running.kill()
