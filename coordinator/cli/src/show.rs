//! Jobs and workers of a cluster as JSON and as tables. The JSON is stable: fields are added, never
//! changed.
//!
//! Not here: the requests (`tally_coordinator::client`).

use serde::Serialize;
use serde_json::value::RawValue;
use tally_coordinator::client::is_over;
use tally_coordinator::summary::{Summary, bytes, grouped};
use tally_proto::v1::{JobState, JobStatus, JobWaits, StageStatus, WorkerStatus};

use crate::Stop;
use crate::output::{OutputFormat, columns, json, plain, time};
use crate::show_detail::{self, Detail, age, seconds};

/// The state of a job in JSON.
pub fn state(state: JobState) -> &'static str {
    match state {
        JobState::Unspecified => "unknown",
        JobState::Running => "running",
        JobState::WaitingForWorkers => "waiting_for_workers",
        JobState::Publishing => "publishing",
        JobState::Done => "done",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}

#[derive(Serialize)]
struct Stage<'a> {
    name: &'a str,
    tasks: u64,
    pending: u64,
    running: u64,
    done: u64,
    failed_attempts: u64,
    reruns: u64,
    second_attempts: u64,
}

impl<'a> From<&'a StageStatus> for Stage<'a> {
    fn from(stage: &'a StageStatus) -> Self {
        Stage {
            name: &stage.name,
            tasks: stage.tasks,
            pending: stage.pending,
            running: stage.running,
            done: stage.done,
            failed_attempts: stage.failed_attempts,
            reruns: stage.reruns,
            second_attempts: stage.second_attempts,
        }
    }
}

/// What changes while a job runs.
#[derive(Serialize)]
struct Progress<'a> {
    job_id: &'a str,
    state: &'static str,
    phase: &'a str,
    input_rows: u64,
    input_bytes: u64,
    rows_done: u64,
    bytes_done: u64,
    stages: Vec<Stage<'a>>,
    waiting_tasks: WaitingTasks,
}

/// Running tasks that have waited for a second or longer, by what they wait for.
#[derive(Serialize)]
struct WaitingTasks {
    slot: u32,
    memory: u32,
    store: u32,
    worker: u32,
    task: u32,
    silent_workers: u32,
}

impl From<JobWaits> for WaitingTasks {
    fn from(waits: JobWaits) -> Self {
        let JobWaits { slot, memory, store, worker, task, silent_workers } = waits;
        WaitingTasks { slot, memory, store, worker, task, silent_workers }
    }
}

impl<'a> From<&'a JobStatus> for Progress<'a> {
    fn from(job: &'a JobStatus) -> Self {
        Progress {
            job_id: &job.job,
            state: state(job.state()),
            phase: &job.phase,
            input_rows: job.input_rows,
            input_bytes: job.input_bytes,
            rows_done: job.rows_done,
            bytes_done: job.bytes_done,
            waiting_tasks: job.waits.unwrap_or_default().into(),
            stages: job.stages.iter().map(Stage::from).collect(),
        }
    }
}

#[derive(Serialize)]
struct Job<'a> {
    #[serde(flatten)]
    progress: Progress<'a>,
    dataset: &'a str,
    date: &'a str,
    inputs: &'a [String],
    output: &'a str,
    target_file_size: u64,
    expectations: &'a [String],
    unmet_expectation: bool,
    submitted_at: Option<String>,
    ended_at: Option<String>,
    elapsed_seconds: f64,
    remaining_seconds: Option<f64>,
    cancelling: bool,
    reason: Option<&'a str>,
    summary: Option<&'a RawValue>,
    detail: Option<Detail<'a>>,
}

impl<'a> From<&'a JobStatus> for Job<'a> {
    fn from(job: &'a JobStatus) -> Self {
        let spec = job.spec.as_ref();
        let text = |text: Option<&'a String>| text.map_or("", String::as_str);
        Job {
            progress: job.into(),
            dataset: text(spec.map(|spec| &spec.dataset)),
            date: text(spec.map(|spec| &spec.date)),
            inputs: spec.map_or(&[], |spec| &spec.inputs),
            output: text(spec.map(|spec| &spec.output)),
            target_file_size: spec.map_or(0, |spec| spec.target_file_size),
            expectations: spec.map_or(&[], |spec| &spec.expectations),
            unmet_expectation: job.unmet_expectation,
            submitted_at: time(job.submitted_at),
            ended_at: time(job.ended_at),
            elapsed_seconds: seconds(job.elapsed_millis),
            remaining_seconds: job.remaining_millis.map(seconds),
            cancelling: job.cancelling,
            reason: Some(job.reason.as_str()).filter(|reason| !reason.is_empty()),
            // A summary that is not JSON would make the whole line invalid.
            summary: serde_json::from_str(&job.summary).ok(),
            detail: job.detail.as_ref().map(Detail::from),
        }
    }
}

#[derive(Serialize)]
struct Worker<'a> {
    worker_id: &'a str,
    state: &'a str,
    flight_address: &'a str,
    version: &'a str,
    slots: u32,
    running: u32,
    memory_limit: u64,
    memory_used: u64,
    spilled_bytes: u64,
    outputs: u64,
    heartbeat_age_seconds: f64,
    silent: bool,
    spill_used: u64,
    spill_limit: u64,
    resident_bytes: u64,
    waiting_for_memory: u32,
    waiting_for_store: u32,
    waiting_for_workers: u32,
}

impl<'a> From<&'a WorkerStatus> for Worker<'a> {
    fn from(worker: &'a WorkerStatus) -> Self {
        Worker {
            worker_id: &worker.worker,
            state: &worker.state,
            flight_address: &worker.flight_address,
            version: &worker.version,
            slots: worker.slots,
            running: worker.running,
            memory_limit: worker.memory_limit,
            memory_used: worker.memory_used,
            spilled_bytes: worker.spilled_bytes,
            outputs: worker.outputs,
            heartbeat_age_seconds: seconds(worker.heartbeat_age_millis),
            silent: worker.silent,
            spill_used: worker.spill_used,
            spill_limit: worker.spill_limit,
            resident_bytes: worker.resident_bytes,
            waiting_for_memory: worker.waiting_for_memory,
            waiting_for_store: worker.waiting_for_store,
            waiting_for_workers: worker.waiting_for_workers,
        }
    }
}

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
    let phase = if job.phase.is_empty() { "plan".to_string() } else { plain(&job.phase) };
    if job.cancelling && !is_over(job.state()) {
        return "cancelling".into();
    }
    match job.state() {
        JobState::WaitingForWorkers => format!("{phase} {done}/{all} tasks, waiting for workers"),
        JobState::Running if all == 0 => phase,
        JobState::Running => format!("{phase} {done}/{all} tasks"),
        other => state(other).replace('_', " "),
    }
}

/// What the running tasks of a job wait for, in a few words; empty if none waits.
pub fn waiting(job: &JobStatus) -> String {
    let waits = job.waits.unwrap_or_default();
    let kinds = [
        (waits.store, "wait for the store"),
        (waits.memory, "wait for memory"),
        (waits.worker, "wait for other workers"),
        (waits.task, "wait for other tasks"),
        (waits.slot, "wait for a slot"),
    ];
    let tasks = kinds.iter().filter(|(count, _)| *count > 0).map(|(count, what)| match count {
        1 => format!("1 task {}", what.replacen("wait", "waits", 1)),
        count => format!("{count} tasks {what}"),
    });
    let silent = match waits.silent_workers {
        0 => None,
        1 => Some("1 worker is silent".to_string()),
        count => Some(format!("{count} workers are silent")),
    };
    silent.into_iter().chain(tasks).collect::<Vec<_>>().join(", ")
}

/// All jobs.
///
/// # Errors
/// See [`json`].
pub fn jobs(jobs: &[JobStatus], format: OutputFormat) -> Result<String, Stop> {
    #[derive(Serialize)]
    struct Jobs<'a> {
        jobs: Vec<Job<'a>>,
    }
    if format == OutputFormat::Json {
        return json(&Jobs { jobs: jobs.iter().map(Job::from).collect() });
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
        add("read", format!("{} rows, {}", grouped(job.rows_done), bytes(job.bytes_done)));
    }
    if job.input_rows > 0 {
        add("input", format!("{} rows, {}", grouped(job.input_rows), bytes(job.input_bytes)));
    }
    if !job.reason.is_empty() {
        add("reason", job.reason.clone());
    }
    let mut out = columns(&rows);
    if !job.stages.is_empty() {
        let head = ["stage", "tasks", "pending", "running", "done", "failed", "again", "second"];
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
    #[derive(Serialize)]
    struct Workers<'a> {
        workers: Vec<Worker<'a>>,
    }
    if format == OutputFormat::Json {
        return json(&Workers { workers: workers.iter().map(Worker::from).collect() });
    }
    let head =
        ["WORKER", "STATE", "HOST", "SLOTS", "MEMORY", "SPILL", "OUTPUTS", "HEARTBEAT", "WAITING", "VERSION"];
    let row = |worker: &WorkerStatus| {
        let spill = match worker.spill_limit {
            // A worker of an earlier release.
            0 => bytes(worker.spilled_bytes),
            limit => format!("{}/{}", bytes(worker.spill_used), bytes(limit)),
        };
        [
            plain(&worker.worker),
            plain(&worker_state(worker)),
            plain(&worker.flight_address),
            format!("{}/{}", worker.running, worker.slots),
            format!("{}/{}", bytes(worker.memory_used), bytes(worker.memory_limit)),
            spill,
            grouped(worker.outputs),
            format!("{} ago", age(worker.heartbeat_age_millis)),
            worker_waits(worker),
            plain(&worker.version),
        ]
    };
    Ok(columns(&std::iter::once(head.map(String::from)).chain(workers.iter().map(row)).collect::<Vec<_>>()))
}

/// The state of a worker for people.
fn worker_state(worker: &WorkerStatus) -> String {
    match worker.silent {
        true => format!("silent for {}", age(worker.heartbeat_age_millis)),
        false => worker.state.clone(),
    }
}

/// What the tasks of a worker wait for.
fn worker_waits(worker: &WorkerStatus) -> String {
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
/// The job was over before, or is being published and cannot be cancelled.
pub fn cancelled(job: &JobStatus) -> Result<(), Stop> {
    let id = &job.job;
    match job.state() {
        JobState::Publishing => {
            Err(Stop::Failed(format!("job {id} is being published: it cannot be cancelled")))
        }
        JobState::Cancelled => Ok(()),
        over if is_over(over) => Err(Stop::Failed(format!("job {id} was over before: {}", state(over)))),
        _ => Ok(()),
    }
}
