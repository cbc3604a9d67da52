"""A program in a pseudo-terminal: the screen that a user would see, keys, sizes, and the state of the terminal afterwards.

Not here: what a program must show (the tests)."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import threading
import time

import pyte

from processes import DEADLINE, wait_for

KEYS = {"Enter": "\r", "Escape": "\x1b", "Tab": "\t", "Down": "\x1b[B", "PageDown": "\x1b[6~", "Interrupt": "\x03"}
# A screen of its own, and back.
ENTERED, LEFT = b"\x1b[?1049h", b"\x1b[?1049l"
HIDDEN, SHOWN = b"\x1b[?25l", b"\x1b[?25h"
# The begin of a drawing.
DRAWING = b"\x1b[?2026h"
COLOURED = re.compile(rb"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[;m]")


class Terminal:
    """A context with the running program, which has the terminal as standard input, output and error."""

    def __init__(self, *words, columns=80, rows=24, **environment):
        self.words, self.columns, self.rows = words, columns, rows
        self.environment = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", **environment}
        self.environment = {name: value for name, value in self.environment.items() if value is not None}

    def __enter__(self):
        self.master, self.slave = pty.openpty()
        self.lock, self.said, self.closed = threading.Lock(), bytearray(), threading.Event()
        self.screen = pyte.Screen(self.columns, self.rows)
        self.stream = pyte.ByteStream(self.screen)
        self.set_size()
        self.before = termios.tcgetattr(self.slave)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        self.process = subprocess.Popen(
            self.words, stdin=self.slave, stdout=self.slave, stderr=self.slave, start_new_session=True, env=self.environment,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.closed.set()
        self.reader.join()
        os.close(self.master)
        os.close(self.slave)

    def read(self):
        while not self.closed.is_set():
            if select.select([self.master], [], [], 0.1)[0]:
                part = os.read(self.master, 1 << 16)
                with self.lock:
                    self.said += part
                    self.stream.feed(part)

    def set_size(self):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", self.rows, self.columns, 0, 0))

    def resize(self, columns, rows):
        """The kernel sends SIGWINCH to the program."""
        with self.lock:
            self.columns, self.rows = columns, rows
            self.screen.resize(rows, columns)
            self.set_size()

    def lines(self):
        with self.lock:
            return [line.rstrip() for line in self.screen.display]

    def text(self):
        return "\n".join(self.lines())

    def raw(self):
        with self.lock:
            return bytes(self.said)

    def key(self, key):
        os.write(self.master, KEYS.get(key, key).encode())

    def wait(self, *parts, without=()):
        """Waits until the screen has these texts at once; returns it."""
        def seen():
            if self.process.poll() is not None:
                raise AssertionError(f"it ended with {self.process.returncode}:\n{self.text()}")
            text = self.text()
            missing = [part for part in parts if part not in text] + [part for part in without if part in text]
            return None if missing else text
        try:
            return wait_for(f"{parts} on the screen", seen)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text()}") from None

    def line(self, part):
        """The first line of the screen with this text."""
        return next((line for line in self.lines() if part in line), "")

    def end(self):
        """Waits for the end of the program; returns its exit code once all that it wrote was read."""
        code = self.process.wait(DEADLINE)
        until = time.monotonic() + 1
        size = -1
        while size != len(self.raw()) and time.monotonic() < until:
            size = len(self.raw())
            time.sleep(0.2)
        return code

    def is_restored(self):
        """The modes of the terminal are as before, its own screen is left, and the cursor is visible."""
        raw = self.raw()
        return (termios.tcgetattr(self.slave) == self.before and raw.rfind(LEFT) > raw.rfind(ENTERED) >= 0
                and raw.rfind(SHOWN) > raw.rfind(HIDDEN))

    def is_raw(self):
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO)
