//! The workers that refuse the tasks of a job, or fail them one after another: how many attempts each may run, and when it
//! is offered one more.
//!
//! A throttled worker keeps as many attempts of the job as it has room for. After a pause it is offered one more, the probe.
//! The pause doubles with each probe that is refused. A probe that succeeds shows that there is room for it, and the next
//! probe follows at once. Other jobs are not affected: their tasks may be smaller.
//!
//! Not here: what a refusal means for its task (`report`).

use std::collections::BTreeMap;

use tally_proto::ids::{AttemptId, WorkerId};

use crate::config::Config;
use crate::time::Millis;

/// The number of successive failures of a worker's attempts after which the worker is throttled.
const MAX_FAILURES_IN_A_ROW: u32 = 2;

/// The throttled workers of a job.
#[derive(Debug, Default)]
pub(crate) struct Throttles {
    workers: BTreeMap<WorkerId, Throttle>,
    /// Failures of each worker since its last success.
    failures: BTreeMap<WorkerId, u32>,
    /// Set while no worker has room for the job.
    blocked: Option<Blocked>,
}

#[derive(Debug)]
struct Throttle {
    /// The number of attempts for which the worker has room.
    fits: usize,
    /// The running attempt beyond those.
    probe: Option<AttemptId>,
    /// The next probe starts at this time or later.
    until: Millis,
    /// The number of pauses since the last success of a probe.
    pauses: u32,
}

/// The refusals since which all workers refuse the tasks of a job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blocked {
    /// The time of the first one.
    pub since: Millis,
    /// Their number.
    pub times: u32,
}

/// What a throttled worker is offered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer {
    /// The number of attempts that may start now.
    pub starts: usize,
    /// It has room for some attempts.
    pub has_room: bool,
}

impl Throttle {
    /// `running` is the number of the job's attempts that take a slot of the worker.
    fn offer(&self, running: usize, now: Millis) -> Offer {
        let known = self.without_probe(running);
        let probes = usize::from(self.probe.is_none() && self.until <= now);
        Offer { starts: self.fits.saturating_sub(known) + probes, has_room: self.fits > 0 }
    }

    fn without_probe(&self, running: usize) -> usize {
        running.saturating_sub(usize::from(self.probe.is_some()))
    }

    /// Whether the attempt is the probe, which has ended.
    fn take_probe(&mut self, attempt: &AttemptId) -> bool {
        self.probe.take_if(|probe| probe == attempt).is_some()
    }
}

impl Throttles {
    /// Whether a worker is throttled.
    pub(crate) fn contains(&self, worker: &WorkerId) -> bool {
        self.workers.contains_key(worker)
    }

    pub(crate) fn len(&self) -> usize {
        self.workers.len()
    }

    /// Whether the attempt is the probe of its worker.
    pub(crate) fn is_probe(&self, worker: &WorkerId, attempt: &AttemptId) -> bool {
        self.workers.get(worker).is_some_and(|throttle| throttle.probe.as_ref() == Some(attempt))
    }

    /// The offers of all throttled workers; `running` is the number of the job's attempts that take a slot of a worker.
    pub(crate) fn offers(
        &self,
        now: Millis,
        running: impl Fn(&WorkerId) -> usize,
    ) -> BTreeMap<&WorkerId, Offer> {
        let offers = self.workers.iter();
        offers.map(|(worker, throttle)| (worker, throttle.offer(running(worker), now))).collect()
    }

    /// The next time at which a worker is offered a probe.
    pub(crate) fn next_probe(&self, now: Millis) -> Option<Millis> {
        let waiting = self.workers.values().filter(|throttle| throttle.probe.is_none());
        waiting.map(|throttle| throttle.until).filter(|until| *until > now).min()
    }

    /// Notes an attempt that starts beside `running` others of the job.
    pub(crate) fn started(&mut self, worker: &WorkerId, attempt: &AttemptId, running: usize) {
        if let Some(throttle) = self.workers.get_mut(worker)
            && throttle.without_probe(running) >= throttle.fits
        {
            throttle.probe.get_or_insert_with(|| attempt.clone());
        }
    }

    /// Notes a success on a worker with this number of slots.
    pub(crate) fn succeeded(&mut self, worker: &WorkerId, attempt: &AttemptId, slots: u32, now: Millis) {
        self.failures.remove(worker);
        self.blocked = None;
        let Some(throttle) = self.workers.get_mut(worker) else { return };
        if throttle.take_probe(attempt) {
            throttle.fits = throttle.fits.saturating_add(1);
            (throttle.until, throttle.pauses) = (now, 0);
        }
        if throttle.fits >= slots as usize {
            self.workers.remove(worker);
        }
    }

    /// Notes that a worker had no room for an attempt; `running` others of the job still take a slot there.
    pub(crate) fn refused(
        &mut self,
        worker: &WorkerId,
        attempt: &AttemptId,
        running: usize,
        now: Millis,
        config: &Config,
    ) {
        let new = || Throttle { fits: usize::MAX, probe: None, until: now, pauses: 0 };
        let throttle = self.workers.entry(worker.clone()).or_insert_with(new);
        let probed = throttle.take_probe(attempt);
        if !probed {
            throttle.fits = throttle.fits.min(throttle.without_probe(running));
        }
        if probed || throttle.pauses == 0 {
            throttle.pauses = throttle.pauses.saturating_add(1);
        }
        throttle.until = now.after(config.backoff(throttle.pauses));
    }

    /// Notes a failure that another worker may not have. A worker that fails attempts one after another is throttled like
    /// one that refuses them. Otherwise a failure shows that the worker had room.
    pub(crate) fn failed(
        &mut self,
        worker: &WorkerId,
        attempt: &AttemptId,
        running: usize,
        now: Millis,
        config: &Config,
    ) {
        self.blocked = None;
        let failures = self.failures.entry(worker.clone()).or_default();
        *failures = failures.saturating_add(1);
        if *failures >= MAX_FAILURES_IN_A_ROW {
            self.refused(worker, attempt, running, now, config);
        } else if self.is_probe(worker, attempt) {
            self.workers.remove(worker);
        }
    }

    /// Notes an end that says nothing about room.
    pub(crate) fn ended(&mut self, worker: &WorkerId, attempt: &AttemptId) {
        if let Some(throttle) = self.workers.get_mut(worker) {
            throttle.take_probe(attempt);
        }
    }

    /// Another job ended, and the workers drop what they held for it: the pauses are over.
    pub(crate) fn room_released(&mut self, now: Millis) {
        for throttle in self.workers.values_mut() {
            (throttle.until, throttle.pauses) = (now, 0);
        }
    }

    pub(crate) fn on_worker_lost(&mut self, worker: &WorkerId) {
        self.workers.remove(worker);
        self.failures.remove(worker);
    }

    /// Counts a refusal if no worker has room for the job, and returns the refusals since that is so.
    pub(crate) fn count_blocked(&mut self, blocked: bool, now: Millis) -> Option<Blocked> {
        if !blocked {
            self.blocked = None;
            return None;
        }
        let since = self.blocked.get_or_insert(Blocked { since: now, times: 0 });
        since.times = since.times.saturating_add(1);
        Some(*since)
    }
}
