//! Coordinators that follow each other over one state directory.

use std::collections::BTreeSet;

use tally_coordinator::service::serve::Exit;
use tally_proto::v1;
use tally_proto::v1::coordinator_message::Message as Down;

use crate::rig::{Coordinator, Place, Player, becomes, hello, submit};

#[tokio::test]
async fn a_successor_goes_on_where_the_workers_stand() {
    let place = Place::new();
    let coordinator = Coordinator::start(&place).await;
    let mut jobs = coordinator.jobs().await;
    let mut worker = Player::attach(&coordinator, hello("w")).await.unwrap();
    let job = submit(&mut jobs, place.spec("out")).await.unwrap().job;
    let mut done = BTreeSet::new();
    let mut key = vec![];
    for _ in 0..3 {
        let order = worker.order().await;
        worker.finish(&order).await;
        key.clone_from(&order.key);
        done.insert(order.attempt.unwrap().index);
    }
    let running = worker.order().await;
    assert_eq!(coordinator.stop().await, Exit::Asked);
    assert!(worker.next().await.is_none(), "the stream ends with the coordinator");
    let epoch = worker.epoch;
    let held = worker.leave();

    let coordinator = Coordinator::start(&place).await;
    let mut jobs = coordinator.jobs().await;
    let again = v1::Hello { epoch, ..hello("w") };
    let runs = vec![running.attempt.clone().unwrap()];
    let mut worker = Player::attach_with(&coordinator, again, held, runs).await.unwrap();
    assert!(worker.epoch > epoch);
    let existing = submit(&mut jobs, place.spec("out")).await.unwrap();
    assert!(existing.existing && existing.job == job);
    worker.finish(&running).await;
    let mut stages = [0; 3];
    let mut first_attempts = vec![];
    loop {
        match worker.next().await.unwrap() {
            Down::Start(order) => {
                assert_eq!(order.key, key, "the job's key is kept");
                let attempt = order.attempt.clone().unwrap();
                stages[attempt.stage as usize] += 1;
                if attempt.stage == 0 {
                    assert!(done.insert(attempt.index), "map task {} was done", attempt.index);
                }
                first_attempts.push(attempt.attempt);
                worker.finish(&order).await;
            }
            Down::Release(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(!done.contains(&running.attempt.as_ref().unwrap().index));
    assert_eq!(stages[1..], [2, 1]);
    assert!(first_attempts.iter().all(|&number| u64::from(number >> 12) == worker.epoch));
    becomes(&mut jobs, &job, v1::JobState::Done).await;
    assert!(place.day("out").len() == 1 && place.is_clean());
}

#[tokio::test]
async fn a_coordinator_that_is_succeeded_stops() {
    let place = Place::new();
    let first = Coordinator::start(&place).await;
    let mut jobs = first.jobs().await;
    let job = submit(&mut jobs, place.spec("out")).await.unwrap().job;
    let second = Coordinator::start(&place).await;
    assert!(matches!(first.exit().await, Exit::Deposed(_)));
    let mut jobs = second.jobs().await;
    let mut worker = Player::attach(&second, hello("w")).await.unwrap();
    worker.work().await;
    becomes(&mut jobs, &job, v1::JobState::Done).await;
    assert!(place.day("out").len() == 1 && place.is_clean());
}

#[tokio::test]
async fn history_survives_and_a_cancel_is_not_forgotten() {
    let place = Place::new();
    let coordinator = Coordinator::start(&place).await;
    let mut jobs = coordinator.jobs().await;
    let mut worker = Player::attach(&coordinator, hello("w")).await.unwrap();
    let done = submit(&mut jobs, place.spec("out")).await.unwrap().job;
    worker.work().await;
    let before = becomes(&mut jobs, &done, v1::JobState::Done).await;
    let cancelled = submit(&mut jobs, place.spec("out2")).await.unwrap().job;
    worker.order().await;
    jobs.cancel(v1::JobRequest { job: cancelled.clone() }).await.unwrap();
    becomes(&mut jobs, &cancelled, v1::JobState::Cancelled).await;
    coordinator.stop().await;
    let coordinator = Coordinator::start(&place).await;
    let mut jobs = coordinator.jobs().await;
    assert_eq!(becomes(&mut jobs, &done, v1::JobState::Done).await, before);
    becomes(&mut jobs, &cancelled, v1::JobState::Cancelled).await;
}
