//! The worker as it is seen from outside, over all its lives: whether it is attached, whether it
//! drains, what it holds and has done.
//!
//! Not here: the decisions (`rules`), how it is asked (`http`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tally_proto::{Failure, v1};

use crate::flight::Traffic;
use crate::http::{Observed, Page, Pulse};
use crate::runner::{Gauges, OUTCOMES, outcome_name};
use crate::security::Security;

/// What is known of a worker's process. Shared by the agent and those who look.
#[derive(Debug)]
pub struct Seen {
    pulse: Pulse,
    attached: AtomicBool,
    draining: AtomicBool,
    attempts: Mutex<BTreeMap<&'static str, u64>>,
    lives: AtomicU64,
    life: RwLock<Option<Shown>>,
}

/// What one life shows.
#[derive(Debug)]
struct Shown {
    slots: usize,
    memory_limit: u64,
    gauges: Gauges,
    traffic: Arc<Traffic>,
    security: Arc<Security>,
}

impl Default for Seen {
    fn default() -> Self {
        Seen {
            pulse: Pulse::default(),
            attached: AtomicBool::default(),
            draining: AtomicBool::default(),
            // All of them from the start, so that rates are right at the first one.
            attempts: Mutex::new(OUTCOMES.map(|name| (name, 0)).into()),
            lives: AtomicU64::default(),
            life: RwLock::default(),
        }
    }
}

impl Seen {
    /// Notes now and then that the runtime that this runs on turns; never ends.
    pub async fn beat(&self) {
        self.pulse.beat().await;
    }

    /// A life begins.
    pub(super) fn begin(
        &self,
        slots: usize,
        memory_limit: u64,
        gauges: Gauges,
        traffic: Arc<Traffic>,
        security: Arc<Security>,
    ) {
        self.lives.fetch_add(1, Ordering::Relaxed);
        *self.life.write() = Some(Shown { slots, memory_limit, gauges, traffic, security });
    }

    /// It is over.
    pub(super) fn end(&self) {
        *self.life.write() = None;
    }

    /// A coordinator has let the worker in, or the stream to it is over.
    pub(super) fn attach(&self, attached: bool) {
        self.attached.store(attached, Ordering::Relaxed);
    }

    /// It is on its way out.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// An attempt is over.
    pub(super) fn ended(&self, outcome: &Result<v1::TaskResult, Failure>) {
        *self.attempts.lock().entry(outcome_name(outcome)).or_default() += 1;
    }
}

impl Observed for Seen {
    fn alive(&self) -> Result<(), String> {
        self.pulse.check()
    }

    fn ready(&self) -> Result<(), String> {
        if self.draining.load(Ordering::Relaxed) {
            return Err("draining: no new task is taken".into());
        }
        if !self.attached.load(Ordering::Relaxed) {
            return Err("not attached to a leading coordinator".into());
        }
        let full = self.life.read().as_ref().is_some_and(|life| life.gauges.store().spill().is_full());
        if full {
            return Err("the spill limit is reached: no new task is taken".into());
        }
        Ok(())
    }

    fn metrics(&self, page: &mut Page) {
        let flag = |flag: &AtomicBool| f64::from(u8::from(flag.load(Ordering::Relaxed)));
        page.gauge(
            "tally_worker_attached",
            "1 while a leading coordinator has let the worker in",
            flag(&self.attached),
        );
        page.gauge("tally_worker_draining", "1 once the worker is on its way out", flag(&self.draining));
        let lives = self.lives.load(Ordering::Relaxed) as f64;
        page.counter(
            "tally_worker_lives",
            "Ids the worker has had: a new one after each time it was given up",
            lives,
        );
        let attempts = self.attempts.lock().clone();
        let by_outcome =
            attempts.into_iter().map(|(name, n)| (vec![("outcome", name.to_string())], n as f64));
        page.counters("tally_worker_attempts", "Task attempts that ended here, by outcome", by_outcome);
        if let Some(life) = &*self.life.read() {
            life.metrics(page);
        }
    }
}

impl Shown {
    fn metrics(&self, page: &mut Page) {
        let (gauges, store) = (&self.gauges, self.gauges.store());
        page.gauge("tally_worker_slots", "Tasks at a time", self.slots as f64);
        page.gauge("tally_worker_tasks_running", "Attempts that run", gauges.running() as f64);
        page.gauge("tally_worker_memory_limit_bytes", "The memory limit", self.memory_limit as f64);
        page.gauge(
            "tally_worker_memory_used_bytes",
            "Memory in use by outputs, pages and dictionaries; tables are not counted",
            gauges.memory_used() as f64,
        );
        page.gauge(
            "tally_worker_spill_limit_bytes",
            "Bytes that may lie in the spill directory",
            store.spill().limit() as f64,
        );
        page.gauge("tally_worker_spill_used_bytes", "Bytes that lie there", store.spill().used() as f64);
        page.counter(
            "tally_worker_spilled_bytes",
            "Bytes written there in this life",
            store.spilled() as f64,
        );
        page.gauge("tally_worker_outputs", "Task outputs that are held", store.outputs() as f64);
        page.gauge(
            "tally_worker_outputs_given",
            "Those that another worker has taken over",
            store.given() as f64,
        );
        page.gauge(
            "tally_worker_streams",
            "Output streams that are served just now",
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
            "Times that another worker was asked again, as it was busy or the way broke",
            repeats.map(|(reason, count)| (vec![("reason", reason.to_string())], count as f64)),
        );
        page.counter(
            "tally_worker_fetches_given_up",
            "Times that another worker was asked in vain: the task fails for the time being",
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
        let status = Seen::default();
        assert!(status.ready().unwrap_err().contains("not attached"));
        status.attach(true);
        assert_eq!(status.ready(), Ok(()));
        status.drain();
        assert!(status.ready().unwrap_err().contains("draining"));
        assert_eq!(status.alive(), Ok(()));
    }
}
