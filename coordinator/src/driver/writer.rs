//! The way from the driver's loop to the journal and back: records are written one after the
//! other by a task of its own, so that a slow store holds up nothing but what waits for it.

use tally_proto::JobId;
use tally_proto::v1::journal_record::Record;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::{End, Input};
use crate::journal::{Journal, JournalError};

/// Records that may wait: a few a job.
const QUEUE: usize = 4096;

/// What may follow once a record is durable.
#[derive(Debug)]
pub enum Then {
    /// The job is accepted, and begins.
    Submitted(JobId),
    /// Its map tasks may run.
    Planned(JobId),
    /// Its day may be exchanged.
    Committed(JobId),
    /// It may be stopped.
    Cancelled(JobId),
    /// Its end may be told.
    Ended(JobId),
}

/// The driver's end of the way.
pub(super) struct Writer {
    queue: mpsc::Sender<(Record, Then)>,
}

impl Writer {
    pub(super) fn start(mut journal: Box<dyn Journal>, inbox: mpsc::Sender<Input>) -> Self {
        let (queue, mut records) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            while let Some((record, then)) = records.recv().await {
                let input = match journal.append(record).await {
                    Ok(()) => Input::Written(then),
                    Err(error @ JournalError::Fenced { .. }) => Input::Stop(End::Deposed(error.to_string())),
                    Err(error) => Input::Stop(End::Journal(error.to_string())),
                };
                let over = matches!(input, Input::Stop(_));
                // The loop gone means that nobody waits for it.
                if inbox.send(input).await.is_err() || over {
                    return;
                }
            }
        });
        Writer { queue }
    }

    /// Writes a record down; `then` comes back as an event when it is durable.
    pub(super) fn write(&self, record: Record, then: Then) -> Result<(), End> {
        self.queue.try_send((record, then)).map_err(|error| match error {
            TrySendError::Full(_) => End::Journal(format!("{QUEUE} records wait for the journal")),
            // It said why when it ended.
            TrySendError::Closed(_) => End::Journal("the journal takes no more records".into()),
        })
    }
}
