//! Workers that attach, work, break off, talk nonsense.

use std::collections::BTreeMap;

use tally_coordinator::service::serve::Exit;
use tally_proto::packed::unpack;
use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::v1::worker_message::Message as Up;
use tally_proto::{OLDEST_PROTOCOL, v1};
use tonic::Code;

use crate::rig::{Player, Scene, becomes, eventually, hello, open, read, refused, submit};

#[tokio::test]
async fn a_job_runs_on_an_attached_worker_and_its_day_is_published() {
    let Scene { place, coordinator, mut jobs } = Scene::new().await;
    let mut worker = coordinator.worker("w").await;
    let reply = submit(&mut jobs, place.spec("out")).await.unwrap();
    let done = worker.work().await;
    assert!(done[0] > 2 && done[1..] == [2, 1], "{done:?}");
    let status = becomes(&mut jobs, &reply.job, v1::JobState::Done).await;
    assert_eq!(place.day("out"), [format!("part-00000-{}.snappy.parquet", reply.job)]);
    assert!(status.summary.contains("\"rows\":2") && place.is_clean(), "{status:?}");
    let counts: Vec<_> = status.stages.iter().map(|s| (s.name.as_str(), s.done, s.tasks)).collect();
    assert_eq!(counts, [("map", done[0] as u64, done[0] as u64), ("reduce", 2, 2), ("write", 1, 1)]);
    assert_eq!(coordinator.stop().await, Exit::Asked);
}

/// The release before sent all that a reduce reads with each order; its workers stay attached while a
/// cluster is upgraded.
#[tokio::test]
async fn a_worker_of_the_protocol_before_works_beside_one_of_this() {
    let Scene { place, coordinator, mut jobs } = Scene::new().await;
    let old = v1::Hello { protocol: OLDEST_PROTOCOL, ..hello("old") };
    let mut old = Player::attach(&coordinator, old).await.unwrap();
    let job = submit(&mut jobs, place.spec("out")).await.unwrap().job;
    let order = old.order().await;
    let mut new = coordinator.worker("new").await;
    old.finish(&order).await;
    let (told, short) = tokio::join!(old.until_reduce(), new.until_reduce());
    assert!(old.inputs.is_none() && told.inputs.len() == 2 && !told.inputs[0].outputs.is_empty(), "{told:?}");
    let inputs = new.inputs.clone().unwrap();
    assert_eq!((short.inputs.len(), short.inputs_version), (0, inputs.version));
    let unpacked = inputs.tables.iter().map(|table| unpack(table, inputs.stage).unwrap());
    assert_eq!((unpacked.collect::<Vec<_>>(), inputs.holders), (told.inputs, told.holders));
    tokio::join!(old.work(), new.work());
    becomes(&mut jobs, &job, v1::JobState::Done).await;
}

#[tokio::test]
async fn workers_that_do_not_fit_are_refused_with_a_reason() {
    let Scene { place: _place, coordinator, .. } = Scene::new().await;
    let attach = async |hello| Player::attach(&coordinator, hello).await;
    refused(attach(v1::Hello { protocol: 99, ..hello("w") }).await, Code::Unimplemented, "version 99");
    refused(attach(v1::Hello { worker: "a/b".into(), ..hello("w") }).await, Code::InvalidArgument, "a/b");
    refused(attach(v1::Hello { slots: 0, ..hello("w") }).await, Code::InvalidArgument, "slots");
    let nothing = open(&coordinator, vec![Up::Draining(v1::Draining {})]).await;
    refused(nothing, Code::InvalidArgument, "hello");
    let _here = attach(hello("w")).await.unwrap();
    let twin = v1::Hello { flight_address: "127.0.0.1:2".into(), ..hello("w") };
    refused(attach(twin).await, Code::InvalidArgument, "own id");
}

#[tokio::test]
async fn a_worker_that_stays_away_is_given_up_and_its_work_goes_elsewhere() {
    let Scene { place, coordinator, mut jobs } = Scene::new().await;
    let mut first = coordinator.worker("w1").await;
    submit(&mut jobs, place.spec("out")).await.unwrap();
    let order = first.order().await;
    first.finish(&order).await;
    let lost = first.order().await;
    let held = first.leave();
    let mut second = coordinator.worker("w2").await;
    let mut seen = vec![];
    eventually("what was lost is ordered again", async || {
        let order = second.order().await;
        second.finish(&order).await;
        let attempt = order.attempt.unwrap();
        seen.push((attempt.index, attempt.attempt));
        let lost = lost.attempt.as_ref().unwrap();
        seen.iter().any(|(index, attempt)| *index == lost.index && *attempt > lost.attempt)
    })
    .await;
    let back = Player::attach_with(&coordinator, hello("w1"), held, vec![]).await;
    refused(back, Code::AlreadyExists, "new id");
}

#[tokio::test]
async fn a_worker_that_comes_back_in_time_goes_on_with_what_it_has() {
    let Scene { place, coordinator, mut jobs } = Scene::new().await;
    let mut worker = Player::attach(&coordinator, v1::Hello { slots: 3, ..hello("w") }).await.unwrap();
    let reply = submit(&mut jobs, place.spec("out")).await.unwrap();
    let [done, running, lost] = [worker.order().await, worker.order().await, worker.order().await];
    // The end of one is told only by its inventory, one still runs, one it never heard of.
    let Some(v1::task_order::Work::Map(work)) = &done.work else { panic!("{done:?}") };
    let result = v1::task_result::Result::Map(read(work));
    let result = v1::TaskResult { result: Some(result) };
    let key = |order: &v1::TaskOrder| {
        let attempt = order.attempt.clone().unwrap();
        (attempt.job, attempt.stage, attempt.index, attempt.attempt)
    };
    let held = v1::HeldOutput { attempt: done.attempt.clone(), result: Some(result) };
    drop(worker);
    let held = BTreeMap::from([(key(&done), held)]);
    let hello = v1::Hello { slots: 3, ..hello("w") };
    let runs = vec![running.attempt.clone().unwrap()];
    let mut worker = Player::attach_with(&coordinator, hello, held, runs).await.unwrap();
    let mut again = vec![];
    while !again.contains(&key(&lost)) {
        let order = worker.order().await;
        again.push(key(&order));
        worker.finish(&order).await;
    }
    assert!(!again.contains(&key(&done)) && !again.contains(&key(&running)), "{again:?}");
    worker.finish(&running).await;
    worker.work().await;
    let status = becomes(&mut jobs, &reply.job, v1::JobState::Done).await;
    assert!(status.stages.iter().all(|stage| stage.failed_attempts == 0 && stage.reruns == 0), "{status:?}");
}

#[tokio::test]
async fn nonsense_changes_nothing() {
    let Scene { place, coordinator, mut jobs } = Scene::new().await;
    let mut worker = coordinator.worker("w").await;
    let liar = Player::attach(&coordinator, v1::Hello { draining: true, ..hello("liar") }).await.unwrap();
    let reply = submit(&mut jobs, place.spec("out")).await.unwrap();
    let order = worker.order().await;
    let attempt = order.attempt.clone().unwrap();
    let reduced = v1::task_result::Result::Reduce(v1::ReduceResult::default());
    let other_stage = v1::ended::Outcome::Done(v1::TaskResult { result: Some(reduced) });
    let fatal = v1::failure::Kind::Fatal("because".into());
    let fatal = || Some(v1::ended::Outcome::Failure(v1::Failure { kind: Some(fatal.clone()) }));
    let attempts = [
        v1::Attempt { job: "ghost".into(), ..attempt.clone() },
        v1::Attempt { job: "../../etc".into(), ..attempt.clone() },
        v1::Attempt { stage: 77, ..attempt.clone() },
        v1::Attempt { index: 1 << 30, ..attempt.clone() },
        v1::Attempt { attempt: 9, ..attempt.clone() },
        attempt.clone(),
    ];
    for attempt in attempts {
        let attempt = Some(attempt);
        liar.say(Up::Ended(v1::Ended { attempt: attempt.clone(), outcome: fatal() })).await;
        let outcome = Some(other_stage.clone());
        liar.say(Up::Ended(v1::Ended { attempt: attempt.clone(), outcome })).await;
        liar.say(Up::Ended(v1::Ended { attempt: attempt.clone(), outcome: None })).await;
        liar.say(Up::Moved(v1::Moved { attempt, to: "nobody".into() })).await;
    }
    liar.say(Up::Ended(v1::Ended::default())).await;
    liar.say(Up::Hello(hello("liar"))).await;
    liar.say(Up::Inventory(v1::Inventory { last: true, ..Default::default() })).await;
    worker.finish(&order).await;
    worker.work().await;
    let status = becomes(&mut jobs, &reply.job, v1::JobState::Done).await;
    assert!(status.stages.iter().all(|stage| stage.failed_attempts == 0), "{status:?}");
}

#[tokio::test]
async fn a_worker_of_a_later_epoch_is_refused_and_believed_only_if_the_journal_says_so() {
    let Scene { place, coordinator, .. } = Scene::new().await;
    let mut other = coordinator.worker("w1").await;
    let later = || v1::Hello { epoch: 1000, ..hello("w2") };
    refused(Player::attach(&coordinator, later()).await, Code::FailedPrecondition, "1000");
    // Work goes on.
    let mut jobs = coordinator.jobs().await;
    let job = submit(&mut jobs, place.spec("out")).await.unwrap().job;
    other.work().await;
    becomes(&mut jobs, &job, v1::JobState::Done).await;
    let claimed = place.path("state/log/1000");
    std::fs::create_dir(&claimed).unwrap();
    refused(Player::attach(&coordinator, later()).await, Code::FailedPrecondition, "1000");
    assert!(matches!(coordinator.exit().await, Exit::Deposed(why) if why.contains("1000")));
    assert!(other.next().await.is_none());
}

#[tokio::test]
async fn what_a_finished_job_left_on_a_worker_is_dropped() {
    let Scene { place: _place, coordinator, .. } = Scene::new().await;
    let attempt = v1::Attempt { job: "gone".into(), ..Default::default() };
    let result = v1::task_result::Result::Map(v1::MapResult::default());
    let held = v1::HeldOutput {
        attempt: Some(attempt.clone()),
        result: Some(v1::TaskResult { result: Some(result) }),
    };
    let held = BTreeMap::from([(("gone".to_string(), 0, 0, 0), held)]);
    let running = vec![v1::Attempt { index: 5, ..attempt.clone() }];
    let mut worker = Player::attach_with(&coordinator, hello("w"), held, running.clone()).await.unwrap();
    assert_eq!(worker.next().await, Some(Down::Stop(running[0].clone())));
    assert_eq!(worker.next().await, Some(Down::Release("gone".into())));
}
