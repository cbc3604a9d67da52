//! The agent's decisions: the meaning of a refusal, which leader to obey, when to exit. Times are durations since a fixed
//! moment.
//!
//! Not here: what follows from a decision (the parent module).

use std::time::Duration;

use tonic::{Code, Status};

/// If a wait ends this much too late, this process itself was paused.
const STANDSTILL: Duration = Duration::from_millis(500);

/// The meaning of a coordinator's response to an attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Another coordinator may lead, or this one later.
    TryNext,
    /// The worker was declared lost: drop everything, and return under a new id.
    NewIncarnation,
    /// The protocol versions are incompatible. A retry fails in the same way.
    WrongVersion,
    /// The hello message is not accepted. A retry fails in the same way.
    Unacceptable,
}

/// The verdict of a refusal.
pub fn verdict(status: &Status) -> Verdict {
    // An error of the local connection is not a response of the coordinator.
    if std::error::Error::source(status).is_some() {
        return Verdict::TryNext;
    }
    match status.code() {
        Code::AlreadyExists => Verdict::NewIncarnation,
        Code::Unimplemented => Verdict::WrongVersion,
        Code::InvalidArgument | Code::Unauthenticated | Code::PermissionDenied => Verdict::Unacceptable,
        _ => Verdict::TryNext,
    }
}

/// The highest epoch that was received. A coordinator with a lower epoch is no longer the leader.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EpochFence(u64);

/// A message of a former leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its epoch is {spoken}, and epoch {highest} has begun")]
pub struct Stale {
    spoken: u64,
    highest: u64,
}

impl EpochFence {
    /// The epoch; 0 before the first message.
    pub fn epoch(self) -> u64 {
        self.0
    }

    /// Accepts or rejects a message of that epoch.
    ///
    /// # Errors
    /// [`Stale`]: close the stream.
    pub fn check(&mut self, spoken: u64) -> Result<(), Stale> {
        if spoken < self.0 {
            return Err(Stale { spoken, highest: self.0 });
        }
        self.0 = spoken;
        Ok(())
    }
}

/// Detects that the leader is silent for too long.
#[derive(Debug, Clone, Copy)]
pub struct FailureDetector {
    patience: Duration,
    since: Duration,
}

impl FailureDetector {
    /// A detector that received a message at `now`.
    pub fn new(patience: Duration, now: Duration) -> Self {
        FailureDetector { patience, since: now }
    }

    /// A message was received.
    pub fn received(&mut self, now: Duration) {
        self.since = now;
    }

    /// When to check for expiry.
    pub fn deadline(&self) -> Duration {
        self.since.saturating_add(self.patience)
    }

    /// Whether the timeout expired. If this process was paused itself, the timeout starts again.
    pub fn is_expired(&mut self, now: Duration) -> bool {
        if now > self.deadline().saturating_add(STANDSTILL) {
            self.since = now;
        }
        now >= self.deadline()
    }
}

/// A shutdown request. A later variant is stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ShutdownRequest {
    /// Keep working.
    Stay,
    /// Migrate needed outputs, then exit.
    Drain,
    /// Exit now.
    Leave,
}

/// What a worker holds, and what would be lost if it exited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holdings {
    /// Running attempts.
    pub running: usize,
    /// Outputs of finished tasks that no other worker has.
    pub outputs: usize,
    /// Outputs that another worker has as well. The local copies serve readers that were sent here.
    pub migrated: usize,
    /// Unreported ends of attempts and of migrations.
    pub unreported: usize,
}

impl Holdings {
    /// Whether nothing would be lost.
    pub fn is_empty(self) -> bool {
        self == Holdings::default()
    }
}

/// Why a worker exited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReason {
    /// It was drained, and nothing needed was lost.
    Drained,
    /// The drain timed out.
    TimedOut(Holdings),
    /// The coordinator had declared it lost, and repeats its work elsewhere.
    GivenUp(Holdings),
    /// It was requested to exit at once.
    AtOnce(Holdings),
}

/// Whether the worker works or drains.
#[derive(Debug, Clone, Copy)]
pub struct DrainState {
    drain_timeout: Duration,
    until: Option<Duration>,
    at_once: bool,
}

impl DrainState {
    /// A working worker. A drain may take up to `drain_timeout`.
    pub fn new(drain_timeout: Duration) -> Self {
        DrainState { drain_timeout, until: None, at_once: false }
    }

    /// Whether it drains.
    pub fn drains(&self) -> bool {
        self.until.is_some()
    }

    /// The deadline of the drain, if it drains.
    pub fn deadline(&self) -> Option<Duration> {
        self.until
    }

    /// Takes a shutdown request. Returns whether it started a drain.
    pub fn request(&mut self, request: ShutdownRequest, now: Duration) -> bool {
        self.at_once |= request == ShutdownRequest::Leave;
        let begins = request > ShutdownRequest::Stay && self.until.is_none();
        if begins {
            self.until = Some(now.saturating_add(self.drain_timeout));
        }
        begins
    }

    /// Why the worker exits now without a message of the coordinator, if it does: after the deadline, on request, or
    /// because it is not attached and holds nothing.
    pub fn exit_reason(&self, now: Duration, attached: bool, holdings: Holdings) -> Option<ExitReason> {
        let until = self.until?;
        if self.at_once {
            return Some(if holdings.is_empty() {
                ExitReason::Drained
            } else {
                ExitReason::AtOnce(holdings)
            });
        }
        if holdings.is_empty() && (!attached || now >= until) {
            return Some(ExitReason::Drained);
        }
        (now >= until).then_some(ExitReason::TimedOut(holdings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const SOME: Holdings = Holdings { running: 1, outputs: 2, migrated: 0, unreported: 0 };

    #[test]
    fn each_refusal_has_one_meaning() {
        for (status, meaning) in [
            (Status::failed_precondition("stands by"), Verdict::TryNext),
            (Status::unavailable("stops"), Verdict::TryNext),
            (Status::internal("what"), Verdict::TryNext),
            (Status::already_exists("given up"), Verdict::NewIncarnation),
            (Status::unimplemented("version 9"), Verdict::WrongVersion),
            (Status::invalid_argument("no slots"), Verdict::Unacceptable),
        ] {
            assert_eq!(verdict(&status), meaning, "{status}");
        }
        let broken = Status::from_error(Box::new(std::io::Error::other("reset")));
        assert_eq!(verdict(&broken), Verdict::TryNext);
    }

    #[test]
    fn messages_of_an_earlier_epoch_are_rejected() {
        let mut fence = EpochFence::default();
        assert_eq!(fence.check(3), Ok(()));
        assert_eq!(fence.check(3), Ok(()));
        assert_eq!(fence.check(2), Err(Stale { spoken: 2, highest: 3 }));
        assert_eq!(fence.check(4), Ok(()));
        assert_eq!(fence.epoch(), 4);
    }

    #[test]
    fn silence_expires_but_a_pause_of_the_own_process_does_not() {
        let start = Duration::ZERO;
        let mut detector = FailureDetector::new(SECOND, start);
        assert!(!detector.is_expired(start + SECOND / 2));
        detector.received(start + SECOND / 2);
        assert!(!detector.is_expired(start + SECOND));
        assert!(detector.is_expired(detector.deadline()));
        let stopped = start + 60 * SECOND;
        assert!(!detector.is_expired(stopped), "messages that arrived during the pause are not read yet");
        assert!(detector.is_expired(stopped + SECOND));
    }

    #[test]
    fn a_drain_has_one_deadline_and_a_second_request_ends_it() {
        let start = Duration::ZERO;
        let mut drain_state = DrainState::new(60 * SECOND);
        assert!(!drain_state.request(ShutdownRequest::Stay, start) && !drain_state.drains());
        assert_eq!(drain_state.exit_reason(start, false, Holdings::default()), None, "it does not drain");
        assert!(drain_state.request(ShutdownRequest::Drain, start));
        assert!(!drain_state.request(ShutdownRequest::Drain, start + SECOND), "it drains already");
        let until = drain_state.deadline().unwrap();
        assert_eq!(until, start + 60 * SECOND);
        for (now, attached, holdings, exit_reason) in [
            (start, false, Holdings::default(), Some(ExitReason::Drained)),
            (start, true, Holdings::default(), None),
            (start, true, SOME, None),
            (start, false, SOME, None),
            (until, true, Holdings::default(), Some(ExitReason::Drained)),
            (until, false, SOME, Some(ExitReason::TimedOut(SOME))),
        ] {
            assert_eq!(
                drain_state.exit_reason(now, attached, holdings),
                exit_reason,
                "{attached} {holdings:?}"
            );
        }
        drain_state.request(ShutdownRequest::Leave, start);
        assert_eq!(drain_state.exit_reason(start, true, SOME), Some(ExitReason::AtOnce(SOME)));
        assert_eq!(drain_state.exit_reason(start, true, Holdings::default()), Some(ExitReason::Drained));
    }
}
