//! What workers report of a job's running attempts, summed up, and what the job has done so far.
//!
//! Not here: the heartbeats (`cluster`).

use std::time::Duration;

use tally_common::counts::counted;
use tally_proto::{StageId, WorkerId, v1};
use tally_scheduler::FoundTask;

use super::JobRun;
use super::notes::stage_event;
use crate::driver::Now;
use crate::job::STAGES;
use crate::peak_memory::PeakMeter;
use crate::results::Amount;

/// The shortest wait that counts: shorter ones are part of every task.
const MIN_WAIT: Duration = Duration::from_secs(1);

/// The most silent workers that a status names.
const MAX_SILENT: usize = 3;

/// The running attempts of a job, by their workers' last heartbeats.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::driver) struct Reports {
    /// What they wait for.
    pub(in crate::driver) waits: v1::JobWaits,
    /// What they have read.
    pub(in crate::driver) read: Amount,
    /// The largest resident memory of their workers.
    pub(in crate::driver) resident: u64,
}

impl Reports {
    /// Adds a worker whose heartbeats are missing.
    pub(in crate::driver) fn add_silent(&mut self, worker: &WorkerId) {
        self.waits.silent_workers += 1;
        if self.waits.silent_worker_ids.len() < MAX_SILENT {
            self.waits.silent_worker_ids.push(worker.to_string());
        }
    }

    /// Adds an attempt of a heartbeat that is `age` old.
    pub(in crate::driver) fn add(&mut self, attempt: &v1::RunningAttempt, age: Duration) {
        self.read.rows = self.read.rows.saturating_add(attempt.rows);
        self.read.bytes = self.read.bytes.saturating_add(attempt.bytes);
        let Some(wait) = &attempt.wait else { return };
        if Duration::from_millis(wait.millis).saturating_add(age) < MIN_WAIT {
            return;
        }
        let waits = &mut self.waits;
        let count = match wait.kind() {
            v1::WaitKind::Slot => &mut waits.slot,
            v1::WaitKind::Memory => &mut waits.memory,
            v1::WaitKind::Store => &mut waits.store,
            v1::WaitKind::Worker => &mut waits.worker,
            v1::WaitKind::Task => &mut waits.task,
            v1::WaitKind::Unspecified => return,
        };
        *count += 1;
    }
}

impl JobRun {
    /// Rows and bytes by stage, of all tasks that have a result.
    pub(in crate::driver) fn amounts(&self) -> [Amount; 3] {
        self.results.amounts()
    }

    /// Rows and bytes of the inputs that were read, those of running attempts included.
    pub(in crate::driver) fn read(&self) -> Amount {
        let [mapped, ..] = self.amounts();
        let (rows, bytes) = self.plan.input_size();
        let limit = |sum: u64, all: u64| if all > 0 { sum.min(all) } else { sum };
        Amount {
            rows: limit(mapped.rows.saturating_add(self.reports.read.rows), rows),
            bytes: limit(mapped.bytes.saturating_add(self.reports.read.bytes), bytes),
        }
    }

    /// Ends the current phase, and notes it.
    pub(in crate::driver) fn end_stage(&mut self, now: Now, memory: &mut PeakMeter) {
        let (phase, millis) = self.phases.notes(now.elapsed);
        self.phases.end(now.elapsed, memory);
        let at = self.phases.ended().len().saturating_sub(1);
        let seconds = millis.get(at).copied().unwrap_or(0) as f64 / 1000.0;
        let done = self.amounts().get(at.wrapping_sub(1)).copied().unwrap_or_default();
        let text = match phase.as_str() {
            "plan" => {
                let inputs = &self.plan.inputs;
                let (files, rows) = (counted(inputs.files, "file"), counted(inputs.rows, "row"));
                let tasks = counted(inputs.tasks.len(), "map task");
                let partitions = counted(inputs.partitions, "partition");
                format!("{files}, {rows} known from footers, {tasks}, {partitions}")
            }
            _ => counted(done.rows, "row"),
        };
        let text = format!("ended after {seconds:.1} s: {text}");
        self.notes.add(now.unix_millis, stage_event(v1::EventKind::StageEnded, &phase, text));
    }

    /// Notes that a stage begins.
    pub(in crate::driver) fn begin_stage(
        &mut self,
        now: Now,
        stage: StageId,
        tasks: usize,
        found: &[FoundTask],
    ) {
        let name = STAGES.get(stage.0 as usize).copied().unwrap_or_default();
        let held = found.iter().filter(|found| found.done).count();
        let tasks = counted(tasks, "task");
        let text = match held {
            0 => format!("begins: {tasks}"),
            held => format!("begins: {tasks}; workers have outputs of {held}"),
        };
        self.notes.add(now.unix_millis, stage_event(v1::EventKind::StageBegun, name, text));
    }

    /// The events with larger numbers.
    pub(in crate::driver) fn events(&self, after: u64) -> v1::EventPage {
        let log = self.notes.log();
        v1::EventPage {
            job: self.submission.spec.id.to_string(),
            events: log.after(after).cloned().collect(),
            left_out: log.left_out(),
            over: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_silent_workers_are_named_and_all_are_counted() {
        let mut reports = Reports::default();
        for at in 0..5 {
            reports.add_silent(&WorkerId::parse(&format!("w-{at}")).unwrap());
        }
        assert_eq!((reports.waits.silent_workers, reports.waits.silent_worker_ids.len()), (5, MAX_SILENT));
        assert_eq!(reports.waits.silent_worker_ids[0], "w-0");
    }
}
