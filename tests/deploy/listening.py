"""Prints the addresses at which those processes listen whose command line or environment holds a text:
`listening.py TEXT`."""

import contextlib
import pathlib
import socket
import sys


def processes(text):
    """Folders under /proc."""
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        if text.encode() in command + environment and str(process.name) != str(pathlib.Path("/proc/self").resolve().name):
            yield process, command


def inodes(process):
    # It may exit meanwhile.
    with contextlib.suppress(OSError):
        for file in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(file.readlink())
                if target.startswith("socket:["):
                    yield target[8:-1]


def address(text):
    """An address as the kernel writes it: words of four bytes, each in native byte order."""
    words = [bytes.fromhex(text[at:at + 8])[::-1] for at in range(0, len(text), 8)]
    whole = b"".join(words)
    return socket.inet_ntop(socket.AF_INET if len(whole) == 4 else socket.AF_INET6, whole)


def main():
    own = {inode for process, _ in processes(sys.argv[1]) for inode in inodes(process)}
    for table in ("tcp", "tcp6"):
        file = pathlib.Path("/proc/net") / table
        for line in file.read_text().splitlines()[1:] if file.is_file() else []:
            fields = line.split()
            # 0A: LISTEN.
            if fields[3] == "0A" and fields[9] in own:
                host, port = fields[1].split(":")
                print(address(host), int(port, 16))


if __name__ == "__main__":
    main()
