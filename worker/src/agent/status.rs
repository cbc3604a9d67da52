//! The status of the worker over all its incarnations, as health checks and metrics show it: whether it is attached,
//! whether it drains, what it holds and has done.
//!
//! Not here: the decisions (`rules`), the HTTP server (`http`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tally_common::http::{Observed, Pulse, Unhealthy};
use tally_common::metrics::Page;
use tally_common::security::Security;
use tally_common::stores;
use tally_proto::report::{OUTCOMES, outcome_name};
use tally_proto::{Failure, v1};
use tally_shuffle::flight::Traffic;

use crate::runner::Gauges;

/// The status of a worker process. Shared by the agent and the HTTP server.
#[derive(Debug)]
pub struct WorkerStatus {
    pulse: Pulse,
    attached: AtomicBool,
    draining: AtomicBool,
    attempts: Mutex<BTreeMap<&'static str, u64>>,
    incarnations: AtomicU64,
    incarnation: RwLock<Option<IncarnationStatus>>,
}

/// The status of one incarnation.
#[derive(Debug)]
struct IncarnationStatus {
    slots: usize,
    memory_limit: u64,
    gauges: Gauges,
    traffic: Arc<Traffic>,
    security: Arc<Security>,
}

impl Default for WorkerStatus {
    fn default() -> Self {
        WorkerStatus {
            pulse: Pulse::default(),
            attached: AtomicBool::default(),
            draining: AtomicBool::default(),
            // All outcomes are present from the start, so that the first rates are correct.
            attempts: Mutex::new(OUTCOMES.map(|name| (name, 0)).into()),
            incarnations: AtomicU64::default(),
            incarnation: RwLock::default(),
        }
    }
}

impl WorkerStatus {
    /// Records periodically that the current runtime makes progress. Never returns.
    pub async fn beat(&self) {
        self.pulse.beat().await;
    }

    /// The metrics of the current incarnation.
    pub fn gauges(&self) -> Option<Gauges> {
        self.incarnation.read().as_ref().map(|incarnation| incarnation.gauges.clone())
    }

    /// An incarnation starts.
    pub(super) fn begin(
        &self,
        slots: usize,
        memory_limit: u64,
        gauges: Gauges,
        traffic: Arc<Traffic>,
        security: Arc<Security>,
    ) {
        self.incarnations.fetch_add(1, Ordering::Relaxed);
        *self.incarnation.write() =
            Some(IncarnationStatus { slots, memory_limit, gauges, traffic, security });
    }

    /// The incarnation ended.
    pub(super) fn end(&self) {
        *self.incarnation.write() = None;
    }

    /// A coordinator has accepted the worker, or the stream to it ended.
    pub(super) fn attach(&self, attached: bool) {
        self.attached.store(attached, Ordering::Relaxed);
    }

    /// A drain started.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// An attempt ended.
    pub(super) fn ended(&self, outcome: &Result<v1::TaskResult, Failure>) {
        *self.attempts.lock().entry(outcome_name(outcome)).or_default() += 1;
    }
}

impl Observed for WorkerStatus {
    fn alive(&self) -> Result<(), Unhealthy> {
        self.pulse.check()
    }

    fn ready(&self) -> Result<(), Unhealthy> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Unhealthy::NotReady("draining: no new task is taken"));
        }
        if !self.attached.load(Ordering::Relaxed) {
            return Err(Unhealthy::NotReady("not attached to a leading coordinator"));
        }
        let full = self
            .incarnation
            .read()
            .as_ref()
            .is_some_and(|incarnation| incarnation.gauges.store().spill().is_full());
        if full {
            return Err(Unhealthy::NotReady("the spill limit is reached: no new task is taken"));
        }
        Ok(())
    }

    fn metrics(&self, page: &mut Page) {
        let flag = |flag: &AtomicBool| f64::from(u8::from(flag.load(Ordering::Relaxed)));
        page.gauge(
            "tally_worker_attached",
            "1 while the worker is attached to the leading coordinator",
            flag(&self.attached),
        );
        page.gauge("tally_worker_draining", "1 after a drain started", flag(&self.draining));
        let incarnations = self.incarnations.load(Ordering::Relaxed) as f64;
        page.counter(
            "tally_worker_lives",
            "Incarnations: ids that the worker has had, a new one each time it was declared lost",
            incarnations,
        );
        let attempts = self.attempts.lock().clone();
        let by_outcome =
            attempts.into_iter().map(|(name, n)| (vec![("outcome", name.to_string())], n as f64));
        page.counters("tally_worker_attempts", "Task attempts that ended here, by outcome", by_outcome);
        stores::metrics(page);
        if let Some(incarnation) = &*self.incarnation.read() {
            incarnation.metrics(page);
        }
    }
}

impl IncarnationStatus {
    fn metrics(&self, page: &mut Page) {
        let (gauges, store) = (&self.gauges, self.gauges.store());
        page.gauge("tally_worker_slots", "Tasks at a time", self.slots as f64);
        page.gauge("tally_worker_tasks_running", "Running attempts", gauges.running() as f64);
        page.gauge("tally_worker_memory_limit_bytes", "The memory limit", self.memory_limit as f64);
        page.gauge(
            "tally_worker_memory_used_bytes",
            "Memory in use by outputs, pages and dictionaries; tables are not counted",
            gauges.memory_used() as f64,
        );
        page.gauge(
            "tally_worker_spill_limit_bytes",
            "Maximum bytes in the spill directory",
            store.spill().limit() as f64,
        );
        page.gauge(
            "tally_worker_spill_used_bytes",
            "Bytes in the spill directory",
            store.spill().used() as f64,
        );
        page.counter(
            "tally_worker_spilled_bytes",
            "Bytes written to the spill directory in this incarnation",
            store.spilled() as f64,
        );
        page.gauge("tally_worker_outputs", "Task outputs on this worker", store.outputs() as f64);
        page.gauge(
            "tally_worker_outputs_given",
            "Task outputs on this worker that were migrated to another one",
            store.migrated() as f64,
        );
        page.gauge(
            "tally_worker_streams",
            "Output streams that are being served",
            f64::from(self.traffic.serving()),
        );
        page.counter(
            "tally_worker_shuffle_sent_bytes",
            "Bytes sent to other workers",
            self.traffic.sent() as f64,
        );
        page.counter(
            "tally_worker_shuffle_received_bytes",
            "Bytes received from other workers",
            self.traffic.received() as f64,
        );
        let [busy, broken] = self.traffic.repeats();
        let repeats = [("busy", busy), ("broken", broken)];
        page.counters(
            "tally_worker_fetch_repeats",
            "Retried requests to other workers, because they were busy or the connection broke",
            repeats.map(|(reason, count)| (vec![("reason", reason.to_string())], count as f64)),
        );
        page.counter(
            "tally_worker_fetches_given_up",
            "Failed requests to other workers, after retries; the task is retried",
            self.traffic.given_up() as f64,
        );
        self.security.describe(page);
        page.counter("tally_worker_read_rows", "Rows of inputs read", gauges.rows_read() as f64);
        page.counter("tally_worker_read_bytes", "Bytes of inputs read", gauges.bytes_read() as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_only_while_attached_and_always_alive_while_it_drains() {
        let status = WorkerStatus::default();
        assert!(status.ready().unwrap_err().to_string().contains("not attached"));
        status.attach(true);
        assert_eq!(status.ready(), Ok(()));
        status.drain();
        assert!(status.ready().unwrap_err().to_string().contains("draining"));
        assert_eq!(status.alive(), Ok(()));
    }
}
