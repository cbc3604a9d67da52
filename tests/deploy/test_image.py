"""The image, built without an engine and run as a cluster would: not as root, nothing to write to but its mounts."""

import json
import os
import pathlib
import re
import subprocess
import tarfile
import tempfile
import unittest

from chart import BIN, MINIMAL, TOP, objects, of_kind, pods

IMAGE = TOP / "deploy" / "image"
# A kubelet's limits are wider than those that this machine may set.
RUN = ["run", "--pull=never", "--rm", "--network=host", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000",
       "--runtime=runc", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges"]
LARGEST = 100 << 20


def dockerfile():
    """The last stage of the Dockerfile: instructions with their arguments."""
    text = (IMAGE / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    last = max(at for at, line in enumerate(lines) if line.startswith("FROM"))
    return [line.split(None, 1) for line in lines[last:]]


class Image(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="tally-image-"))
        cls.addClassCleanup(lambda: subprocess.run(["rm", "-rf", cls.folder], check=True))
        cls.archive = cls.folder / "tally.tar"
        cls.digest = cls.build(cls.archive)
        cls.podman("load", "--input", str(cls.archive))
        [cls.name] = cls.podman("images", "--format", "{{.Repository}}:{{.Tag}}").split()

    @staticmethod
    def build(archive):
        done = subprocess.run([IMAGE / "build", "--bins", BIN, archive], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    @classmethod
    def podman(cls, *args, fails=None):
        storage = [f"--root={cls.folder}/storage", f"--runroot={cls.folder}/run", "--storage-driver=vfs",
                   "--cgroup-manager=cgroupfs"]
        done = subprocess.run(["podman", *storage, *args], capture_output=True, text=True, timeout=300)
        if fails is None:
            assert done.returncode == 0, (args, done.stdout, done.stderr)
            return done.stdout
        assert done.returncode == fails, (args, done.returncode, done.stdout, done.stderr)
        return done.stderr

    def run_image(self, *args, **more):
        return self.podman(*RUN, *args, **more)

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

    def test_it_is_labelled_and_not_root(self):
        config = self.config()["config"]
        self.assertEqual(config["User"], "65532:65532")
        self.assertEqual(config["Entrypoint"], ["/usr/bin/tally"])
        version = subprocess.run([BIN / "tally", "--version"], capture_output=True, text=True).stdout.split()[1]
        self.assertEqual(config["Labels"]["org.opencontainers.image.version"], version)
        self.assertEqual(config["Labels"]["org.opencontainers.image.licenses"], "Apache-2.0")
        self.assertRegex(config["Labels"]["org.opencontainers.image.revision"], "^([0-9a-f]{40}|unknown)$")

    def test_it_is_small_and_holds_no_shell(self):
        size = int(self.podman("image", "inspect", self.name, "--format", "{{.Size}}"))
        self.assertLess(size, LARGEST)
        self.run_image("--entrypoint=/bin/sh", self.name, "-c", "true", fails=127)

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
                self.run_image(f"--entrypoint={program}", self.name, "--version")
            users.add(spec["securityContext"]["runAsUser"])
        self.assertEqual({f"{user}:{user}" for user in users}, {self.config()["config"]["User"]})
        self.assertTrue(of_kind(objects(MINIMAL), "Pod"))

    def test_a_job_runs_in_it_with_nothing_to_write_to_but_its_mounts(self):
        said = self.run_image("--tmpfs=/spill", "--tmpfs=/data", self.name, "demo", "--clients=2000", "--dir=/data/demo",
                              "--memory-limit=256MiB", "--spill-dir=/spill")
        self.assertIn("As the generator's totals say it must be", said)
        refused = self.run_image(self.name, "demo", "--clients=10", "--dir=/demo", fails=1)
        self.assertIn("/demo", refused)

    def test_a_cluster_runs_in_it(self):
        """Coordinator, worker and a job in three containers, ended by SIGTERM as a kubelet does it."""
        from processes import wait_for

        data = self.folder / "data"
        data.mkdir(mode=0o777)
        os.chmod(data, 0o777)
        shared = [f"--volume={data}:/data", "--tmpfs=/spill"]
        names = []

        def start(name, program, *args):
            self.run_image("--detach", f"--name={name}", *shared, f"--entrypoint=/usr/bin/{program}", self.name, *args)
            names.append(name)
            # Written by a rename, so never half.
            return wait_for(name, lambda: (data / name).read_text() if (data / name).is_file() else None)

        address = start("coordinator", "tally", "coordinator", "--listen=127.0.0.1:0", "--state-dir=/data/state",
                        "--port-file=/data/coordinator")
        start("worker", "tally-worker", f"--coordinator={address}", "--slots=1", "--memory-limit=256MiB",
              "--spill-dir=/spill", "--port-file=/data/worker")
        said = self.run_image(*shared, self.name, "demo", "--cluster", f"--coordinator={address}", "--clients=2000",
                              "--dir=/data/demo", "--remove")
        self.assertIn("As the generator's totals say it must be", said)
        for name in reversed(names):
            self.podman("kill", "--signal=TERM", name)
        wait_for("the end of both", lambda: None if self.podman("ps", "--quiet").strip() else True)
