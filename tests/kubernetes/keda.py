"""KEDA: its operator, which asks the coordinators how many workers they want, and its adapter, which passes the answers to the HPA.

Not here: KEDA's admission webhook, its certificates' rotation, and its images: both programs run beside the control plane."""

import contextlib
import shutil
import socket

import metrics
from api import wait_for

NAMESPACE = "keda"
PORT = 6443
# Where the operator answers the adapter.
OPERATOR = "127.0.0.1:9666"


class Keda:
    """A context manager."""

    def __init__(self, plane):
        self.plane = plane

    def __enter__(self):
        plane, folder = self.plane, self.plane.folder / "keda"
        folder.mkdir()
        # A certificate for both sides, with the name `localhost`.
        for name, file in (("ca.crt", "ca.crt"), ("tls.crt", "server.crt"), ("tls.key", "server.key")):
            shutil.copy(plane.folder / file, folder / name)
        plane.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        variables = {"KUBECONFIG": str(plane.kubeconfig), "POD_NAMESPACE": NAMESPACE, "KEDA_CLUSTER_OBJECT_NAMESPACE": NAMESPACE,
                     "WATCH_NAMESPACE": ""}
        metrics.serve(plane, PORT)
        self.ends = [plane.start(
            "keda-operator", f"--cert-dir={folder}", f"--metrics-service-bind-address={OPERATOR}", "--metrics-bind-address=127.0.0.1:8080",
            "--health-probe-bind-address=127.0.0.1:8081", "--zap-encoder=console", **variables)]
        try:
            # The adapter asks all the time, without a pause, while there is no operator.
            wait_for("KEDA's operator", self.operates)
            self.ends.append(plane.start(
                "keda-adapter", f"--secure-port={PORT}", "--bind-address=127.0.0.1", f"--cert-dir={folder}",
                f"--tls-cert-file={folder}/tls.crt", f"--tls-private-key-file={folder}/tls.key", f"--client-ca-file={folder}/ca.crt",
                f"--metrics-service-address={OPERATOR.replace('127.0.0.1', 'localhost')}", "--port=8082",
                *(f"--{use}-kubeconfig={plane.kubeconfig}" for use in ("lister", "authentication", "authorization")), **variables))
            wait_for("KEDA's adapter", lambda: metrics.available(plane))
        except BaseException as error:
            self.__exit__(None, error)
            raise
        return self

    def operates(self):
        process = self.plane.processes["keda-operator"]
        if process.poll() is not None:
            raise AssertionError(f"KEDA's operator ended with {process.returncode}")
        host, port = OPERATOR.split(":")
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 5):
            return True

    def __exit__(self, _kind=None, error=None, _trace=None):
        if error:
            for name in ("keda-operator", "keda-adapter")[:len(self.ends)]:
                error.add_note(f"{name}: {self.plane.log(name)}")
        metrics.unserve(self.plane)
        for end in self.ends:
            end()
        shutil.rmtree(self.plane.folder / "keda")
        self.plane.delete(f"/api/v1/namespaces/{NAMESPACE}")
