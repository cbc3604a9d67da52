//! The JSON of jobs: their progress, and all that is known of them.
//!
//! Not here: the detail of one job (`detail_view`), tables for people (`cli`).

use serde::Serialize;
use serde_json::value::RawValue;
use tally_common::sha256::hex;
use tally_proto::v1::{self, JobState, JobStatus, JobWaits, StageStatus};

use super::detail_view::Detail;
use super::{seconds, time};

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

/// The tasks of a stage, by state.
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
pub struct Progress<'a> {
    job_id: &'a str,
    state: &'static str,
    phase: &'a str,
    input_rows: u64,
    input_bytes: u64,
    rows_done: u64,
    bytes_done: u64,
    stages: Vec<Stage<'a>>,
    waiting_tasks: WaitingTasks<'a>,
}

/// Running tasks that have waited for a second or longer, by what they wait for.
#[derive(Default, Serialize)]
struct WaitingTasks<'a> {
    slot: u32,
    memory: u32,
    store: u32,
    worker: u32,
    task: u32,
    silent_workers: u32,
    silent_worker_ids: &'a [String],
}

impl<'a> From<&'a JobWaits> for WaitingTasks<'a> {
    fn from(waits: &'a JobWaits) -> Self {
        let &JobWaits { slot, memory, store, worker, task, silent_workers, ref silent_worker_ids } = waits;
        WaitingTasks { slot, memory, store, worker, task, silent_workers, silent_worker_ids }
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
            waiting_tasks: job.waits.as_ref().map(WaitingTasks::from).unwrap_or_default(),
            stages: job.stages.iter().map(Stage::from).collect(),
        }
    }
}

/// An option of a job's dataset, without its content.
#[derive(Serialize)]
struct DatasetOption<'a> {
    name: &'a str,
    bytes: u64,
    sha256: String,
}

impl<'a> From<&'a v1::DatasetOption> for DatasetOption<'a> {
    fn from(option: &'a v1::DatasetOption) -> Self {
        DatasetOption { name: &option.name, bytes: option.size, sha256: hex(&option.sha256) }
    }
}

/// A job.
#[derive(Serialize)]
pub struct Job<'a> {
    #[serde(flatten)]
    progress: Progress<'a>,
    dataset: &'a str,
    date: &'a str,
    inputs: &'a [String],
    output: &'a str,
    target_file_size: u64,
    expectations: &'a [String],
    dataset_options: Vec<DatasetOption<'a>>,
    unmet_expectation: bool,
    ready_marker: Option<&'a str>,
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
            dataset_options: spec.iter().flat_map(|spec| &spec.options).map(DatasetOption::from).collect(),
            unmet_expectation: job.unmet_expectation,
            ready_marker: spec.and_then(|spec| spec.ready_marker.as_deref()),
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

/// A page of jobs, newest first.
#[derive(Serialize)]
pub struct Jobs<'a> {
    jobs: Vec<Job<'a>>,
}

impl<'a> From<&'a [JobStatus]> for Jobs<'a> {
    fn from(jobs: &'a [JobStatus]) -> Self {
        Jobs { jobs: jobs.iter().map(Job::from).collect() }
    }
}
