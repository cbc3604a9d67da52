// Attempts by worker over time: those that ended, as the coordinator knows them, and those that run. Bounded: the oldest
// are forgotten first.

import { count, counted, duration, fill, find, make, marked, setText, time } from "./dom.js";

const MAX_SPANS = 1000;
const MAX_WORKERS = 100;
// The height of an attempt, and the most attempts that are drawn beside each other, by the slots of a worker.
const HEIGHT = 10;
const MAX_ROWS = 8;
// Rows of the table.
const MAX_LISTED = 200;
// The letters of stages, so that they differ not by colour alone.
const LETTERS = { map: "M", reduce: "R", write: "W" };

const ATTEMPTS = [
  { title: "Task", cell: (span) => `${span.stage} ${span.index}` },
  { title: "Attempt", className: "number", cell: (span) => count(span.number) },
  { title: "Worker", cell: (span) => span.worker },
  { title: "Started", cell: (span) => time(new Date(span.begin).toISOString()) },
  { title: "Duration", className: "number", cell: (span) => duration((span.end - span.begin) / 1000) },
  { title: "End", cell: (span, cell) => marked(cell, span.how, span.how === "failed" ? "bad" : "") },
];

let spans = new Map();
let leftOut = 0;

export function reset() {
  spans = new Map();
  leftOut = 0;
  find("timeline").replaceChildren();
  find("attempts").replaceChildren();
}

/** Forgets the oldest attempts. */
function trim() {
  for (const [name, span] of spans) {
    if (spans.size <= MAX_SPANS) return;
    spans.delete(name);
    if (span.how !== "running") leftOut += 1;
  }
}

const key = (task) => `${task.stage} ${task.index} ${task.attempt}`;

/** Notes attempts that ended. */
export function ended(page) {
  leftOut = Math.max(leftOut, page.left_out);
  for (const attempt of page.attempts) {
    const begin = Date.parse(attempt.started_at);
    const { stage, index, attempt_number: number } = attempt;
    const end = begin + 1000 * attempt.seconds;
    spans.delete(key(attempt));
    spans.set(key(attempt), { worker: attempt.worker_id, stage, index, number, begin, end, how: attempt.end });
  }
  trim();
}

/** Notes the attempts that run at the time `now` of the coordinator, in milliseconds. */
function running(tasks, now) {
  for (const [name, span] of spans) {
    if (span.how === "running") spans.delete(name);
  }
  for (const task of tasks) {
    // It may have ended since the state was read.
    if (spans.has(key(task))) continue;
    const { stage, index, attempt_number: number } = task;
    const begin = now - 1000 * task.age_seconds;
    spans.set(key(task), { worker: task.worker_id, stage, index, number, begin, end: now, how: "running" });
  }
  trim();
}

/** The same attempts as a table, newest first, while it is open. */
function table() {
  if (!find("attempts-details").open) return;
  const rows = [...spans].sort(([, a], [, b]) => b.begin - a.begin).map(([name, span]) => ({ name, ...span }));
  fill(find("attempts"), ATTEMPTS, rows.slice(0, MAX_LISTED), (row) => row.name, "No attempt is known.");
  setText(find("more-attempts"), rows.length > MAX_LISTED ? `The last ${MAX_LISTED} of ${counted(rows.length, "attempt")}.` : "");
}

find("attempts-details").addEventListener("toggle", table);

/** The row of each attempt, so that attempts that ran at the same time are below each other. */
function rows(found) {
  const ends = [];
  return found.map((span) => {
    const free = ends.findIndex((end) => end <= span.begin);
    const row = free < 0 ? Math.min(ends.length, MAX_ROWS - 1) : free;
    ends[row] = span.end;
    return row;
  });
}

function lane(item, found, begin, length) {
  const blocks = item.querySelector(".lane");
  found.sort((a, b) => a.begin - b.begin);
  const places = rows(found);
  blocks.style.height = `${HEIGHT * (1 + Math.max(...places)) + 4}px`;
  while (blocks.children.length > found.length) blocks.lastChild.remove();
  found.forEach((span, at) => {
    if (blocks.children.length <= at) blocks.append(make("span"));
    const block = blocks.children[at];
    block.className = `${span.stage} ${span.how}`;
    block.style.top = `${HEIGHT * places[at] + 2}px`;
    block.style.height = `${HEIGHT - 1}px`;
    block.style.left = `${(100 * (span.begin - begin)) / length}%`;
    block.style.width = `${(100 * (span.end - span.begin)) / length}%`;
    setText(block, LETTERS[span.stage] ?? "");
    block.title = `${span.stage} ${span.index}, attempt ${count(span.number)}, ${span.how}, ${duration((span.end - span.begin) / 1000)}`;
  });
}

/** Shows a job's state. */
export function draw(job) {
  // The clock of the coordinator, not of the browser.
  if (job.detail) running(job.detail.running, Date.parse(job.submitted_at) + 1000 * job.elapsed_seconds);
  const workers = new Map();
  for (const span of spans.values()) {
    if (workers.has(span.worker)) workers.get(span.worker).push(span);
    else if (workers.size < MAX_WORKERS) workers.set(span.worker, [span]);
  }
  const shown = [...workers.values()].flat();
  const begin = Math.min(...shown.map((span) => span.begin));
  const length = Math.max(1, Math.max(...shown.map((span) => span.end)) - begin);
  const list = find("timeline");
  const names = [...workers.keys()].sort();
  while (list.children.length > names.length) list.lastChild.remove();
  names.forEach((name, at) => {
    if (list.children.length <= at) {
      const item = make("li");
      const blocks = make("div", "lane");
      blocks.setAttribute("aria-hidden", "true");
      item.append(make("span"), blocks);
      list.append(item);
    }
    const item = list.children[at];
    const found = workers.get(name);
    const [runs, failed] = ["running", "failed"].map((how) => found.filter((span) => span.how === how).length);
    const text = `${name}: ${counted(found.length, "attempt")}, ${runs} running`;
    setText(item.firstChild, failed ? `${text}, ${failed} failed` : text);
    lane(item, found, begin, length);
  });
  table();
  const earlier = leftOut ? ` Earlier attempts that are not shown: ${count(leftOut)}.` : "";
  setText(find("timeline-note"), shown.length ? `${duration(length / 1000)} from left to right.${earlier}` : "No attempt is known.");
}
