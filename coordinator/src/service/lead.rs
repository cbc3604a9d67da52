//! One term of leadership: claim an epoch, take over the jobs of earlier leaders, and run the driver until another
//! coordinator leads or the process ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tally_proto::JobId;
use tally_scan::footer::Footers;
use tally_scheduler::{Config, ConfigError};

use super::{CoordinatorRole, Leading, Timing};
use crate::cluster::RemoteFleet;
use crate::driver::{
    self, DriverParts, Intervals, Resumed, Shell, ShellParts, TermEnd, first_attempt, show_history,
};
use crate::history::Registry;
use crate::journal::JournalError;
use crate::journal::log::{Claimant, EpochLog};
use crate::journal::state_dir::StateDir;
use crate::notify::delivery::Sinks;
use crate::peak_memory::resident;
use crate::publish::file_system;

/// The bytes of footers in the cache while inputs are planned.
const FOOTER_BYTES: usize = 32 << 20;
/// The driver's intervals: statuses are shown as often as a person can see.
const INTERVALS: Intervals = Intervals {
    sample: Duration::from_millis(200),
    show: Duration::from_millis(20),
    epoch_checks: Some(Duration::from_secs(2)),
};
/// The options of a term.
#[derive(Debug, Clone)]
pub struct LeadOptions {
    /// The address of the coordinator.
    pub address: String,
    /// Ended jobs that are remembered.
    pub history: usize,
    /// Jobs at a time.
    pub max_jobs: usize,
    /// Records of the journal after which a snapshot replaces them.
    pub compact_after: u64,
    /// Intervals and timeouts.
    pub timing: Timing,
    /// Receivers of notices of jobs.
    pub sinks: Sinks,
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
    /// A thread panicked.
    #[error("the jobs of the journal could not be resumed: {0}")]
    Resume(#[from] tokio::task::JoinError),
}

/// Leads until `until` resolves or another coordinator leads; `claimed` receives the epoch.
///
/// # Errors
/// [`LeadError`]: the term did not begin.
pub async fn lead<A: Future<Output = ()>>(
    role: &CoordinatorRole,
    dir: &StateDir,
    options: &LeadOptions,
    claimed: impl FnOnce(u64) -> A,
    until: impl Future<Output = ()>,
) -> Result<TermEnd, LeadError> {
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
    let (handle, inbox) = driver::inbox();
    let undelivered =
        |receiver: &str| state.undelivered(receiver).filter_map(|job| JobId::parse(job).ok()).collect();
    let _deliveries = options.sinks.start(&registry, handle.sender(), undelivered);
    let files = file_system::system();
    let local = files.clone();
    let resumed = tokio::task::spawn_blocking(move || Resumed::all(&state, epoch, &local)).await?;
    tracing::info!(epoch, jobs = resumed.len(), "this coordinator leads");
    let parts = ShellParts {
        journal: Box::new(log),
        epochs: Some(dir.clone()),
        footers: Arc::new(Footers::new(FOOTER_BYTES)),
        files,
    };
    let driver = driver_parts(epoch, registry.clone(), options, Instant::now());
    let mut shell = Shell::start(driver, parts, &handle, inbox)?;
    shell.resume(resumed, options.timing.settle);
    claimed(epoch).await;
    let sender = handle.sender().clone();
    role.set(Some(Leading { sender, registry, epoch }));
    let end = shell.run(until).await;
    role.set(None);
    Ok(end)
}

/// The driver of a leader, with workers in other processes.
pub fn driver_parts(
    epoch: u64,
    registry: Arc<Registry>,
    options: &LeadOptions,
    started: Instant,
) -> DriverParts {
    DriverParts {
        config: Config {
            // The watch of each worker's stream detects silent workers.
            worker_timeout: None,
            no_workers_timeout: options.timing.no_workers,
            first_attempt: first_attempt(epoch),
            ..Config::default()
        },
        fleet: Box::new(RemoteFleet::new(epoch)),
        registry,
        epoch,
        max_jobs: options.max_jobs,
        silence: options.timing.timeout,
        grace: options.timing.grace,
        silent_after: options.timing.heartbeat * 2,
        intervals: INTERVALS,
        started,
        resident,
    }
}
