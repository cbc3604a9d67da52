//! Attempts that were asked to stop are in the list of a job's attempts, once each.

use std::time::Duration;

use tally_coordinator::attempt_log::{AttemptEnd, AttemptPage};
use tally_coordinator::cluster::{Inventory, WorkerUpdate};
use tally_coordinator::driver::DriverInput;
use tally_proto::{AttemptId, Failure, JobId};
use tokio::sync::oneshot;

use crate::rig::{Rig, hello};

const SECOND: Duration = Duration::from_secs(1);

/// The ends of attempts, the workers, and how long they ran.
fn ends(page: &AttemptPage) -> Vec<(AttemptId, AttemptEnd, String, u64)> {
    let of = page.attempts.iter();
    of.map(|ended| (ended.attempt.clone(), ended.end, ended.worker.to_string(), ended.millis)).collect()
}

/// Those of a live job.
fn live(rig: &mut Rig, job: &JobId) -> AttemptPage {
    let (reply, mut answer) = oneshot::channel();
    rig.step(DriverInput::Attempts(job.clone(), 0, reply));
    answer.try_recv().unwrap().unwrap()
}

#[test]
fn the_attempt_that_lost_against_a_speculative_one_was_stopped() {
    let mut rig = Rig::new(4);
    let mut slow = rig.attach(hello("slow"), Inventory::default());
    let job = rig.job("out");
    let straggler = slow.task();
    let mut fast = rig.attach(hello("fast"), Inventory::default());
    for _ in 0..3 {
        let attempt = fast.task();
        rig.end(&fast, attempt);
    }
    rig.advance(6 * SECOND);
    let speculative = fast.task();
    assert_eq!(speculative.task, straggler.task);
    rig.end(&fast, speculative.clone());
    let found = ends(&live(&mut rig, &job));
    assert_eq!(found.len(), 5, "{found:?}");
    let of = |attempt: &AttemptId| found.iter().find(|(found, ..)| found == attempt).unwrap();
    assert_eq!(of(&speculative).1, AttemptEnd::Done);
    let (_, end, worker, millis) = of(&straggler);
    assert_eq!((*end, worker.as_str()), (AttemptEnd::Stopped, "slow"));
    assert!(*millis >= 6000, "{millis}");
    // Its end, which comes later, is not another one.
    rig.update(&slow, WorkerUpdate::Ended(straggler, Err(Failure::Cancelled)));
    assert_eq!(ends(&live(&mut rig, &job)), found);
}

#[test]
fn the_attempts_of_a_cancelled_job_were_stopped() {
    let mut rig = Rig::new(2);
    let mut workers = ["a", "b"].map(|name| rig.attach(hello(name), Inventory::default()));
    let job = rig.job("out");
    let running = workers.each_mut().map(|worker| worker.task());
    rig.advance(SECOND);
    assert_eq!(live(&mut rig, &job).attempts, []);
    rig.cancel(&job).try_recv().unwrap();
    let found = ends(&rig.registry.attempts(&job, 0).unwrap());
    assert_eq!(found.len(), 2, "{found:?}");
    for attempt in &running {
        let (_, end, _, millis) = found.iter().find(|(found, ..)| found == attempt).unwrap();
        assert_eq!((*end, *millis), (AttemptEnd::Stopped, 1000));
    }
    for (worker, attempt) in workers.iter().zip(running) {
        rig.update(worker, WorkerUpdate::Ended(attempt, Err(Failure::Cancelled)));
    }
    assert_eq!(ends(&rig.registry.attempts(&job, 0).unwrap()), found);
}

#[test]
fn the_other_attempts_of_a_failed_job_were_stopped() {
    let mut rig = Rig::new(2);
    let mut workers = ["a", "b"].map(|name| rig.attach(hello(name), Inventory::default()));
    let job = rig.job("out");
    let [fails, other] = workers.each_mut().map(|worker| worker.task());
    rig.advance(SECOND);
    let fatal = Failure::Fatal { reason: "the file is damaged".into() };
    rig.update(&workers[0], WorkerUpdate::Ended(fails.clone(), Err(fatal)));
    let found = ends(&rig.registry.attempts(&job, 0).unwrap());
    let expected = [
        (fails, AttemptEnd::Failed, "a".to_string(), 1000),
        (other, AttemptEnd::Stopped, "b".to_string(), 1000),
    ];
    assert_eq!(found, expected);
}
