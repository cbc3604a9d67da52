//! Attaching, task messages and reports, broken streams, former leaders.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::v1::ended::Outcome;
use tally_proto::v1::worker_message::Message as Up;
use tally_proto::{LEADER_METADATA, PROTOCOL, v1};
use tally_worker::agent::AgentError;
use tonic::Status;

use crate::fake::Fake;
use crate::rig::{Agent, attempt, golden_file, long, long_over, short, wrong};

const MINUTE: Duration = Duration::from_secs(60);

async fn a_worker_attaches_runs_tasks_and_reports() -> Result<()> {
    let mut fake = Fake::start().await?;
    let _agent = Agent::start(&[&fake.address], MINUTE)?;
    let mut stream = fake.let_in(1).await?;
    let hello = &stream.hello;
    assert!(hello.worker.starts_with("test-") && hello.flight_address.starts_with("127.0.0.1:"), "{hello:?}");
    assert_eq!((hello.protocol, hello.slots, hello.epoch, hello.draining), (PROTOCOL, 2, 0, false));
    assert!(hello.reduce_table_bytes > 1 << 20);
    assert_eq!(stream.inventory().await?, v1::Inventory::default());
    stream.say(Down::Start(short(0))).await?;
    let ended = stream.ended().await?;
    assert_eq!(ended.attempt, Some(attempt(0)));
    assert!(matches!(ended.outcome, Some(Outcome::Done(_))), "{ended:?}");
    stream.say(Down::Start(wrong(1))).await?;
    let ended = stream.ended().await?;
    assert!(matches!(ended.outcome, Some(Outcome::Failure(_))), "{ended:?}");
    stream.say(Down::Start(long(2)?)).await?;
    stream.say(Down::Stop(attempt(2))).await?;
    let ended = stream.ended().await?;
    let cancelled = v1::Failure { kind: Some(v1::failure::Kind::Cancelled(v1::Cancelled {})) };
    assert_eq!(ended.outcome, Some(Outcome::Failure(cancelled)));
    Ok(())
}

async fn nonsense_from_the_coordinator_is_ignored() -> Result<()> {
    let mut fake = Fake::start().await?;
    let _agent = Agent::start(&[&fake.address], MINUTE)?;
    let mut stream = fake.let_in(1).await?;
    stream.inventory().await?;
    let bad = v1::Attempt { job: "../up".into(), ..Default::default() };
    for nonsense in [
        Down::Start(v1::TaskDispatch::default()),
        Down::Start(v1::TaskDispatch { attempt: Some(bad.clone()), ..short(0) }),
        Down::Stop(bad.clone()),
        Down::Stop(attempt(77)),
        Down::Release("../up".into()),
        Down::Drained(v1::Drained {}),
        Down::MigrateOutputs(v1::MigrateOutputs {
            to: "../up".into(),
            flight_address: String::new(),
            attempts: vec![bad],
        }),
        Down::Welcome(v1::Welcome::default()),
    ] {
        stream.say(nonsense).await?;
    }
    stream.say(Down::Start(short(0))).await?;
    assert_eq!(stream.ended().await?.attempt, Some(attempt(0)), "it still works");
    Ok(())
}

async fn a_broken_stream_is_reopened_with_the_inventory() -> Result<()> {
    let mut fake = Fake::start().await?;
    let _agent = Agent::start(&[&fake.address], MINUTE)?;
    let mut stream = fake.let_in(1).await?;
    stream.inventory().await?;
    stream.say(Down::Start(short(0))).await?;
    let Some(Outcome::Done(result)) = stream.ended().await?.outcome else { panic!("it failed") };
    stream.say(Down::Start(long(1)?)).await?;
    // Messages are handled in order: when this attempt has ended, the long one has started.
    stream.say(Down::Start(short(4))).await?;
    assert_eq!(stream.ended().await?.attempt, Some(attempt(4)));
    // A report that may or may not be sent before the stream breaks is never lost.
    stream.say(Down::Start(short(2))).await?;
    let id = stream.hello.worker.clone();
    drop(stream);

    let mut stream = fake.let_in(1).await?;
    assert_eq!((&stream.hello.worker, stream.hello.epoch), (&id, 1));
    let inventory = stream.inventory().await?;
    let held = v1::HeldOutput { attempt: Some(attempt(0)), result: Some(result) };
    assert!(inventory.outputs.contains(&held), "{inventory:?}");
    let mut known: BTreeSet<u32> = inventory.running.iter().map(|attempt| attempt.index).collect();
    known.extend(inventory.outputs.iter().flat_map(|held| &held.attempt).map(|attempt| attempt.index));
    assert!(known.contains(&1), "{known:?}");
    // Unless the task message was lost with the stream.
    if known.contains(&2) && inventory.running.iter().any(|attempt| attempt.index == 2) {
        assert_eq!(stream.ended().await?.attempt, Some(attempt(2)));
    }
    // Started again while it runs: it does not run twice.
    stream.say(Down::Start(long(1)?)).await?;
    // Started again after it ended: the report is repeated.
    stream.say(Down::Start(short(0))).await?;
    assert_eq!(stream.ended().await?.attempt, Some(attempt(0)));
    stream.say(Down::Stop(attempt(1))).await?;
    assert_eq!(stream.ended().await?.attempt, Some(attempt(1)));

    stream.say(Down::Release("job".into())).await?;
    stream.say(Down::Start(wrong(3))).await?;
    stream.ended().await?;
    drop(stream);
    let inventory = fake.let_in(1).await?.inventory().await?;
    assert_eq!(inventory.outputs, [], "the job was released");
    Ok(())
}

async fn an_unreported_end_is_reported_to_the_next_leader() -> Result<()> {
    let mut fake = Fake::start().await?;
    let _agent = Agent::start(&[&fake.address], MINUTE)?;
    let mut stream = fake.let_in(1).await?;
    stream.inventory().await?;
    let own = tempfile::tempdir()?;
    let file = own.path().join("part.parquet");
    std::fs::copy(golden_file(), &file)?;
    stream.say(Down::Start(long_over(1, &file)?)).await?;
    // It has received the task message when it reports a later one.
    stream.say(Down::Start(wrong(0))).await?;
    assert_eq!(stream.ended().await?.attempt, Some(attempt(0)));
    drop(stream);

    // It tries to attach: so there is no stream until it is accepted.
    let knock = fake.knock().await?;
    std::fs::File::create(&file)?;
    // Usually enough time to fail. Whether it has failed or not, it is listed as running.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut stream = knock.let_in(2, 20, 60_000).await?;
    let inventory = stream.inventory().await?;
    assert_eq!(inventory.running, [attempt(1)], "it is listed as running until it is reported");
    let ended = stream.ended().await?;
    assert_eq!(ended.attempt, Some(attempt(1)));
    assert!(matches!(ended.outcome, Some(Outcome::Failure(_))), "{ended:?}");
    Ok(())
}

async fn streams_of_former_leaders_are_closed() -> Result<()> {
    let mut fake = Fake::start().await?;
    let _agent = Agent::start(&[&fake.address], MINUTE)?;
    let mut stream = fake.let_in(5).await?;
    stream.inventory().await?;
    stream.epoch = 4;
    stream.say(Down::Start(short(0))).await?;
    stream.hung_up().await?;
    let stream = fake.let_in(3).await?;
    assert_eq!(stream.hello.epoch, 5);
    stream.hung_up().await?;
    let mut stream = fake.let_in(6).await?;
    assert_eq!(stream.hello.epoch, 5, "a rejected welcome does not change the epoch");
    assert_eq!(stream.inventory().await?.outputs, [], "the stale task was not run");
    Ok(())
}

async fn a_lost_worker_returns_under_a_new_id_without_outputs() -> Result<()> {
    let mut fake = Fake::start().await?;
    let agent = Agent::start(&[&fake.address], MINUTE)?;
    let mut stream = fake.let_in(1).await?;
    stream.inventory().await?;
    let first = stream.hello.clone();
    stream.say(Down::Start(short(0))).await?;
    stream.ended().await?;
    stream.say(Down::Start(long(1)?)).await?;
    drop(stream);
    let knock = fake.knock().await?;
    assert_eq!(knock.hello.worker, first.worker);
    knock.refuse(Status::already_exists("given up"));
    let mut stream = fake.let_in(1).await?;
    assert_ne!(stream.hello.worker, first.worker);
    assert_eq!(stream.hello.flight_address, first.flight_address);
    assert_eq!(stream.inventory().await?, v1::Inventory::default());
    let folders = std::fs::read_dir(agent.spill_dir.path())?.count();
    assert_eq!(folders, 1, "the spill directory of the first incarnation was removed");
    stream.say(Down::Start(short(0))).await?;
    stream.ended().await?;
    Ok(())
}

async fn a_standby_names_the_leader() -> Result<()> {
    let (mut standby, mut leader) = (Fake::start().await?, Fake::start().await?);
    let _agent = Agent::start(&[&standby.address], MINUTE)?;
    let mut status = Status::failed_precondition("stands by");
    status.metadata_mut().insert(LEADER_METADATA, leader.address.parse()?);
    standby.knock().await?.refuse(status);
    let stream = leader.let_in(1).await?;
    // The leader stops, and the standby takes over.
    drop((stream, leader));
    standby.let_in(2).await?.inventory().await?;
    Ok(())
}

async fn a_silent_leader_times_out_and_one_with_heartbeats_does_not() -> Result<()> {
    let mut fake = Fake::start().await?;
    let _agent = Agent::start(&[&fake.address], MINUTE)?;
    let mut stream = fake.knock().await?.let_in(1, 20, 400).await?;
    let mut beats = 0;
    while beats < 40 {
        if let Some(Up::Heartbeat(_)) = stream.next().await? {
            beats += 1;
            stream.say(Down::Beat(v1::Beat {})).await?;
        }
    }
    // Twice the timeout has passed. From now on the leader is silent.
    stream.hung_up().await?;
    fake.let_in(1).await?.inventory().await?;
    Ok(())
}

async fn some_refusals_are_final() -> Result<()> {
    let mut fake = Fake::start().await?;
    let agent = Agent::start(&[&fake.address], MINUTE)?;
    fake.knock().await?.refuse(Status::unimplemented("too old"));
    let error = agent.ended().await?.unwrap_err();
    assert!(matches!(&error, AgentError::Version { reason, .. } if reason == "too old"), "{error}");
    let agent = Agent::start(&[&fake.address], MINUTE)?;
    fake.knock().await?.refuse(Status::invalid_argument("no such slots"));
    let error = agent.ended().await?.unwrap_err();
    assert!(matches!(&error, AgentError::Refused { .. }), "{error}");
    assert!(error.to_string().contains(&fake.address), "{error}");
    Ok(())
}

tally_tests::tests![
    mod async:
    a_worker_attaches_runs_tasks_and_reports,
    nonsense_from_the_coordinator_is_ignored,
    a_broken_stream_is_reopened_with_the_inventory,
    an_unreported_end_is_reported_to_the_next_leader,
    streams_of_former_leaders_are_closed,
    a_lost_worker_returns_under_a_new_id_without_outputs,
    a_standby_names_the_leader,
    a_silent_leader_times_out_and_one_with_heartbeats_does_not,
    some_refusals_are_final,
];
