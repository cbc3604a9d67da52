//! The demand for autoscalers: runnable and running work, but not work that has to wait.

use tally_scheduler::Demand;

use crate::rig::{Rig, config, millis, retryable};

fn demand(rig: &Rig) -> [usize; 2] {
    let Demand { runnable, running } = rig.scheduler.demand();
    [runnable, running]
}

#[test]
fn work_counts_from_its_plan_to_its_end() {
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
    assert_eq!(demand(&rig), [0, 0], "a publish needs no workers");
}

#[test]
fn tasks_whose_inputs_are_lost_are_not_runnable() {
    let (mut rig, _) = Rig::started(config(), &[1, 1], 2, &[1, 1]);
    rig.ok("w0", "s0-t0-a0");
    rig.ok("w1", "s0-t1-a0");
    rig.plan("j", 1, &[1, 1, 1, 1]);
    assert_eq!(demand(&rig), [2, 2]);
    // Its map task has to run again before another reduce task starts.
    rig.lose("w0");
    assert_eq!(demand(&rig).iter().sum::<usize>(), 2, "one map task, and the reduce that runs");
}

#[test]
fn a_task_that_waits_for_its_retry_counts() {
    let config =
        tally_scheduler::Config { retry_backoff: millis(100), retry_backoff_max: millis(100), ..config() };
    let (mut rig, _) = Rig::started(config, &[1], 1, &[1]);
    rig.err("w0", "s0-t0-a0", retryable("a hiccup"));
    assert_eq!(demand(&rig), [1, 0]);
    rig.cancel("j");
    assert_eq!(demand(&rig), [0, 0]);
}
