//! The JSON of the attempts of a job that ended.
//!
//! Not here: running attempts (`detail_view`).

use serde::Serialize;
use tally_proto::ids::attempt_number;

use super::{seconds, time};
use crate::attempt_log::{AttemptEnd, AttemptPage, EndedAttempt};
use crate::job::STAGES;

/// An attempt that ended.
#[derive(Serialize)]
struct Attempt<'a> {
    number: u64,
    stage: &'static str,
    index: u32,
    attempt: u32,
    attempt_number: u32,
    worker_id: &'a str,
    started_at: Option<String>,
    seconds: f64,
    end: &'static str,
}

impl<'a> From<&'a EndedAttempt> for Attempt<'a> {
    fn from(ended: &'a EndedAttempt) -> Self {
        let task = &ended.attempt.task;
        Attempt {
            number: ended.number,
            stage: STAGES.get(task.stage.0 as usize).copied().unwrap_or_default(),
            index: task.index,
            attempt: ended.attempt.attempt,
            attempt_number: attempt_number(ended.attempt.attempt),
            worker_id: ended.worker.as_str(),
            started_at: time(ended.started_at),
            seconds: seconds(ended.millis),
            end: match ended.end {
                AttemptEnd::Done => "done",
                AttemptEnd::Failed => "failed",
                AttemptEnd::Stopped => "stopped",
            },
        }
    }
}

/// A page of the ended attempts of a job.
#[derive(Serialize)]
pub struct Attempts<'a> {
    job_id: &'a str,
    attempts: Vec<Attempt<'a>>,
    left_out: u64,
}

impl<'a> Attempts<'a> {
    /// Attempts of that job.
    pub fn new(job_id: &'a str, page: &'a AttemptPage) -> Self {
        Attempts {
            job_id,
            attempts: page.attempts.iter().map(Attempt::from).collect(),
            left_out: page.left_out,
        }
    }
}
