"""KEDA: its operator, which asks the coordinators how many workers they want, and its adapter, which passes the answers to the HPA.

Not here: KEDA's admission webhook, its certificates' rotation, and its images: both programs run beside the control plane."""

import shutil

import metrics
from api import wait_for

NAMESPACE = "keda"
PORT = 6443


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
        variables = {"KUBECONFIG": str(plane.kubeconfig), "POD_NAMESPACE": NAMESPACE, "WATCH_NAMESPACE": ""}
        self.ends = [
            plane.start("keda-operator", f"--cert-dir={folder}", "--metrics-service-bind-address=127.0.0.1:9666",
                        "--metrics-bind-address=127.0.0.1:8080", "--health-probe-bind-address=127.0.0.1:8081", "--zap-encoder=console",
                        **variables),
            plane.start("keda-adapter", f"--secure-port={PORT}", "--bind-address=127.0.0.1", f"--cert-dir={folder}",
                        f"--tls-cert-file={folder}/tls.crt", f"--tls-private-key-file={folder}/tls.key",
                        f"--client-ca-file={folder}/ca.crt", "--metrics-service-address=localhost:9666", "--port=8082",
                        *(f"--{use}-kubeconfig={plane.kubeconfig}" for use in ("lister", "authentication", "authorization")),
                        **variables)]
        try:
            metrics.serve(plane, PORT)
            wait_for("KEDA's adapter", lambda: metrics.available(plane))
        except BaseException as error:
            self.__exit__()
            raise AssertionError(f"{error}: {plane.log('keda-operator')}{plane.log('keda-adapter')}") from error
        return self

    def __exit__(self, *_):
        metrics.unserve(self.plane)
        for end in self.ends:
            end()
        shutil.rmtree(self.plane.folder / "keda")
        self.plane.delete(f"/api/v1/namespaces/{NAMESPACE}")
