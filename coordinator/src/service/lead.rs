//! One term of leadership: an epoch is claimed, what earlier leaders left is taken up, and the
//! driver runs until somebody else leads or the process is to end.

use std::sync::Arc;
use std::time::Duration;

use tally_scheduler::{Config, ConfigError};
use tally_worker::scan::footer::Footers;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::{Leading, Role, Timing};
use crate::cluster::RemoteFleet;
use crate::driver::{self, Driver, End, Input, Parts, Resumed, show_history};
use crate::history::Registry;
use crate::journal::JournalError;
use crate::journal::log::{Claimant, EpochLog};
use crate::journal::store::StateDir;

/// Bytes of footers that are kept while inputs are planned.
const FOOTER_BYTES: usize = 32 << 20;
/// How often memory is looked at, and those that drain.
const SAMPLE: Duration = Duration::from_millis(200);
/// How often it is looked for a later epoch.
const LOOK_FOR_EPOCHS: Duration = Duration::from_secs(2);
/// Attempts of a task in one epoch, at most, before numbers meet the next epoch's.
const ATTEMPT_BITS: u32 = 12;

/// What a coordinator leads with.
#[derive(Debug, Clone)]
pub struct LeadOptions {
    /// Where it is reached.
    pub address: String,
    /// Jobs that are over and remembered.
    pub history: usize,
    /// Jobs at a time.
    pub most_jobs: usize,
    /// Records of the journal after which a snapshot replaces them.
    pub compact_after: u64,
    /// How long it waits for workers.
    pub timing: Timing,
}

/// A term that could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LeadError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The scheduler's options.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A thread ended.
    #[error("the jobs of the journal could not be taken up: {0}")]
    Resume(#[from] tokio::task::JoinError),
}

/// The number of each task's first attempt in an epoch: no two epochs that meet share numbers.
fn first_attempt(epoch: u64) -> u32 {
    let epoch = epoch % (1 << (u32::BITS - ATTEMPT_BITS));
    (epoch as u32) << ATTEMPT_BITS
}

/// Leads until `until`, or until another one does; `claimed` is told the epoch.
///
/// # Errors
/// [`LeadError`]: the term did not begin.
pub async fn lead<A: Future<Output = ()>>(
    role: &Role,
    dir: &StateDir,
    options: &LeadOptions,
    claimed: impl FnOnce(u64) -> A,
    until: impl Future<Output = ()>,
) -> Result<End, LeadError> {
    let claimant = Claimant {
        address: options.address.clone(),
        history: options.history,
        compact_after: options.compact_after,
    };
    let log = EpochLog::claim(dir.clone(), &claimant).await?;
    let epoch = log.epoch();
    let state = log.state().clone();
    let registry = Arc::new(Registry::new(options.history));
    show_history(&registry, &state);
    let resumed = tokio::task::spawn_blocking(move || Resumed::all(&state, epoch)).await?;
    tracing::info!(epoch, jobs = resumed.len(), "this coordinator leads");
    let config = Config {
        // Connections tell who fell silent.
        worker_timeout: None,
        no_workers_timeout: options.timing.no_workers,
        first_attempt: first_attempt(epoch),
        ..Config::default()
    };
    let doubt = Arc::new(Notify::new());
    let (handle, inbox) = driver::inbox();
    let parts = Parts {
        config,
        fleet: Box::new(RemoteFleet::new(epoch)),
        journal: Box::new(log),
        footers: Arc::new(Footers::new(FOOTER_BYTES)),
        registry: registry.clone(),
        epoch,
        doubt: doubt.clone(),
        most_jobs: options.most_jobs,
        sample: SAMPLE,
    };
    let mut driver = Driver::new(parts, &handle, inbox)?;
    driver.resume(resumed, options.timing.settle);
    let sender = handle.sender().clone();
    let watch = tokio::spawn(watch_epochs(dir.clone(), epoch, doubt, sender.clone()));
    claimed(epoch).await;
    role.set(Some(Leading { sender, registry, epoch }));
    let end = driver.run(until).await;
    role.set(None);
    watch.abort();
    Ok(end)
}

/// A coordinator that has nothing to write down learns here that another leads; at once where a
/// worker says so, whose word alone is not enough.
async fn watch_epochs(dir: StateDir, epoch: u64, doubt: Arc<Notify>, driver: mpsc::Sender<Input>) {
    loop {
        // Whichever comes first.
        let _ = timeout(LOOK_FOR_EPOCHS, doubt.notified()).await;
        match dir.highest_epoch().await {
            Ok(highest) if highest > epoch => {
                let why = format!("epoch {highest} was claimed after this coordinator's, {epoch}");
                // The driver gone means that the term is over already.
                let _ = driver.send(Input::Stop(End::Deposed(why))).await;
                return;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the journal cannot be looked at"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_that_meet_share_no_attempt_numbers() {
        assert_eq!([1, 2, (1 << 20) + 1].map(first_attempt), [4096, 8192, 4096]);
        assert_eq!(first_attempt((1 << 20) - 1), u32::MAX - 4095);
    }
}
