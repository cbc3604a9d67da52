"""Runs the helm and kubectl commands of the documentation in their order, as written, with each version of Helm; only the namespace and
the path of the chart are replaced.

Not here: whether the words of other programs are right (tests/deploy/test_docs), commands within pods."""

import contextlib
import pathlib
import re
import shlex
import tempfile
import threading
import unittest

from cluster import CHART, HELM, HELMS, Namespace, wait_for
from readiness import Readiness, end
from state import differences

HANDBOOK = CHART.parents[1] / "docs"
# Files that the commands read.
FILES = {"store.env": "AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b\n", "consul-token": "t", "tokens": "reader grafana 0123456789abcdef\n"}
# Commands for what is not there: an archive in a registry, and pods that run.
ELSEWHERE = re.compile(r"^helm (package|push)|^kubectl .*(exec|port-forward|logs)|\$role")


def lines(page):
    """The helm and kubectl commands of the code blocks, and those within sentences that name the namespace."""
    text = (HANDBOOK / page).read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```|`((?:helm|kubectl) [^`\n]*--namespace [^`\n]*)`", text, re.M | re.S)
    for language, block, inline in blocks:
        for line in (inline or (block if language in ("", "sh") else "")).splitlines():
            line = " ".join(line.split())
            if re.match(r"(helm|kubectl) ", line) and "telemetry" in line and not ELSEWHERE.search(line):
                yield line


class Walk(unittest.TestCase):
    def walk(self, page, program, first=()):
        """The commands that ran."""
        ran = []
        with Namespace(program=program) as namespace, tempfile.TemporaryDirectory() as folder, Readiness(namespace):
            for name, text in FILES.items():
                (pathlib.Path(folder) / name).write_text(text)
            for line in [*first, *lines(page)]:
                if "--force-conflicts" in line and program == "helm-3":
                    continue
                with self.subTest(f"{program}: {page}: {line}"):
                    self.run_line(namespace, folder, line)
                    ran.append(line)
                    if line.startswith(("helm install", "helm upgrade", "helm rollback")):
                        self.assertEqual(differences(namespace), [])
            self.assertEqual(namespace.complaints(), [])
        return ran

    def run_line(self, namespace, folder, line):
        words = [{"telemetry": namespace.name, "deploy/helm/tally": str(CHART)}.get(word, word) for word in shlex.split(line)]
        words = [word for word in words if word != "--create-namespace"]
        words[0] = str(HELM / (namespace.program if words[0] == "helm" else words[0]))
        with self.ended_test_pod(namespace) if words[1] == "test" else contextlib.nullcontext():
            done = namespace.run(words, cwd=folder)
        self.assertEqual(done.code, 0, done.err)

    @contextlib.contextmanager
    def ended_test_pod(self, namespace):
        """The pod of `helm test` ends well."""
        thread = threading.Thread(target=lambda: end(
            namespace, wait_for("the test pod", lambda: namespace.find("Pod", "tally-test")), 0))
        thread.start()
        yield
        thread.join()

    def test_kubernetes(self):
        for program in HELMS:
            ran = self.walk("kubernetes.md", program)
            verbs = {line.split()[1] for line in ran if line.startswith("helm")}
            self.assertEqual(verbs, {"install", "upgrade", "test", "rollback", "uninstall"})
            self.assertIn("helm uninstall", ran[-1])

    def test_autoscaling_and_tls(self):
        first = [line for line in lines("kubernetes.md") if line.startswith("helm install")]
        for page in ("autoscaling.md", "tls.md"):
            for program in HELMS:
                self.assertGreater(len(self.walk(page, program, first)), 2)
