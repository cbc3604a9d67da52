//! Messages that are lost with a worker's stream are sent again on the next one.

use std::time::Duration;

use tally_coordinator::cluster::{Inventory, WorkerInput};
use tally_proto::v1::coordinator_message::Message;
use tally_proto::{AttemptId, WorkerId, v1};
use tokio::sync::oneshot;

use crate::rig::{Rig, hello};

fn running(attempt: &AttemptId) -> Inventory {
    Inventory { outputs: vec![], running: vec![attempt.clone()] }
}

#[test]
fn an_attempt_that_lost_against_another_is_stopped_when_its_worker_is_back() {
    let mut rig = Rig::new(4);
    let mut slow = rig.attach(hello("slow"), Inventory::default());
    rig.job("out");
    let straggler = slow.task();
    let mut fast = rig.attach(hello("fast"), Inventory::default());
    for _ in 0..3 {
        let attempt = fast.task();
        rig.end(&fast, attempt);
    }
    rig.advance(Duration::from_secs(6));
    let speculative = fast.task();
    assert_eq!(speculative.task, straggler.task);
    rig.detach(slow);
    rig.end(&fast, speculative);
    let mut slow = rig.attach(hello("slow"), running(&straggler));
    assert_eq!(slow.next(), Some(Message::Stop((&straggler).into())));
    // Until it reports the end of the attempt, it is told after each break.
    rig.detach(slow);
    let mut slow = rig.attach(hello("slow"), running(&straggler));
    assert_eq!(slow.next(), Some(Message::Stop((&straggler).into())));
    assert_eq!(slow.next(), None);
}

#[test]
fn a_job_that_ended_while_a_worker_was_away_is_stopped_and_dropped_there() {
    let mut rig = Rig::new(1);
    let mut worker = rig.attach(hello("w"), Inventory::default());
    let job = rig.job("out");
    let attempt = worker.task();
    rig.detach(worker);
    rig.cancel(&job).try_recv().unwrap();
    let mut worker = rig.attach(hello("w"), running(&attempt));
    assert_eq!(worker.next(), Some(Message::Stop((&attempt).into())));
    assert_eq!(worker.next(), Some(Message::Release(job.to_string())));
    // This stream breaks, too, and both messages may be lost with it.
    rig.detach(worker);
    let mut worker = rig.attach(hello("w"), Inventory::default());
    assert_eq!(worker.next(), Some(Message::Release(job.to_string())));
    assert_eq!(worker.next(), None);
}

#[test]
fn an_output_of_a_job_that_ended_while_a_worker_was_away_is_dropped() {
    let mut rig = Rig::new(1);
    let mut worker = rig.attach(hello("w"), Inventory::default());
    let job = rig.job("out");
    let attempt = worker.task();
    rig.detach(worker);
    rig.cancel(&job).try_recv().unwrap();
    let outputs = vec![(attempt, crate::rig::mapped())];
    let mut worker = rig.attach(hello("w"), Inventory { outputs, running: vec![] });
    assert_eq!(worker.next(), Some(Message::Release(job.to_string())));
}

#[test]
fn many_ended_jobs_do_not_overflow_a_worker_that_is_back() {
    let mut rig = Rig::new(1);
    let worker = rig.attach(hello("w"), Inventory::default());
    rig.detach(worker);
    let name = |n: u32| tally_proto::JobId::parse(&format!("ended-{n:03}")).unwrap();
    let outputs = (0..200).map(|n| (crate::rig::attempt(&name(n), 0, 0), crate::rig::mapped()));
    let mut worker = rig.attach(hello("w"), Inventory { outputs: outputs.collect(), running: vec![] });
    let mut released = vec![];
    for _ in 0..50 {
        while let Some(Message::Release(job)) = worker.next() {
            released.push(job);
        }
        rig.advance(Duration::from_millis(200));
    }
    assert_eq!(released, (0..200).map(|n| name(n).to_string()).collect::<Vec<_>>());
}

#[test]
fn a_worker_that_was_away_when_it_was_asked_to_drain_is_asked_again() {
    let mut rig = Rig::new(1);
    let worker = rig.attach(hello("w"), Inventory::default());
    rig.detach(worker);
    let (reply, mut answer) = oneshot::channel();
    rig.tell(WorkerInput::Drain(WorkerId::parse("w").unwrap(), reply));
    assert!(answer.try_recv().unwrap().is_some());
    let mut worker = rig.attach(hello("w"), Inventory::default());
    assert_eq!(worker.next(), Some(Message::Drain(v1::Draining {})));
    // A worker that knows is not asked.
    rig.detach(worker);
    let mut worker = rig.attach(v1::Hello { draining: true, ..hello("w") }, Inventory::default());
    assert!(!matches!(worker.next(), Some(Message::Drain(_))));
}
