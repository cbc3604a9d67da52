//! The coordinator's health and metrics, for kubelets and Prometheus. Only the leader reports what only a leader knows, and
//! the counters of the others are zero, so that sums over all coordinators are correct.

use std::sync::Arc;
use std::time::Duration;

use tally_common::http::{Observed, Pulse, Unhealthy, stuck};
use tally_common::metrics::Page;
use tally_common::security::Security;
use tally_common::stores;
use tally_scheduler::Demand;

use super::CoordinatorRole;
use crate::election::Standing;
use crate::job::STAGES;
use crate::load::{Counts, JOB_STATES, Load, Publishes, WORKER_STATES};
use crate::notify::queue;

/// The observable state of a coordinator's process.
#[derive(Debug)]
pub struct Seen {
    role: Arc<CoordinatorRole>,
    security: Arc<Security>,
    pulse: Pulse,
}

impl Seen {
    /// The state of a process in that role.
    pub fn new(role: Arc<CoordinatorRole>, security: Arc<Security>) -> Self {
        Seen { role, security, pulse: Pulse::default() }
    }

    /// Beats on the runtime that this runs on; never ends.
    pub async fn beat(&self) {
        self.pulse.beat().await;
    }

    fn load(&self) -> Option<Load> {
        self.role.leading().ok()?.registry.load().borrow().clone()
    }
}

fn number(value: usize) -> f64 {
    value as f64
}

impl Observed for Seen {
    fn alive(&self) -> Result<(), Unhealthy> {
        self.pulse.check()?;
        stuck(self.load().map_or(Duration::ZERO, |load| load.at.elapsed()))
    }

    fn ready(&self) -> Result<(), Unhealthy> {
        if self.role.leading().is_ok() {
            return Ok(());
        }
        match self.role.standing() {
            Some(Standing::Standby { leader: Some(_) }) => Ok(()),
            Some(Standing::Lead) => Err(Unhealthy::NotReady("elected, but not leading yet")),
            _ => Err(Unhealthy::NotReady("no coordinator leads, as far as this one knows")),
        }
    }

    fn metrics(&self, page: &mut Page) {
        let leading = self.role.leading().ok();
        let leads = if leading.is_some() { 1.0 } else { 0.0 };
        page.gauge("tally_coordinator_leading", "1 while this coordinator leads", leads);
        let accepting = if self.role.accepting().is_ok() { 1.0 } else { 0.0 };
        page.gauge("tally_coordinator_accepting_jobs", "1 while it takes new jobs", accepting);
        stores::metrics(page);
        queue::metrics(page);
        self.security.describe(page);
        let load = self.load();
        // Also before it leads: Prometheus sees no increase if a series begins with its first count.
        match &load {
            Some(load) => describe_counts(&load.counts, page),
            None => describe_counts(&Counts::new(&STAGES), page),
        }
        let Some(leading) = leading else { return };
        page.gauge("tally_coordinator_epoch", "The term", leading.epoch as f64);
        if let Some(at) = leading.registry.last_publish() {
            const LAST: &str = "When the last job that published its day ended, in seconds since 1970";
            page.gauge("tally_last_publish_timestamp_seconds", LAST, (at / 1000) as f64);
        }
        if let Some(load) = &load {
            describe(load, page);
        }
    }
}

fn describe(load: &Load, page: &mut Page) {
    let state = |states: &[&'static str], counts: &[usize]| -> Vec<_> {
        let pairs = states.iter().zip(counts);
        pairs.map(|(state, count)| (vec![("state", (*state).to_string())], number(*count))).collect()
    };
    page.gauges("tally_jobs", "Jobs that are not over, by state", state(&JOB_STATES, &load.jobs));
    let slow = number(load.slow_jobs);
    page.gauge(
        "tally_jobs_slow",
        "Jobs that run for longer than each of the last 14 over the same tables",
        slow,
    );
    page.gauges("tally_workers", "Workers, by state", state(&WORKER_STATES, &load.workers));
    page.gauge("tally_slots", "Slots of workers that take tasks", load.slots as f64);
    if let Some(demand) = load.demand {
        describe_demand(demand, page);
    }
    let tasks = load.stages.iter().flat_map(|stage| {
        [("pending", stage.pending), ("running", stage.running), ("done", stage.done)].map(
            |(state, count)| {
                (vec![("stage", stage.name.to_string()), ("state", state.to_string())], number(count))
            },
        )
    });
    page.gauges("tally_tasks", "Tasks of jobs that are not over, by stage and state", tasks);
}

/// Counters of a term.
fn describe_counts(counts: &Counts, page: &mut Page) {
    let attempts = counts.attempts.iter().map(|((stage, outcome), count)| {
        (vec![("stage", (*stage).to_string()), ("outcome", (*outcome).to_string())], *count as f64)
    });
    page.counters("tally_attempts", "Task attempts that ended, by stage and outcome", attempts);
    let jobs =
        counts.jobs.iter().map(|(outcome, count)| (vec![("outcome", (*outcome).to_string())], *count as f64));
    page.counters("tally_jobs_ended", "Jobs that ended, by outcome", jobs);
    describe_publishes(counts.publish, page);
    let left = [("drained", counts.workers_drained), ("lost", counts.workers_lost)];
    let left = left.map(|(how, count)| (vec![("how", how.to_string())], count as f64));
    page.counters("tally_workers_left", "Workers that went: drained, or lost with what they held", left);
}

fn describe_publishes(publish: Publishes, page: &mut Page) {
    let Publishes { done, failed, took, day } = publish;
    let outcomes = [("done", done), ("failed", failed)];
    page.counters(
        "tally_publishes",
        "Days that were published, or could not be, by outcome",
        outcomes.map(|(outcome, count)| (vec![("outcome", outcome.to_string())], count as f64)),
    );
    page.counter("tally_publish_seconds", "Time that publishing took, in seconds", took.as_secs_f64());
    page.counter("tally_published_files", "Part files that were published", day.files as f64);
    page.counter("tally_published_rows", "Rows that were published", day.rows as f64);
    page.counter("tally_published_bytes", "Bytes of part files that were published", day.bytes as f64);
}

fn describe_demand(demand: Demand, page: &mut Page) {
    let wanted = number(demand.slots());
    page.gauge("tally_slots_wanted", "Slots that all runnable and running work would fill", wanted);
    let runnable = number(demand.runnable);
    page.gauge("tally_tasks_runnable", "Tasks that could start if there was a slot", runnable);
    page.gauge("tally_attempts_running", "Task attempts that run", number(demand.running));
}
