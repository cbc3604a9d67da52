"""Headless Chromium, driven by its DevTools protocol over a pipe: without a port, and without other packages.

Not here: what a page must show (the tests)."""

import base64
import fcntl
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import threading

from processes import DEADLINE, wait_for

# The first is for root in a container; the others stop requests of the browser itself.
FLAGS = ["--no-sandbox", "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27}


class Browser:
    """A context with a new profile."""

    def __enter__(self):
        self.kept = tempfile.TemporaryDirectory(prefix="tally-browser-", ignore_cleanup_errors=True)
        ends = [*os.pipe(), *os.pipe()]
        # Above the numbers that the browser reads from and writes to.
        theirs = [fcntl.fcntl(ends[at], fcntl.F_DUPFD, 10) for at in (0, 3)]
        self.to, self.back = open(ends[1], "wb", buffering=0), open(ends[2], "rb")
        program = os.environ.get("CHROMIUM_BIN", "chromium")
        words = [program, *FLAGS, f"--user-data-dir={self.kept.name}", "about:blank"]
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{theirs[0]} 4>&{theirs[1]}', "bash", *words], pass_fds=theirs, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for end in (ends[0], ends[3], *theirs):
            os.close(end)
        self.changed, self.answers, self.sessions, self.number = threading.Condition(), {}, {}, 0
        threading.Thread(target=self.read, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.to.close()
        # Its own process group, with all of its processes.
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.kept.cleanup()

    def read(self):
        rest = b""
        while part := self.back.read1(1 << 16):
            *messages, rest = (rest + part).split(b"\0")
            for message in map(json.loads, messages):
                with self.changed:
                    if "id" in message:
                        self.answers[message["id"]] = message
                    elif page := self.sessions.get(message.get("sessionId")):
                        page.note(message["method"], message["params"])
                    self.changed.notify_all()

    def call(self, method, session=None, **params):
        """The result of a method."""
        with self.changed:
            self.number += 1
            number = self.number
            message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
            self.to.write(json.dumps(message).encode() + b"\0")
            if not self.changed.wait_for(lambda: number in self.answers, DEADLINE):
                raise AssertionError(f"no answer to {method}")
            answer = self.answers.pop(number)
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        return answer["result"]

    def page(self):
        """A new tab."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.sessions[session] = Page(self, session)
        for part in ("Page", "Network", "Runtime", "Log", "Performance", "HeapProfiler"):
            page.call(f"{part}.enable")
        return page


class Page:
    """A tab. `requests` are the addresses that it loaded, `errors` what it wrote to the console or threw."""

    def __init__(self, browser, session):
        self.browser, self.session, self.requests, self.errors, self.dialogs = browser, session, [], [], 0

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def note(self, method, params):
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(str(params["entry"]))
        elif method == "Page.javascriptDialogOpening":
            self.dialogs += 1

    def open(self, url):
        self.call("Page.navigate", url=url)
        wait_for(f"{url} to load", lambda: self.js("document.readyState") == "complete" or None)

    def js(self, expression):
        """The value of an expression."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise AssertionError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def text(self, selector):
        """The visible text of an element; empty without one."""
        return self.js(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def wait_text(self, selector, part):
        def look():
            return True if part in self.text(selector) else None
        try:
            return wait_for(f"{part!r} in {selector}", look)
        except AssertionError as error:
            raise AssertionError(f"{error}; it has {self.text(selector)!r}; errors: {self.errors}") from error

    def key(self, name, shift=False):
        of = {"key": name, "code": name, "windowsVirtualKeyCode": KEYS[name], "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", **of, **({"text": "\r"} if name == "Enter" else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **of)

    def focused(self):
        """The focused element: its name, its id, and its text."""
        return self.js("[document.activeElement.localName, document.activeElement.id, document.activeElement.textContent.trim()]")

    def size(self, width, height=900):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def scheme(self, name):
        """`light` or `dark`."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def heap(self):
        """Bytes of the scripts' objects after a collection."""
        self.call("HeapProfiler.collectGarbage")
        metrics = self.call("Performance.getMetrics")["metrics"]
        return next(each["value"] for each in metrics if each["name"] == "JSHeapUsedSize")

    def accept_dialog(self):
        wait_for("a dialog", lambda: self.dialogs or None)
        self.call("Page.handleJavaScriptDialog", accept=True)

    def screenshot(self, file):
        """What the window shows."""
        pathlib.Path(file).write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
