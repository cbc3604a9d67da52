//! Output migrations, as the coordinator requests them: which output is sent next, what is tried again and when, and
//! what is reported.
//!
//! Requests are carried out one after another, each with a few outputs at a time. Not here: which output goes to which
//! worker (the coordinator), the transfer (`flight`).

use std::collections::VecDeque;
use std::time::Duration;

use tally_common::retry::RetryPolicy;
use tally_proto::{AttemptId, WorkerId, v1};
use tally_shuffle::flight::MigrationError;
use tally_shuffle::peers::OutputLocation;

use super::messages::AgentOutput;
use super::outbox::Fact;

/// Maximum number of waiting requests. The coordinator repeats requests that are dropped.
const MAX_WAITING: usize = 64;
/// Outputs that are migrated concurrently.
const MAX_CONCURRENT: usize = 4;
/// The delays before retries if the receiver is busy or does not know the job yet.
const RETRY: RetryPolicy = RetryPolicy::listed(&[100, 200, 400, 800]);

/// The requested migrations.
#[derive(Debug, Default)]
pub struct Migrations {
    waiting: VecDeque<v1::MigrateOutputs>,
    current: Option<Request>,
}

/// The request that is carried out.
#[derive(Debug)]
struct Request {
    to: OutputLocation,
    /// Outputs that are not tried yet.
    waiting: VecDeque<AttemptId>,
    transfers: Vec<Transfer>,
    /// The receiver accepts nothing, so the other outputs are not tried.
    refuses: bool,
}

/// The migration of one output.
#[derive(Debug)]
struct Transfer {
    attempt: AttemptId,
    retries: u32,
    /// When it is tried again; `None` while it runs.
    retry_at: Option<Duration>,
}

impl Migrations {
    /// Queues a request.
    pub fn request(&mut self, request: v1::MigrateOutputs) {
        if self.waiting.len() == MAX_WAITING {
            tracing::warn!("too many output migrations wait: the coordinator will repeat this request");
            return;
        }
        self.waiting.push_back(request);
    }

    /// Begins what is due. Returns the transfers to start, and what to report of outputs that are not tried.
    pub fn advance(&mut self, now: Duration) -> (Vec<AgentOutput>, Vec<Fact>) {
        let (mut start, mut facts) = (vec![], vec![]);
        loop {
            let Some(request) = &mut self.current else {
                let Some(next) = self.waiting.pop_front() else { break };
                self.current = Request::new(next);
                continue;
            };
            request.advance(now, &mut start, &mut facts);
            if !request.transfers.is_empty() {
                break;
            }
            self.current = None;
        }
        (start, facts)
    }

    /// Processes the result of a transfer. Returns what to report: nothing if the output is tried again.
    pub fn ended(
        &mut self,
        now: Duration,
        attempt: &AttemptId,
        to: &WorkerId,
        outcome: Result<(), MigrationError>,
    ) -> Option<Fact> {
        let request = self.current.as_mut().filter(|request| request.to.worker == *to)?;
        let runs = |transfer: &Transfer| transfer.retry_at.is_none() && transfer.attempt == *attempt;
        let index = request.transfers.iter().position(runs)?;
        let transfer = &mut request.transfers[index];
        let error = match outcome {
            Ok(()) => {
                tracing::debug!(%attempt, %to, "an output was migrated");
                request.transfers.swap_remove(index);
                return Some(Fact::Migrated(attempt.clone(), to.clone()));
            }
            Err(error) => error,
        };
        if let MigrationError::Refused { .. } = error
            && let Some(delay) = RETRY.next_delay(transfer.retries, Duration::ZERO, 0.0)
        {
            transfer.retries += 1;
            transfer.retry_at = Some(now.saturating_add(delay));
            return None;
        }
        request.refuses |= !matches!(error, MigrationError::Removed(_));
        request.transfers.swap_remove(index);
        Some(request.failed(attempt.clone(), error.to_string()))
    }

    /// When something is due without another input.
    pub fn next_wakeup(&self) -> Option<Duration> {
        let transfers = self.current.iter().flat_map(|request| &request.transfers);
        transfers.filter_map(|transfer| transfer.retry_at).min()
    }
}

impl Request {
    /// `None` if the receiver is invalid.
    fn new(request: v1::MigrateOutputs) -> Option<Self> {
        let worker = WorkerId::parse(&request.to)
            .inspect_err(
                |error| tracing::warn!(%error, "an output migration to an invalid worker was ignored"),
            )
            .ok()?;
        let parse = |attempt: &v1::Attempt| {
            AttemptId::try_from(attempt).inspect_err(
                |error| tracing::warn!(%error, "an output migration of an invalid attempt was ignored"),
            )
        };
        Some(Request {
            to: OutputLocation { worker, address: request.flight_address },
            waiting: request.attempts.iter().flat_map(parse).collect(),
            transfers: vec![],
            refuses: false,
        })
    }

    fn advance(&mut self, now: Duration, start: &mut Vec<AgentOutput>, facts: &mut Vec<Fact>) {
        if self.refuses {
            let delayed = self.transfers.extract_if(.., |transfer| transfer.retry_at.is_some());
            let skipped: Vec<_> =
                delayed.map(|transfer| transfer.attempt).chain(self.waiting.drain(..)).collect();
            let reason =
                format!("worker {} did not accept another output of the same request", self.to.worker);
            facts.extend(skipped.into_iter().map(|attempt| self.failed(attempt, reason.clone())));
            return;
        }
        for transfer in self.transfers.iter_mut().filter(|it| it.retry_at.is_some_and(|at| at <= now)) {
            transfer.retry_at = None;
            start.push(AgentOutput::Migrate { to: self.to.clone(), attempt: transfer.attempt.clone() });
        }
        while self.transfers.len() < MAX_CONCURRENT
            && let Some(attempt) = self.waiting.pop_front()
        {
            start.push(AgentOutput::Migrate { to: self.to.clone(), attempt: attempt.clone() });
            self.transfers.push(Transfer { attempt, retries: 0, retry_at: None });
        }
    }

    /// The report that an output was not migrated.
    fn failed(&self, attempt: AttemptId, reason: String) -> Fact {
        tracing::warn!(%attempt, to = %self.to.worker, at = self.to.address, reason, "an output was not migrated");
        Fact::NotMigrated(attempt, self.to.worker.clone(), reason)
    }
}

#[cfg(test)]
mod tests {
    use tally_proto::{JobId, StageId, TaskId};

    use super::*;

    fn attempt(index: u32) -> AttemptId {
        AttemptId { task: TaskId { job: JobId::parse("j").unwrap(), stage: StageId(0), index }, attempt: 7 }
    }

    fn worker() -> WorkerId {
        WorkerId::parse("w").unwrap()
    }

    fn request(indices: std::ops::Range<u32>) -> v1::MigrateOutputs {
        let attempts = indices.map(|index| (&attempt(index)).into()).collect();
        v1::MigrateOutputs { to: "w".into(), flight_address: "w:1".into(), attempts }
    }

    fn refused(index: u32) -> Result<(), MigrationError> {
        let reason = "busy".into();
        Err(MigrationError::Refused { worker: "w".into(), attempt: attempt(index), reason })
    }

    /// The indices of the outputs that are started, and of those that are reported as not migrated.
    fn advance(migrations: &mut Migrations, now: Duration) -> (Vec<u32>, Vec<u32>) {
        let (start, facts) = migrations.advance(now);
        let started = start.iter().map(|output| match output {
            AgentOutput::Migrate { attempt, to } if to.worker == worker() => attempt.task.index,
            other => panic!("{other:?}"),
        });
        let skipped = facts.iter().map(|fact| match fact {
            Fact::NotMigrated(attempt, ..) => attempt.task.index,
            other => panic!("{other:?}"),
        });
        (started.collect(), skipped.collect())
    }

    #[test]
    fn a_few_outputs_are_sent_at_a_time_and_requests_follow_each_other() {
        let mut migrations = Migrations::default();
        migrations.request(request(0..5));
        migrations.request(request(5..6));
        assert_eq!(advance(&mut migrations, Duration::ZERO), (vec![0, 1, 2, 3], vec![]));
        assert_eq!(advance(&mut migrations, Duration::ZERO), (vec![], vec![]));
        for index in 0..4 {
            let fact = migrations.ended(Duration::ZERO, &attempt(index), &worker(), Ok(()));
            assert_eq!(fact, Some(Fact::Migrated(attempt(index), worker())));
        }
        assert_eq!(advance(&mut migrations, Duration::ZERO), (vec![4], vec![]));
        let removed = Err(MigrationError::Removed(attempt(4)));
        assert!(migrations.ended(Duration::ZERO, &attempt(4), &worker(), removed).is_some());
        assert_eq!(
            advance(&mut migrations, Duration::ZERO),
            (vec![5], vec![]),
            "a removed one is no refusal"
        );
        assert!(
            migrations.ended(Duration::ZERO, &attempt(4), &worker(), Ok(())).is_none(),
            "it does not run"
        );
        assert!(migrations.ended(Duration::ZERO, &attempt(5), &worker(), Ok(())).is_some());
        assert_eq!(advance(&mut migrations, Duration::ZERO), (vec![], vec![]));
        assert!(migrations.current.is_none());
    }

    #[test]
    fn a_refused_output_is_tried_again_with_delays_and_then_the_request_ends() {
        let mut migrations = Migrations::default();
        migrations.request(request(0..7));
        let mut now = Duration::ZERO;
        assert_eq!(advance(&mut migrations, now).0, [0, 1, 2, 3]);
        for delay in [100, 200, 400, 800].map(Duration::from_millis) {
            assert_eq!(migrations.ended(now, &attempt(0), &worker(), refused(0)), None);
            assert_eq!(migrations.next_wakeup(), Some(now + delay));
            assert_eq!(advance(&mut migrations, now + delay / 2).0, Vec::<u32>::new());
            now += delay;
            assert_eq!(advance(&mut migrations, now).0, [0]);
        }
        assert_eq!(migrations.ended(now, &attempt(1), &worker(), refused(1)), None);
        assert!(matches!(
            migrations.ended(now, &attempt(0), &worker(), refused(0)),
            Some(Fact::NotMigrated(..))
        ));
        assert_eq!(advance(&mut migrations, now), (vec![], vec![1, 4, 5, 6]), "two still run");
        for index in [2, 3] {
            assert!(migrations.ended(now, &attempt(index), &worker(), Ok(())).is_some());
        }
        assert_eq!((advance(&mut migrations, now), migrations.current.is_none()), ((vec![], vec![]), true));
    }

    #[test]
    fn the_number_of_waiting_requests_is_limited_and_invalid_ones_are_ignored() {
        let mut migrations = Migrations::default();
        (0..2 * MAX_WAITING).for_each(|_| migrations.request(request(0..1)));
        assert_eq!(migrations.waiting.len(), MAX_WAITING);
        let mut migrations = Migrations::default();
        migrations.request(v1::MigrateOutputs { to: "../up".into(), ..request(0..1) });
        let attempts = vec![v1::Attempt { job: "../up".into(), ..Default::default() }];
        migrations.request(v1::MigrateOutputs { attempts, ..request(0..0) });
        migrations.request(request(3..4));
        assert_eq!(advance(&mut migrations, Duration::ZERO), (vec![3], vec![]));
    }
}
