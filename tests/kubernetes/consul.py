"""A Consul agent on the address of a node, outside pods, as many clusters have it.

Not here: ACLs, TLS, and Consul's own failures (the cluster tests in Rust)."""

import os
import subprocess
import tempfile

from node.network import NODES

ADDRESS = str(NODES[1])
URL = f"http://{ADDRESS}:8500"


class Consul:
    """A context manager."""

    def __enter__(self):
        self.log = tempfile.TemporaryFile()
        command = [os.environ["CONSUL_BIN"], "agent", "-dev", f"-bind={ADDRESS}", f"-client={ADDRESS}", "-dns-port=-1", "-grpc-port=-1"]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.log.close()
