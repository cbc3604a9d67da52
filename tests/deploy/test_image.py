"""The image, built without an engine and run as in a cluster: not as root, and only its mounts are writable."""

import io
import json
import os
import pathlib
import re
import subprocess
import tarfile
import tempfile
import unittest

from chart import BIN, MINIMAL, TOP, objects, of_kind, pods
from processes import wait_for

IMAGE = TOP / "deploy" / "image"
# Size of the archive, whose layer is compressed.
LARGEST = 60 << 20


def dockerfile():
    """The last stage of the Dockerfile: instructions with their arguments."""
    text = (IMAGE / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    last = max(at for at, line in enumerate(lines) if line.startswith("FROM"))
    return [line.split(None, 1) for line in lines[last:]]


class Containers:
    """Runs the image by podman and runc: read-only, without capabilities."""

    # The limits of a kubelet are higher than those that this machine can set.
    RUN = ["run", "--pull=never", "--network=host", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000",
           "--runtime=runc", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges"]

    def __init__(self, folder, archive):
        self.folder = folder
        self.podman("load", "--input", str(archive))
        [self.name] = self.podman("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
        self.data = folder / "data"
        self.data.mkdir()
        os.chmod(self.data, 0o777)

    def podman(self, *args, check=True):
        storage = [f"--root={self.folder}/storage", f"--runroot={self.folder}/run", "--storage-driver=vfs",
                   "--cgroup-manager=cgroupfs"]
        done = subprocess.run(["podman", *storage, *args], capture_output=True, text=True, timeout=300)
        assert not check or done.returncode == 0, (args, done.stdout, done.stderr)
        return done

    def words(self, program):
        return [f"--volume={self.data}:/data", "--tmpfs=/spill", f"--entrypoint={program}", self.name]

    def run(self, program, *args):
        return self.podman(*self.RUN, "--rm", *self.words(program), *args, check=False)

    def start(self, name, program, *args):
        self.podman(*self.RUN, "--detach", f"--name={name}", *self.words(program), *args)

    def end(self, name):
        """Sends SIGTERM like a kubelet; returns the exit code."""
        self.podman("kill", "--signal=TERM", name)
        return int(self.podman("wait", name).stdout)


class Chroots:
    """Runs the image by chroot, as its user, on machines that cannot run containers, such as containers. Its root is
    not writable by that user, although it is not mounted read-only."""

    def __init__(self, folder, archive):
        self.root = folder / "root"
        self.root.mkdir()
        with tarfile.open(archive) as outer:
            def blob(digest):
                return outer.extractfile("blobs/" + digest.replace(":", "/"))
            [manifest] = json.load(outer.extractfile("index.json"))["manifests"]
            for layer in json.load(blob(manifest["digest"]))["layers"]:
                with tarfile.open(fileobj=io.BytesIO(blob(layer["digest"]).read())) as inner:
                    inner.extractall(self.root)
        self.data = self.root / "data"
        os.chmod(self.data, 0o777)
        os.chmod(self.root / "spill", 0o777)
        self.running = {}

    def command(self, program, *args):
        return ["chroot", "--userspec=65532:65532", self.root, program, *args]

    def run(self, program, *args):
        return subprocess.run(self.command(program, *args), capture_output=True, text=True, timeout=300)

    def start(self, name, program, *args):
        self.running[name] = subprocess.Popen(self.command(program, *args), stderr=subprocess.DEVNULL)

    def end(self, name):
        self.running[name].terminate()
        return self.running[name].wait(120)


class Image(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="tally-image-"))
        cls.addClassCleanup(lambda: subprocess.run(["rm", "-rf", cls.folder], check=True))
        cls.archive = cls.folder / "tally.tar"
        cls.digest = cls.build(cls.archive)
        try:
            cls.engine = Containers(cls.folder, cls.archive)
            tried = cls.engine.run("/usr/bin/tally", "--version")
            # Exit codes of podman and runc: the program did not start.
            assert tried.returncode not in (125, 126, 127), tried.stderr
        except AssertionError as error:
            print(f"no containers can be made on this machine, so chroot it is: {error}", flush=True)
            cls.engine = Chroots(cls.folder, cls.archive)

    @staticmethod
    def build(archive):
        done = subprocess.run([IMAGE / "build", "--bins", BIN, archive], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def run_image(self, program, *args, fails=0):
        done = self.engine.run(program, *args)
        self.assertEqual(done.returncode, fails, (args, done.stdout, done.stderr))
        return done.stderr if fails else done.stdout

    def config(self):
        with tarfile.open(self.archive) as archive:
            def blob(digest):
                return json.load(archive.extractfile("blobs/" + digest.replace(":", "/")))
            [manifest] = json.load(archive.extractfile("index.json"))["manifests"]
            self.assertEqual(manifest["digest"], self.digest)
            return blob(blob(manifest["digest"])["config"]["digest"])

    def test_the_same_programs_give_the_same_digest(self):
        self.assertRegex(self.digest, r"^sha256:[0-9a-f]{64}$")
        self.assertEqual(self.build(self.folder / "again.tar"), self.digest)

    def test_what_is_wrong_is_said(self):
        for args, words in (
            ([], "usage: deploy/image/build"), (["--bins"], "--bins needs a value"), (["--tags", "x", "o"], "no option --tags"),
            (["a", "b"], "one archive only"), (["/nowhere/o.tar"], "there is no folder /nowhere"), (["a:b"], "has a colon"),
            (["--bins", "/nowhere", f"{self.folder}/none.tar"], "no /nowhere/tally"),
        ):
            done = subprocess.run([IMAGE / "build", *args], capture_output=True, text=True)
            self.assertEqual(done.returncode, 1, done.stdout)
            self.assertIn(words, done.stderr)
        self.assertFalse((self.folder / "none.tar").exists())

    def test_it_is_labelled_and_not_root(self):
        config = self.config()["config"]
        self.assertEqual(config["User"], "65532:65532")
        self.assertEqual(config["Entrypoint"], ["/usr/bin/tally"])
        version = subprocess.run([BIN / "tally", "--version"], capture_output=True, text=True).stdout.split()[1]
        self.assertEqual(config["Labels"]["org.opencontainers.image.version"], version)
        self.assertEqual(config["Labels"]["org.opencontainers.image.licenses"], "Apache-2.0")
        self.assertRegex(config["Labels"]["org.opencontainers.image.revision"], "^([0-9a-f]{40}|unknown)$")

    def test_it_is_small_and_holds_no_shell(self):
        self.assertLess(self.archive.stat().st_size, LARGEST)
        self.run_image("/bin/sh", "-c", "true", fails=127)

    def test_the_dockerfile_says_the_same(self):
        config = self.config()["config"]
        said = dockerfile()
        self.assertEqual(said[0], ["FROM", "scratch"])
        word = {key: value for key, value in said}
        self.assertEqual(word["USER"], config["User"])
        self.assertEqual(json.loads(word["ENTRYPOINT"]), config["Entrypoint"])
        self.assertIn(word["ENV"], config["Env"])
        self.assertEqual(word["WORKDIR"], config["WorkingDir"])
        labels = dict(re.findall(r'(org[.\w]+)="([^"]*)"', word["LABEL"]))
        self.assertEqual(set(labels), {label for label in config["Labels"] if label.startswith("org.")})
        for label, value in labels.items():
            if not value.startswith("$"):
                self.assertEqual(config["Labels"][label], value)
        self.assertIn(["ARG", "VERSION=" + config["Labels"]["org.opencontainers.image.version"]], said)

    def test_the_charts_commands_are_in_it_as_its_user(self):
        users = set()
        for name, _, spec in pods(objects(MINIMAL)):
            for container in spec["containers"]:
                [program] = container["command"]
                self.assertRegex(self.run_image(program, "--version"), r"^tally(-worker)? \d")
            users.add(spec["securityContext"]["runAsUser"])
        self.assertEqual({f"{user}:{user}" for user in users}, {self.config()["config"]["User"]})
        self.assertTrue(of_kind(objects(MINIMAL), "Pod"))

    def test_a_job_runs_in_it_with_nothing_to_write_to_but_its_mounts(self):
        said = self.run_image("/usr/bin/tally", "demo", "--clients=2000", "--dir=/spill/demo", "--memory-limit=256MiB",
                              "--spill-dir=/spill")
        self.assertIn("The result matches the generator's totals", said)
        refused = self.run_image("/usr/bin/tally", "demo", "--clients=10", "--dir=/demo", fails=1)
        self.assertIn("/demo", refused)

    def test_a_cluster_runs_in_it(self):
        """Coordinator, worker and a job in three containers, stopped by SIGTERM like a kubelet does."""
        def start(name, program, *args):
            self.engine.start(name, f"/usr/bin/{program}", *args)
            file = self.engine.data / f"{name}.port"
            # Written by a rename, so always complete.
            return wait_for(name, lambda: file.read_text() if file.is_file() else None)

        address = start("coordinator", "tally", "coordinator", "--listen=127.0.0.1:0", "--state-dir=/data/state",
                        "--port-file=/data/coordinator.port")
        start("worker", "tally-worker", f"--coordinator={address}", "--slots=1", "--memory-limit=256MiB",
              "--spill-dir=/spill", "--port-file=/data/worker.port")
        said = self.run_image("/usr/bin/tally", "demo", "--cluster", f"--coordinator={address}", "--clients=2000",
                              "--dir=/data/demo", "--remove")
        self.assertIn("The result matches the generator's totals", said)
        self.assertEqual([self.engine.end(name) for name in ("worker", "coordinator")], [0, 0])
