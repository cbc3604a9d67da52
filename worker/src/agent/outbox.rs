//! What the coordinator has yet to be told: ends of attempts, and of hand-overs.
//!
//! Outlives the stream: what could not be said waits for the next one. Not here: the stream.

use std::collections::{BTreeSet, VecDeque};

use parking_lot::Mutex;
use tally_proto::{AttemptId, Failure, JobId, WorkerId, v1};
use tokio::sync::Notify;
use v1::worker_message::Message;

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// An attempt is over.
    Ended(AttemptId, Result<v1::TaskResult, Failure>),
    /// Another worker has taken an output over.
    Moved(AttemptId, WorkerId),
    /// It was to, and did not, for this reason.
    NotMoved(AttemptId, WorkerId, String),
}

impl Fact {
    fn attempt(&self) -> &AttemptId {
        match self {
            Fact::Ended(attempt, _) | Fact::Moved(attempt, _) | Fact::NotMoved(attempt, ..) => attempt,
        }
    }

    /// The message that says it.
    pub fn message(self) -> Message {
        match self {
            Fact::Ended(attempt, outcome) => {
                use v1::ended::Outcome;
                let outcome = match outcome {
                    Ok(result) => Outcome::Done(result),
                    Err(failure) => Outcome::Failure((&failure).into()),
                };
                Message::Ended(v1::Ended { attempt: Some((&attempt).into()), outcome: Some(outcome) })
            }
            Fact::Moved(attempt, to) => {
                Message::Moved(v1::Moved { attempt: Some((&attempt).into()), to: to.to_string() })
            }
            Fact::NotMoved(attempt, to, reason) => {
                let attempt = Some((&attempt).into());
                Message::NotMoved(v1::NotMoved { attempt, to: to.to_string(), reason })
            }
        }
    }
}

/// Facts that wait to be told, in the order in which they happened.
#[derive(Debug)]
pub struct Outbox {
    waiting: Mutex<VecDeque<Fact>>,
    most: usize,
    news: Notify,
}

impl Outbox {
    /// An outbox for up to `most` facts; beyond, the oldest is dropped, and what it was about done
    /// again.
    pub fn new(most: usize) -> Self {
        Outbox { waiting: Mutex::default(), most: most.max(1), news: Notify::new() }
    }

    /// Adds a fact.
    pub fn push(&self, fact: Fact) {
        let mut waiting = self.waiting.lock();
        if waiting.len() == self.most
            && let Some(dropped) = waiting.pop_front()
        {
            tracing::warn!(attempt = %dropped.attempt(), "too much is unsaid: its end is forgotten");
        }
        waiting.push_back(fact);
        drop(waiting);
        self.news.notify_one();
    }

    /// Takes the oldest fact.
    pub fn take(&self) -> Option<Fact> {
        self.waiting.lock().pop_front()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.lock().len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Resolves when there is something to tell.
    pub async fn news(&self) {
        while self.is_empty() {
            self.news.notified().await;
        }
    }

    /// Forgets what an inventory tells as well: ends of attempts whose outputs it lists. Gives the
    /// attempts whose ends are yet to be told: to the coordinator they still run.
    pub fn untold(&self, listed: impl Fn(&AttemptId) -> bool) -> BTreeSet<AttemptId> {
        let mut waiting = self.waiting.lock();
        waiting.retain(|fact| !matches!(fact, Fact::Ended(attempt, Ok(_)) if listed(attempt)));
        let ended = waiting.iter().filter(|fact| matches!(fact, Fact::Ended(..)));
        ended.map(|fact| fact.attempt().clone()).collect()
    }

    /// Forgets where outputs of a job went. Ends of its attempts are told all the same: until then
    /// they take slots in the coordinator's books.
    pub fn release(&self, job: &JobId) {
        let told = |fact: &Fact| matches!(fact, Fact::Ended(..)) || fact.attempt().task.job != *job;
        self.waiting.lock().retain(told);
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
    fn what_an_inventory_lists_is_not_told_twice_and_the_rest_counts_as_running() {
        let outbox = Outbox::new(10);
        let moved = Fact::Moved(attempt("j", 4), WorkerId::parse("w").unwrap());
        for fact in [done(1), done(2), failed("j", 3), moved.clone()] {
            outbox.push(fact);
        }
        let untold = outbox.untold(|listed| listed.task.index == 1);
        assert_eq!(untold, BTreeSet::from([attempt("j", 2), attempt("j", 3)]));
        let told: Vec<_> = std::iter::from_fn(|| outbox.take()).collect();
        assert_eq!(told, [done(2), failed("j", 3), moved]);
    }

    #[test]
    fn the_oldest_goes_where_too_much_is_unsaid() {
        let outbox = Outbox::new(2);
        (0..3).for_each(|index| outbox.push(failed("j", index)));
        assert_eq!((outbox.take(), outbox.take()), (Some(failed("j", 1)), Some(failed("j", 2))));
    }

    #[test]
    fn of_a_job_that_is_released_only_the_ends_of_attempts_are_told() {
        let outbox = Outbox::new(10);
        let to = WorkerId::parse("w").unwrap();
        outbox.push(failed("gone", 1));
        for job in ["gone", "j"] {
            outbox.push(Fact::Moved(attempt(job, 2), to.clone()));
        }
        outbox.release(&JobId::parse("gone").unwrap());
        let told: Vec<_> = std::iter::from_fn(|| outbox.take()).collect();
        assert_eq!(told, [failed("gone", 1), Fact::Moved(attempt("j", 2), to)]);
    }

    #[tokio::test]
    async fn whoever_waits_for_news_hears_of_what_came_before_and_after() {
        let outbox = Outbox::new(10);
        outbox.push(done(1));
        outbox.news().await;
        outbox.take();
        let (_, ()) = tokio::join!(outbox.news(), async { outbox.push(done(2)) });
        assert_eq!(outbox.take(), Some(done(2)));
    }
}
