//! The task that appends a term's records to the real journal, one after another. It outlives its term, until all records
//! are written.

use std::collections::VecDeque;

use tally_coordinator::driver::{AfterRecord, DriverInput, TermEnd};
use tally_coordinator::journal::log::EpochLog;
use tally_coordinator::journal::{Journal, JournalError};
use tally_proto::v1::journal_record::Record;

use crate::cluster::Shared;
use crate::event::Done;
use crate::tasks::Owner;
use crate::world::say;

/// The journal of a term.
pub struct JournalTask {
    owner: Owner,
    /// The term.
    pub epoch: u64,
    /// The log, unless it is being written.
    log: Option<Box<EpochLog>>,
    records: VecDeque<(Box<Record>, AfterRecord)>,
    /// A record could not be appended.
    failed: bool,
}

impl JournalTask {
    /// A journal without records to write.
    pub fn new(owner: Owner, log: Box<EpochLog>) -> Self {
        JournalTask { owner, epoch: log.epoch(), log: Some(log), records: VecDeque::new(), failed: false }
    }

    /// The log, unless it is being written.
    pub fn log(&self) -> Option<&EpochLog> {
        self.log.as_deref()
    }

    /// Records that wait.
    pub fn waiting(&self) -> usize {
        self.records.len()
    }

    /// Whether nothing is written or waits.
    pub fn is_over(&self) -> bool {
        self.failed || (self.records.is_empty() && self.log.is_some())
    }

    /// Queues a record.
    pub fn append(&mut self, record: Box<Record>, then: AfterRecord, shared: &mut Shared) {
        self.records.push_back((record, then));
        self.next(shared);
    }

    fn next(&mut self, shared: &mut Shared) {
        if self.failed || self.records.is_empty() {
            return;
        }
        let Some(mut log) = self.log.take() else { return };
        let Some((record, then)) = self.records.pop_front() else { return };
        say!("coordinator {} writes {then:?}", self.owner.process);
        shared.tasks.spawn(self.owner, async move {
            let result = log.append(*record).await;
            Done::Appended(log, then, result)
        });
    }

    /// A record was appended, or not. Returns the driver's input.
    pub fn appended(
        &mut self,
        log: Box<EpochLog>,
        then: AfterRecord,
        result: Result<(), JournalError>,
        shared: &mut Shared,
    ) -> DriverInput {
        self.log = Some(log);
        if result.is_err() {
            // The task ends with the first error.
            self.failed = true;
            self.records.clear();
        }
        let input = match result {
            Ok(()) => DriverInput::Written(then),
            Err(error @ JournalError::Fenced { .. }) => {
                DriverInput::Stop(TermEnd::Deposed(error.to_string()))
            }
            Err(error) => DriverInput::Stop(TermEnd::Journal(error.to_string())),
        };
        self.next(shared);
        input
    }
}
