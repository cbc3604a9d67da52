// The page of one job: stages, running tasks and what they wait for, failures, partitions, times, result, history.

import { bar, bytes, count, counted, duration, facts, fill, find, lines, marked, setText, show, time, words } from "./dom.js";
import { isOver, state, tone, waits } from "./overview.js";
import * as timeline from "./timeline.js";

// Rows of tables that can be long; the rest is counted.
const MAX_ROWS = 100;
const MAX_EVENTS = 500;

// The id of the job whose events arrive.
let of = null;
let shown = null;
let events = [];
let leftOut = 0;

const orNothing = (value, text) => (value === null || value === 0 ? "" : text(value));

const STAGES = [
  { title: "Stage", cell: (stage) => stage.name },
  { title: "Tasks", cell: (stage, cell) => bar(cell, stage.done, stage.tasks, `${count(stage.done)} of ${count(stage.tasks)}`) },
  { title: "Running", className: "number", cell: (stage) => count(stage.running) },
  { title: "Pending", className: "number", cell: (stage) => count(stage.pending) },
  { title: "Failed", className: "number", cell: (stage) => count(stage.failed_attempts) },
  { title: "Run again", className: "number", cell: (stage) => count(stage.reruns) },
  { title: "Speculative", className: "number", cell: (stage) => count(stage.second_attempts) },
];

const TIMES = [
  { title: "Stage", cell: (stage) => stage.name },
  { title: "Wall time", className: "number", cell: (stage) => orNothing(stage.seconds, duration) },
  { title: "Rows/s", className: "number", cell: (stage) => orNothing(stage.rows_per_second, count) },
  { title: "Bytes/s", className: "number", cell: (stage) => orNothing(stage.bytes_per_second, bytes) },
  { title: "Task time", className: "number", cell: (stage) => orNothing(stage.task_seconds, duration) },
  { title: "Failed attempts", className: "number", cell: (stage) => orNothing(stage.failed_task_seconds, duration) },
  { title: "Wait for store", className: "number", cell: (stage) => orNothing(stage.store_wait_seconds, duration) },
  { title: "Wait for memory", className: "number", cell: (stage) => orNothing(stage.memory_wait_seconds, duration) },
  { title: "Wait for workers", className: "number", cell: (stage) => orNothing(stage.worker_wait_seconds, duration) },
  { title: "Peak memory", className: "number", cell: (stage) => orNothing(stage.peak_memory_bytes, bytes) },
];

function wait(task, cell) {
  if (task.worker_silent_seconds !== null) {
    return marked(cell, `worker silent for ${duration(task.worker_silent_seconds)}`, "text bad");
  }
  const found = task.waits_for;
  if (!found) return marked(cell, "", "text");
  const subject = found.subject ? `: ${found.subject}` : "";
  return marked(cell, `${found.kind}, ${duration(found.seconds)}${subject}`, "text warn");
}

const RUNNING = [
  { title: "Task", cell: (task) => `${task.stage} ${task.index}` },
  { title: "Attempt", cell: (task) => `${count(task.attempt_number)}${task.speculative ? " (speculative)" : ""}` },
  { title: "Worker", cell: (task) => task.worker_id },
  { title: "Host", cell: (task) => task.host },
  { title: "Age", className: "number", cell: (task) => duration(task.age_seconds) },
  { title: "Rows", className: "number", cell: (task) => orNothing(task.rows, count) },
  { title: "Bytes", className: "number", cell: (task) => orNothing(task.bytes, bytes) },
  { title: "Waits for", className: "text", cell: wait },
];

const BAD = ["attempt_failed", "worker_lost"];
const EVENTS = [
  { title: "Time", cell: (event) => time(event.at) },
  { title: "Event", cell: (event, cell) => marked(cell, words(event.kind), BAD.includes(event.kind) ? "bad" : "") },
  { title: "Task", cell: (event) => [event.stage, event.index].filter((part) => part !== null).join(" ") },
  { title: "Worker", cell: (event) => event.worker_id ?? "" },
  { title: "What happened", className: "text", cell: (event) => event.text },
];

/** Prepares the page for the begin of a stream. */
export function reset() {
  [of, shown, events, leftOut] = [null, null, [], 0];
  timeline.reset();
  for (const id of ["stages", "running", "incidents", "times", "events"]) find(id).replaceChildren();
  for (const id of ["facts", "shuffle", "result", "warnings", "pending"]) find(id).replaceChildren();
}

function running(detail) {
  const rank = (task) => [task.worker_silent_seconds ?? 0, task.waits_for?.seconds ?? 0, task.age_seconds];
  const rows = [...detail.running].sort((a, b) => {
    const [left, right] = [rank(b), rank(a)];
    return left[0] - right[0] || left[1] - right[1] || left[2] - right[2];
  });
  fill(find("running"), RUNNING, rows.slice(0, MAX_ROWS), (task) => `${task.stage} ${task.index} ${task.attempt}`, "No task is running.");
  const more = detail.running_left_out + Math.max(0, rows.length - MAX_ROWS);
  setText(find("more-running"), more ? `and ${count(more)} more` : "");
}

function incidents(detail) {
  const rows = detail.incidents.slice(-MAX_ROWS).reverse();
  fill(find("incidents"), EVENTS, rows, (event) => event.number, "No attempt failed, and no worker was lost.");
  const more = detail.incidents_left_out + Math.max(0, detail.incidents.length - MAX_ROWS);
  setText(find("more-incidents"), more ? `and ${count(more)} before them` : "");
}

function partitions(found) {
  if (!found) return setText(find("partitions"), "The sizes are known after the map stage.");
  const factor = (found.largest_rows / Math.max(found.median_rows, 1)).toFixed(1);
  const largest = `The largest, ${found.largest}, has ${counted(found.largest_rows, "row")}`;
  setText(find("partitions"), `${counted(found.partitions, "partition")}. ${largest}, ${factor} times the median of ${count(found.median_rows)}.`);
}

function detail(found) {
  if (!found) return;
  running(found);
  incidents(found);
  partitions(found.partitions);
  fill(find("times"), TIMES, found.stage_times, (stage) => stage.name, "No stage has begun.");
  const pending = found.stage_times.filter((stage) => stage.pending_reason);
  lines(find("pending"), pending.map((stage) => `Pending ${stage.name} tasks: ${stage.pending_reason}`));
}

/** The values of an object as names and texts; nested objects with the names of both. */
function flat(object, before = "") {
  return Object.entries(object).flatMap(([name, value]) => {
    const title = before + words(name);
    if (value && typeof value === "object" && !Array.isArray(value)) return flat(value, `${title}, `);
    return typeof value === "number" ? [[title, Number.isInteger(value) ? count(value) : value.toPrecision(4)]] : [];
  });
}

const OF_SUMMARY = ["job_id", "date", "rows", "files", "bytes_read", "shuffle_bytes", "shuffle_network_bytes", "spilled_bytes", "seconds", "peak_memory_bytes", "stages", "warnings"];

function result(job) {
  const summary = job.summary;
  const spilled = summary && bytes(summary.spilled_bytes);
  facts(find("shuffle"), summary
    ? [["Shuffled", bytes(summary.shuffle_bytes)], ["Shuffled over the network", bytes(summary.shuffle_network_bytes)], ["Spilled", spilled], ["Read from the inputs", bytes(summary.bytes_read)]]
    : [["Read so far", `${counted(job.rows_done, "row")}, ${bytes(job.bytes_done)}`], ["Shuffle and spill", "known at the end; the list of workers shows their spill now"]]);
  if (!summary) return facts(find("result"), [["Result", isOver(job) ? "none" : "known at the end"]]);
  const rest = Object.fromEntries(Object.entries(summary).filter(([name]) => !OF_SUMMARY.includes(name)));
  const share = summary.n_clients ? `${((100 * summary.n_custom_theme_clients) / summary.n_clients).toFixed(2)} %` : null;
  const own = [["Rows", count(summary.rows)], ["Part files", count(summary.files)], ["Peak memory", bytes(summary.peak_memory_bytes)]];
  facts(find("result"), [...own, ...flat(rest), ["Clients with a custom theme", share]]);
  lines(find("warnings"), summary.warnings);
}

function history(page) {
  events.push(...page.events);
  leftOut = Math.max(leftOut, page.left_out);
  const more = leftOut + Math.max(0, events.length - MAX_EVENTS);
  events = events.slice(-MAX_EVENTS);
  fill(find("events"), EVENTS, [...events].reverse(), (event) => event.number, "Nothing happened yet.");
  setText(find("more-events"), more ? `Events of attempts and workers that are not shown: ${count(more)}.` : "");
}

/** Shows an event of the stream; returns what to announce. */
export function take(name, data) {
  // The events of a job come before its first state.
  if (of !== null && of !== data.job_id) reset();
  of = data.job_id;
  if (name === "events") {
    history(data);
    return "";
  }
  if (name === "attempts") timeline.ended(data);
  if (name !== "job") return "";
  const before = shown && state(shown);
  shown = data;
  document.title = `${data.job_id}: ${state(data)} – Tally`;
  setText(find("job-title"), `Job ${data.job_id}`);
  setText(find("job-state"), state(data));
  find("job-state").className = tone(data);
  setText(find("job-reason"), data.reason ?? "");
  show(find("job-reason"), data.reason !== null);
  facts(find("facts"), [
    ["Dataset", data.dataset], ["Day", data.date], ...data.inputs.map((input) => ["Input", input]), ["Output", data.output],
    ["Submitted", time(data.submitted_at)], ["Ended", time(data.ended_at)], ["Elapsed", duration(data.elapsed_seconds)],
    ["Remaining", data.remaining_seconds === null ? null : `about ${duration(data.remaining_seconds)}`],
    ["Stage", isOver(data) ? null : `${data.phase || "plan"}${data.detail ? `, for ${duration(data.detail.phase_seconds)}` : ""}`],
    ["Input size", data.input_rows ? `${counted(data.input_rows, "row")}, ${bytes(data.input_bytes)}` : null],
    ["Expectations", data.expectations.join("; ")],
  ]);
  fill(find("stages"), STAGES, data.stages, (stage) => stage.name, "The job is being planned.");
  setText(find("waiting"), isOver(data) ? "" : waits(data));
  detail(data.detail);
  timeline.draw(data);
  result(data);
  return before && before !== state(data) ? `Job ${data.job_id}: ${state(data)}` : "";
}

/** The job that is shown, if it can still be cancelled. */
export const live = () => (shown && !isOver(shown) && !shown.cancelling && shown.state !== "publishing" ? shown.job_id : null);
