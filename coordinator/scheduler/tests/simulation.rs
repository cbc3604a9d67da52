//! The scheduler in random scenarios with faults (see `world`), and at full size.
//!
//! A run is a seed and a list of actions; equal runs always give the same log. If a rule is violated, the test prints the
//! shortest list of actions that it found, and its log.
//! `SIMULATION_SEED=n` tries other lists, `PROPTEST_CASES=n` more of them.

mod world;

use std::cell::RefCell;
use std::collections::VecDeque;

use proptest::prelude::*;
use proptest::test_runner::{Config as RunnerConfig, RngAlgorithm, TestRng, TestRunner};
use tally_proto::failure::Failure;
use tally_proto::ids::{JobId, WorkerId};
use tally_scheduler::{Command, Config, Event, JobShape, Millis, Outcome, Scheduler, TaskPlan};

use world::{Action, Tally, World};

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => any::<u8>().prop_map(Action::Submit),
        1 => any::<u8>().prop_map(Action::Cancel),
        4 => any::<u8>().prop_map(Action::Join),
        2 => any::<u8>().prop_map(Action::Die),
        1 => any::<u8>().prop_map(Action::Vanish),
        1 => any::<u8>().prop_map(Action::Drain),
        30 => (any::<u8>(), any::<u8>()).prop_map(|(n, how)| Action::End(n, how)),
        40 => any::<u8>().prop_map(Action::Deliver),
        4 => any::<u8>().prop_map(Action::Duplicate),
        1 => any::<u8>().prop_map(Action::Lose),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(n, to)| Action::Move(n, to)),
        3 => any::<u8>().prop_map(Action::Miss),
        3 => any::<u8>().prop_map(Action::Resume),
        1 => Just(Action::Restart),
        8 => any::<u16>().prop_map(Action::Advance),
    ]
}

fn runner() -> TestRunner {
    let seed: u64 = std::env::var("SIMULATION_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config =
        RunnerConfig { failure_persistence: None, max_shrink_iters: 20_000, ..RunnerConfig::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

#[test]
fn with_random_faults_every_rule_holds_and_every_job_ends() {
    let total = RefCell::new(Tally::default());
    let runs = (any::<u64>(), prop::collection::vec(action(), 0..400));
    let result = runner().run(&runs, |(seed, actions)| {
        let mut world = World::new(seed);
        for action in &actions {
            world.act(action)?;
        }
        world.settle()?;
        let (mut total, run) = (total.borrow_mut(), &world.tally);
        total.done += run.done;
        total.failed += run.failed;
        total.cancelled += run.cancelled;
        total.reruns += run.reruns;
        total.speculative_attempts += run.speculative_attempts;
        total.timed_out += run.timed_out;
        total.warnings += run.warnings;
        total.restarts += run.restarts;
        total.adopted += run.adopted;
        total.resent += run.resent;
        total.given_back += run.given_back;
        total.steps += run.steps;
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    // The faults must have happened.
    let total = total.into_inner();
    println!("{total:?}");
    let seen = [total.done, total.failed, total.cancelled, total.reruns, total.speculative_attempts];
    assert!(seen.iter().all(|count| *count > 20), "{total:?}");
    assert!(total.timed_out > 20 && total.warnings > 20, "{total:?}");
    assert!(total.restarts > 20 && total.adopted > 20, "{total:?}");
    assert!(total.resent > 20 && total.given_back > 20, "{total:?}");
}

/// One large job, its workers, and the commands for it.
struct Plant {
    scheduler: Scheduler,
    running: VecDeque<Event>,
    now: u64,
    starts: u64,
    others: u64,
    outcome: Option<Outcome>,
}

impl Plant {
    fn new(workers: usize, slots: u32) -> Self {
        let config = Config { worker_timeout: None, ..Config::default() };
        let scheduler = Scheduler::new(config).expect("valid options");
        let running = VecDeque::new();
        let mut plant = Self { scheduler, running, now: 0, starts: 0, others: 0, outcome: None };
        for n in 0..workers {
            plant.tell(Event::WorkerJoined { worker: worker(n), slots, draining: false });
        }
        let job = JobId::parse("day").expect("a job id");
        plant.tell(Event::JobSubmitted { job, shape: JobShape::chain(3).expect("stages") });
        plant
    }

    fn tell(&mut self, event: Event) {
        for command in self.scheduler.step(Millis(self.now), event) {
            self.others += 1;
            match command {
                Command::Start { worker, attempt } => {
                    self.starts += 1;
                    self.others -= 1;
                    self.running.push_back(Event::AttemptEnded { worker, attempt, outcome: Ok(()) });
                }
                Command::PlanStage { job, stage } => {
                    let count = if stage.0 == 0 { 20_000u64 } else { 200 };
                    // Weights that differ and repeat; every third task has a preferred worker.
                    let task = |n: u64| TaskPlan {
                        weight: n * 7919 % 1000,
                        preferred: n.is_multiple_of(3).then(|| worker(n as usize % 200)),
                        affinity: n.is_multiple_of(2).then_some(n as u32 % 500),
                    };
                    let tasks = (0..count).map(task).collect();
                    self.running.push_back(Event::StagePlanned { job, stage, tasks, found: vec![] });
                }
                Command::Publish { job } => self.running.push_back(Event::Published { job }),
                Command::FinishJob { outcome, .. } => self.outcome = Some(outcome),
                Command::Stop { .. } | Command::ReleaseJob { .. } | Command::Warn { .. } => {}
            }
        }
    }

    /// Ends running attempts in the order of their starts, as `end` says; ticks while nothing runs.
    fn run(&mut self, mut end: impl FnMut(u64, &mut Event)) -> u64 {
        let mut steps = 0;
        while self.outcome.is_none() {
            steps += 1;
            assert!(steps < 100_000, "the job does not end");
            self.now += 1;
            let Some(mut event) = self.running.pop_front() else {
                self.now = self.scheduler.next_wakeup().expect("something to wait for").0;
                self.tell(Event::Tick);
                continue;
            };
            end(steps, &mut event);
            self.tell(event);
        }
        steps
    }
}

fn worker(n: usize) -> WorkerId {
    WorkerId::parse(&format!("w{n}")).expect("a worker id")
}

#[test]
fn twenty_thousand_tasks_take_one_start_each() {
    let mut plant = Plant::new(200, 4);
    let steps = plant.run(|_, _| {});
    assert_eq!(plant.outcome, Some(Outcome::Done));
    // Three plans, the publish, the end and the release.
    assert_eq!((plant.starts, plant.others), (20_400, 6));
    assert_eq!(steps, 20_400 + 4);
}

#[test]
fn a_thousand_workers_some_of_which_fail_every_task_cost_a_bounded_number_of_starts() {
    let mut plant = Plant::new(1000, 4);
    let mut failed = 0;
    plant.run(|_, event| {
        if let Event::AttemptEnded { worker, outcome, .. } = event
            && ["w1", "w10", "w100"].contains(&worker.as_str())
        {
            failed += 1;
            *outcome = Err(Failure::Retryable { reason: "disk full".into() });
        }
    });
    assert_eq!(plant.outcome, Some(Outcome::Done));
    // A worker that fails one attempt after another is offered few more.
    assert!((10..50).contains(&failed), "{failed}");
    let stages = 20_400;
    assert!(plant.starts >= stages + failed && plant.starts < stages + failed + 100, "{}", plant.starts);
}
