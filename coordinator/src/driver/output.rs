//! What the driver wants to have done, in the order in which it decided. Each output names the input that answers it.
//!
//! Not here: how it is done (`shell`, `work`).

use tally_proto::JobId;
use tally_proto::v1::journal_record::Record;

use super::TermEnd;
use super::work::Work;

/// Records that may wait for the journal. A job writes only a few.
pub(super) const MAX_RECORDS: usize = 4096;

/// Something to be done for the driver.
pub enum Output {
    /// Append a record to the journal, after those of earlier outputs. Answer: [`super::DriverInput::Written`] with `then`
    /// once it is durable, or [`super::DriverInput::Stop`] if it cannot be appended.
    Append {
        /// The record.
        record: Box<Record>,
        /// The step that follows.
        then: AfterRecord,
    },
    /// Do this work. Answer: the input that [`Work::run`] returns.
    Work(Box<Work>),
    /// Read the highest claimed epoch. Answer: [`super::DriverInput::HighestEpoch`].
    CheckEpoch,
    /// The term is over: carry out the other outputs of this step, then call [`super::Driver::leave`].
    End(TermEnd),
}

/// The step that follows once a record is durable.
#[derive(Debug)]
pub enum AfterRecord {
    /// The job is accepted and begins.
    Submitted(JobId),
    /// The job's map tasks may run.
    Planned(JobId),
    /// The job's day may be made visible.
    Committed(JobId),
    /// The job may be stopped.
    Cancelled(JobId),
    /// The job's end may be reported.
    Ended(JobId),
    /// Notes of jobs are recorded: nothing follows.
    Noted,
    /// A delivered notice is recorded: nothing follows.
    Notified,
}

/// The outputs of the current step.
#[derive(Default)]
pub(super) struct Outputs {
    list: Vec<Output>,
    /// Records that are not durable yet.
    unwritten: usize,
}

impl Outputs {
    /// Has a record appended; `then` comes back as an input when the record is durable. Too many waiting records end the
    /// term.
    pub(super) fn write(&mut self, record: Record, then: AfterRecord) {
        if self.unwritten == MAX_RECORDS {
            self.end(TermEnd::Journal(format!("{MAX_RECORDS} records wait for the journal")));
            return;
        }
        self.unwritten += 1;
        self.list.push(Output::Append { record: Box::new(record), then });
    }

    /// A record is durable.
    pub(super) fn written(&mut self) {
        self.unwritten = self.unwritten.saturating_sub(1);
    }

    /// Has work done.
    pub(super) fn work(&mut self, work: Work) {
        self.list.push(Output::Work(Box::new(work)));
    }

    /// Has the journal checked for a later epoch.
    pub(super) fn check_epoch(&mut self) {
        self.list.push(Output::CheckEpoch);
    }

    /// Ends the term.
    pub(super) fn end(&mut self, end: TermEnd) {
        self.list.push(Output::End(end));
    }

    /// The outputs since the last call.
    pub(super) fn take(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.list)
    }
}
