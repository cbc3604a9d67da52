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
MAX_JOB_BYTES = 64 << 10
MAX_ATTEMPTS_BYTES = 160 << 10
MAX_STATES_PER_SECOND = 2
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


# Every path is answered first as by a coordinator that does not lead.
STANDBYS_FIRST = """(() => {
  const [own, seen] = [window.fetch, new Set()];
  const error = { kind: "no_leader", message: "another one leads", hint: null, leader: null };
  window.fetch = (url, options) => {
    if (seen.has(url)) return own(url, options);
    seen.add(url);
    return Promise.resolve(new Response(JSON.stringify({ error }), { status: 503 }));
  };
})()"""
CANCEL_IS_REFUSED = """(() => {
  const own = window.fetch;
  const error = { kind: "forbidden", message: "not by you", hint: null, leader: null };
  window.fetch = (url, options) => options.method === "POST"
    ? Promise.resolve(new Response(JSON.stringify({ error }), { status: 403 })) : own(url, options);
})()"""


class Shown(unittest.TestCase):
    """A cluster and a tab."""
    SLOTS = 1

    def setUp(self):
        self.cluster = self.enterContext(SmallCluster(slots=self.SLOTS))
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

    def restart_coordinator(self):
        """Restarts the coordinator; the page connects again."""
        self.cluster.restart_coordinator(lambda: self.page.wait_text("#connection", "Not connected"))
        self.page.wait_text("#connection", "Live")
        # The browser writes a line for each request without an answer, or with one that it does not lead yet.
        self.page.errors = [error for error in self.page.errors if "Failed to load resource" not in error]


class WebPage(Shown):
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
        self.page.js("document.getElementById('attempts-details').open = true")
        for part in ("map", "reduce", "write", "done"):
            self.page.wait_text("#attempts", part)
        self.accessible()
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
        # Updates, here of the age of heartbeats, do not move the focus.
        for _ in range(2):
            shown = self.page.text("#workers")
            wait_for("an update", lambda: self.page.text("#workers") != shown or None)
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
        self.restart_coordinator()
        self.assertEqual(self.page.js("performance.getEntriesByType('navigation').length"), 1)

    def test_the_latest_job_stays_the_same_when_the_page_connects_again(self):
        job = self.held()
        self.page.open(f"{self.origin}/#/jobs/latest")
        self.page.wait_text("#job-title", job)
        self.assertEqual(self.page.js("location.hash"), f"#/jobs/{job}")
        later = self.cluster.submit("two")
        self.restart_coordinator()
        wait_for("the later job", lambda: self.api.get("/jobs/latest")["job_id"] == later or None)
        self.assertIn(job, self.page.text("#job-title"))
        self.assertNotIn(later, self.page.text("#job"))
        self.cluster.release()

    def test_other_coordinators_behind_the_address_are_no_failure(self):
        job = self.held()
        self.page.open(self.origin)
        self.page.wait_text("#connection", "Live")
        self.page.js(STANDBYS_FIRST)
        self.page.js(f"location.hash = '#/jobs/{job}'")
        self.page.wait_text("#job-title", job)
        wait_for("the button", lambda: self.page.js("!document.getElementById('cancel').hidden") or None)
        self.assertEqual(self.page.text("#connection"), "Live")
        self.assertEqual(self.page.text("#failure"), "")
        self.cluster.release()

    def test_a_refused_cancellation_is_no_lost_connection(self):
        job = self.held()
        self.page.open(f"{self.origin}/#/jobs/{job}")
        wait_for("the button", lambda: self.page.js("!document.getElementById('cancel').hidden") or None)
        self.page.js(CANCEL_IS_REFUSED)
        self.page.js("setTimeout(() => document.getElementById('cancel').click(), 0)")
        self.page.accept_dialog()
        self.page.wait_text("#cancel-failure", "not by you")
        self.assertEqual(self.page.text("#connection"), "Live")
        self.assertEqual(self.page.text("#failure"), "")
        self.cluster.release()

    def test_an_address_that_is_no_escape_is_an_unknown_job(self):
        self.page.open(f"{self.origin}/#/jobs/%")
        self.page.wait_text("#failure", "job")
        self.page.errors = [error for error in self.page.errors if "Failed to load resource" not in error]


class ManyTasks(Shown):
    SLOTS = 7

    def test_a_job_with_many_tasks_is_light(self):
        """Its size in an event, the rate of events, and the memory of the page."""
        # Each file is larger than a shard, so that it is a task of its own.
        job = self.held("one", "--shard-bytes=100B", day=self.cluster.many_files(TASKS))
        self.page.open(f"{self.origin}/#/jobs/{job}")
        self.page.wait_text("#running", "map")
        tasks = self.api.get(f"/jobs/{job}")["stages"][0]["tasks"]
        self.assertGreaterEqual(tasks, TASKS)
        self.page.wait_text("#stages", f"{tasks:,}")
        stream = self.api.events(f"/jobs/{job}/stream")
        self.assertIn("events", next(stream))
        self.cluster.release()
        # States are skipped: attempts end faster than states are sent.
        sizes, states, ended, begun = {"attempts": 0}, 0, 0, time.monotonic()
        for name, _, data in stream:
            sizes[name] = max(sizes.get(name, 0), len(json.dumps(data)))
            states += name == "job"
            ended += len(data["attempts"]) if name == "attempts" else 0
            seconds = time.monotonic() - begun
            if seconds > SECONDS and ended > 2 * states:
                break
        self.assertGreater(ended, 2 * states)
        # More attempts ended than the coordinator keeps.
        self.page.wait_text("#timeline-note", "Earlier attempts that are not shown")
        heap = self.page.heap()
        print(f"{tasks} tasks: bytes of events {sizes}, {states / seconds} states per second of {ended} attempts, "
              f"{heap} bytes of objects")
        self.assertLess(sizes["job"], MAX_JOB_BYTES)
        self.assertLess(sizes["attempts"], MAX_ATTEMPTS_BYTES)
        self.assertLess(states, MAX_STATES_PER_SECOND * seconds + 2)
        self.assertLess(heap, MAX_HEAP_BYTES)
        self.assertEqual(self.api.ask(f"/jobs/{job}/cancel", "POST")[0], 200)
