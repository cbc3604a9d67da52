//! Co-partitioned inputs in simulated time: how many bytes of the shuffle stay on their worker, and that nothing waits for
//! that. The bytes of a map task with an affinity belong to one partition, those of others to all partitions.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tally_proto::ids::{AttemptId, JobId, StageId, WorkerId};
use tally_scheduler::{Command, Config, Event, JobShape, Millis, Outcome, Scheduler, TaskPlan};

const PARTITIONS: u32 = 100;
const JOB: &str = "day";

fn worker(n: usize) -> WorkerId {
    WorkerId::parse(&format!("w{n}")).expect("a worker id")
}

/// A worker that needs `slowness` milliseconds for a unit of weight.
#[derive(Debug, Clone, Copy)]
struct Host {
    slots: u32,
    slowness: u64,
}

/// A job of two stages on these workers, whose tasks take time.
struct Plant {
    scheduler: Scheduler,
    now: u64,
    hosts: BTreeMap<WorkerId, Host>,
    map: Vec<TaskPlan>,
    ends: BTreeSet<(u64, u64, WorkerId, AttemptId)>,
    starts: Vec<(u32, u32, WorkerId)>,
    /// The end of the map stage.
    mapped: u64,
    local: u64,
    remote: u64,
    outcome: Option<Outcome>,
}

impl Plant {
    fn new(hosts: &[Host], map: Vec<TaskPlan>) -> Self {
        let config = Config { worker_timeout: None, speculation: None, ..Config::default() };
        let mut plant = Self {
            scheduler: Scheduler::new(config).expect("valid options"),
            now: 0,
            hosts: BTreeMap::new(),
            map,
            ends: BTreeSet::new(),
            starts: vec![],
            mapped: 0,
            local: 0,
            remote: 0,
            outcome: None,
        };
        hosts.iter().for_each(|host| plant.join(*host));
        let job = JobId::parse(JOB).expect("a job id");
        plant.tell(Event::JobSubmitted { job, shape: JobShape::chain(2).expect("stages") });
        plant
    }

    fn join(&mut self, host: Host) {
        let id = (0..).map(worker).find(|id| !self.hosts.contains_key(id)).expect("an id");
        self.hosts.insert(id.clone(), host);
        self.tell(Event::WorkerJoined { worker: id, slots: host.slots, draining: false });
    }

    fn tell(&mut self, event: Event) {
        for command in self.scheduler.step(Millis(self.now), event) {
            match command {
                Command::Start { worker, attempt } => {
                    let (stage, index) = (attempt.task.stage.0, attempt.task.index);
                    let took = self.weight(stage, index, &worker) * self.hosts[&worker].slowness;
                    self.ends.insert((self.now + took, self.starts.len() as u64, worker.clone(), attempt));
                    self.starts.push((stage, index, worker));
                }
                Command::Stop { worker, attempt } => {
                    self.ends.retain(|(_, _, on, other)| (on, other) != (&worker, &attempt));
                    let outcome = Err(tally_proto::failure::Failure::Cancelled);
                    self.tell(Event::AttemptEnded { worker, attempt, outcome });
                }
                Command::PlanStage { job, stage } => {
                    let tasks = if stage.0 == 0 { self.map.clone() } else { self.plan_reduce() };
                    self.tell(Event::StagePlanned { job, stage, tasks, found: vec![] });
                }
                Command::Publish { job } => self.tell(Event::Published { job }),
                Command::FinishJob { outcome, .. } => self.outcome = Some(outcome),
                Command::ReleaseJob { .. } | Command::Warn { .. } => {}
            }
        }
    }

    /// The bytes of a partition by worker.
    fn held(&self, partition: u32) -> BTreeMap<WorkerId, u64> {
        let mut held = BTreeMap::new();
        let job = JobId::parse(JOB).expect("a job id");
        for (index, worker, _) in self.scheduler.outputs(&job, StageId(0)) {
            let TaskPlan { weight, affinity, .. } = &self.map[index as usize];
            let bytes = match affinity {
                Some(affinity) if *affinity == partition => weight * u64::from(PARTITIONS),
                Some(_) => 0,
                None => *weight,
            };
            *held.entry(worker.clone()).or_default() += bytes;
        }
        held
    }

    /// As the coordinator does it: a task prefers a worker that holds more than half of its input.
    fn plan_reduce(&mut self) -> Vec<TaskPlan> {
        self.mapped = self.now;
        let preferred = |partition| {
            let held = self.held(partition);
            let all: u64 = held.values().sum();
            held.into_iter().find(|(_, bytes)| bytes * 2 > all).map(|(worker, _)| worker)
        };
        let tasks = (0..PARTITIONS).map(preferred);
        tasks.map(|preferred| TaskPlan { weight: 1, preferred, affinity: None }).collect()
    }

    /// The work of a task; a reduce task also counts its bytes.
    fn weight(&mut self, stage: u32, index: u32, on: &WorkerId) -> u64 {
        if stage == 0 {
            return self.map[index as usize].weight;
        }
        let held = self.held(index);
        let all: u64 = held.values().sum();
        let local = held.get(on).copied().unwrap_or(0);
        (self.local, self.remote) = (self.local + local, self.remote + all - local);
        (all / u64::from(PARTITIONS)).max(1)
    }

    /// Checks that no slot is free while a task could run.
    fn check_no_slot_is_idle(&self) {
        let slots: u32 = self.hosts.values().map(|host| host.slots).sum();
        let status = self.scheduler.status(&JobId::parse(JOB).expect("a job id")).expect("a status");
        let pending: usize = status.stages.iter().map(|stage| stage.pending).sum();
        assert!(pending == 0 || self.ends.len() == slots as usize, "{pending} tasks wait at {}", self.now);
    }

    fn end_next(&mut self) {
        let (at, _, worker, attempt) = self.ends.pop_first().expect("a running attempt");
        self.now = at;
        self.tell(Event::AttemptEnded { worker, attempt, outcome: Ok(()) });
    }

    /// Runs to the end.
    fn run(mut self) -> Self {
        while self.outcome.is_none() {
            self.check_no_slot_is_idle();
            self.end_next();
        }
        assert_eq!(self.outcome, Some(Outcome::Done));
        self
    }

    fn remote_share(&self) -> f64 {
        self.remote as f64 / (self.local + self.remote) as f64
    }
}

/// The shards of two tables with `shards` files of each of 100 samples, which differ in size.
fn day(shards: u64, affinity: impl Fn(u32) -> Option<u32>) -> Vec<TaskPlan> {
    let sizes =
        [40, 17].into_iter().flat_map(move |table| (0..u64::from(PARTITIONS)).map(move |n| (table, n)));
    let tasks =
        sizes.flat_map(|(table, sample)| (0..shards).map(move |n| (table + sample * 7 % 11 + n, sample)));
    tasks
        .map(|(weight, sample)| TaskPlan { weight, preferred: None, affinity: affinity(sample as u32) })
        .collect()
}

fn same(count: usize, slots: u32) -> Vec<Host> {
    vec![Host { slots, slowness: 100 }; count]
}

#[test]
fn at_most_a_tenth_of_the_bytes_of_a_co_partitioned_day_crosses_the_network() {
    for (hosts, shards) in [
        (same(3, 1), 4),
        (same(3, 2), 4),
        (same(3, 4), 1),
        (
            vec![
                Host { slots: 1, slowness: 100 },
                Host { slots: 2, slowness: 130 },
                Host { slots: 4, slowness: 90 },
            ],
            4,
        ),
    ] {
        let share = Plant::new(&hosts, day(shards, Some)).run().remote_share();
        assert!(share <= 0.1, "{share} with {hosts:?}");
    }
    let share = Plant::new(&same(3, 2), day(4, |_| None)).run().remote_share();
    assert!((0.6..0.7).contains(&share), "{share} without affinities");
}

#[test]
fn a_day_without_affinities_starts_the_heaviest_task_on_the_slot_that_is_free() {
    let plant = Plant::new(&same(3, 2), day(4, |_| None)).run();
    let mut order: Vec<_> =
        (0u32..).zip(&plant.map).map(|(n, task)| (std::cmp::Reverse(task.weight), n)).collect();
    order.sort_unstable();
    let started = plant.starts.iter().filter(|(stage, ..)| *stage == 0).map(|(_, index, _)| *index);
    assert!(started.eq(order.into_iter().map(|(_, n)| n)));
    // The reduce tasks prefer no worker.
    let started = plant.starts.iter().filter(|(stage, ..)| *stage == 1).map(|(_, index, _)| *index);
    assert!(started.eq(0..PARTITIONS));
}

#[test]
fn a_slow_worker_delays_the_map_stage_no_more_than_without_affinities() {
    for slowness in [100, 300, 2000] {
        let mut hosts = same(3, 2);
        hosts[0].slowness = slowness;
        let with = Plant::new(&hosts, day(4, Some)).run();
        let without = Plant::new(&hosts, day(4, |_| None)).run();
        // The last tasks may be a little heavier.
        let longest = 60 * slowness;
        assert!(with.mapped <= without.mapped + longest, "{} {} {slowness}", with.mapped, without.mapped);
        assert!(with.now <= without.now + 2 * longest, "{} {} {slowness}", with.now, without.now);
    }
}

#[test]
fn one_affinity_for_all_tasks_keeps_no_slot_idle() {
    let with = Plant::new(&same(3, 2), day(4, |_| Some(0))).run();
    let without = Plant::new(&same(3, 2), day(4, |_| None)).run();
    assert_eq!(with.mapped, without.mapped);
}

/// The lanes of a worker that leaves go to the others, and those of one that is lost run again there.
#[test]
fn the_tasks_of_a_worker_that_drains_or_is_lost_run_elsewhere() {
    for lost in [false, true] {
        let mut plant = Plant::new(&same(4, 2), day(4, Some));
        for _ in 0..300 {
            plant.end_next();
        }
        let gone = worker(1);
        if lost {
            plant.ends.retain(|(_, _, on, _)| *on != gone);
            plant.tell(Event::WorkerLost { worker: gone.clone() });
        } else {
            plant.tell(Event::WorkerDraining { worker: gone.clone() });
        }
        while plant.outcome.is_none() {
            match plant.ends.is_empty() {
                true => plant.now = plant.scheduler.next_wakeup().expect("a retry").0,
                false => plant.end_next(),
            }
            plant.tell(Event::Tick);
        }
        assert_eq!(plant.outcome, Some(Outcome::Done));
        // The outputs of a worker that drains are read from there: here they are not migrated.
        let limit = if lost { 0.1 } else { 0.25 };
        assert!(plant.remote_share() <= limit, "{} lost: {lost}", plant.remote_share());
    }
}

fn any_host() -> impl Strategy<Value = Host> {
    (1u32..4, 1u64..20).prop_map(|(slots, slowness)| Host { slots, slowness })
}

fn any_task() -> impl Strategy<Value = TaskPlan> {
    let preferred = prop::option::weighted(0.3, 0usize..6);
    (0u64..50, preferred, prop::option::of(0u32..8)).prop_map(|(weight, preferred, affinity)| TaskPlan {
        weight,
        preferred: preferred.map(worker),
        affinity,
    })
}

proptest! {
    #[test]
    fn every_task_runs_once_whatever_its_hints(
        hosts in prop::collection::vec(any_host(), 1..5),
        tasks in prop::collection::vec(any_task(), 0..120),
    ) {
        let count = tasks.len();
        let plant = Plant::new(&hosts, tasks).run();
        let mapped: BTreeSet<_> = plant.starts.iter().filter(|start| start.0 == 0).map(|start| start.1).collect();
        prop_assert_eq!((mapped.len(), plant.starts.len()), (count, count + PARTITIONS as usize));
    }
}
