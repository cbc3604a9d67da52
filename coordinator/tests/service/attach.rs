//! Workers that attach, run tasks, detach, and send invalid messages.

use std::collections::BTreeMap;
use std::time::Duration;

use tally_coordinator::service::Timing;
use tally_coordinator::service::serve::Exit;
use tally_proto::packed::unpack;
use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::v1::worker_message::Message as Up;
use tally_proto::{OLDEST_PROTOCOL, v1};
use tonic::Code;

use crate::rig::{
    Coordinator, Place, Player, Scene, becomes, eventually, hello, open, read, refused, submit, timing,
};

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

/// The previous release sent all inputs with each reduce task; its workers stay attached during an upgrade of the cluster.
#[tokio::test]
async fn workers_of_the_previous_and_the_current_protocol_work_together() {
    let Scene { place, coordinator, mut jobs } = Scene::new().await;
    let old = v1::Hello { protocol: OLDEST_PROTOCOL, ..hello("old") };
    let mut old = Player::attach(&coordinator, old).await.unwrap();
    let job = submit(&mut jobs, place.spec("out")).await.unwrap().job;
    let dispatch = old.next_task().await;
    let mut new = coordinator.worker("new").await;
    old.finish(&dispatch).await;
    let (received, short) = tokio::join!(old.until_reduce(), new.until_reduce());
    assert!(
        old.inputs.is_none() && received.inputs.len() == 2 && !received.inputs[0].outputs.is_empty(),
        "{received:?}"
    );
    let inputs = new.inputs.clone().unwrap();
    assert_eq!((short.inputs.len(), short.inputs_version), (0, inputs.version));
    let unpacked = inputs.tables.iter().map(|table| unpack(table, inputs.stage).unwrap());
    assert_eq!((unpacked.collect::<Vec<_>>(), inputs.locations), (received.inputs, received.locations));
    tokio::join!(old.work(), new.work());
    becomes(&mut jobs, &job, v1::JobState::Done).await;
}

#[tokio::test]
async fn incompatible_workers_are_refused_with_a_reason() {
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
async fn a_worker_that_stays_away_is_lost_and_its_work_goes_elsewhere() {
    let Scene { place, coordinator, mut jobs } = Scene::new().await;
    let mut first = coordinator.worker("w1").await;
    submit(&mut jobs, place.spec("out")).await.unwrap();
    let dispatch = first.next_task().await;
    first.finish(&dispatch).await;
    let lost = first.next_task().await;
    let held = first.leave();
    let mut second = coordinator.worker("w2").await;
    let mut seen = vec![];
    eventually("lost tasks are dispatched again", async || {
        let dispatch = second.next_task().await;
        second.finish(&dispatch).await;
        let attempt = dispatch.attempt.unwrap();
        seen.push((attempt.index, attempt.attempt));
        let lost = lost.attempt.as_ref().unwrap();
        seen.iter().any(|(index, attempt)| *index == lost.index && *attempt > lost.attempt)
    })
    .await;
    let back = Player::attach_with(&coordinator, hello("w1"), held, vec![]).await;
    refused(back, Code::AlreadyExists, "new id");
}

/// A process that was killed: its stream breaks, and nothing listens at its address. It is not waited for.
#[tokio::test]
async fn a_worker_whose_address_refuses_connections_is_lost_at_once() {
    let place = Place::new();
    let timing = Timing { grace: Duration::from_secs(3600), ..timing() };
    let coordinator = Coordinator::start_with(&place, timing, 8).await;
    let mut jobs = coordinator.jobs().await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let flight_address = closed.local_addr().unwrap().to_string();
    let dies = v1::Hello { flight_address, ..hello("dies") };
    let mut dies = Player::attach(&coordinator, dies).await.unwrap();
    let job = submit(&mut jobs, place.spec("out")).await.unwrap().job;
    dies.next_task().await;
    let mut cut = coordinator.worker("cut").await;
    drop(closed);
    dies.leave();
    // The other worker works on its own, with the lost task.
    cut.work().await;
    becomes(&mut jobs, &job, v1::JobState::Done).await;
}

#[tokio::test]
async fn a_worker_that_attaches_again_in_time_continues_with_what_it_has() {
    let Scene { place, coordinator, mut jobs } = Scene::new().await;
    let mut worker = Player::attach(&coordinator, v1::Hello { slots: 3, ..hello("w") }).await.unwrap();
    let reply = submit(&mut jobs, place.spec("out")).await.unwrap();
    let [done, running, lost] =
        [worker.next_task().await, worker.next_task().await, worker.next_task().await];
    // Of three attempts, one ended and is only in the inventory, one still runs, one never arrived.
    let Some(v1::task_dispatch::Work::Map(work)) = &done.work else { panic!("{done:?}") };
    let result = v1::task_result::Result::Map(read(work));
    let result = v1::TaskResult { result: Some(result), usage: None };
    let key = |dispatch: &v1::TaskDispatch| {
        let attempt = dispatch.attempt.clone().unwrap();
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
        let dispatch = worker.next_task().await;
        again.push(key(&dispatch));
        worker.finish(&dispatch).await;
    }
    assert!(!again.contains(&key(&done)) && !again.contains(&key(&running)), "{again:?}");
    worker.finish(&running).await;
    worker.work().await;
    let status = becomes(&mut jobs, &reply.job, v1::JobState::Done).await;
    assert!(status.stages.iter().all(|stage| stage.failed_attempts == 0 && stage.reruns == 0), "{status:?}");
}

#[tokio::test]
async fn invalid_messages_change_nothing() {
    let Scene { place, coordinator, mut jobs } = Scene::new().await;
    let mut worker = coordinator.worker("w").await;
    let liar = Player::attach(&coordinator, v1::Hello { draining: true, ..hello("liar") }).await.unwrap();
    let reply = submit(&mut jobs, place.spec("out")).await.unwrap();
    let dispatch = worker.next_task().await;
    let attempt = dispatch.attempt.clone().unwrap();
    let reduced = v1::task_result::Result::Reduce(v1::ReduceResult::default());
    let other_stage = v1::ended::Outcome::Done(v1::TaskResult { result: Some(reduced), usage: None });
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
        liar.say(Up::OutputMigrated(v1::OutputMigrated { attempt, to: "unknown".into() })).await;
    }
    liar.say(Up::Ended(v1::Ended::default())).await;
    liar.say(Up::Hello(hello("liar"))).await;
    liar.say(Up::Inventory(v1::Inventory { last: true, ..Default::default() })).await;
    worker.finish(&dispatch).await;
    worker.work().await;
    let status = becomes(&mut jobs, &reply.job, v1::JobState::Done).await;
    assert!(status.stages.iter().all(|stage| stage.failed_attempts == 0), "{status:?}");
}

#[tokio::test]
async fn a_worker_of_a_later_epoch_is_refused_and_only_the_journal_ends_the_term() {
    let Scene { place, coordinator, .. } = Scene::new().await;
    let mut other = coordinator.worker("w1").await;
    let later = || v1::Hello { epoch: 1000, ..hello("w2") };
    refused(Player::attach(&coordinator, later()).await, Code::FailedPrecondition, "1000");
    // Work continues.
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
async fn outputs_of_a_finished_job_on_a_worker_are_dropped() {
    let Scene { place: _place, coordinator, .. } = Scene::new().await;
    let attempt = v1::Attempt { job: "ended".into(), ..Default::default() };
    let result = v1::task_result::Result::Map(v1::MapResult::default());
    let held = v1::HeldOutput {
        attempt: Some(attempt.clone()),
        result: Some(v1::TaskResult { result: Some(result), usage: None }),
    };
    let held = BTreeMap::from([(("ended".to_string(), 0, 0, 0), held)]);
    let running = vec![v1::Attempt { index: 5, ..attempt.clone() }];
    let mut worker = Player::attach_with(&coordinator, hello("w"), held, running.clone()).await.unwrap();
    assert_eq!(worker.next().await, Some(Down::Stop(running[0].clone())));
    assert_eq!(worker.next().await, Some(Down::Release("ended".into())));
}
