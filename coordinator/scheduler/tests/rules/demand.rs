//! What an autoscaler is told: work that could run and work that runs, never work that has to wait.

use tally_scheduler::Demand;

use crate::rig::{Rig, config, millis, retryable};

fn demand(rig: &Rig) -> [usize; 2] {
    let Demand { runnable, running } = rig.scheduler.demand();
    [runnable, running]
}

#[test]
fn work_is_wanted_from_its_plan_to_its_end() {
    let mut rig = Rig::new(config());
    assert_eq!(demand(&rig), [0, 0]);
    rig.submit("j", 2);
    rig.plan("j", 0, &[1, 1, 1]);
    assert_eq!(demand(&rig), [3, 0], "without workers, too");
    rig.join("w0", 2);
    assert_eq!(demand(&rig), [1, 2]);
    for (index, left) in [(0, [0, 2]), (1, [0, 1]), (2, [0, 0])] {
        rig.ok("w0", &format!("s0-t{index}-a0"));
        assert_eq!(demand(&rig), left);
    }
    rig.plan("j", 1, &[1]);
    assert_eq!(demand(&rig), [0, 1]);
    rig.ok("w0", "s1-t0-a0");
    assert_eq!(demand(&rig), [0, 0], "a publish wants nobody");
}

#[test]
fn tasks_whose_inputs_are_gone_are_not_runnable() {
    let (mut rig, _) = Rig::started(config(), &[1, 1], 2, &[1, 1]);
    rig.ok("w0", "s0-t0-a0");
    rig.ok("w1", "s0-t1-a0");
    rig.plan("j", 1, &[1, 1, 1, 1]);
    assert_eq!(demand(&rig), [2, 2]);
    // Its output has to be made again before any other reduce begins.
    rig.lose("w0");
    assert_eq!(demand(&rig).iter().sum::<usize>(), 2, "one map task, and the reduce that runs");
}

#[test]
fn a_task_that_waits_for_its_retry_is_wanted_all_the_while() {
    let config =
        tally_scheduler::Config { retry_backoff: millis(100), retry_backoff_max: millis(100), ..config() };
    let (mut rig, _) = Rig::started(config, &[1], 1, &[1]);
    rig.err("w0", "s0-t0-a0", retryable("a hiccup"));
    assert_eq!(demand(&rig), [1, 0]);
    rig.cancel("j");
    assert_eq!(demand(&rig), [0, 0]);
}
