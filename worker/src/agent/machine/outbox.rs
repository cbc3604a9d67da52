//! Events that are not reported to the coordinator yet: ends of attempts, and of output migrations.
//!
//! The outbox outlives streams: unreported events wait for the next one. Not here: the stream.

use std::collections::{BTreeSet, VecDeque};

use prost::Message as _;
use tally_proto::limits::{self, shorten};
use tally_proto::{AttemptId, Failure, JobId, WorkerId, v1};
use v1::worker_message::Message;

/// An event to report.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// An attempt ended.
    Ended(AttemptId, Result<v1::TaskResult, Failure>),
    /// An output was migrated to another worker.
    Migrated(AttemptId, WorkerId),
    /// An output was not migrated to another worker, with the reason.
    NotMigrated(AttemptId, WorkerId, String),
}

impl Fact {
    fn attempt(&self) -> &AttemptId {
        match self {
            Fact::Ended(attempt, _) | Fact::Migrated(attempt, _) | Fact::NotMigrated(attempt, ..) => attempt,
        }
    }

    /// The message that reports it.
    pub fn message(self) -> Message {
        match self {
            Fact::Ended(attempt, outcome) => {
                use v1::ended::Outcome;
                let outcome =
                    match outcome.and_then(|result| check_result(&attempt, &result).map(|()| result)) {
                        Ok(result) => Outcome::Done(result),
                        Err(failure) => Outcome::Failure((&failure).into()),
                    };
                Message::Ended(v1::Ended { attempt: Some((&attempt).into()), outcome: Some(outcome) })
            }
            Fact::Migrated(attempt, to) => Message::OutputMigrated(v1::OutputMigrated {
                attempt: Some((&attempt).into()),
                to: to.to_string(),
            }),
            Fact::NotMigrated(attempt, to, reason) => {
                let (attempt, reason) = (Some((&attempt).into()), shorten(&reason).into_owned());
                Message::MigrationFailed(v1::MigrationFailed { attempt, to: to.to_string(), reason })
            }
        }
    }
}

/// Bytes of a message around a result: the attempt, and the lengths of the parts.
const AROUND_RESULT: usize = 256;

/// Checks that a message with this result can be sent.
///
/// # Errors
/// The coordinator would end the stream. The results of all attempts of a task have about the same size.
pub fn check_result(attempt: &AttemptId, result: &v1::TaskResult) -> Result<(), Failure> {
    limits::check(result.encoded_len() + AROUND_RESULT).map_err(|excess| Failure::Fatal {
        reason: format!("the result of {attempt} cannot be reported: {excess}"),
    })
}

/// Unreported events, in the order in which they occurred.
#[derive(Debug)]
pub struct Outbox {
    waiting: VecDeque<Fact>,
    most: usize,
}

impl Outbox {
    /// An outbox of up to `most` events. Beyond that the oldest event is dropped, and its task or migration is
    /// repeated.
    pub fn new(most: usize) -> Self {
        Outbox { waiting: VecDeque::new(), most: most.max(1) }
    }

    /// Adds an event.
    pub fn push(&mut self, fact: Fact) {
        if self.waiting.len() == self.most
            && let Some(dropped) = self.waiting.pop_front()
        {
            tracing::warn!(attempt = %dropped.attempt(), "too many events are unreported: the oldest is dropped");
        }
        self.waiting.push_back(fact);
    }

    /// Takes the oldest event.
    pub fn take(&mut self) -> Option<Fact> {
        self.waiting.pop_front()
    }

    /// Number of events.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Drops events that an inventory reports as well: ends of attempts whose outputs it lists. Returns the attempts
    /// with unreported ends, which still run from the coordinator's point of view.
    pub fn unreported(&mut self, listed: impl Fn(&AttemptId) -> bool) -> BTreeSet<AttemptId> {
        self.waiting.retain(|fact| !matches!(fact, Fact::Ended(attempt, Ok(_)) if listed(attempt)));
        let ended = self.waiting.iter().filter(|fact| matches!(fact, Fact::Ended(..)));
        ended.map(|fact| fact.attempt().clone()).collect()
    }

    /// Drops the migration events of a job. Ends of its attempts are still reported, because until then the coordinator
    /// counts their slots as used.
    pub fn release(&mut self, job: &JobId) {
        let reported = |fact: &Fact| matches!(fact, Fact::Ended(..)) || fact.attempt().task.job != *job;
        self.waiting.retain(reported);
    }
}

#[cfg(test)]
mod tests {
    use tally_proto::{StageId, TaskId};

    use super::*;

    fn attempt(job: &str, index: u32) -> AttemptId {
        let job = JobId::parse(job).unwrap();
        AttemptId { task: TaskId { job, stage: StageId(0), index }, attempt: 7 }
    }

    fn done(index: u32) -> Fact {
        Fact::Ended(attempt("j", index), Ok(v1::TaskResult::default()))
    }

    fn failed(job: &str, index: u32) -> Fact {
        Fact::Ended(attempt(job, index), Err(Failure::Retryable { reason: "why".into() }))
    }

    #[test]
    fn events_in_an_inventory_are_dropped_and_other_ended_attempts_count_as_running() {
        let mut outbox = Outbox::new(10);
        let moved = Fact::Migrated(attempt("j", 4), WorkerId::parse("w").unwrap());
        for fact in [done(1), done(2), failed("j", 3), moved.clone()] {
            outbox.push(fact);
        }
        let unreported = outbox.unreported(|listed| listed.task.index == 1);
        assert_eq!(unreported, BTreeSet::from([attempt("j", 2), attempt("j", 3)]));
        let reported: Vec<_> = std::iter::from_fn(|| outbox.take()).collect();
        assert_eq!(reported, [done(2), failed("j", 3), moved]);
    }

    #[test]
    fn the_oldest_event_is_dropped_if_too_many_wait() {
        let mut outbox = Outbox::new(2);
        (0..3).for_each(|index| outbox.push(failed("j", index)));
        assert_eq!((outbox.take(), outbox.take()), (Some(failed("j", 1)), Some(failed("j", 2))));
    }

    #[test]
    fn only_ends_of_attempts_are_reported_of_a_released_job() {
        let mut outbox = Outbox::new(10);
        let to = WorkerId::parse("w").unwrap();
        outbox.push(failed("released", 1));
        for job in ["released", "j"] {
            outbox.push(Fact::Migrated(attempt(job, 2), to.clone()));
        }
        outbox.release(&JobId::parse("released").unwrap());
        let reported: Vec<_> = std::iter::from_fn(|| outbox.take()).collect();
        assert_eq!(reported, [failed("released", 1), Fact::Migrated(attempt("j", 2), to)]);
    }

    #[test]
    fn a_result_that_does_not_fit_into_a_message_is_reported_as_a_failure() {
        use v1::ended::Outcome;
        let ended = |bytes: usize| {
            let result = v1::WriteResult { parts: vec!["x".repeat(bytes)], ..Default::default() };
            let result = v1::TaskResult { result: Some(v1::task_result::Result::Write(result)), usage: None };
            let Message::Ended(ended) = Fact::Ended(attempt(&"j".repeat(64), u32::MAX), Ok(result)).message()
            else {
                panic!("another message")
            };
            let message = v1::WorkerMessage { message: Some(Message::Ended(ended.clone())) };
            assert!(limits::check(message.encoded_len()).is_ok(), "{bytes} bytes");
            ended.outcome.unwrap()
        };
        // The length of the text has four bytes, and so have those of the parts around it.
        let most = limits::MESSAGE_BYTES - AROUND_RESULT - 10;
        assert!(matches!(ended(most), Outcome::Done(_)));
        for bytes in [most + 1, most + AROUND_RESULT, 2 * limits::MESSAGE_BYTES] {
            let Outcome::Failure(failure) = ended(bytes) else { panic!("{bytes} bytes are sent") };
            let Ok(Failure::Fatal { reason }) = Failure::try_from(&failure) else { panic!("{failure:?}") };
            assert!(reason.contains("cannot be reported"), "{reason}");
        }
    }
}
