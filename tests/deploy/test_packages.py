"""What `deploy/docs/installing.md` installs, each in a clean place, and used there: the wheel in a virtual environment, the
package for Debian in a root of its own, and both programs by `cargo install`. They compile for long.

Not here: the image (`test_image`), the Python client on a cluster (`test_python`)."""

import gzip
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
import zipfile

from chart import BIN, TOP

PAGE = TOP / "deploy" / "docs" / "installing.md"
PROGRAMS = ("tally", "tally-worker")
VERSION = re.search(r'^version = "(.+)"', (TOP / "Cargo.toml").read_text(), re.M)[1]
# For programs that are found only where they were installed.
CLEAN = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


def line_of_the_page(start):
    """The only command of the page that begins so, as words."""
    [line] = [line for line in PAGE.read_text().splitlines() if line.startswith(start)]
    return line.split()


class Installed(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="tally-packages-")))

    def run_command(self, *words, environment=CLEAN, cwd=None):
        done = subprocess.run(words, env=environment, cwd=cwd or self.folder, capture_output=True, text=True, timeout=3600)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def check_programs(self, folder):
        """Both programs run there, and the demo computes a day."""
        said = self.run_command(folder / "tally", "--version")
        self.assertRegex(said, rf"^tally {re.escape(VERSION)}\b")
        self.assertIn("--slots", self.run_command(folder / "tally-worker", "--help"))
        said = self.run_command(folder / "tally", "demo", "--clients=300", f"--dir={self.folder}/demo")
        self.assertRegex(said, r"n_clients +301\b")


class Wheel(Installed):
    def test_the_wheel_in_a_clean_environment(self):
        words = line_of_the_page("pip wheel")
        environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        words[words.index("dist")] = f"{self.folder}/dist"
        self.run_command(sys.executable, "-m", *words, environment=environment, cwd=TOP)
        [wheel] = (self.folder / "dist").glob("*.whl")
        self.assertTrue(wheel.name.startswith(f"tally-{VERSION}-"), wheel.name)
        with zipfile.ZipFile(wheel) as packed:
            names = packed.namelist()
        own = {f"tally/{file.name}" for file in (TOP / "deploy/python/tally").glob("*.py*") if file.is_file()}
        self.assertLessEqual(own, set(names))
        scripts = {name.rsplit("/", 1)[1] for name in names if "/scripts/" in name}
        self.assertEqual(scripts, set(PROGRAMS))
        self.run_command(sys.executable, "-m", "venv", f"{self.folder}/venv", environment=os.environ)
        python = self.folder / "venv/bin/python"
        self.run_command(python, "-m", "pip", "install", "--quiet", "--no-index", wheel)
        self.check_programs(self.folder / "venv/bin")
        said = self.run_command(python, "-c", "import tally, importlib.metadata as m; print(tally.Client, m.version('tally'))")
        self.assertIn(f"client.Client'> {VERSION}", said)
        # Nothing but the package: no dependency was needed.
        listed = self.run_command(python, "-m", "pip", "list", "--format=freeze").split()
        self.assertEqual({line.split("==")[0] for line in listed} - {"pip", "setuptools"}, {"tally"})


class Deb(Installed):
    def test_the_package_for_debian(self):
        [build, _] = line_of_the_page("deploy/deb/build")
        made = [self.folder / name for name in ("one.deb", "two.deb")]
        environment = CLEAN | {"SOURCE_DATE_EPOCH": "1488153600"}
        for out in made:
            self.run_command(TOP / build, "--bins", BIN, out, environment=environment)
        self.assertEqual(made[0].read_bytes(), made[1].read_bytes(), "the same programs give the same package")
        control = self.run_command("dpkg-deb", "--field", made[0])
        self.assertRegex(control, rf"(?m)^Version: {re.escape(VERSION)}$")
        self.assertRegex(control, r"(?m)^Depends: libc6 \(>= 2\.\d+\), libgcc-s1$")
        root = self.folder / "root"
        self.run_command("dpkg-deb", "--extract", made[0], root)
        self.check_programs(root / "usr/bin")
        self.check_files(root)
        self.check_database(made[0], root)

    def check_files(self, root):
        listed = subprocess.run([BIN / "tally", "--help"], capture_output=True, text=True, check=True).stdout
        commands = re.findall(r"^  ([a-z]+) ", listed.split("Commands:")[1].split("Options:")[0], re.M)
        for name in [f"tally-{name}" for name in commands if name not in ("help", "worker")] + ["tally", "tally-worker-drain"]:
            with gzip.open(root / f"usr/share/man/man1/{name}.1.gz", "rt") as page:
                self.assertIn(".TH", page.read())
        completions = root / "usr/share/bash-completion/completions/tally"
        said = self.run_command("bash", "-c", f"source {completions}; complete -p tally")
        self.assertIn("-F _tally tally", said)
        for file in ("zsh/vendor-completions/_tally", "fish/vendor_completions.d/tally.fish", "doc/tally/copyright"):
            self.assertIn("tally", (root / "usr/share" / file).read_text().lower())

    def check_database(self, package, root):
        """dpkg accepts the package, in a database of its own."""
        admin = root / "var/lib/dpkg"
        (admin / "updates").mkdir(parents=True)
        (admin / "info").mkdir()
        (admin / "status").touch()
        dpkg = ["dpkg", f"--root={root}", "--force-depends", "--force-not-root", "--force-script-chrootless", "--log=/dev/null"]
        self.run_command(*dpkg, "--install", package, environment=CLEAN | {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"})
        self.assertIn("install ok installed", self.run_command("dpkg-query", f"--admindir={admin}", "--status", "tally"))
        listed = self.run_command("dpkg-query", f"--admindir={admin}", "--listfiles", "tally").split()
        self.assertLessEqual({f"/usr/bin/{name}" for name in PROGRAMS}, set(listed))

    def test_what_cannot_be_packaged_is_an_error(self):
        build = str(TOP / "deploy/deb/build")
        for words in ([], ["a.deb", "b.deb"], ["a"], ["--bins"], ["--other", "a.deb"], ["none/a.deb"],
                      ["--bins", self.folder, "a.deb"]):
            done = subprocess.run([build, *words], cwd=self.folder, capture_output=True, text=True, env=CLEAN)
            self.assertEqual((done.returncode, done.stdout), (1, ""), words)
            self.assertIn("deploy/deb/build: ", done.stderr)


class CargoInstall(Installed):
    def test_both_programs_from_one_crate(self):
        words = line_of_the_page("cargo install")
        self.run_command(*words, "--root", self.folder / "root", environment=os.environ, cwd=TOP)
        found = {file.name for file in (self.folder / "root/bin").iterdir()}
        self.assertEqual(found, set(PROGRAMS))
        self.check_programs(self.folder / "root/bin")
        shutil.rmtree(self.folder / "root")
