// Attempts by worker over time: those that ended, as the coordinator knows them, and those that run. Bounded: the oldest
// are forgotten first.

import { count, duration, find, make, setText } from "./dom.js";

const MAX_SPANS = 1000;
const MAX_WORKERS = 100;
// The height of an attempt, and the most attempts that are drawn beside each other, by the slots of a worker.
const HEIGHT = 10;
const MAX_ROWS = 8;

let spans = new Map();
let leftOut = 0;

export function reset() {
  spans = new Map();
  leftOut = 0;
  find("timeline").replaceChildren();
}

const key = (task) => `${task.stage} ${task.index} ${task.attempt}`;

/** Notes attempts that ended. */
export function ended(page) {
  leftOut = Math.max(leftOut, page.left_out);
  for (const attempt of page.attempts) {
    const begin = Date.parse(attempt.started_at);
    const { stage, index } = attempt;
    spans.delete(key(attempt));
    spans.set(key(attempt), { worker: attempt.worker_id, stage, index, begin, end: begin + 1000 * attempt.seconds, how: attempt.end });
  }
  for (const name of spans.keys()) {
    if (spans.size <= MAX_SPANS) break;
    spans.delete(name);
    leftOut += 1;
  }
}

/** Notes the attempts that run at the time `now` of the coordinator, in milliseconds. */
function running(tasks, now) {
  for (const [name, span] of spans) {
    if (span.how === "running") spans.delete(name);
  }
  for (const task of tasks) {
    // It may have ended since the state was read.
    if (spans.has(key(task))) continue;
    const { stage, index } = task;
    spans.set(key(task), { worker: task.worker_id, stage, index, begin: now - 1000 * task.age_seconds, end: now, how: "running" });
  }
}

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
    block.title = `${span.stage} ${span.index}, ${span.how}, ${duration((span.end - span.begin) / 1000)}`;
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
    const text = `${name}: ${count(found.length)} attempts, ${runs} running`;
    setText(item.firstChild, failed ? `${text}, ${failed} failed` : text);
    lane(item, found, begin, length);
  });
  const earlier = leftOut ? ` ${count(leftOut)} earlier attempts are not shown.` : "";
  setText(find("timeline-note"), shown.length ? `${duration(length / 1000)} from left to right.${earlier}` : "No attempt is known.");
}
