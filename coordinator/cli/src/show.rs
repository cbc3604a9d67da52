//! Jobs and workers of a cluster as JSON and as tables.
//!
//! Not here: the requests (`tally_coordinator::client`), the fields of the JSON (`tally_coordinator::view`).

use tally_common::counts::counted;
use tally_common::sha256::hex;
use tally_coordinator::client::is_over;
use tally_coordinator::summary::{Summary, bytes, grouped};
use tally_coordinator::view::{Job, Jobs, Progress, Worker, Workers, state, time};
use tally_proto::v1::{JobState, JobStatus, StageStatus, WorkerStatus};

use crate::Stop;
use crate::output::{OutputFormat, columns, json, plain};
use crate::show_detail::{self, age};

/// A line of JSON with the progress of a job.
///
/// # Errors
/// See [`json`].
pub fn progress(job: &JobStatus) -> Result<String, Stop> {
    json(&Progress::from(job))
}

/// Finished and all tasks of the current phase, or of all stages.
fn tasks(job: &JobStatus) -> (u64, u64) {
    let of_phase = job.stages.iter().filter(|stage| stage.name == job.phase);
    let count = |(done, all): (u64, u64), stage: &StageStatus| (done + stage.done, all + stage.tasks);
    match of_phase.clone().next() {
        Some(_) => of_phase.fold((0, 0), count),
        None => job.stages.iter().fold((0, 0), count),
    }
}

/// The current activity of a job, in a few words.
pub fn doing(job: &JobStatus) -> String {
    let (done, all) = tasks(job);
    let tasks = format!("{}/{}", grouped(done), counted(all, "task"));
    let phase = if job.phase.is_empty() { "plan".to_string() } else { plain(&job.phase) };
    if job.cancelling && !is_over(job.state()) {
        return "cancelling".into();
    }
    match job.state() {
        JobState::WaitingForWorkers => format!("{phase} {tasks}, waiting for workers"),
        JobState::Running if all == 0 => phase,
        JobState::Running => format!("{phase} {tasks}"),
        other => state(other).replace('_', " "),
    }
}

/// The workers of a job whose heartbeats are missing, in a few words.
pub fn silent(job: &JobStatus) -> Option<String> {
    let waits = job.waits.as_ref().filter(|waits| waits.silent_workers > 0)?;
    let (all, named) = (u64::from(waits.silent_workers), &waits.silent_worker_ids);
    let unnamed = all.saturating_sub(named.len() as u64);
    let (noun, verb) = if all == 1 { ("worker", "is") } else { ("workers", "are") };
    let names = plain(&named.join(", "));
    let subject = match (named.is_empty(), unnamed) {
        // A coordinator of an earlier release.
        (true, _) => counted(all, "worker"),
        (false, 0) => format!("{noun} {names}"),
        (false, unnamed) => format!("{noun} {names} and {} more", grouped(unnamed)),
    };
    Some(format!("{subject} {verb} silent"))
}

/// What the running tasks of a job wait for, in a few words; empty if none waits.
pub fn waiting(job: &JobStatus) -> String {
    let waits = job.waits.clone().unwrap_or_default();
    let kinds = [
        (waits.store, "the store"),
        (waits.memory, "memory"),
        (waits.worker, "other workers"),
        (waits.task, "other tasks"),
        (waits.slot, "a slot"),
    ];
    let tasks = kinds.iter().filter(|(count, _)| *count > 0).map(|(count, what)| {
        let verb = if *count == 1 { "waits" } else { "wait" };
        format!("{} {verb} for {what}", counted(*count, "task"))
    });
    silent(job).into_iter().chain(tasks).collect::<Vec<_>>().join(", ")
}

/// All jobs.
///
/// # Errors
/// See [`json`].
pub fn jobs(jobs: &[JobStatus], format: OutputFormat) -> Result<String, Stop> {
    if format == OutputFormat::Json {
        return json(&Jobs::from(jobs));
    }
    let head = ["JOB", "DATE", "STATE", "SUBMITTED", "ENDED"].map(String::from);
    let row = |job: &JobStatus| {
        let date = job.spec.as_ref().map_or("", |spec| &spec.date);
        let at = |millis| time(millis).unwrap_or_else(|| "-".into());
        [plain(&job.job), plain(date), doing(job), at(job.submitted_at), at(job.ended_at)]
    };
    Ok(columns(&std::iter::once(head).chain(jobs.iter().map(row)).collect::<Vec<_>>()))
}

/// One job.
///
/// # Errors
/// See [`json`].
pub fn job(job: &JobStatus, format: OutputFormat) -> Result<String, Stop> {
    if format == OutputFormat::Json {
        return json(&Job::from(job));
    }
    let mut rows = vec![["job".to_string(), plain(&job.job)], ["state".into(), doing(job)]];
    let mut add = |name: &str, value: String| rows.push([name.into(), plain(&value)]);
    if let Some(spec) = &job.spec {
        add("dataset", spec.dataset.clone());
        add("date", spec.date.clone());
        spec.inputs.iter().for_each(|input| add("input", input.clone()));
        add("output", spec.output.clone());
        for option in &spec.options {
            let digest = hex(&option.sha256);
            add("option", format!("{}: {}, SHA-256 {digest}", option.name, bytes(option.size)));
        }
    }
    time(job.submitted_at).into_iter().for_each(|at| add("submitted", at));
    time(job.ended_at).into_iter().for_each(|at| add("ended", at));
    if job.elapsed_millis > 0 {
        add("elapsed", age(job.elapsed_millis));
    }
    if let Some(left) = job.remaining_millis {
        add("remaining", format!("about {}", age(left)));
    }
    if !waiting(job).is_empty() {
        add("waiting", waiting(job));
    }
    if let Some(detail) =
        job.detail.as_ref().filter(|detail| detail.phase_millis > 0 && !is_over(job.state()))
    {
        add("phase", format!("{} for {}", job.phase, age(detail.phase_millis)));
    }
    if job.rows_done > 0 && !is_over(job.state()) {
        add("read", format!("{}, {}", counted(job.rows_done, "row"), bytes(job.bytes_done)));
    }
    if job.input_rows > 0 {
        add("input", format!("{}, {}", counted(job.input_rows, "row"), bytes(job.input_bytes)));
    }
    if !job.reason.is_empty() {
        add("reason", job.reason.clone());
    }
    let mut out = columns(&rows);
    if !job.stages.is_empty() {
        let head = ["stage", "tasks", "pending", "running", "done", "failed", "again", "speculative"];
        let row = |stage: &StageStatus| {
            let numbers = [
                stage.tasks,
                stage.pending,
                stage.running,
                stage.done,
                stage.failed_attempts,
                stage.reruns,
                stage.second_attempts,
            ];
            let mut row: [String; 8] = Default::default();
            row[0] = plain(&stage.name);
            row[1..].iter_mut().zip(numbers).for_each(|(cell, number)| *cell = grouped(number));
            row
        };
        let rows: Vec<_> =
            std::iter::once(head.map(String::from)).chain(job.stages.iter().map(row)).collect();
        out += &format!("\n{}", columns(&rows));
    }
    out += &show_detail::tables(job);
    if job.state() == JobState::Done
        && let Ok(summary) = serde_json::from_str::<Summary>(&job.summary)
    {
        out += &format!("\n{}", summary.table());
    }
    Ok(out)
}

/// All workers.
///
/// # Errors
/// See [`json`].
pub fn workers(workers: &[WorkerStatus], format: OutputFormat) -> Result<String, Stop> {
    if format == OutputFormat::Json {
        return json(&Workers::from(workers));
    }
    let head =
        ["WORKER", "STATE", "HOST", "SLOTS", "MEMORY", "SPILL", "OUTPUTS", "HEARTBEAT", "WAITING", "VERSION"];
    let row = |worker: &WorkerStatus| {
        [
            plain(&worker.worker),
            plain(&worker_state(worker)),
            plain(&worker.flight_address),
            format!("{}/{}", worker.running, worker.slots),
            worker_memory(worker),
            worker_spill(worker),
            grouped(worker.outputs),
            format!("{} ago", age(worker.heartbeat_age_millis)),
            worker_waits(worker),
            plain(&worker.version),
        ]
    };
    Ok(columns(&std::iter::once(head.map(String::from)).chain(workers.iter().map(row)).collect::<Vec<_>>()))
}

/// The state of a worker for people.
pub fn worker_state(worker: &WorkerStatus) -> String {
    match worker.silent {
        true => format!("silent for {}", age(worker.heartbeat_age_millis)),
        false => worker.state.clone(),
    }
}

/// Used memory of a worker and its limit.
pub fn worker_memory(worker: &WorkerStatus) -> String {
    format!("{}/{}", bytes(worker.memory_used), bytes(worker.memory_limit))
}

/// Used spill space of a worker and its limit.
pub fn worker_spill(worker: &WorkerStatus) -> String {
    match worker.spill_limit {
        // A worker of an earlier release.
        0 => bytes(worker.spilled_bytes),
        limit => format!("{}/{}", bytes(worker.spill_used), bytes(limit)),
    }
}

/// What the tasks of a worker wait for.
pub fn worker_waits(worker: &WorkerStatus) -> String {
    let waits = [
        (worker.waiting_for_store, "store"),
        (worker.waiting_for_memory, "memory"),
        (worker.waiting_for_workers, "workers"),
    ];
    let waits: Vec<_> = waits
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} for {what}"))
        .collect();
    if waits.is_empty() { "-".into() } else { waits.join(", ") }
}

/// One worker.
///
/// # Errors
/// See [`json`].
pub fn worker(worker: &WorkerStatus, format: OutputFormat) -> Result<String, Stop> {
    match format {
        OutputFormat::Json => json(&Worker::from(worker)),
        OutputFormat::Table => workers(std::slice::from_ref(worker), format),
    }
}

/// The effect of `cancel`, from the status in its answer.
///
/// # Errors
/// The job has already ended, or is being published and cannot be cancelled.
pub fn cancelled(job: &JobStatus) -> Result<(), Stop> {
    let id = &job.job;
    match job.state() {
        JobState::Publishing => {
            Err(Stop::Failed(format!("job {id} is being published: it cannot be cancelled")))
        }
        JobState::Cancelled => Ok(()),
        over if is_over(over) => Err(Stop::Failed(format!("job {id} has already ended: {}", state(over)))),
        _ => Ok(()),
    }
}
