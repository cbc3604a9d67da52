"""Starts a container's process: in its pod's network namespace, with namespaces of its own for mounts and processes, on the image's
root file system, as the user of the security context. The program is process 1 of its namespace, as in any container.

Not here: what is mounted (volumes.py), the pod's network (network.py), limits of CPU and memory, and seccomp."""

import dataclasses
import os
import pathlib
import shlex
import signal
import subprocess
import time

# The programs that lead to the container's own; the last of them replaces itself by it.
LAUNCHERS = {"nsenter", "unshare", "sh", "dash", "bash", "setpriv", "env", "chroot"}
DEVICES = ("null", "zero", "full", "random", "urandom")


@dataclasses.dataclass
class Mount:
    source: pathlib.Path
    # Path in the container.
    path: str
    read_only: bool = False


@dataclasses.dataclass
class Launch:
    """What the container runs."""

    command: list[str]
    environment: dict[str, str]
    mounts: list[Mount]
    user: int
    group: int
    groups: list[int]
    hostname: str
    network: str
    read_only: bool = False
    working_folder: str = "/"


class Process:
    """A container's process. `image` is the root of its file system, `folder` holds what it changes there and its log."""

    def __init__(self, image, folder, launch):
        self.launch = launch
        self.folder = pathlib.Path(folder)
        for name in ("upper", "work", "root"):
            (self.folder / name).mkdir(parents=True)
        self.log = self.folder / "log"
        words = [
            "nsenter", f"--net=/run/netns/{launch.network}", "unshare", "--mount", "--pid", "--uts", "--ipc", "--fork",
            "--kill-child=KILL", "sh", "-euc", script(image, self.folder, launch)]
        with open(self.log, "wb") as log:
            self.outer = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self.inner, self.is_killed = None, False
        self.inner = self.find_inner()

    def find_inner(self):
        """The id of the container's process, when it has replaced its launcher; None if it has ended."""
        until = time.monotonic() + 60
        while self.outer.poll() is None:
            children = pathlib.Path(f"/proc/{self.outer.pid}/task/{self.outer.pid}/children").read_text().split()
            for child in children:
                try:
                    program = pathlib.Path(os.readlink(f"/proc/{child}/exe")).name
                except OSError:
                    continue
                if program not in LAUNCHERS:
                    return int(child)
            if time.monotonic() > until:
                self.kill()
                raise AssertionError(f"a container did not start: {self.said()}")
            time.sleep(0.005)

    def signal(self, number):
        # The id is valid: `unshare` waits for the process, and has not ended.
        if self.inner and self.outer.poll() is None:
            try:
                os.kill(self.inner, number)
            except ProcessLookupError:
                pass

    def kill(self):
        """Kills all processes of the container: the kernel ends the namespace with its process 1."""
        self.is_killed = self.exit_code() is None
        self.signal(signal.SIGKILL)
        if not self.inner:
            self.outer.kill()

    def exit_code(self):
        """As container runtimes report it; None while it runs."""
        code = self.outer.poll()
        if code and self.is_killed:
            # Some versions of `unshare` report this signal as an error of their own.
            return 128 + signal.SIGKILL
        return code if code is None or code >= 0 else 128 - code

    def run(self, words, timeout):
        """Runs a command in the container, as `kubectl exec` does."""
        launch = self.launch
        enter = ["nsenter", f"--target={self.inner}", "--mount", "--pid", "--net", "--uts", "--ipc", "--root", "--wd=/",
                 f"--setuid={launch.user}", f"--setgid={launch.group}"]
        return subprocess.run([*enter, *words], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL,
                              env={**launch.environment, "PATH": launch.environment.get("PATH", "") + ":" + os.environ["PATH"]})

    def said(self):
        return self.log.read_text(errors="replace")


def script(image, folder, launch):
    """The commands that set up the mounts and become the program."""
    quoted = shlex.quote
    root = folder / "root"
    lines = [
        f"mount -t overlay overlay -o lowerdir={quoted(str(image))},upperdir={quoted(str(folder / 'upper'))},"
        f"workdir={quoted(str(folder / 'work'))} {quoted(str(root))}",
        f"cd {quoted(str(root))}",
        "mkdir -p proc dev",
        "mount -t proc proc proc",
        "mount -t tmpfs -o mode=755 tmpfs dev",
        *(f"touch dev/{name}; mount --bind /dev/{name} dev/{name}" for name in DEVICES),
        *(line for mount in launch.mounts for line in mounted(mount)),
        f"hostname {quoted(launch.hostname)}",
    ]
    if launch.read_only:
        lines.append("mount -o remount,ro .")
    variables = " ".join(quoted(f"{name}={value}") for name, value in launch.environment.items())
    groups = ",".join(map(str, launch.groups))
    # An unprivileged user without new privileges has no capabilities.
    lines.append(f"exec setpriv --no-new-privs env -i {variables} /usr/sbin/chroot --userspec={launch.user}:{launch.group} "
                 f"--groups={groups} . {shlex.join(launch.command)}")
    return "\n".join(lines)


def mounted(mount):
    there = shlex.quote("." + mount.path)
    source = shlex.quote(str(mount.source))
    if mount.source.is_dir():
        yield f"mkdir -p {there}"
    else:
        yield f'mkdir -p "$(dirname {there})"; [ -e {there} ] || touch {there}'
    yield f"mount --bind {source} {there}"
    if mount.read_only:
        yield f"mount -o remount,bind,ro {there}"
