//! What the driver does at certain times: samples, shown statuses, checks for later epochs, the wait for the workers of an
//! earlier leader. Times are those of the steps, since a fixed point.
//!
//! Not here: the times of the scheduler.

use std::time::Duration;

/// The driver's intervals.
#[derive(Debug, Clone, Copy)]
pub struct Intervals {
    /// Between samples of memory and load; drains continue as often.
    pub sample: Duration,
    /// Between updates of the shown statuses of jobs.
    pub show: Duration,
    /// Between checks for a later epoch; `None` if there cannot be one.
    pub epoch_checks: Option<Duration>,
}

/// An interval, and the time at which it is over. The first is over at once.
#[derive(Debug)]
pub(super) struct Timer {
    interval: Duration,
    due: Duration,
}

impl Timer {
    fn new(interval: Duration, now: Duration) -> Self {
        Timer { interval, due: now }
    }

    pub(super) fn due(&self) -> Duration {
        self.due
    }

    /// If the interval is over: since when. The next one begins.
    pub(super) fn elapsed(&mut self, now: Duration) -> Option<Duration> {
        let late = now.checked_sub(self.due)?;
        self.due = now.saturating_add(self.interval);
        Some(late)
    }
}

/// The checks for a later epoch, one at a time. A coordinator that has nothing to write learns by them that another one
/// leads.
#[derive(Debug)]
pub(super) struct EpochChecks {
    timer: Timer,
    /// A check is under way.
    open: bool,
    /// A worker reported a later epoch since that check began.
    doubt: bool,
}

impl EpochChecks {
    /// Notes a worker's report of a later epoch, which is not sufficient by itself. True if a check has to begin.
    pub(super) fn question(&mut self) -> bool {
        self.doubt |= self.open;
        !std::mem::replace(&mut self.open, true)
    }

    /// A check ended. True if the next has to begin at once.
    pub(super) fn ended(&mut self, now: Duration) -> bool {
        self.timer.due = now.saturating_add(self.timer.interval);
        self.open = std::mem::take(&mut self.doubt);
        self.open
    }

    /// True if a check has to begin, because the last one was long ago.
    pub(super) fn elapsed(&mut self, now: Duration) -> bool {
        !self.open && self.timer.elapsed(now).is_some() && self.question()
    }
}

/// All of the driver's timers.
#[derive(Debug)]
pub(super) struct Timers {
    pub(super) sample: Timer,
    pub(super) show: Timer,
    /// `None` if there cannot be a later epoch.
    pub(super) epochs: Option<EpochChecks>,
    /// When jobs of earlier epochs continue.
    pub(super) settled: Option<Duration>,
}

impl Timers {
    pub(super) fn new(intervals: Intervals, now: Duration) -> Self {
        let checks = |interval| EpochChecks {
            timer: Timer { interval, due: now.saturating_add(interval) },
            open: false,
            doubt: false,
        };
        Timers {
            sample: Timer::new(intervals.sample, now),
            show: Timer::new(intervals.show, now),
            epochs: intervals.epoch_checks.map(checks),
            settled: None,
        }
    }

    /// The next time at which there is something to do; `shows`: there are statuses to show.
    pub(super) fn next(&self, shows: bool) -> Duration {
        let check = self.epochs.as_ref().filter(|checks| !checks.open).map(|checks| checks.timer.due);
        let show = shows.then_some(self.show.due());
        [show, check, self.settled].into_iter().flatten().fold(self.sample.due(), Duration::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_check_runs_at_a_time_and_a_report_during_a_check_begins_another() {
        let epoch_checks = Some(2 * SECOND);
        let timers = Timers::new(Intervals { sample: SECOND, show: SECOND, epoch_checks }, SECOND);
        let mut checks = timers.epochs.unwrap();
        assert!(!checks.elapsed(2 * SECOND) && checks.elapsed(3 * SECOND));
        assert!(!checks.elapsed(9 * SECOND) && !checks.question());
        assert!(checks.ended(9 * SECOND) && !checks.ended(10 * SECOND));
        assert!(!checks.elapsed(11 * SECOND) && checks.question() && !checks.ended(12 * SECOND));
        assert!(checks.elapsed(14 * SECOND));
    }
}
