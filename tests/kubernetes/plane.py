"""A control plane of Kubernetes on loopback: etcd, kube-apiserver and kube-controller-manager with certificates of their own.

Not here: nodes. No scheduler and no kubelet runs, so pods exist, but no container starts (see readiness.py; nodes.py has both)."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request

from api import Refused, wait_for

BIN = pathlib.Path(os.environ["KUBERNETES_BIN"])
# The node without a kubelet.
NODE = "stand-in"


class Ports:
    """Ports that stay reserved: the programs bind them again with SO_REUSEPORT, so no other process can take them before."""

    def __init__(self):
        self.held = contextlib.ExitStack()

    def one(self):
        held = self.held.enter_context(socket.socket())
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def openssl(*words):
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"openssl {words}: {done.stderr}")


def certificates(folder):
    """An authority, and certificates for servers and for an administrator."""
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 2, "-subj", "/CN=tests",
            "-keyout", folder / "ca.key", "-out", folder / "ca.crt")
    for name, subject in (("server", "/CN=server"), ("admin", "/O=system:masters/CN=admin")):
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject,
                "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.csr")
        extensions = folder / f"{name}.ext"
        extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n")
        openssl("x509", "-req", "-in", folder / f"{name}.csr", "-CA", folder / "ca.crt", "-CAkey", folder / "ca.key",
                "-CAcreateserial", "-days", 2, "-extfile", extensions, "-out", folder / f"{name}.crt")
    openssl("genrsa", "-out", folder / "accounts.key", 2048)


class Plane:
    """A context manager. Its programs have a process group each, and end with it, also after an error."""

    PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager")
    # Nothing sends the heartbeats of the node.
    CONTROLLERS = "*,-node-lifecycle-controller,-taint-eviction-controller"

    def __init__(self):
        self.ends = contextlib.ExitStack()
        self.ports = Ports()
        self.processes = {}

    def __enter__(self):
        try:
            self.folder = pathlib.Path(self.ends.enter_context(tempfile.TemporaryDirectory(prefix="tally-kubernetes-")))
            self.ends.enter_context(self.ports.held)
            certificates(self.folder)
            self.start_all()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.ends.close()

    def start(self, name, *flags, **variables):
        """Starts a program; returns a function that ends it before the context does."""
        log = self.ends.enter_context(open(self.folder / f"{name}.log", "w"))
        process = subprocess.Popen([BIN / name, *flags], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                   env={"HOME": str(self.folder), "PATH": "", **variables}, start_new_session=True)
        self.processes[name] = process

        def end():
            if process.returncode is not None:
                return
            # The group, because a program may have children. The ids are valid: nothing has waited for the process yet.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

        self.ends.callback(end)
        return end

    def start_all(self):
        at = self.folder
        store, peer, port = (self.ports.one() for _ in range(3))
        pki = [f"--cert-file={at}/server.crt", f"--key-file={at}/server.key", f"--trusted-ca-file={at}/ca.crt", "--client-cert-auth"]
        self.start(
            "etcd", f"--data-dir={at}/etcd", f"--listen-client-urls=https://127.0.0.1:{store}", *pki, "--socket-reuse-port",
            f"--advertise-client-urls=https://127.0.0.1:{store}", f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}", f"--initial-cluster=default=http://127.0.0.1:{peer}",
            # The data lives as long as the test.
            "--unsafe-no-fsync", "--log-level=warn")
        self.start(
            "kube-apiserver", f"--etcd-servers=https://127.0.0.1:{store}", f"--etcd-cafile={at}/ca.crt",
            f"--etcd-certfile={at}/admin.crt", f"--etcd-keyfile={at}/admin.key", "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none", f"--secure-port={port}", "--permit-port-sharing",
            f"--tls-cert-file={at}/server.crt", f"--tls-private-key-file={at}/server.key", f"--client-ca-file={at}/ca.crt",
            f"--service-account-key-file={at}/accounts.key", f"--service-account-signing-key-file={at}/accounts.key",
            "--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC", f"--proxy-client-cert-file={at}/admin.crt", f"--proxy-client-key-file={at}/admin.key",
            f"--requestheader-client-ca-file={at}/ca.crt", "--requestheader-allowed-names=admin", "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-")
        self.url = f"https://127.0.0.1:{port}"
        self.context = ssl.create_default_context(cafile=str(at / "ca.crt"))
        self.context.load_cert_chain(at / "admin.crt", at / "admin.key")
        self.write_kubeconfig()
        self.wait_until_ready()
        self.start(
            "kube-controller-manager", f"--kubeconfig={self.kubeconfig}", f"--service-account-private-key-file={at}/accounts.key",
            f"--root-ca-file={at}/ca.crt", "--leader-elect=false", "--secure-port=0", "--horizontal-pod-autoscaler-sync-period=1s",
            "--kube-api-qps=200", "--kube-api-burst=400", f"--controllers={self.CONTROLLERS}")
        # The first thing that pods need: each namespace has its account.
        wait_for("the controllers", lambda: self.find("/api/v1/namespaces/default/serviceaccounts/default"))

    def add_nodes(self):
        """The node of pods that are made ready (readiness.py)."""
        self.create("/api/v1/nodes", {"metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}}})

    def write_kubeconfig(self):
        at = self.folder
        self.kubeconfig = at / "kubeconfig"
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "tests",
            "clusters": [{"name": "tests", "cluster": {"server": self.url, "certificate-authority": f"{at}/ca.crt"}}],
            "users": [{"name": "admin", "user": {"client-certificate": f"{at}/admin.crt", "client-key": f"{at}/admin.key"}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "admin"}}],
        }
        self.kubeconfig.write_text(json.dumps(config))

    def wait_until_ready(self):
        def ready():
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise AssertionError(f"{name} ended with {process.returncode}: {self.log(name)}")
            with contextlib.suppress(OSError, Refused):
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=5, context=self.context) as answer:
                    return answer.status == 200

        try:
            wait_for("kube-apiserver", ready)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.log('kube-apiserver')}") from error

    def log(self, name):
        return (self.folder / f"{name}.log").read_text()[-3000:]

    def request(self, method, path, body=None, kind="application/json", timeout=60):
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(self.url + path, data, {"Content-Type": kind, "Accept": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(asked, timeout=timeout, context=self.context) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            text = error.read()
            try:
                status = json.loads(text)
            except ValueError:
                status = {"message": text.decode(errors="replace")}
            raise Refused(error.code, status) from None

    def get(self, path):
        return self.request("GET", path)

    def events(self, path, version):
        """Changes of the objects after the version, until the connection ends."""
        url = f"{self.url}{path}?watch=true&resourceVersion={version}"
        with urllib.request.urlopen(url, timeout=600, context=self.context) as lines:
            for line in lines:
                yield json.loads(line)

    def find(self, path):
        """None if there is no such object."""
        try:
            return self.get(path)
        except Refused as error:
            if error.code != 404:
                raise

    def create(self, path, body):
        return self.request("POST", path, body)

    def patch(self, path, body):
        return self.request("PATCH", path, body, "application/merge-patch+json")

    def delete(self, path):
        return self.request("DELETE", path, {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"})


def needed(programs):
    """The programs must exist: a missing one is an error, not a skipped test."""
    for program in programs:
        if not os.access(BIN / program, os.X_OK):
            raise SystemExit(f"{BIN / program} is missing: tests/tools/kubernetes builds it")
    if not shutil.which("openssl"):
        raise SystemExit("openssl is missing")
