//! The agent's decisions, without any I/O: what a refusal means, whom to obey, when to go.

use std::time::{Duration, Instant};

use tonic::{Code, Status};

/// A wait that ends so much later than it should was this process's own standstill.
const STANDSTILL: Duration = Duration::from_millis(500);

/// What a coordinator's answer to an attach means for this worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Another coordinator may lead, or this one later.
    LookOn,
    /// This life was given up: drop everything, come back under a new id.
    NewLife,
    /// The versions do not fit, now or later.
    WrongVersion,
    /// What this worker says of itself is not accepted, now or later.
    Unacceptable,
}

/// Reads a refusal.
pub fn verdict(status: &Status) -> Verdict {
    // What this side saw of a broken connection is no word of the coordinator.
    if std::error::Error::source(status).is_some() {
        return Verdict::LookOn;
    }
    match status.code() {
        Code::AlreadyExists => Verdict::NewLife,
        Code::Unimplemented => Verdict::WrongVersion,
        Code::InvalidArgument | Code::Unauthenticated | Code::PermissionDenied => Verdict::Unacceptable,
        _ => Verdict::LookOn,
    }
}

/// The highest epoch ever heard of: who speaks in a lower one leads no more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Highest(u64);

/// A message of a leader that was succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it speaks in epoch {spoken}, and epoch {highest} has begun")]
pub struct Stale {
    spoken: u64,
    highest: u64,
}

impl Highest {
    /// The epoch; 0 before there was any.
    pub fn epoch(self) -> u64 {
        self.0
    }

    /// Whether a message of that epoch counts.
    ///
    /// # Errors
    /// [`Stale`]: hang up.
    pub fn hear(&mut self, spoken: u64) -> Result<(), Stale> {
        if spoken < self.0 {
            return Err(Stale { spoken, highest: self.0 });
        }
        self.0 = spoken;
        Ok(())
    }
}

/// Patience with a leader that says nothing.
#[derive(Debug, Clone, Copy)]
pub struct Silence {
    patience: Duration,
    since: Instant,
}

impl Silence {
    /// It was just heard.
    pub fn new(patience: Duration, now: Instant) -> Self {
        Silence { patience, since: now }
    }

    /// Something was heard.
    pub fn heard(&mut self, now: Instant) {
        self.since = now;
    }

    /// When to ask whether it is over.
    pub fn until(&self) -> Instant {
        self.since + self.patience
    }

    /// Whether it lasts too long. A process that stood still itself listens once more.
    pub fn is_over(&mut self, now: Instant) -> bool {
        if now > self.until() + STANDSTILL {
            self.since = now;
        }
        now >= self.until()
    }
}

/// What somebody wants of the worker; later ones are stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wish {
    /// To work.
    Stay,
    /// To hand over what is needed, then go.
    Drain,
    /// To go now.
    Leave,
}

/// What a worker would take with it if it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holdings {
    /// Attempts that run.
    pub running: usize,
    /// Finished tasks' outputs that nobody else has.
    pub outputs: usize,
    /// Outputs that another worker has taken over; their copies serve those who were sent here.
    pub given: usize,
    /// Ends of attempts that the coordinator does not know yet, and outputs it does not know moved.
    pub untold: usize,
}

impl Holdings {
    /// Whether that is nothing.
    pub fn is_empty(self) -> bool {
        self == Holdings::default()
    }
}

/// How a worker left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Nothing that was needed went with it.
    Drained,
    /// The time for it was over before.
    TimedOut(Holdings),
    /// The coordinator did not know it any more, and had its work done elsewhere.
    GivenUp(Holdings),
    /// Somebody did not want to wait.
    AtOnce(Holdings),
}

/// Whether the worker works, or is on its way out.
#[derive(Debug, Clone, Copy)]
pub struct Course {
    drain_timeout: Duration,
    until: Option<Instant>,
    at_once: bool,
}

impl Course {
    /// A worker that works; a drain may take so long.
    pub fn new(drain_timeout: Duration) -> Self {
        Course { drain_timeout, until: None, at_once: false }
    }

    /// Whether it wants to go.
    pub fn drains(&self) -> bool {
        self.until.is_some()
    }

    /// When it goes in any case, if it drains.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Takes a wish. True if that began a drain.
    pub fn wish(&mut self, wish: Wish, now: Instant) -> bool {
        self.at_once |= wish == Wish::Leave;
        let begins = wish > Wish::Stay && self.until.is_none();
        if begins {
            self.until = Some(now + self.drain_timeout);
        }
        begins
    }

    /// Whether to go now, without a word of the coordinator: by its time, by a wish, or because
    /// nobody can be asked (not `attached`) and there is nothing to lose.
    pub fn goes(&self, now: Instant, attached: bool, holdings: Holdings) -> Option<Left> {
        let until = self.until?;
        if self.at_once {
            return Some(if holdings.is_empty() { Left::Drained } else { Left::AtOnce(holdings) });
        }
        if holdings.is_empty() && (!attached || now >= until) {
            return Some(Left::Drained);
        }
        (now >= until).then_some(Left::TimedOut(holdings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const SOME: Holdings = Holdings { running: 1, outputs: 2, given: 0, untold: 0 };

    #[test]
    fn each_refusal_means_one_thing() {
        for (status, meaning) in [
            (Status::failed_precondition("stands by"), Verdict::LookOn),
            (Status::unavailable("stops"), Verdict::LookOn),
            (Status::internal("what"), Verdict::LookOn),
            (Status::already_exists("given up"), Verdict::NewLife),
            (Status::unimplemented("version 9"), Verdict::WrongVersion),
            (Status::invalid_argument("no slots"), Verdict::Unacceptable),
        ] {
            assert_eq!(verdict(&status), meaning, "{status}");
        }
        let broken = Status::from_error(Box::new(std::io::Error::other("reset")));
        assert_eq!(verdict(&broken), Verdict::LookOn);
    }

    #[test]
    fn a_leader_of_an_earlier_epoch_is_not_obeyed() {
        let mut highest = Highest::default();
        assert_eq!(highest.hear(3), Ok(()));
        assert_eq!(highest.hear(3), Ok(()));
        assert_eq!(highest.hear(2), Err(Stale { spoken: 2, highest: 3 }));
        assert_eq!(highest.hear(4), Ok(()));
        assert_eq!(highest.epoch(), 4);
    }

    #[test]
    fn silence_ends_patience_but_a_standstill_of_its_own_does_not() {
        let start = Instant::now();
        let mut silence = Silence::new(SECOND, start);
        assert!(!silence.is_over(start + SECOND / 2));
        silence.heard(start + SECOND / 2);
        assert!(!silence.is_over(start + SECOND));
        assert!(silence.is_over(silence.until()));
        let stopped = start + 60 * SECOND;
        assert!(!silence.is_over(stopped), "what came meanwhile is yet to be read");
        assert!(silence.is_over(stopped + SECOND));
    }

    #[test]
    fn a_drain_has_one_deadline_and_a_second_wish_ends_it() {
        let start = Instant::now();
        let mut course = Course::new(60 * SECOND);
        assert!(!course.wish(Wish::Stay, start) && !course.drains());
        assert_eq!(course.goes(start, false, Holdings::default()), None, "it works");
        assert!(course.wish(Wish::Drain, start));
        assert!(!course.wish(Wish::Drain, start + SECOND), "it drains already");
        let until = course.until().unwrap();
        assert_eq!(until, start + 60 * SECOND);
        for (now, attached, holdings, goes) in [
            (start, false, Holdings::default(), Some(Left::Drained)),
            (start, true, Holdings::default(), None),
            (start, true, SOME, None),
            (start, false, SOME, None),
            (until, true, Holdings::default(), Some(Left::Drained)),
            (until, false, SOME, Some(Left::TimedOut(SOME))),
        ] {
            assert_eq!(course.goes(now, attached, holdings), goes, "{attached} {holdings:?}");
        }
        course.wish(Wish::Leave, start);
        assert_eq!(course.goes(start, true, SOME), Some(Left::AtOnce(SOME)));
        assert_eq!(course.goes(start, true, Holdings::default()), Some(Left::Drained));
    }
}
