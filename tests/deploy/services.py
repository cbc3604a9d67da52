"""The services of the compose file as local processes: Consul, the S3 server, and those of Tally's image.

Not here: checks."""

import contextlib
import os
import pathlib
import random
import re
import socket
import subprocess
import sys
import urllib.request

import boto3
import yaml

from chart import TOP
from processes import wait_for

COMPOSE = yaml.safe_load((TOP / "deploy" / "compose" / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]


def free(low=20000, high=25000):
    """A free port outside the range from which the system assigns ports to connections."""
    while True:
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", random.randrange(low, high)))
            return found.getsockname()[1]


class Processes:
    """A context manager that runs the services as processes."""

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
            # For each port, SeaweedFS also opens the port that is 10,000 higher.
            self.ports[name, number] = free(15000, 20000) if name == "s3" else free()
        return self.ports[name, number]

    def translate(self, name, text):
        """The translated command of a service: services refer to each other's ports by name."""
        text = str(text).replace("0.0.0.0:9090", "127.0.0.1:0").replace("0.0.0.0:", f"{name}:")
        text = re.sub(r"\b(consul|s3|coordinator-\d|worker-\d):(\d+)",
                      lambda found: f"127.0.0.1:{self.port(found[1], found[2])}", text)
        text = re.sub(r"^(-[\w.]+\.port)=(\d+)$", lambda found: f"{found[1]}={self.port(name, found[2])}", text)
        text = text.replace("-ip=s3", "-ip=127.0.0.1").replace("=0.0.0.0", "=127.0.0.1")
        return re.sub(r"=/(data|store)\b", f"={self.folder}/\\1", text).replace("=/spill", f"={self.folder}/{name}")

    def environment(self, variables):
        # The Python package contains SeaweedFS.
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
        # Two unused ports of newer versions.
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

    def keys(self, bucket):
        """Keys of all objects in a bucket, and of all open uploads."""
        of = self.environment(SERVICES["s3"]["environment"])
        client = boto3.client("s3", endpoint_url=of["AWS_ENDPOINT_URL"], region_name=of["AWS_REGION"],
                              aws_access_key_id=of["AWS_ACCESS_KEY_ID"],
                              aws_secret_access_key=of["AWS_SECRET_ACCESS_KEY"])
        objects = client.list_objects_v2(Bucket=bucket).get("Contents", [])
        uploads = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        return [each["Key"] for each in objects + uploads]
