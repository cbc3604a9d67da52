//! One schedule from its seed to its end: the loop over events in virtual time.
//!
//! The product's code uses tokio's clock for its pauses and time limits. That clock is paused and follows the events: it
//! moves when nothing else is to be done, and may lag behind them by [`LAG`].

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use chrono::TimeDelta;
use tally_coordinator::job::{Cut, JobSpec};
use tally_coordinator::publish::file_system::FileSystem;
use tally_coordinator::publish::staging::Staging;
use tally_coordinator::publish::sweep::sweep;
use tally_dataset::addon_aggregates::NAME;
use tally_proto::JobId;
use tally_proto::dataset_options::DatasetOptions;
use tokio::time::{Instant, Sleep};

use crate::client::output_url;
use crate::cluster::{Cluster, OUTPUT};
use crate::dataset;
use crate::event::Done;
use crate::files::fiber;
use crate::files::mount::Mount;
use crate::rng::Rng;
use crate::scenario::{Limits, Scenario};
use crate::store::client::{self, BUCKET};
use crate::tasks::Owner;
use crate::world::{self, MILLISECOND, Micros, SECOND, World, say};

/// How far tokio's clock may be behind: it moves in fewer steps, and timers may be late anyway.
const LAG: Micros = 20 * MILLISECOND;
/// The time from the end of faults until all jobs have ended.
const BOUND: Micros = 900 * SECOND;
/// The number of events after which a schedule makes no progress.
const MAX_EVENTS: u64 = 2_000_000;
/// The time for which nothing happens before a schedule ends.
const QUIET: Micros = 3 * SECOND;
/// The time in which every worker learns that a job ended: a pause, the silence of a broken stream, another attach.
const LEARN: Micros = 90 * SECOND;
/// The interval of looks whether all is over.
const LOOK: Micros = SECOND / 2;

/// The result of a schedule.
#[derive(Debug, Clone)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The invariant that does not hold.
    pub violation: Option<String>,
    /// The log, if one was kept.
    pub log: Vec<String>,
    /// Events that happened.
    pub events: u64,
    /// The virtual time of the schedule.
    pub time: Micros,
}

/// What follows the last fault.
enum Ending {
    /// Faults happen, or jobs run.
    Running,
    /// All jobs ended at that time. Workers may learn it later.
    Quiet(Micros),
    /// The garbage is collected since that time.
    Sweeping(Micros),
}

struct Schedule {
    cluster: Cluster,
    begun: Instant,
    sleep: Pin<Box<Sleep>>,
    events: u64,
    ending: Ending,
    next_look: Micros,
}

/// Runs the schedule of a seed, with a log or not.
pub fn run(seed: u64, limits: &Limits, log: bool) -> Report {
    client::install();
    let scenario = Scenario::new(seed, limits);
    let world = World::new(Rng::new(seed, 0), scenario.rates, scenario.folders);
    world::enter(Some(Box::new(world)), log);
    let ran = catch_unwind(AssertUnwindSafe(|| drive(scenario)));
    let log = world::log();
    let violation = world::violation().or_else(|| {
        let panic = ran.as_ref().err()?;
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Some(format!("a panic: {}", text.unwrap_or_default()))
    });
    let time = world::now();
    world::with(|world| world.over = true);
    fiber::end(None);
    world::enter(None, false);
    Report { seed, violation, log, events: ran.unwrap_or(0), time }
}

fn drive(scenario: Scenario) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            world::violated(|| format!("no runtime: {error}"));
            return 0;
        }
    };
    runtime.block_on(tokio::task::unconstrained(async move {
        let begun = Instant::now();
        let mut schedule = Schedule {
            cluster: Cluster::new(scenario),
            begun,
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            events: 0,
            ending: Ending::Running,
            next_look: 0,
        };
        poll_fn(|cx| schedule.poll(cx)).await;
        // What is dropped from here on changes nothing.
        world::with(|world| world.over = true);
        schedule.events
    }))
}

impl Schedule {
    fn tokio_now(&self) -> Micros {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(Micros::MAX)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut tokio_now = self.tokio_now();
        world::with(|world| world.now = world.now.max(tokio_now.saturating_sub(MILLISECOND)));
        loop {
            while self.cluster.poll() {}
            if self.is_over() {
                return Poll::Ready(());
            }
            let Some(at) = world::with(|world| world.next_at()) else {
                world::violated(|| format!("nothing happens any more: {}", self.cluster.pending()));
                return Poll::Ready(());
            };
            if at <= tokio_now + LAG {
                self.events += 1;
                if let Some(event) = world::with(World::pop) {
                    self.cluster.handle(event);
                }
                continue;
            }
            let due = self.begun + Duration::from_millis(at.div_ceil(MILLISECOND));
            self.sleep.as_mut().reset(due);
            if self.sleep.as_mut().poll(cx).is_ready() {
                tokio_now = self.tokio_now();
                continue;
            }
            let ready = self.cluster.shared.tasks.ready();
            ready.park(cx.waker());
            if !ready.any() {
                return Poll::Pending;
            }
        }
    }

    /// Whether the schedule is over: an invariant does not hold, or everything ended and was checked.
    fn is_over(&mut self) -> bool {
        if world::violation().is_some() {
            return true;
        }
        let now = world::now();
        if now < self.next_look {
            return false;
        }
        self.next_look = now + LOOK;
        self.cluster.check_bounds();
        if self.events > MAX_EVENTS {
            world::violated(|| format!("{MAX_EVENTS} events and no end: {}", self.cluster.pending()));
            return true;
        }
        if !self.cluster.calm {
            return false;
        }
        if now > self.cluster.scenario.calm_at + BOUND {
            world::violated(|| {
                format!("{} s after the last fault, {}", BOUND / SECOND, self.cluster.pending())
            });
            return true;
        }
        match self.ending {
            Ending::Running if self.cluster.is_quiet() => self.ending = Ending::Quiet(now),
            Ending::Quiet(since) if now >= since + QUIET => {
                match (self.cluster.is_quiet(), self.cluster.verify_workers()) {
                    (false, _) => self.ending = Ending::Running,
                    (true, Ok(())) => self.sweep(),
                    (true, Err(_)) if now < since + LEARN => {}
                    (true, Err(left)) => world::violated(|| left),
                }
            }
            // The leader may change even now.
            Ending::Sweeping(since) if self.cluster.swept.is_some() && self.cluster.is_quiet() => {
                if !self.cluster.staged_since(since) {
                    self.cluster.check_end();
                    return true;
                }
                // A leader that was deposed, and did not run meanwhile, prepared a job after the collection. It learns that
                // it is deposed before it decides anything, and the next collection removes the rest.
                say!("something was staged after the collection of garbage began");
                self.cluster.swept = None;
                self.ending = Ending::Running;
            }
            _ => {}
        }
        false
    }

    /// Collects the garbage, as `tally gc` does, or as the next job in a folder does.
    fn sweep(&mut self) {
        self.ending = Ending::Sweeping(world::now());
        let owner = Owner { process: usize::MAX, life: 0 };
        if world::with(|world| world.folders.output) {
            let after = format!("after-{}", world::now());
            return self
                .cluster
                .shared
                .tasks
                .spawn(owner, async move { Done::Swept(next_job(owner, after).await) });
        }
        self.cluster.shared.tasks.spawn(owner, async {
            let swept = sweep(&format!("s3://{BUCKET}/{OUTPUT}"), TimeDelta::zero(), false).await;
            Done::Swept(swept.map_or_else(|error| vec![error.to_string()], |swept| swept.failed))
        });
    }
}

/// Begins and abandons another job in the output, two hours later. Returns its errors.
async fn next_job(owner: Owner, id: String) -> Vec<String> {
    let files: Arc<dyn FileSystem> = Arc::new(Mount { owner, ahead: 2 * 3600 * SECOND });
    let id = match JobId::parse(&id) {
        Ok(id) => id,
        Err(error) => return vec![error.to_string()],
    };
    let spec = JobSpec {
        id,
        dataset: NAME.into(),
        day_folder: dataset::folder("20170101"),
        date: "20170101".into(),
        inputs: vec![],
        output: output_url(),
        target_file_size: 1,
        cut: Cut { shard_bytes: None, partitions: None },
        expectations: vec![],
        ready_marker: None,
        options: DatasetOptions::default(),
    };
    match Staging::prepare(&spec, 0, &files).await {
        Ok(staging) => {
            staging.discard().await;
            vec![]
        }
        Err(error) => vec![error.to_string()],
    }
}
