//! The attempts of a job that ended last, so that clients can draw when each worker ran what. Pure and bounded: the oldest
//! are left out first. Only the leader's memory has them.
//!
//! Not here: when an attempt ends (the driver), running attempts (`driver::describe`).

use std::collections::VecDeque;

use tally_proto::{AttemptId, WorkerId};

/// The most attempts in a list.
pub const MAX_ATTEMPTS: usize = 500;

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptEnd {
    /// Its result arrived.
    Done,
    /// It failed, or its worker was lost.
    Failed,
    /// It was asked to stop, because another attempt was faster or the job ended. It may have run on for a moment.
    Stopped,
}

/// An attempt that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedAttempt {
    /// Its number in the list, in ascending order from 1.
    pub number: u64,
    /// The attempt.
    pub attempt: AttemptId,
    /// Its worker.
    pub worker: WorkerId,
    /// When it was started, in milliseconds since 1970.
    pub started_at: u64,
    /// How long it ran, in milliseconds.
    pub millis: u64,
    /// How it ended.
    pub end: AttemptEnd,
}

/// The ended attempts of a job, oldest first.
#[derive(Debug, Clone, Default)]
pub struct AttemptLog {
    attempts: VecDeque<EndedAttempt>,
    /// The number of the last one.
    last: u64,
}

/// Some of the ended attempts of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttemptPage {
    /// Oldest first.
    pub attempts: Vec<EndedAttempt>,
    /// The number of attempts that are no longer known.
    pub left_out: u64,
}

impl AttemptLog {
    /// Adds an attempt that ended at `now`, in milliseconds since 1970, after `millis`.
    pub fn push(
        &mut self,
        worker: &WorkerId,
        attempt: &AttemptId,
        (now, millis): (u64, u64),
        end: AttemptEnd,
    ) {
        self.last += 1;
        self.attempts.push_back(EndedAttempt {
            number: self.last,
            attempt: attempt.clone(),
            worker: worker.clone(),
            started_at: now.saturating_sub(millis),
            millis,
            end,
        });
        if self.attempts.len() > MAX_ATTEMPTS {
            self.attempts.pop_front();
        }
    }

    /// The attempts with larger numbers.
    pub fn after(&self, number: u64) -> AttemptPage {
        AttemptPage {
            attempts: self.attempts.iter().filter(|ended| ended.number > number).cloned().collect(),
            left_out: self.last - self.attempts.len() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use tally_proto::{JobId, StageId, TaskId};

    use super::*;

    #[test]
    fn the_oldest_attempts_are_left_out_and_counted() {
        let task = TaskId { job: JobId::parse("j").unwrap(), stage: StageId(0), index: 0 };
        let worker = WorkerId::parse("w").unwrap();
        let mut log = AttemptLog::default();
        for attempt in 0..MAX_ATTEMPTS as u32 + 7 {
            let attempt = AttemptId { task: task.clone(), attempt };
            log.push(&worker, &attempt, (10_000, 400), AttemptEnd::Done);
        }
        let page = log.after(0);
        assert_eq!((page.attempts.len(), page.left_out), (MAX_ATTEMPTS, 7));
        assert_eq!((page.attempts[0].number, page.attempts[0].started_at), (8, 9_600));
        let last = MAX_ATTEMPTS as u64 + 6;
        assert_eq!(log.after(last).attempts.len(), 1);
        assert_eq!(log.after(last + 1).attempts, []);
    }
}
