//! The phases of a job as people see them, and their durations. Times are those of the driver's steps.

use std::time::Duration;

use tally_proto::v1;

use crate::job::STAGES;
use crate::peak_memory::PeakMeter;
use crate::results::Amount;
use crate::summary::StageSummary;

/// The phases in their order.
const PHASES: [&str; 5] = ["plan", STAGES[0], STAGES[1], STAGES[2], "publish"];

/// The ended phases and the current one.
pub(in crate::driver) struct Phases {
    started: Duration,
    current_since: Duration,
    ended: Vec<StageSummary>,
    /// What earlier terms spent in each phase, and in all: with it, durations do not restart at a takeover.
    earlier: [Duration; PHASES.len()],
    earlier_total: Duration,
}

impl Phases {
    /// The first phase begins.
    pub(super) fn start(now: Duration) -> Self {
        let (earlier, earlier_total) = ([Duration::ZERO; PHASES.len()], Duration::ZERO);
        Phases { started: now, current_since: now, ended: vec![], earlier, earlier_total }
    }

    /// Adds the time of earlier terms: since the submission `total`, and by phase as far as it was recorded. The rest was
    /// spent in the phase that was recorded last.
    pub(in crate::driver) fn resume(&mut self, notes: Option<&v1::JobNotes>, total: Duration) {
        self.earlier_total = total;
        let recorded = notes.map_or(&[][..], |notes| &notes.phase_millis);
        for (earlier, &millis) in self.earlier.iter_mut().zip(recorded) {
            *earlier = Duration::from_millis(millis);
        }
        let spent: Duration = self.earlier.iter().fold(Duration::ZERO, |sum, more| sum.saturating_add(*more));
        let last = notes.and_then(|notes| PHASES.iter().position(|phase| *phase == notes.phase));
        let last = &mut self.earlier[last.unwrap_or(0)];
        *last = last.saturating_add(total.saturating_sub(spent));
    }

    /// The current phase, and by phase the milliseconds so far: for the journal and for clients.
    pub(in crate::driver) fn notes(&self, now: Duration) -> (String, Vec<u64>) {
        let at = self.ended.len();
        let millis = |(phase, earlier): (usize, &Duration)| {
            let spent = match self.ended.get(phase) {
                Some(ended) => Duration::from_secs_f64(ended.seconds.max(0.0)),
                None if phase == at => earlier.saturating_add(self.elapsed(now)),
                None => *earlier,
            };
            u64::try_from(spent.as_millis()).unwrap_or(u64::MAX)
        };
        (self.current().into(), self.earlier.iter().enumerate().map(millis).collect())
    }

    /// The name of the current phase.
    pub(in crate::driver) fn current(&self) -> &'static str {
        PHASES.get(self.ended.len()).copied().unwrap_or("done")
    }

    /// The duration of the current phase in this term.
    pub(in crate::driver) fn elapsed(&self, now: Duration) -> Duration {
        now.saturating_sub(self.current_since)
    }

    /// Ends the current phase.
    pub(in crate::driver) fn end(&mut self, now: Duration, memory: &mut PeakMeter) {
        let earlier = self.earlier.get(self.ended.len()).copied().unwrap_or_default();
        self.ended.push(StageSummary {
            name: self.current().into(),
            tasks: 0,
            rows: 0,
            bytes: 0,
            seconds: earlier.saturating_add(self.elapsed(now)).as_secs_f64(),
            peak_memory_bytes: memory.take(),
        });
        self.current_since = now;
    }

    /// Makes the phase that ended last the current one again.
    pub(in crate::driver) fn resume_last(&mut self) {
        if let Some(ended) = self.ended.pop()
            && let Some(earlier) = self.earlier.get_mut(self.ended.len())
        {
            *earlier = Duration::from_secs_f64(ended.seconds.max(0.0));
        }
    }

    /// Sets what the tasks of an ended stage reported.
    pub(super) fn set_amount(&mut self, stage: u32, tasks: usize, amount: Amount) {
        if let Some(summary) = self.ended.get_mut(stage as usize + 1) {
            summary.tasks = tasks;
            (summary.rows, summary.bytes) = (amount.rows, amount.bytes);
        }
    }

    /// The ended phases.
    pub(super) fn ended(&self) -> &[StageSummary] {
        &self.ended
    }

    /// Seconds since the job was submitted.
    pub(super) fn total_seconds(&self, now: Duration) -> f64 {
        self.earlier_total.saturating_add(now.saturating_sub(self.started)).as_secs_f64()
    }
}
