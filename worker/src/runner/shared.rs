//! The state that a worker shares with the threads of its slots.

use std::sync::Arc;

use tally_common::budget::Budget;
use tally_proto::report::Report;
use tally_scan::ScanCounters;
use tally_scan::footer::Footers;
use tally_shuffle::peers::Peers;
use tally_shuffle::store::Store;
use tokio::runtime::Handle;

use super::datasets::JobDatasets;
use super::running::RunningAttempts;
use crate::shares::{Shares, WorkerConfig};
use crate::task::context::StringDictionaries;

/// Called with each report on the slot's thread, in the order in which tasks end.
pub type ReportSink = dyn Fn(Report) + Send + Sync;

/// See the module documentation.
pub(super) struct Shared {
    pub(super) config: WorkerConfig,
    pub(super) shares: Shares,
    pub(super) budget: Budget,
    pub(super) store: Arc<Store>,
    pub(super) footers: Arc<Footers>,
    pub(super) counters: Arc<ScanCounters>,
    pub(super) peers: Arc<dyn Peers>,
    pub(super) io: Handle,
    pub(super) running: RunningAttempts,
    pub(super) datasets: JobDatasets,
    pub(super) dictionaries: Arc<StringDictionaries>,
    pub(super) report: Box<ReportSink>,
}

impl Shared {
    /// Bytes in use by outputs, pages and dictionaries.
    pub(super) fn memory_used(&self) -> u64 {
        self.store.budget().used() + self.budget.used()
    }
}
