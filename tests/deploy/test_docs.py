"""Compares the documentation with the programs and the chart: links, commands, options, figures, values, alerts and exit codes.

Not here: running the commands of the README (test_readme)."""

import json
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import unittest

import yaml

from apiserver import dry_run, serving
from chart import BIN, HELM, HELMS, TOP, one
from processes import wait_for
from test_objects import flags

HANDBOOK = TOP / "deploy" / "docs"
# Pages whose code blocks are commands for users and operators.
PAGES = [TOP / "README.md", TOP / "deploy" / "README.md", *sorted(HANDBOOK.glob("*.md")), TOP / "deploy/helm/tally/README.md"]
# The pages whose helm commands run in sequence.
STEPS = [HANDBOOK / name for name in ("kubernetes.md", "tls.md", "autoscaling.md")]
# External programs that are not available here; their command lines are not checked.
FOREIGN = {"docker", "skopeo", "curl", "export", "cargo", "pip", "mkdir", "until", "aws", "kubectl"}
# Missing in Helm 3.
HELM_4 = {"--force-conflicts"}
# Options of external programs that pages name without the program.
OTHERS = {"force-conflicts", "reuse-values", "reset-then-reuse-values", "sample-count", "max-time", "time"}
# Maximum number of words.
LENGTHS = {"README.md": 1500, "ARCHITECTURE.md": 2500}
# Expressions that are hard to read; each has a standard term.
UNCLEAR = [
    "anew", "once more", "lies? under", "whoever", "nobody", "reckoned", "makes up a day", "second attempts?", "hand-overs?",
    "hands? over", "today", "being built", r"one row a", r"a job and process",
]
# A measured figure. Only blocks of tests/bench/figures.py may contain one.
MEASURED = re.compile(r"\d+\.\d+ (?:s|ms|times|core-seconds|[KMG]i?B)\b")
FENCE = re.compile(r"^ *```.*?^ *```", re.M | re.S)


def documents():
    """Every Markdown page of the project, except test data."""
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"], cwd=TOP,
                            capture_output=True, text=True, check=True)
    return [TOP / name for name in listed.stdout.split() if (TOP / name).is_file()]


def anchors(page):
    """The anchors of a page's headings on GitHub."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.M)
    shown = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title) for title in titles)
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in shown}


def commands(page):
    """The command lines of a page's code blocks without a language."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.M | re.S):
        if not language and "──" not in block:
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                # The fields of cron before a command.
                words = words[5:] if len(words) > 5 and re.fullmatch(r"[\d*/,]+", words[0]) else words
                if words:
                    yield words


def long_flags(words):
    return {word[2:].split("=")[0] for word in words if word.startswith("--") and word != "--"}


def help_of(*command):
    said = subprocess.run([*command, "--help"], capture_output=True, text=True)
    return set(re.findall(r"--([a-z][a-z-]+)", said.stdout + said.stderr))


def options_in(script):
    """The long options that a script of the project has in its text."""
    return set(re.findall(r"--([a-z][a-z-]+)", script.read_text()))


def subcommands():
    """Every subcommand of `tally` with its options."""
    said = subprocess.run([BIN / "tally", "--help"], capture_output=True, text=True, check=True).stdout
    listed = re.findall(r"^  ([a-z]+) ", said.split("Commands:")[1].split("Options:")[0], re.M)
    names = [*((name,) for name in listed if name != "help"), ("worker", "drain"), ()]
    return {name: flags("tally", *name) for name in names}


class Docs(unittest.TestCase):
    def check_tally(self, words):
        sub = [word for word in words[1:3] if word in ("worker", "drain")] if words[1] == "worker" else words[1:2]
        sub = [word for word in sub if not word.startswith("-")]
        self.assertLessEqual(long_flags(words), flags(words[0], *sub), words)

    def check_helm(self, words):
        verbs = words[1:3] if words[1] == "get" else words[1:2]
        self.assertLessEqual(long_flags(words), help_of(HELM / "helm-4", *verbs), words)
        if not HELM_4 & set(words):
            self.assertLessEqual(long_flags(words), help_of(HELM / "helm-3", *verbs), words)

    def check_kubectl(self, words):
        if "--" in words:
            inner = words[words.index("--") + 1:]
            words = words[:words.index("--")]
            self.check_tally(inner)
        verb = next(word for word in words[1:] if word in ("get", "create", "exec", "describe", "port-forward"))
        known = help_of(HELM / "kubectl", verb, *(["secret", "generic"] if verb == "create" else []))
        self.assertLessEqual(long_flags(words) - {"namespace"}, known, words)
        if verb == "create":
            with tempfile.TemporaryDirectory() as folder:
                for name, text in (("store.env", "AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b\n"), ("consul-token", "t")):
                    (pathlib.Path(folder) / name).write_text(text)
                done = subprocess.run([HELM / "kubectl", *words[1:], "--dry-run=client", "--output=json"],
                                      capture_output=True, text=True, cwd=folder)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertTrue(json.loads(done.stdout)["data"])

    def test_what_is_installed_and_upgraded_one_after_another(self):
        """Follows the pages in order, with each version of Helm. An installation without a namespace is another release."""
        lines = [words for page in STEPS for words in commands(page) if "--namespace" in words]
        steps = [words[1:] for words in lines if words[0] == "helm" and words[1] in ("install", "upgrade")]
        self.assertGreater(len(steps), 8)
        modes = {}
        with serving() as url:
            for program in HELMS:
                config, seen = {}, []
                for words in steps:
                    if program == "helm-3" and HELM_4 & set(words):
                        continue
                    words = [str(TOP / word) if word == "deploy/helm/tally" else word for word in words]
                    release = dry_run(url, program, words, config)
                    config = release["config"]
                    worker = one([each for each in yaml.safe_load_all(release["manifest"]) if each], "Deployment", "-worker")
                    seen.append((config.get("autoscaling", {}).get("mode", "none"), "replicas" in worker["spec"]))
                modes[program] = set(seen)
        # Each mode occurs, and only its owner sets the number of workers.
        for seen in modes.values():
            self.assertEqual(seen, {("none", True), ("keda", False), ("hpa", False)})

    def test_every_installation_that_a_page_shows(self):
        shown = {line for page in PAGES for line in re.findall(r"^helm install .*", page.read_text(), re.M)}
        self.assertGreater(len(shown), 1)
        with serving() as url:
            for program in HELMS:
                for line in shown:
                    words = shlex.split(line.replace("deploy/helm/tally", str(TOP / "deploy/helm/tally")))
                    release = dry_run(url, program, words[1:], {})
                    self.assertIn("helm test tally", release["info"]["notes"])

    def test_commands_are_right(self):
        seen = set()
        for page in PAGES:
            for words in commands(page):
                with self.subTest(f"{page.name}: {' '.join(words)}"):
                    program = words[0]
                    seen.add(program)
                    if program in ("tally", "tally-worker"):
                        self.check_tally(words)
                    elif program == "helm":
                        self.check_helm(words)
                    elif program == "kubectl":
                        self.check_kubectl(words)
                    elif program == "deploy/local":
                        own = words[:words.index("tally")] if "tally" in words else words
                        self.assertLessEqual(long_flags(own), help_of(TOP / program))
                        if "tally" in words:
                            self.check_tally(words[words.index("tally"):])
                    elif program not in FOREIGN:
                        # A file of the project, which has its own tests.
                        self.assertTrue((TOP / program).is_file(), words)
        self.assertLessEqual({"tally", "helm", "kubectl", "deploy/local", "deploy/image/build"}, seen)

    def test_links_lead_somewhere(self):
        known = {}
        for page in documents():
            for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text())):
                if "://" in target:
                    continue
                path, _, anchor = target.partition("#")
                file = (page.parent / path).resolve() if path else page
                with self.subTest(f"{page.relative_to(TOP)}: {target}"):
                    self.assertTrue(file.exists())
                    if anchor:
                        self.assertIn(anchor, known.setdefault(file, anchors(file)))

    def test_each_page_is_in_the_index(self):
        index = (HANDBOOK / "README.md").read_text()
        for page in HANDBOOK.rglob("*.md"):
            if page.name != "README.md":
                self.assertIn(f"({page.relative_to(HANDBOOK)})", index)

    def test_options_that_docs_name_exist(self):
        """In inline code and tables: options after a command are its own, others are those of any program of the project."""
        subs = subcommands()
        worker = flags("tally-worker")
        benches = set().union(*(options_in(script) for script in (TOP / "tests/bench").glob("*.py")))
        everything = set().union(*subs.values(), worker, OTHERS)
        of_tests = everything | benches | options_in(TOP / "tests/run")

        def known(words, page):
            if words[0] == "tally" and re.fullmatch(r"[a-z]+", "".join(words[1:2])):
                sub = tuple(words[1:3]) if words[1] == "worker" else (words[1],)
                self.assertIn(sub, subs)
                return subs[sub]
            if words[0] == "tally-worker":
                return worker
            if (TOP / words[0]).is_file():
                return options_in(TOP / words[0]) | benches
            return of_tests if TOP / "tests" in page.parents else everything

        for page in documents():
            for span in re.findall(r"`([^`\n]+)`", FENCE.sub("", page.read_text())):
                words = span.split()
                named = set(re.findall(r"(?<![\w-])--([a-z][a-z-]+)", span))
                with self.subTest(f"{page.relative_to(TOP)}: `{span}`"):
                    if words[:1] == ["helm"] and named:
                        self.check_helm(words)
                    elif words and words[0] not in FOREIGN:
                        self.assertLessEqual(named, known(words, page) | {"help"})

    def test_figures_are_those_of_the_results(self):
        done = subprocess.run([sys.executable, TOP / "tests/bench/figures.py", "--check"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_a_measured_figure_is_in_no_sentence(self):
        """A figure in a sentence would not change with the results."""
        blocks = re.compile(r"<!-- figures: .*?<!-- /figures -->", re.S)
        for page in PAGES:
            text = FENCE.sub("", blocks.sub("", page.read_text()))
            self.assertEqual(MEASURED.findall(text), [], page)

    def test_readme_and_architecture_are_short(self):
        for name, most in LENGTHS.items():
            self.assertLessEqual(len((TOP / name).read_text().split()), most, name)

    def test_sentences_use_standard_terms(self):
        unclear = re.compile(rf"\b(?:{'|'.join(UNCLEAR)})\b", re.I)
        for page in documents():
            found = unclear.findall(re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text())))
            self.assertEqual(found, [], page)

    def test_the_readme_names_the_rust_that_is_needed(self):
        [version] = re.findall(r'^rust-version = "([\d.]+)"', (TOP / "Cargo.toml").read_text(), re.M)
        self.assertIn(f"Rust {version} or later", (TOP / "README.md").read_text())

    def test_tests_that_the_threat_model_names_exist(self):
        listed = subprocess.run(["git", "ls-files", "*.rs"], cwd=TOP, capture_output=True, text=True, check=True).stdout.split()
        named = re.findall(r"`([\w/]+\.rs)`", (HANDBOOK / "threat-model.md").read_text())
        self.assertGreater(len(named), 15)
        for name in named:
            self.assertTrue(any(f"/{file}".endswith(f"/{name}") for file in listed), name)

    def test_a_cluster_with_tls_as_the_page_makes_it(self):
        page = (HANDBOOK / "tls.md").read_text()
        [block] = [block for block in re.findall(r"^```bash\n(.*?)^```", page, re.M | re.S) if "openssl" in block]
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", block], cwd=folder, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)

            def as_role(role):
                return ["--tls-ca", "ca.pem", "--tls-cert", f"{role}.pem", "--tls-key", f"{role}.key"]

            port = pathlib.Path(folder) / "port"
            command = [BIN / "tally", "coordinator", "--listen", "127.0.0.1:0", "--state-dir", "state", "--port-file", port]
            with open(f"{folder}/log", "w") as log:
                leader = subprocess.Popen([*command, *as_role("coordinator")], cwd=folder, stdout=log, stderr=log)
            try:
                address = wait_for("the coordinator", lambda: port.read_text() if port.exists() else None)
                ask = [BIN / "tally", "workers", "--coordinator", address]
                for role, code in (("operator", 0), ("worker", 1)):
                    done = subprocess.run([*ask, *as_role(role)], cwd=folder, capture_output=True, text=True)
                    self.assertEqual(done.returncode, code, done.stderr)
            finally:
                leader.terminate()
                leader.wait()

    def test_values_that_docs_name_exist(self):
        values = yaml.safe_load((TOP / "deploy/helm/tally/values.yaml").read_text())
        # Except the page of permissions, whose names look like values.
        pages = [page for page in HANDBOOK.glob("*.md") if page.name != "services.md"]
        text = "".join(page.read_text() for page in pages)
        tops = "|".join(values)
        named = set(re.findall(rf"(?:`|--set )((?:{tops})(?:\.[A-Za-z]+)+)", text))
        self.assertGreater(len(named), 15)
        for name in named:
            found = values
            for key in name.split("."):
                with self.subTest(name):
                    # Below a free-form map any key is valid.
                    if found == {} or found == "":
                        break
                    self.assertIn(key, found)
                    found = found[key]

    def test_alerts_are_in_the_handbook(self):
        rules = (TOP / "deploy/helm/tally/templates/monitoring.yaml").read_text()
        text = (HANDBOOK / "troubleshooting.md").read_text()
        for alert in re.findall(r"alert: (\w+)", rules):
            self.assertIn(alert, text)

    def test_exit_codes_in_the_handbook_are_those_of_the_programs(self):
        said = "".join(subprocess.run([BIN / name, "--help"], capture_output=True, text=True).stdout
                       for name in ("tally", "tally-worker"))
        codes = set(re.findall(r"^ +(\d+)  ", said, re.M))
        text = "".join(page.read_text() for page in HANDBOOK.glob("*.md"))
        named = set(re.findall(r"(?:ends|ended|exits) with (\d+)", text))
        self.assertGreater(len(named), 3)
        self.assertLessEqual(named, codes)
        table = (HANDBOOK / "settings.md").read_text().split("## Exit codes")[1].split("## ")[0]
        self.assertEqual(set(re.findall(r"^\| (\d+) \|", table, re.M)), codes)
