"""A cluster of real processes, started like the pods of the chart: the same commands, arguments, environment, settings and
mounted secrets, but with folders and ports of this machine.

Not here: checks."""

import contextlib
import os
import pathlib
import re
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

from chart import BIN, objects, of_kind, one, own_container

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
    """The processes of the release; paths and addresses of its pods are translated to this machine. `secrets` has the keys and
    values of the secrets that the values name."""

    def __init__(self, folder, values, secrets, ip="127.0.0.1"):
        self.ip = ip
        self.folder = pathlib.Path(folder)
        self.objects = objects(values)
        self.secrets = secrets
        self.coordinator = None
        self.mounted = {}
        self.processes = []
        self.http = {}
        (self.folder / "data").mkdir()

    def mounts(self, name, spec):
        """The mount paths of a pod and their local folders, which are created once."""
        if name in self.mounted:
            return self.mounted[name]
        folders = {}
        for volume in spec.get("volumes", []):
            here = self.folder / name / volume["name"]
            match volume:
                case {"persistentVolumeClaim": _}:
                    here = self.folder / "data"
                case {"emptyDir": _}:
                    here.mkdir(parents=True, exist_ok=True)
                case {"secret": source}:
                    data = self.secrets[source["secretName"]]
                    items = source.get("items", [{"key": key, "path": key} for key in data])
                    self.write(here, {item["path"]: data[item["key"]] for item in items})
                case {"configMap": source}:
                    data = one(self.objects, "ConfigMap", source["name"])["data"]
                    self.write(here, {item["path"]: data[item["key"]] for item in source["items"]})
            folders[volume["name"]] = here
        mounts = [mount for container in spec["containers"] for mount in container.get("volumeMounts", [])]
        found = {mount["mountPath"]: folders[mount["name"]] for mount in mounts}
        for file in (self.folder / name).glob("settings/*"):
            file.write_text(self.translate(file.read_text(), found))
        self.mounted[name] = found
        return found

    def write(self, folder, files):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)
            # The programs refuse keys and tokens that are readable by others.
            (folder / name).chmod(0o600)

    def translate(self, text, mounts):
        if self.coordinator:
            text = re.sub(r"[a-z-]+\.telemetry\.svc:\d+", lambda _: self.coordinator, text)
        for there, here in sorted(mounts.items(), reverse=True):
            text = re.sub(rf"(^|[\"=]){there}(?=/|$|\")", lambda found: f"{found[1]}{here}", text)
        return text

    def field(self, path, job):
        """What the kubelet would put into a variable."""
        fields = {"status.podIP": self.ip, "status.hostIP": self.ip, "metadata.uid": "1f0e",
                  "metadata.labels['batch.kubernetes.io/job-name']": job}
        return fields[path]

    def command(self, name, spec, job=""):
        """The translated command and environment of a pod's container."""
        container = own_container(spec)
        mounts = self.mounts(name, spec)
        program = container["command"][0].replace("/usr/bin", str(BIN))
        environment = {"PATH": os.environ["PATH"]}
        for source in container.get("envFrom", []):
            environment |= self.secrets[source["secretRef"]["name"]]
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {}).get("fieldRef")
            value = self.field(source["fieldPath"], job) if source else variable["value"]
            environment[variable["name"]] = self.translate(value, mounts)
        # As the kubelet does: $(NAME) is a variable of the container.
        args = [re.sub(r"\$\((\w+)\)", lambda found: environment[found[1]], arg) for arg in container["args"]]
        return [program, *(self.translate(arg, mounts) for arg in args)], environment

    def start(self, component, number=0):
        """Starts one pod of a deployment, with free ports."""
        name = f"{component}-{number}"
        spec = one(self.objects, "Deployment", f"-{component}")["spec"]["template"]["spec"]
        args, environment = self.command(name, spec)
        ports = {kind: self.folder / f"{name}.{kind}" for kind in ("grpc", "http")}
        # The settings file and the advertised host are the pod's. Flags override the ports; without IPv6, loopback is sufficient.
        listen = ":0" if ":" in self.ip else "127.0.0.1:0"
        args += [f"--listen={listen}", f"--port-file={ports['grpc']}",
                 f"--http-listen={listen}", f"--http-port-file={ports['http']}"]
        with open(self.folder / f"{name}.log", "wb") as log:
            self.processes.append(subprocess.Popen(args, stdout=log, stderr=log, env=environment))

        def address(kind):
            def read():
                if self.processes[-1].poll() is not None:
                    raise AssertionError((self.folder / f"{name}.log").read_text())
                return ports[kind].read_text().replace("[::]", f"[{self.ip}]") if ports[kind].is_file() else None
            return wait_for(f"{component}'s {kind} port", read)

        if component == "coordinator":
            # The service selects any coordinator; here it is the last one, which is a standby if there are several.
            self.coordinator = address("grpc")
        self.http[name] = address("http")

    def helm_test(self, change=lambda arg: arg):
        """Runs the pod of `helm test` as specified."""
        [pod] = of_kind(self.objects, "Pod")
        args, environment = self.command("test", pod["spec"])
        return subprocess.run([change(arg) for arg in args], capture_output=True, text=True, timeout=300, env=environment)

    def daily_job(self, job):
        """Runs the pod of the daily job, in a Kubernetes job with that name."""
        spec = one(self.objects, "CronJob", "-daily")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        args, environment = self.command("daily", spec, job)
        # It names paths of the workers.
        args = [re.sub(r"=/data(?=/)", f"={self.folder}/data", arg) for arg in args]
        return subprocess.run(args, capture_output=True, text=True, timeout=300, env=environment)

    def exec(self, component, words):
        """Runs a command in a pod, as `kubectl exec` does."""
        spec = one(self.objects, "Deployment", f"-{component}")["spec"]["template"]["spec"]
        name = f"{component}-0"
        _, environment = self.command(name, spec)
        mounts = self.mounts(name, spec)
        args = [BIN / words[0], *(self.translate(word, mounts) for word in words[1:])]
        return subprocess.run(args, capture_output=True, text=True, timeout=300, env=environment)

    def said(self):
        return "".join(f"--- {log}\n{log.read_text()[-3000:]}" for log in self.folder.glob("*.log"))

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
def pods(values, workers, secrets={}, coordinators=1, ip="127.0.0.1"):
    """The ready coordinators and workers."""
    with tempfile.TemporaryDirectory(prefix="tally-chart-") as folder:
        running = Pods(folder, values, secrets, ip)
        try:
            for number in range(coordinators):
                running.start("coordinator", number)
            for number in range(workers):
                running.start("worker", number)
            for name, address in running.http.items():
                wait_for(f"a ready {name}", lambda address=address: get(address, "/readyz")[0] == 200 or None)
            yield running
        finally:
            running.kill()
