// Attempts by worker over time, as far as this page has seen them run. Bounded: the oldest are forgotten first.

import { duration, find, make, setText } from "./dom.js";

const MAX_SPANS = 1000;
const MAX_WORKERS = 100;

let spans = new Map();
let from = null;

export function reset() {
  spans = new Map();
  from = null;
  find("timeline").replaceChildren();
}

const key = (task) => `${task.stage} ${task.index} ${task.attempt}`;

/** Notes the running attempts and the failures of a job's state at the time `now`, in milliseconds. */
function note(detail, now) {
  for (const span of spans.values()) span.running = false;
  for (const task of detail.running) {
    const name = key(task);
    const span = spans.get(name) ?? { worker: task.worker_id, stage: task.stage, index: task.index, begin: now - 1000 * task.age_seconds };
    span.running = true;
    span.end = now;
    spans.set(name, span);
  }
  for (const event of detail.incidents) {
    const span = event.kind === "attempt_failed" && spans.get(key(event));
    if (span) span.failed = true;
  }
  for (const name of spans.keys()) {
    if (spans.size <= MAX_SPANS) break;
    spans.delete(name);
  }
}

// The height of an attempt, and the most attempts that are drawn beside each other, by the slots of a worker.
const HEIGHT = 10;
const MAX_ROWS = 8;

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
    block.className = [span.stage, span.failed ? "failed" : "", span.running ? "running" : ""].join(" ").trim();
    block.style.top = `${HEIGHT * places[at] + 2}px`;
    block.style.height = `${HEIGHT - 1}px`;
    block.style.left = `${(100 * (span.begin - begin)) / length}%`;
    block.style.width = `${(100 * (span.end - span.begin)) / length}%`;
    block.title = `${span.stage} ${span.index}, ${duration((span.end - span.begin) / 1000)}`;
  });
}

/** Shows a job's state. */
export function draw(job) {
  if (!job.detail) return;
  const now = Date.now();
  note(job.detail, now);
  const workers = new Map();
  for (const span of spans.values()) {
    if (!workers.has(span.worker) && workers.size >= MAX_WORKERS) continue;
    workers.set(span.worker, [...(workers.get(span.worker) ?? []), span]);
    from = Math.min(from ?? span.begin, span.begin);
  }
  const until = Math.max(...Array.from(spans.values(), (span) => span.end), (from ?? now) + 1);
  const length = until - (from ?? now);
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
    const failed = found.filter((span) => span.failed).length;
    const text = `${name}: ${found.length} attempts, ${found.filter((span) => span.running).length} running`;
    setText(item.firstChild, failed ? `${text}, ${failed} failed` : text);
    lane(item, found, from, length);
  });
  const seen = `${duration(length / 1000)}. Attempts that ended before this page was open, or between two of its updates, are missing.`;
  setText(find("timeline-note"), names.length ? `The last ${seen}` : "No attempt has run while this page was open.");
}
