//! What the driver notes of a job for people: its events, and the time and memory of its attempts. The notes are recorded
//! in the journal from time to time, and with the job's end.
//!
//! Not here: when something is noted (`driver::notes`), the bound of the list (`events`).

use tally_proto::{AttemptId, WorkerId, v1};

use crate::attempt_log::AttemptLog;
use crate::events::{EventLog, MAX_ENDED_BYTES};
use crate::job::STAGES;

/// Bits of an event's number within a term, so that later terms have larger numbers.
const NUMBER_BITS: u32 = 32;

/// See the module documentation.
#[derive(Debug, Default)]
pub(in crate::driver) struct Notes {
    log: EventLog,
    /// The number of the last event that is in the journal, or on its way there.
    recorded: u64,
    first: u64,
    uses: [v1::StageUse; STAGES.len()],
    pub(in crate::driver) skew: Option<v1::PartitionSkew>,
    /// Not in the journal.
    pub(in crate::driver) attempts: AttemptLog,
}

/// An event that is not numbered yet.
pub(in crate::driver) fn event(kind: v1::EventKind, text: impl Into<String>) -> v1::JobEvent {
    v1::JobEvent { kind: kind.into(), text: text.into(), ..v1::JobEvent::default() }
}

/// The same about a phase.
pub(in crate::driver) fn stage_event(
    kind: v1::EventKind,
    stage: &str,
    text: impl Into<String>,
) -> v1::JobEvent {
    v1::JobEvent { stage: stage.into(), ..event(kind, text) }
}

/// The same about an attempt on a worker.
pub(in crate::driver) fn attempt_event(
    kind: v1::EventKind,
    worker: &WorkerId,
    attempt: &AttemptId,
    text: impl Into<String>,
) -> v1::JobEvent {
    let stage = STAGES.get(attempt.task.stage.0 as usize).copied().unwrap_or_default();
    v1::JobEvent {
        stage: stage.into(),
        index: Some(attempt.task.index),
        attempt: Some(attempt.attempt),
        worker: worker.to_string(),
        ..event(kind, text)
    }
}

impl Notes {
    /// Notes of a job in that term.
    pub(super) fn new(epoch: u64) -> Self {
        Notes { first: epoch << NUMBER_BITS, ..Notes::default() }
    }

    /// Continues the notes of earlier terms.
    pub(in crate::driver) fn resume(&mut self, recorded: &v1::JobNotes) {
        self.log = EventLog::of(&recorded.events, recorded.left_out);
        self.recorded = self.log.last_number();
        self.uses.iter_mut().zip(&recorded.stages).for_each(|(mine, theirs)| *mine = *theirs);
        self.skew = recorded.skew;
    }

    /// Adds an event.
    pub(in crate::driver) fn add(&mut self, unix_millis: u64, event: v1::JobEvent) {
        let number = self.first.max(self.log.last_number()) + 1;
        self.log.push(v1::JobEvent { number, at: unix_millis, ..event });
    }

    /// Adds what a successful attempt used.
    pub(in crate::driver) fn succeeded(&mut self, stage: u32, used: &v1::TaskUsage) {
        let Some(sum) = self.uses.get_mut(stage as usize) else { return };
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut sum.task_millis, used.millis);
        add(&mut sum.memory_wait_millis, used.memory_wait_millis);
        add(&mut sum.store_wait_millis, used.store_wait_millis);
        add(&mut sum.worker_wait_millis, used.worker_wait_millis);
        self.used_memory(stage, used.peak_memory_bytes);
    }

    /// Notes the resident memory of a worker that runs tasks of the stage.
    pub(in crate::driver) fn used_memory(&mut self, stage: u32, bytes: u64) {
        if let Some(sum) = self.uses.get_mut(stage as usize) {
            sum.peak_memory_bytes = sum.peak_memory_bytes.max(bytes);
        }
    }

    /// Adds the time of an attempt without a result.
    pub(in crate::driver) fn failed(&mut self, stage: u32, millis: u64) {
        if let Some(sum) = self.uses.get_mut(stage as usize) {
            sum.failed_millis = sum.failed_millis.saturating_add(millis);
        }
    }

    /// By stage: what its attempts used.
    pub(in crate::driver) fn uses(&self) -> &[v1::StageUse] {
        &self.uses
    }

    /// The events.
    pub(in crate::driver) fn log(&self) -> &EventLog {
        &self.log
    }

    /// Whether there are events for the journal.
    pub(in crate::driver) fn has_unrecorded(&self) -> bool {
        self.log.last_number() > self.recorded
    }

    /// The events since the last call, for the journal. The caller sets the times of the phases.
    pub(in crate::driver) fn take_unrecorded(&mut self, job: &str) -> v1::JobNotes {
        let events = self.log.after(self.recorded).cloned().collect();
        self.recorded = self.log.last_number();
        self.with_events(job, events, 0)
    }

    /// All notes, for the end of the job.
    pub(in crate::driver) fn all(&self, job: &str) -> v1::JobNotes {
        let mut log = self.log.clone();
        log.shrink(MAX_ENDED_BYTES);
        self.with_events(job, log.to_vec(), log.left_out())
    }

    fn with_events(&self, job: &str, events: Vec<v1::JobEvent>, left_out: u64) -> v1::JobNotes {
        v1::JobNotes {
            job: job.into(),
            events,
            left_out,
            stages: self.uses.to_vec(),
            skew: self.skew,
            ..v1::JobNotes::default()
        }
    }
}

/// The largest partition and the median, by rows of partials.
pub(in crate::driver) fn skew(sums: &[v1::Sums]) -> Option<v1::PartitionSkew> {
    let mut rows: Vec<(u64, u32)> = sums.iter().map(|sums| sums.rows).zip(0..).collect();
    rows.sort_unstable();
    let (largest_rows, largest) = *rows.last()?;
    let (median_rows, _) = rows[rows.len() / 2];
    Some(v1::PartitionSkew { partitions: rows.len() as u64, largest, largest_rows, median_rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_term_continues_the_numbers_and_sums_of_an_earlier_one() {
        let mut first = Notes::new(3);
        first.add(10, event(v1::EventKind::Accepted, "accepted"));
        first.succeeded(0, &v1::TaskUsage { millis: 5, peak_memory_bytes: 9, ..Default::default() });
        let recorded = first.take_unrecorded("j");
        assert!(!first.has_unrecorded() && first.take_unrecorded("j").events.is_empty());
        let mut second = Notes::new(4);
        second.resume(&recorded);
        assert!(!second.has_unrecorded());
        second.add(11, event(v1::EventKind::Ended, "done"));
        second.succeeded(0, &v1::TaskUsage { millis: 6, peak_memory_bytes: 8, ..Default::default() });
        let all = second.all("j");
        let numbers: Vec<u64> = all.events.iter().map(|event| event.number >> NUMBER_BITS).collect();
        assert_eq!(numbers, [3, 4]);
        assert_eq!((all.stages[0].task_millis, all.stages[0].peak_memory_bytes), (11, 9));
        assert_eq!(second.take_unrecorded("j").events.len(), 1);
    }

    #[test]
    fn the_skew_compares_the_largest_partition_with_the_median() {
        let sums = [5, 90, 7, 6].map(|rows| v1::Sums { rows, checksum: 0 });
        let expect = v1::PartitionSkew { partitions: 4, largest: 1, largest_rows: 90, median_rows: 7 };
        assert_eq!((skew(&sums), skew(&[])), (Some(expect), None));
    }
}
