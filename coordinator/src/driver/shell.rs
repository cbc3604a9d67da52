//! Runs a driver on tokio: its inbox, its timers, its journal and its work. The only file of the driver that starts tasks
//! and reads clocks.
//!
//! Not here: decisions (the driver).

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tally_proto::v1::journal_record::Record;
use tally_scan::footer::Footers;
use tally_scheduler::ConfigError;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::output::MAX_RECORDS;
use super::{AfterRecord, Driver, DriverInput, DriverParts, Now, Output, Resumed, TermEnd};
use crate::journal::state_dir::StateDir;
use crate::journal::{Journal, JournalError};
use crate::publish::file_system::FileSystem;

/// Inputs that may wait for the loop.
const QUEUE: usize = 1024;

/// The sending side of a driver's inbox.
#[derive(Clone)]
pub struct Handle {
    sender: mpsc::Sender<DriverInput>,
}

impl Handle {
    /// The sender of inputs.
    pub fn sender(&self) -> &mpsc::Sender<DriverInput> {
        &self.sender
    }
}

/// A driver's inbox. It is created before the fleet, which reports to it.
pub struct Inbox {
    receiver: mpsc::Receiver<DriverInput>,
}

/// Creates the inbox of a driver.
pub fn inbox() -> (Handle, Inbox) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Handle { sender }, Inbox { receiver })
}

/// What a shell does the driver's I/O with.
pub struct ShellParts {
    /// The log of decisions.
    pub journal: Box<dyn Journal>,
    /// Where later epochs are claimed; `None` if there cannot be one.
    pub epochs: Option<StateDir>,
    /// Footers of inputs.
    pub footers: Arc<Footers>,
    /// The file system of folders of outputs.
    pub files: Arc<dyn FileSystem>,
}

/// A driver and what it runs with.
pub struct Shell {
    driver: Driver,
    started: Instant,
    sender: mpsc::Sender<DriverInput>,
    inbox: mpsc::Receiver<DriverInput>,
    journal: mpsc::Sender<(Record, AfterRecord)>,
    epochs: Option<StateDir>,
    footers: Arc<Footers>,
    files: Arc<dyn FileSystem>,
    end: Option<TermEnd>,
}

/// The time since `started`.
fn now(started: Instant) -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let unix_millis = u64::try_from(unix.as_millis()).unwrap_or(u64::MAX);
    Now { elapsed: started.elapsed(), unix_millis }
}

impl Shell {
    /// A driver without jobs, and the task that appends to its journal.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn start(
        driver: DriverParts,
        parts: ShellParts,
        handle: &Handle,
        inbox: Inbox,
    ) -> Result<Self, ConfigError> {
        let started = driver.started;
        let driver = Driver::new(driver, now(started))?;
        let (journal, records) = mpsc::channel(MAX_RECORDS);
        tokio::spawn(append(parts.journal, records, handle.sender.clone()));
        Ok(Shell {
            driver,
            started,
            sender: handle.sender.clone(),
            inbox: inbox.receiver,
            journal,
            epochs: parts.epochs,
            footers: parts.footers,
            files: parts.files,
            end: None,
        })
    }

    /// Takes over jobs of earlier epochs, see [`Driver::resume`].
    pub fn resume(&mut self, jobs: Vec<Resumed>, settle: Duration) {
        let outputs = self.driver.resume(now(self.started), jobs, settle);
        self.carry_out(outputs);
    }

    /// Runs until `until` resolves or the term ends. The staged files of live jobs stay for the next leader.
    pub async fn run(mut self, until: impl Future<Output = ()>) -> TermEnd {
        tokio::pin!(until);
        let end = loop {
            if let Some(end) = self.end.take() {
                break end;
            }
            let wait = self.driver.next_wakeup().saturating_sub(self.started.elapsed());
            let input = tokio::select! {
                input = self.inbox.recv() => match input {
                    Some(input) => input,
                    None => break TermEnd::Asked,
                },
                () = tokio::time::sleep(wait) => DriverInput::Tick,
                () = &mut until => break TermEnd::Asked,
            };
            let outputs = self.driver.step(now(self.started), input);
            self.carry_out(outputs);
        };
        let removed = self.driver.leave(matches!(end, TermEnd::Deposed(_)));
        // Results that were not received may hold staging folders, too.
        self.inbox.close();
        let inbox = self.inbox;
        tokio::spawn(self.files.spawn(Box::new(move || drop((removed, inbox)))));
        end
    }

    fn carry_out(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Append { record, then } => self.append(*record, then),
                Output::Work(work) => {
                    let (footers, files) = (self.footers.clone(), self.files.clone());
                    self.spawn(async move { work.run(&footers, &files).await });
                }
                Output::CheckEpoch => {
                    if let Some(dir) = self.epochs.clone() {
                        self.spawn(async move { DriverInput::HighestEpoch(dir.highest_epoch().await) });
                    }
                }
                Output::End(end) => self.end = Some(end),
            }
        }
    }

    fn append(&mut self, record: Record, then: AfterRecord) {
        if let Err(error) = self.journal.try_send((record, then)) {
            let reason = match error {
                TrySendError::Full(_) => format!("{MAX_RECORDS} records wait for the journal"),
                // The task reported the reason when it ended.
                TrySendError::Closed(_) => "the journal accepts no further records".into(),
            };
            self.end.get_or_insert(TermEnd::Journal(reason));
        }
    }

    /// Spawns I/O, and passes its result to the driver.
    fn spawn(&self, work: impl Future<Output = DriverInput> + Send + 'static) {
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let input = work.await;
            // A closed inbox means that the driver has ended. The input may hold a staging folder, which is removed on drop.
            if let Err(closed) = sender.send(input).await {
                tokio::task::spawn_blocking(move || drop(closed));
            }
        });
    }
}

/// Appends records in sequence, so that a slow store delays only what waits for a record.
async fn append(
    mut journal: Box<dyn Journal>,
    mut records: mpsc::Receiver<(Record, AfterRecord)>,
    driver: mpsc::Sender<DriverInput>,
) {
    while let Some((record, then)) = records.recv().await {
        let input = match journal.append(record).await {
            Ok(()) => DriverInput::Written(then),
            Err(error @ JournalError::Fenced { .. }) => {
                DriverInput::Stop(TermEnd::Deposed(error.to_string()))
            }
            Err(error) => DriverInput::Stop(TermEnd::Journal(error.to_string())),
        };
        let over = matches!(input, DriverInput::Stop(_));
        // A closed inbox means that the driver has ended.
        if driver.send(input).await.is_err() || over {
            return;
        }
    }
}
