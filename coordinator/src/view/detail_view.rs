//! The JSON of a job's detail and of its events: stages with rates, running tasks and what they wait for, incidents, skew.
//!
//! Not here: the job itself (`job_view`), tables for people (`cli`).

use serde::Serialize;
use tally_proto::ids::attempt_number;
use tally_proto::v1::{EventKind, EventPage, JobDetail, JobEvent, PartitionSkew, RunningTask, StageDetail};

use super::{seconds, time};

/// What a phase of a job cost.
#[derive(Serialize)]
pub struct StageTimes<'a> {
    name: &'a str,
    seconds: f64,
    rows: u64,
    bytes: u64,
    /// Rows per second of wall time.
    pub rows_per_second: Option<f64>,
    /// Bytes per second of wall time.
    pub bytes_per_second: Option<f64>,
    task_seconds: f64,
    failed_task_seconds: f64,
    memory_wait_seconds: f64,
    store_wait_seconds: f64,
    worker_wait_seconds: f64,
    peak_memory_bytes: u64,
    pending_reason: Option<&'a str>,
}

impl<'a> From<&'a StageDetail> for StageTimes<'a> {
    fn from(stage: &'a StageDetail) -> Self {
        let used = stage.r#use.unwrap_or_default();
        let wall = seconds(stage.millis);
        let rate = |sum: u64| (sum > 0 && wall > 0.0).then(|| (sum as f64 / wall).round());
        StageTimes {
            name: &stage.name,
            seconds: wall,
            rows: stage.rows,
            bytes: stage.bytes,
            rows_per_second: rate(stage.rows),
            bytes_per_second: rate(stage.bytes),
            task_seconds: seconds(used.task_millis),
            failed_task_seconds: seconds(used.failed_millis),
            memory_wait_seconds: seconds(used.memory_wait_millis),
            store_wait_seconds: seconds(used.store_wait_millis),
            worker_wait_seconds: seconds(used.worker_wait_millis),
            peak_memory_bytes: used.peak_memory_bytes,
            pending_reason: Some(stage.pending_reason.as_str()).filter(|reason| !reason.is_empty()),
        }
    }
}

#[derive(Serialize)]
struct Wait<'a> {
    kind: &'a str,
    subject: Option<&'a str>,
    seconds: f64,
}

#[derive(Serialize)]
struct Running<'a> {
    stage: &'a str,
    index: u32,
    attempt: u32,
    attempt_number: u32,
    worker_id: &'a str,
    host: &'a str,
    age_seconds: f64,
    speculative: bool,
    rows: u64,
    bytes: u64,
    waits_for: Option<Wait<'a>>,
    worker_silent_seconds: Option<f64>,
}

fn wait(task: &RunningTask) -> Option<Wait<'_>> {
    let subject = Some(task.wait_subject.as_str()).filter(|subject| !subject.is_empty());
    let wait = Wait { kind: &task.waits_for, subject, seconds: seconds(task.wait_millis) };
    (!task.waits_for.is_empty()).then_some(wait)
}

impl<'a> From<&'a RunningTask> for Running<'a> {
    fn from(task: &'a RunningTask) -> Self {
        Running {
            stage: &task.stage,
            index: task.index,
            attempt: task.attempt,
            attempt_number: attempt_number(task.attempt),
            worker_id: &task.worker,
            host: &task.host,
            age_seconds: seconds(task.age_millis),
            speculative: task.speculative,
            rows: task.rows,
            bytes: task.bytes,
            waits_for: wait(task),
            worker_silent_seconds: task.silent_millis.map(seconds),
        }
    }
}

/// An event in JSON.
#[derive(Serialize)]
pub struct Event<'a> {
    number: u64,
    at: Option<String>,
    kind: &'static str,
    stage: Option<&'a str>,
    index: Option<u32>,
    attempt: Option<u32>,
    attempt_number: Option<u32>,
    worker_id: Option<&'a str>,
    text: &'a str,
}

/// The name of a kind of events in JSON.
pub fn kind(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Unspecified => "unknown",
        EventKind::Accepted => "accepted",
        EventKind::StageBegun => "stage_begun",
        EventKind::StageEnded => "stage_ended",
        EventKind::AttemptFailed => "attempt_failed",
        EventKind::SpeculativeAttempt => "speculative_attempt",
        EventKind::WorkerAttached => "worker_attached",
        EventKind::WorkerDetached => "worker_detached",
        EventKind::WorkerLost => "worker_lost",
        EventKind::WorkerDraining => "worker_draining",
        EventKind::WorkerLeft => "worker_left",
        EventKind::Publish => "publish",
        EventKind::TakenOver => "taken_over",
        EventKind::Cancelled => "cancelled",
        EventKind::Ended => "ended",
    }
}

impl<'a> From<&'a JobEvent> for Event<'a> {
    fn from(event: &'a JobEvent) -> Self {
        let text = |text: &'a String| Some(text.as_str()).filter(|text| !text.is_empty());
        Event {
            number: event.number,
            at: time(event.at),
            kind: kind(event.kind()),
            stage: text(&event.stage),
            index: event.index,
            attempt: event.attempt,
            attempt_number: event.attempt.map(attempt_number),
            worker_id: text(&event.worker),
            text: &event.text,
        }
    }
}

#[derive(Serialize)]
struct Skew {
    partitions: u64,
    largest: u32,
    largest_rows: u64,
    median_rows: u64,
}

/// The field `detail` of a job.
#[derive(Serialize)]
pub struct Detail<'a> {
    phase_seconds: f64,
    stage_times: Vec<StageTimes<'a>>,
    running: Vec<Running<'a>>,
    running_left_out: u64,
    incidents: Vec<Event<'a>>,
    incidents_left_out: u64,
    partitions: Option<Skew>,
}

impl<'a> From<&'a JobDetail> for Detail<'a> {
    fn from(detail: &'a JobDetail) -> Self {
        let PartitionSkew { partitions, largest, largest_rows, median_rows } =
            detail.skew.unwrap_or_default();
        Detail {
            phase_seconds: seconds(detail.phase_millis),
            stage_times: detail.stages.iter().map(StageTimes::from).collect(),
            running: detail.running.iter().map(Running::from).collect(),
            running_left_out: detail.running_left_out,
            incidents: detail.incidents.iter().map(Event::from).collect(),
            incidents_left_out: detail.incidents_left_out,
            partitions: detail.skew.map(|_| Skew { partitions, largest, largest_rows, median_rows }),
        }
    }
}

/// A page of a job's events in JSON.
#[derive(Serialize)]
pub struct Events<'a> {
    job_id: &'a str,
    events: Vec<Event<'a>>,
    left_out: u64,
    over: bool,
}

impl<'a> From<&'a EventPage> for Events<'a> {
    fn from(page: &'a EventPage) -> Self {
        Events {
            job_id: &page.job,
            events: page.events.iter().map(Event::from).collect(),
            left_out: page.left_out,
            over: page.over,
        }
    }
}

#[cfg(test)]
mod tests {
    use tally_proto::ids::MAX_ID_BYTES;
    use tally_proto::{AttemptId, JobId, StageId, TaskId, WorkerId, v1};

    use super::*;
    use crate::attempt_log::{AttemptEnd, AttemptLog, MAX_ATTEMPTS};
    use crate::driver::describe::tests::largest_task;
    use crate::driver::describe::{MAX_INCIDENTS, MAX_RUNNING};
    use crate::events::MAX_TEXT;
    use crate::view::{Attempts, Job, json};

    /// The sizes that the documentation of the HTTP API states.
    #[test]
    fn the_largest_events_have_the_documented_size() {
        let id = "w".repeat(MAX_ID_BYTES);
        let incident = JobEvent {
            number: u64::MAX,
            at: 1 << 40,
            kind: EventKind::AttemptFailed.into(),
            stage: "reduce".into(),
            index: Some(u32::MAX),
            attempt: Some(u32::MAX),
            worker: id.clone(),
            text: "t".repeat(MAX_TEXT),
        };
        let detail = JobDetail {
            running: vec![largest_task(); MAX_RUNNING],
            incidents: vec![incident; MAX_INCIDENTS],
            ..JobDetail::default()
        };
        let status = v1::JobStatus { detail: Some(detail), ..Default::default() };
        let size = json(&Job::from(&status)).unwrap().len();
        assert!(size < 640 << 10, "{size} bytes");
        let (job, worker) = (JobId::parse(&id).unwrap(), WorkerId::parse(&id).unwrap());
        let task = TaskId { job, stage: StageId(1), index: u32::MAX };
        let attempt = AttemptId { task, attempt: u32::MAX };
        let mut log = AttemptLog::default();
        for _ in 0..MAX_ATTEMPTS {
            log.push(&worker, &attempt, (1 << 40, 1 << 39), AttemptEnd::Stopped);
        }
        let size = json(&Attempts::new(&id, &log.after(0))).unwrap().len();
        assert!(size < 160 << 10, "{size} bytes");
    }
}
