"""A stand-in for the Prometheus adapter: the API `external.metrics.k8s.io` with one metric, whose value the test sets. The real HPA
controller asks it through the API server's aggregation.

Not here: Prometheus, and the coordinators that publish the metric."""

import http.server
import json
import ssl
import threading

from readiness import now

GROUP = "external.metrics.k8s.io"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        parts = self.path.split("?")[0].strip("/").split("/")
        # apis/GROUP/v1beta1/namespaces/NAMESPACE/METRIC
        if parts[:3] == ["apis", GROUP, "v1beta1"] and len(parts) == 6:
            self.server.asked.append(self.path)
            self.answer({"kind": "ExternalMetricValueList", "apiVersion": f"{GROUP}/v1beta1", "metadata": {}, "items": [
                {"metricName": parts[5], "metricLabels": {}, "timestamp": now(), "value": str(self.server.value)}]})
        elif parts == ["apis", GROUP, "v1beta1"]:
            self.answer({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{GROUP}/v1beta1", "resources": [
                {"name": "tally_slots_wanted", "singularName": "", "namespaced": True, "kind": "ExternalMetricValueList",
                 "verbs": ["get"]}]})
        else:
            self.answer({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404}, 404)

    def answer(self, body, code=200):
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Metrics:
    """A context manager: the metric, registered with the control plane."""

    def __init__(self, plane):
        self.plane = plane

    def __enter__(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.value, self.server.asked = 0, []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.plane.folder / "server.crt", self.plane.folder / "server.key")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        serve(self.plane, self.server.server_port)
        return self

    def __exit__(self, *_):
        unserve(self.plane)
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def set(self, value):
        self.server.value = value


def serve(plane, port):
    """Registers the API that a program serves on that port."""
    # A service by host name, because the API server refuses endpoints on loopback.
    plane.create("/api/v1/namespaces/default/services", {"metadata": {"name": "metrics"}, "spec": {
        "type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}})
    plane.create("/apis/apiregistration.k8s.io/v1/apiservices", {
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": f"v1beta1.{GROUP}"},
        "spec": {"group": GROUP, "version": "v1beta1", "service": {"namespace": "default", "name": "metrics", "port": port},
                 "insecureSkipTLSVerify": True, "groupPriorityMinimum": 100, "versionPriority": 100}})


def unserve(plane):
    plane.delete(f"/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.{GROUP}")
    plane.delete("/api/v1/namespaces/default/services/metrics")


def available(plane):
    found = plane.get(f"/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.{GROUP}")
    conditions = found.get("status", {}).get("conditions", [])
    return any(each["type"] == "Available" and each["status"] == "True" for each in conditions)
