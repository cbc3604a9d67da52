"""The commands in the docs: programs, subcommands and flags that there are, values that the chart takes, links that lead
somewhere."""

import json
import pathlib
import re
import shlex
import subprocess
import tempfile
import unittest

import yaml

from apiserver import dry_run, serving
from chart import BIN, HELM, HELMS, TOP, one
from test_objects import flags

PAGES = [TOP / "deploy" / "README.md", *sorted((TOP / "deploy").glob("*/README.md")), TOP / "deploy/helm/tally/README.md"]
# Programs of others that are not here; their lines are read by people only.
FOREIGN = {"docker", "skopeo", "curl", "export"}
# What Helm 3 has not.
HELM_4 = {"--force-conflicts"}


def commands(page):
    """The command lines of a page's code blocks that name no language."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.M | re.S):
        if not language:
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                # What cron has before a command.
                words = words[5:] if len(words) > 5 and re.fullmatch(r"[\d*/,]+", words[0]) else words
                if words:
                    yield words


def long_flags(words):
    return {word[2:].split("=")[0] for word in words if word.startswith("--") and word != "--"}


def help_of(*command):
    said = subprocess.run([*command, "--help"], capture_output=True, text=True)
    return set(re.findall(r"--([a-z][a-z-]+)", said.stdout + said.stderr))


class Docs(unittest.TestCase):
    def check_tally(self, words):
        sub = words[1:2] if not words[1].startswith("-") else []
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
        """As somebody does it who goes through the page from its begin to its end, with either Helm."""
        page = TOP / "deploy" / "docs" / "README.md"
        steps = [words[1:] for words in commands(page) if words[0] == "helm" and words[1] in ("install", "upgrade")]
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
        # Each mode was there, and nobody else said how many workers there are.
        for seen in modes.values():
            self.assertEqual(seen, {("none", True), ("keda", False), ("hpa", False)})

    def test_every_installation_that_a_page_shows(self):
        shown = {line for page in [*PAGES, TOP / "README.md"] for line in re.findall(r"^helm install .*", page.read_text(), re.M)}
        self.assertGreater(len(shown), 2)
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
                        # A file of the project; its own tests are elsewhere.
                        self.assertTrue((TOP / program).is_file(), words)
        self.assertLessEqual({"tally", "helm", "kubectl", "deploy/local", "deploy/image/build"}, seen)

    def test_links_lead_somewhere(self):
        anchors = {}
        for page in PAGES:
            text = page.read_text()
            for target in re.findall(r"\]\(([^)]+)\)", text):
                if "://" in target:
                    continue
                path, _, anchor = target.partition("#")
                file = (page.parent / path).resolve() if path else page
                with self.subTest(f"{page}: {target}"):
                    self.assertTrue(file.exists())
                    if anchor:
                        known = anchors.setdefault(file, {
                            re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-")
                            for title in re.findall(r"^#+ (.+)$", file.read_text(), re.M)})
                        self.assertIn(anchor, known)

    def test_values_that_docs_name_exist(self):
        values = yaml.safe_load((TOP / "deploy/helm/tally/values.yaml").read_text())
        text = (TOP / "deploy/docs/README.md").read_text()
        tops = "|".join(values)
        named = set(re.findall(rf"(?:`|--set )((?:{tops})(?:\.[A-Za-z]+)+)", text))
        self.assertGreater(len(named), 15)
        for name in named:
            found = values
            for key in name.split("."):
                with self.subTest(name):
                    # Below a free map any key is right.
                    if found == {} or found == "":
                        break
                    self.assertIn(key, found)
                    found = found[key]

    def test_alerts_are_in_the_handbook(self):
        rules = (TOP / "deploy/helm/tally/templates/monitoring.yaml").read_text()
        text = (TOP / "deploy/docs/README.md").read_text()
        for alert in re.findall(r"alert: (\w+)", rules):
            self.assertIn(alert, text)

    def test_exit_codes_in_the_handbook_are_those_of_the_programs(self):
        said = "".join(subprocess.run([BIN / name, "--help"], capture_output=True, text=True).stdout
                       for name in ("tally", "tally-worker"))
        codes = set(re.findall(r"^ +(\d+)  ", said, re.M))
        text = (TOP / "deploy/docs/README.md").read_text()
        named = set(re.findall(r"(?:ends|ended|exits) with (\d+)", text))
        self.assertGreater(len(named), 3)
        self.assertLessEqual(named, codes)
