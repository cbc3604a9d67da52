"""The web page of a real coordinator in headless Chromium: a job and its workers live, keyboard and screen readers, narrow
and dark screens, no request to elsewhere, and the size of a job with 20,000 tasks.

Not here: the answers behind it (`test_http_api`)."""

import json
import time
import unittest

from browser import Browser
from processes import wait_for
from small_cluster import SmallCluster
from test_http_api import Api

# Limits for a job with 20,000 tasks.
TASKS = 20_000
MAX_EVENT_BYTES = 64 << 10
MAX_EVENTS_PER_SECOND = 3
MAX_HEAP_BYTES = 32 << 20
SECONDS = 10
# The least contrast of texts (WCAG 2.2, AA).
CONTRAST = 4.5

CONTRASTS = """(() => {
  const linear = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map(Number).map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const back = light(getComputedStyle(document.body).backgroundColor);
  const all = Array.from(document.querySelectorAll("h1, h2, p, a, td, th, dt, dd, li > span, button"));
  const texts = all.filter((element) => element.offsetWidth > 1 && element.textContent.trim());
  return texts.map((element) => {
    const front = light(getComputedStyle(element).color);
    const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    return [ratio, element.localName, element.textContent.slice(0, 40)];
  });
})()"""
BACKGROUND = "getComputedStyle(document.body).backgroundColor"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# What a screen reader needs: one title, headings in order, names of regions, headers of tables.
STRUCTURE = """(() => {
  const seen = (element) => element.checkVisibility();
  const all = (selector) => Array.from(document.querySelectorAll(selector)).filter(seen);
  return {
    titles: all("h1").length,
    levels: all("h1, h2, h3").map((heading) => Number(heading.localName[1])),
    unnamed: all("[role=region], progress, nav").filter((e) => !e.getAttribute("aria-label") && !e.getAttribute("aria-labelledby")).length,
    headless: all("table tbody tr").filter((row) => row.cells[0].scope !== "row").length,
    columns: all("table thead th").filter((head) => head.scope !== "col").length,
    status: document.querySelectorAll("[role=status][aria-live=polite]").length,
    language: document.documentElement.lang,
  };
})()"""


class WebPage(unittest.TestCase):
    def setUp(self):
        self.cluster = self.enterContext(SmallCluster())
        self.page = self.enterContext(Browser()).page()
        self.origin = f"http://{self.cluster.http}"
        self.api = Api(self.cluster.http)

    def tearDown(self):
        """Whatever a test does, the page asks only its own server and writes no error."""
        foreign = [url for url in self.page.requests if not url.startswith((f"{self.origin}/", "about:"))]
        self.assertEqual(foreign, [])
        self.assertEqual(self.page.errors, [])

    def held(self, output="one", *words, day="day"):
        """A job whose tasks run on frozen workers."""
        self.cluster.freeze()
        job = self.cluster.submit(output, *words, day=day)
        wait_for("running tasks", lambda: (self.api.get(f"/jobs/{job}")["detail"] or {}).get("running") or None)
        return job

    def accessible(self):
        found = self.page.js(STRUCTURE)
        self.assertEqual((found["titles"], found["status"], found["language"]), (1, 1, "en"), found)
        self.assertEqual([found[name] for name in ("unnamed", "headless", "columns")], [0, 0, 0], found)
        for before, after in zip(found["levels"], found["levels"][1:]):
            self.assertLessEqual(after - before, 1, found)

    def test_a_job_is_shown_live(self):
        """The output's name would be markup, if the page let it."""
        self.page.open(self.origin)
        self.page.wait_text("#connection", "Live")
        self.page.wait_text("#jobs", "no jobs")
        job = self.held("<img src=none onerror=alert(1)>")
        # Without a reload.
        self.page.wait_text("#jobs", job)
        self.page.wait_text("#jobs", "onerror=alert(1)")
        self.page.wait_text("#workers", "silent")
        self.page.wait_text("#announcement", "silent")
        self.accessible()
        self.page.js(f"location.hash = '#/jobs/{job}'")
        self.page.wait_text("#job-title", job)
        self.page.wait_text("#running", "worker silent for")
        self.page.wait_text("#events", "accepted")
        self.page.wait_text("#timeline", "running")
        self.accessible()
        self.cluster.release()
        self.page.wait_text("#job-state", "done")
        self.page.wait_text("#announcement", f"Job {job}: done")
        for selector, part in (("#result", "n clients"), ("#shuffle", "Shuffled"), ("#times", "map"), ("#events", "ended"),
                               ("#partitions", "times the median"), ("#connection", "ended")):
            self.page.wait_text(selector, part)
        self.assertEqual(self.page.js("document.querySelectorAll('main img').length"), 0)
        self.assertEqual(self.page.dialogs, 0)

    def test_the_keyboard_is_sufficient(self):
        job = self.held()
        self.page.open(self.origin)
        self.page.wait_text("#jobs", job)
        self.page.key("Tab")
        self.assertEqual(self.page.focused()[2], "Skip to content")
        self.assertGreaterEqual(self.page.js("document.activeElement.getBoundingClientRect().left"), 0)
        self.page.key("Enter")
        self.assertEqual(self.page.focused()[1], "main")
        for _ in range(10):
            self.page.key("Tab")
            self.assertNotEqual(self.page.js("getComputedStyle(document.activeElement).outlineStyle"), "none")
            if self.page.focused()[2] == job:
                break
        self.assertEqual(self.page.focused()[2], job)
        # Updates do not move the focus.
        time.sleep(2.5)
        self.assertEqual(self.page.focused()[2], job)
        self.page.key("Enter")
        self.page.wait_text("#job-title", job)
        wait_for("the button", lambda: self.page.js("!document.getElementById('cancel').hidden") or None)
        for _ in range(10):
            self.page.key("Tab")
            if self.page.focused()[1] == "cancel":
                break
        self.assertEqual(self.page.focused()[1], "cancel")
        # The dialog holds the answer to the key.
        self.page.js("setTimeout(() => document.getElementById('cancel').click(), 100)")
        self.page.accept_dialog()
        self.cluster.release()
        self.page.wait_text("#job-state", "cancelled")

    def test_narrow_and_dark_screens(self):
        job = self.held()
        self.page.size(320)
        backgrounds = set()
        for scheme in ("light", "dark"):
            self.page.scheme(scheme)
            for fragment, selector, part in (("#/", "#jobs", job), (f"#/jobs/{job}", "#running", "map")):
                self.page.open(f"{self.origin}/?{scheme}{fragment}")
                self.page.wait_text(selector, part)
                self.assertEqual(self.page.js(OVERFLOW), 0, fragment)
                for ratio, *where in self.page.js(CONTRASTS):
                    self.assertGreaterEqual(ratio, CONTRAST, (scheme, where))
            backgrounds.add(self.page.js(BACKGROUND))
        self.assertEqual(len(backgrounds), 2)
        self.cluster.release()

    def test_the_page_connects_again(self):
        self.page.open(self.origin)
        self.page.wait_text("#connection", "Live")
        self.cluster.restart_coordinator(lambda: self.page.wait_text("#connection", "Not connected"))
        self.page.wait_text("#connection", "Live")
        self.assertEqual(self.page.js("performance.getEntriesByType('navigation').length"), 1)
        # The browser writes a line for each request without an answer, or with one that it does not lead yet.
        self.page.errors = [error for error in self.page.errors if "Failed to load resource" not in error]

    def test_a_job_with_many_tasks_is_light(self):
        """Its size in an event, the rate of events, and the memory of the page."""
        # Each file is larger than a shard, so that it is a task of its own.
        job = self.held("one", "--shard-bytes=100B", day=self.cluster.many_files(TASKS))
        self.page.open(f"{self.origin}/#/jobs/{job}")
        self.page.wait_text("#running", "map")
        tasks = self.api.get(f"/jobs/{job}")["stages"][0]["tasks"]
        self.assertGreaterEqual(tasks, TASKS)
        self.page.wait_text("#stages", f"{tasks:,}")
        events, begun = [], time.monotonic()
        for event in self.api.events(f"/jobs/{job}/stream"):
            events.append(len(json.dumps(event)))
            if time.monotonic() - begun > SECONDS:
                break
        heap = self.page.heap()
        print(f"{tasks} tasks: {max(events)} bytes in an event, {len(events) / SECONDS} events per second, {heap} bytes of objects")
        self.assertLess(max(events), MAX_EVENT_BYTES)
        self.assertLess(len(events), MAX_EVENTS_PER_SECOND * SECONDS)
        self.assertLess(heap, MAX_HEAP_BYTES)
        self.assertEqual(self.api.ask(f"/jobs/{job}/cancel", "POST")[0], 200)
        self.cluster.release()
