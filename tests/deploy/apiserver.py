"""The part of a Kubernetes API server that Helm needs for a dry run of an upgrade: the version, the API groups, and installed
ConfigMaps and claims, which templates look up. Helm keeps the releases in memory.

Not here: other objects. The server accepts none. tests/kubernetes has a real one."""

import contextlib
import http.server
import json
import pathlib
import subprocess
import tempfile
import threading

import yaml

from chart import CHART, CRDS, HELM, KUBE

# The kinds of a release without custom resources, by their group.
KINDS = {
    "v1": ["ConfigMap", "ServiceAccount", "Service", "PersistentVolumeClaim", "Pod"],
    "apps/v1": ["Deployment"],
    "policy/v1": ["PodDisruptionBudget"],
    "networking.k8s.io/v1": ["NetworkPolicy"],
}
VERSIONS = [*CRDS, *(version for version in KINDS if "/" in version)]


def resource(kind):
    name = "networkpolicies" if kind == "NetworkPolicy" else f"{kind.lower()}s"
    return {"name": name, "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": ["get", "list"]}


def resources(version):
    found = [resource(kind) for kind in KINDS.get(version, [])]
    return {"kind": "APIResourceList", "groupVersion": version, "resources": found}


GROUPS = [{"name": name.split("/")[0], "versions": [{"groupVersion": name, "version": name.split("/")[1]}]} for name in VERSIONS]
ANSWERS = {
    "/version": {"major": "1", "minor": KUBE.split(".")[1], "gitVersion": f"v{KUBE}.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/api/v1": resources("v1"),
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": GROUPS},
    **{f"/apis/{name}": resources(name) for name in VERSIONS},
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answer = {**ANSWERS, **self.server.installed}.get(self.path.split("?")[0])
        body = json.dumps(answer or {"kind": "Status", "status": "Failure", "code": 404}).encode()
        self.send_response(200 if answer else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(installed=()):
    """Its URL."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.installed = {
        f"/api/v1/namespaces/{each['metadata']['namespace']}/{each['kind'].lower()}s/{each['metadata']['name']}": each
        for each in installed
    }
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def dry_run(url, program, words, config):
    """A dry run of `helm install`, or of `helm upgrade` over a release with these values. Returns the result of Helm."""
    with tempfile.TemporaryDirectory() as folder:
        releases = []
        if words[0] == "upgrade":
            metadata = yaml.safe_load((CHART / "Chart.yaml").read_text())
            values = yaml.safe_load((CHART / "values.yaml").read_text())
            releases.append({"name": words[1], "namespace": words[words.index("--namespace") + 1], "version": 1,
                             "info": {"status": "deployed"}, "chart": {"metadata": metadata, "values": values},
                             "config": config, "manifest": ""})
        file = pathlib.Path(folder) / "releases.json"
        file.write_text(json.dumps(releases))
        environment = {"HOME": folder, "HELM_DRIVER": "memory", "HELM_MEMORY_DRIVER_DATA": str(file)}
        command = [HELM / program, *words, "--dry-run=client", "--kube-apiserver", url, "--output", "json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    if done.returncode:
        raise AssertionError((words, done.stderr))
    return json.loads(done.stdout)
