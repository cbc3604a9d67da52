// The list of jobs with their progress, and the workers with memory, spill and heartbeats.

import { bar, bytes, count, duration, fill, find, make, marked, setText, show, time, words } from "./dom.js";

const OVER = ["done", "failed", "cancelled"];
export const isOver = (job) => OVER.includes(job.state);

/** The class of a state. */
export function tone(job) {
  if (job.state === "failed") return "bad";
  if (job.state === "done") return "good";
  return job.state === "waiting_for_workers" || job.cancelling ? "warn" : "";
}

/** Finished and all tasks of the current stage, or of all stages. */
export function tasks(job) {
  const current = job.stages.filter((stage) => stage.name === job.phase);
  const stages = current.length ? current : job.stages;
  return stages.reduce(([done, all], stage) => [done + stage.done, all + stage.tasks], [0, 0]);
}

export function state(job) {
  return job.cancelling && !isOver(job) ? "cancelling" : words(job.state);
}

/** What running tasks wait for, in a sentence; empty if none waits. */
export function waits(job) {
  const found = job.waiting_tasks;
  const kinds = [["store", "the store"], ["memory", "memory"], ["worker", "other workers"], ["task", "other tasks"], ["slot", "a slot"]];
  const parts = kinds.filter(([kind]) => found[kind]).map(([kind, text]) => `${count(found[kind])} for ${text}`);
  const unnamed = found.silent_workers - found.silent_worker_ids.length;
  const names = [...found.silent_worker_ids, ...(unnamed > 0 ? [`${count(unnamed)} more`] : [])];
  const silent = names.length ? `Silent: ${names.join(", ")}. ` : "";
  return silent + (parts.length ? `Tasks that wait: ${parts.join(", ")}.` : "");
}

function linked(job, cell) {
  let link = cell.firstChild;
  if (!link) {
    link = make("a");
    cell.append(link);
  }
  const target = `#/jobs/${encodeURIComponent(job.job_id)}`;
  if (link.getAttribute("href") !== target) link.setAttribute("href", target);
  setText(link, job.job_id);
}

function progress(job, cell) {
  const [done, all] = tasks(job);
  const phase = job.phase || "plan";
  if (isOver(job)) return cell.replaceChildren();
  bar(cell, done, all, all ? `${phase} ${count(done)} of ${count(all)}` : phase);
}

const JOBS = [
  { title: "Job", cell: linked },
  { title: "Day", cell: (job) => job.date },
  { title: "State", cell: (job, cell) => marked(cell, state(job), tone(job)) },
  { title: "Progress", cell: progress },
  { title: "Waits", className: "text", cell: (job) => (isOver(job) ? "" : waits(job)) },
  { title: "Elapsed", className: "number", cell: (job) => duration(job.elapsed_seconds) },
  { title: "Remaining", className: "number", cell: (job) => (job.remaining_seconds === null ? "" : `about ${duration(job.remaining_seconds)}`) },
  { title: "Submitted", cell: (job) => time(job.submitted_at) },
  { title: "Output", className: "text", cell: (job) => job.output },
];

function workerWaits(worker) {
  const kinds = [["waiting_for_store", "store"], ["waiting_for_memory", "memory"], ["waiting_for_workers", "workers"]];
  return kinds.filter(([field]) => worker[field]).map(([field, text]) => `${worker[field]} for ${text}`).join(", ");
}

const WORKERS = [
  { title: "Worker", cell: (worker) => worker.worker_id },
  {
    title: "State",
    cell: (worker, cell) => {
      const text = worker.silent ? `${worker.state}, silent` : worker.state;
      return marked(cell, text, worker.silent ? "bad" : worker.state === "attached" ? "" : "warn");
    },
  },
  { title: "Heartbeat", className: "number", cell: (worker) => `${duration(worker.heartbeat_age_seconds)} ago` },
  { title: "Address", cell: (worker) => worker.flight_address },
  { title: "Slots", cell: (worker, cell) => bar(cell, worker.running, worker.slots, `${worker.running} of ${worker.slots}`) },
  {
    title: "Memory",
    cell: (worker, cell) => bar(cell, worker.memory_used, worker.memory_limit, `${bytes(worker.memory_used)} of ${bytes(worker.memory_limit)}`),
  },
  {
    title: "Spill",
    cell: (worker, cell) => bar(cell, worker.spill_used, worker.spill_limit, `${bytes(worker.spill_used)} of ${bytes(worker.spill_limit)}`),
  },
  { title: "Spilled", className: "number", cell: (worker) => bytes(worker.spilled_bytes) },
  { title: "Outputs", className: "number", cell: (worker) => count(worker.outputs) },
  { title: "Waiting tasks", cell: workerWaits },
  { title: "Version", cell: (worker) => worker.version },
];

/** The states that were seen, so that only changes are announced. */
const seen = { jobs: null, silent: null };

function changes(jobs) {
  const now = new Map(jobs.map((job) => [job.job_id, state(job)]));
  const before = seen.jobs;
  seen.jobs = now;
  if (!before) return "";
  const changed = [...now].filter(([id, text]) => before.get(id) !== text);
  return changed.map(([id, text]) => `Job ${id}: ${text}`).join(". ");
}

function silence(workers) {
  const now = new Set(workers.filter((worker) => worker.silent).map((worker) => worker.worker_id));
  const before = seen.silent;
  seen.silent = now;
  if (!before) return "";
  const lost = [...now].filter((id) => !before.has(id)).map((id) => `Worker ${id} is silent`);
  const back = [...before].filter((id) => !now.has(id)).map((id) => `Worker ${id} is no longer silent`);
  return [...lost, ...back].join(". ");
}

/** Shows an event of the stream; returns what to announce. */
export function take(name, data) {
  if (name === "cluster") {
    const jobs = data.accepting_jobs ? "new jobs are accepted" : "no new jobs are accepted";
    setText(find("cluster"), `Tally ${data.version}, epoch ${data.epoch}, ${jobs}`);
  } else if (name === "jobs") {
    fill(find("jobs"), JOBS, data.jobs, (job) => job.job_id, "There are no jobs.");
    show(find("more-jobs"), data.next_page_token !== null);
    return changes(data.jobs);
  } else if (name === "workers") {
    fill(find("workers"), WORKERS, data.workers, (worker) => worker.worker_id, "There are no workers.");
    show(find("more-workers"), data.next_page_token !== null);
    return silence(data.workers);
  }
  return "";
}
