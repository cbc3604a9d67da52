//! Workers whose room ends, in simulated time: how many attempts they may refuse, how long a job takes beside them, and that
//! it ends in time if no worker has room.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use tally_proto::failure::Failure;
use tally_proto::ids::{AttemptId, JobId, WorkerId};
use tally_scheduler::{Command, Config, Event, JobFailure, JobShape, Millis, Outcome, Scheduler, TaskPlan};

/// The time of a task, and of a refusal.
const TASK: u64 = 200;
const REFUSAL: u64 = 5;

/// A worker with room for this many outputs.
#[derive(Debug, Clone)]
struct Host {
    slots: u32,
    room: usize,
}

/// What a worker did.
#[derive(Debug, Default, Clone)]
struct Seen {
    refused: u64,
    /// The time of its first refusal.
    since: u64,
}

struct World {
    scheduler: Scheduler,
    now: u64,
    hosts: BTreeMap<WorkerId, Host>,
    /// Ends of attempts by time.
    ends: BTreeSet<(u64, WorkerId, AttemptId)>,
    held: BTreeMap<WorkerId, usize>,
    seen: BTreeMap<WorkerId, Seen>,
    tasks: usize,
    last_success: u64,
    outcome: Option<Outcome>,
}

fn config() -> Config {
    Config {
        worker_timeout: None,
        speculation: None,
        no_workers_timeout: Duration::from_secs(60),
        ..Config::default()
    }
}

impl World {
    fn new(hosts: &[Host], tasks: usize) -> Self {
        let named = hosts
            .iter()
            .enumerate()
            .map(|(n, host)| (WorkerId::parse(&format!("w{n}")).expect("a worker id"), host.clone()));
        let mut world = Self {
            scheduler: Scheduler::new(config()).expect("valid options"),
            now: 0,
            hosts: named.collect(),
            ends: BTreeSet::new(),
            held: BTreeMap::new(),
            seen: BTreeMap::new(),
            tasks,
            last_success: 0,
            outcome: None,
        };
        for (worker, host) in world.hosts.clone() {
            world.tell(Event::WorkerJoined { worker, slots: host.slots, draining: false });
        }
        let job = JobId::parse("day").expect("a job id");
        world.tell(Event::JobSubmitted { job, shape: JobShape::chain(1).expect("a stage") });
        world
    }

    fn tell(&mut self, event: Event) {
        for command in self.scheduler.step(Millis(self.now), event) {
            match command {
                Command::Start { worker, attempt } => {
                    let room = self.held.get(&worker).copied().unwrap_or(0) < self.hosts[&worker].room;
                    let end = self.now + if room { TASK } else { REFUSAL };
                    self.ends.insert((end, worker, attempt));
                }
                Command::PlanStage { job, stage } => {
                    let tasks = (0..self.tasks).map(|n| TaskPlan {
                        weight: n as u64 % 7,
                        preferred: None,
                        affinity: None,
                    });
                    self.tell(Event::StagePlanned { job, stage, tasks: tasks.collect(), found: vec![] });
                }
                Command::Publish { job } => self.tell(Event::Published { job }),
                Command::FinishJob { outcome, .. } => self.outcome = Some(outcome),
                Command::Stop { .. } | Command::ReleaseJob { .. } | Command::Warn { .. } => {}
            }
        }
    }

    /// An attempt ends: with an output, if there is room for one more.
    fn end(&mut self, worker: WorkerId, attempt: AttemptId) {
        let held = self.held.entry(worker.clone()).or_default();
        let outcome = if *held < self.hosts[&worker].room {
            *held += 1;
            self.last_success = self.now;
            Ok(())
        } else {
            let seen = self.seen.entry(worker.clone()).or_insert(Seen { since: self.now, ..Seen::default() });
            seen.refused += 1;
            Err(Failure::Refused { reason: "full".into() })
        };
        self.tell(Event::AttemptEnded { worker, attempt, outcome });
    }

    fn run(&mut self) -> Outcome {
        for _ in 0..1_000_000 {
            if let Some(outcome) = &self.outcome {
                return outcome.clone();
            }
            let end = self.ends.first().map(|(at, ..)| *at);
            let wakeup = self.scheduler.next_wakeup().map(|at| at.0);
            match (end, wakeup) {
                (Some(end), wakeup) if wakeup.is_none_or(|at| end <= at) => {
                    self.now = end;
                    if let Some((_, worker, attempt)) = self.ends.pop_first() {
                        self.end(worker, attempt);
                    }
                }
                (_, Some(at)) => {
                    self.now = self.now.max(at);
                    self.tell(Event::Tick);
                }
                (_, None) => panic!("nothing to wait for at {}", self.now),
            }
        }
        panic!("the job does not end");
    }

    /// The most refusals of a worker within that time: its slots, and one after each pause.
    fn max_refusals(&self, worker: &WorkerId) -> u64 {
        let config = config();
        let mut left = self.now - self.seen[worker].since;
        let mut pauses = 0;
        let mut pause = config.retry_backoff.as_millis() as u64;
        while pause <= left {
            left -= pause;
            pauses += 1;
            pause = (2 * pause).min(config.retry_backoff_max.as_millis() as u64);
        }
        u64::from(self.hosts[worker].slots) + pauses
    }

    fn check_refusals(&self) -> Result<(), TestCaseError> {
        for (worker, seen) in &self.seen {
            let most = self.max_refusals(worker);
            prop_assert!(seen.refused <= most, "{worker}: {} refusals, {most} at most", seen.refused);
        }
        Ok(())
    }
}

fn any_host() -> impl Strategy<Value = Host> {
    let room = prop_oneof![1 => Just(0), 2 => 0usize..40, 2 => Just(usize::MAX)];
    (1u32..6, room).prop_map(|(slots, room)| Host { slots, room })
}

proptest! {
    #[test]
    fn refusals_are_bounded_and_every_job_ends(hosts in prop::collection::vec(any_host(), 1..8), tasks in 1usize..300) {
        let mut world = World::new(&hosts, tasks);
        let outcome = world.run();
        world.check_refusals()?;
        let room = hosts.iter().fold(0usize, |sum, host| sum.saturating_add(host.room));
        if room >= tasks {
            prop_assert_eq!(outcome, Outcome::Done);
        } else {
            let refused = matches!(&outcome, Outcome::Failed { reason: JobFailure::Refused { .. } });
            prop_assert!(refused, "{outcome:?}");
            // The last workers that refuse, the limit, and the longest pause before the attempt that fails the job.
            let waited = world.now - world.last_success;
            prop_assert!((60_000..160_000).contains(&waited), "{waited} ms");
        }
    }
}

/// A worker that is full from the start costs a few attempts, and takes no work from the others.
#[test]
fn a_full_worker_beside_others_costs_few_attempts_and_no_time() {
    let host = |room| Host { slots: 2, room };
    let time = |hosts: &[Host]| {
        let mut world = World::new(hosts, 240);
        assert_eq!(world.run(), Outcome::Done);
        let refused = world.seen.values().map(|seen| seen.refused).sum::<u64>();
        (world.now, refused)
    };
    let (alone, none) = time(&[host(usize::MAX), host(usize::MAX), host(usize::MAX)]);
    let (beside, refused) = time(&[host(0), host(usize::MAX), host(usize::MAX), host(usize::MAX)]);
    assert_eq!(none, 0);
    assert!((2..=2 + 5).contains(&refused), "{refused} refused attempts in {beside} ms");
    assert!(beside * 10 <= alone * 11, "{beside} ms beside {alone} ms");
}
