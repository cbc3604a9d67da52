//! The phases of a job as people see them, and their durations. Times are those of the driver's steps.

use std::time::Duration;

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
}

impl Phases {
    /// The first phase begins.
    pub(super) fn start(now: Duration) -> Self {
        Phases { started: now, current_since: now, ended: vec![] }
    }

    /// The name of the current phase.
    pub(in crate::driver) fn current(&self) -> &'static str {
        PHASES.get(self.ended.len()).copied().unwrap_or("done")
    }

    /// The duration of the current phase so far.
    pub(in crate::driver) fn elapsed(&self, now: Duration) -> Duration {
        now.saturating_sub(self.current_since)
    }

    /// Ends the current phase.
    pub(in crate::driver) fn end(&mut self, now: Duration, memory: &mut PeakMeter) {
        self.ended.push(StageSummary {
            name: self.current().into(),
            tasks: 0,
            rows: 0,
            bytes: 0,
            seconds: self.elapsed(now).as_secs_f64(),
            peak_memory_bytes: memory.take(),
        });
        self.current_since = now;
    }

    /// Makes the phase that ended last the current one again.
    pub(in crate::driver) fn resume_last(&mut self) {
        if let Some(ended) = self.ended.pop() {
            let spent = Duration::from_secs_f64(ended.seconds.max(0.0));
            self.current_since = self.current_since.saturating_sub(spent);
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

    /// Seconds since the job began in this term.
    pub(super) fn total_seconds(&self, now: Duration) -> f64 {
        now.saturating_sub(self.started).as_secs_f64()
    }
}
