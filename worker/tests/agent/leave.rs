//! Exits: successful and failed drains.

use std::time::Duration;

use anyhow::Result;
use tally_proto::v1;
use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::v1::worker_message::Message as Up;
use tally_worker::agent::{ExitReason, Holdings, ShutdownRequest};
use tonic::Status;

use crate::fake::{Attached, Fake};
use crate::rig::{Agent, attempt, short};

const MINUTE: Duration = Duration::from_secs(60);

async fn with_one_output(fake: &mut Fake) -> Result<Attached> {
    let mut stream = fake.let_in(1).await?;
    stream.inventory().await?;
    stream.say(Down::Start(short(0))).await?;
    stream.ended().await?;
    Ok(stream)
}

async fn a_worker_drains_on_request_and_exits_when_its_outputs_are_not_needed() -> Result<()> {
    let mut fake = Fake::start().await?;
    let agent = Agent::start(&[&fake.address], MINUTE)?;
    let mut stream = with_one_output(&mut fake).await?;
    stream.say(Down::Drain(v1::Draining {})).await?;
    assert_eq!(stream.news().await?, Up::Draining(v1::Draining {}));
    stream.say(Down::Drained(v1::Drained {})).await?;
    assert_eq!(stream.news().await?, Up::Goodbye(v1::Goodbye { clean: true }));
    drop(stream);
    assert_eq!(agent.ended().await??, ExitReason::Drained);
    Ok(())
}

async fn a_drain_survives_a_broken_stream() -> Result<()> {
    let mut fake = Fake::start().await?;
    let agent = Agent::start(&[&fake.address], MINUTE)?;
    let mut stream = with_one_output(&mut fake).await?;
    agent.request.send_replace(ShutdownRequest::Drain);
    assert_eq!(stream.news().await?, Up::Draining(v1::Draining {}));
    drop(stream);
    let mut stream = fake.let_in(2).await?;
    assert!(stream.hello.draining);
    assert_eq!(stream.inventory().await?.outputs.len(), 1);
    assert_eq!(stream.news().await?, Up::Draining(v1::Draining {}));
    stream.say(Down::Drained(v1::Drained {})).await?;
    assert_eq!(stream.news().await?, Up::Goodbye(v1::Goodbye { clean: true }));
    drop(stream);
    assert_eq!(agent.ended().await??, ExitReason::Drained);
    Ok(())
}

async fn a_drain_that_takes_too_long_ends_with_what_is_lost() -> Result<()> {
    let mut fake = Fake::start().await?;
    let agent = Agent::start(&[&fake.address], Duration::from_millis(300))?;
    let mut stream = with_one_output(&mut fake).await?;
    agent.request.send_replace(ShutdownRequest::Drain);
    assert_eq!(stream.news().await?, Up::Draining(v1::Draining {}));
    assert_eq!(stream.news().await?, Up::Goodbye(v1::Goodbye { clean: false }));
    drop(stream);
    let held = Holdings { outputs: 1, ..Holdings::default() };
    assert_eq!(agent.ended().await??, ExitReason::TimedOut(held));
    Ok(())
}

async fn a_second_request_ends_a_drain_at_once() -> Result<()> {
    let mut fake = Fake::start().await?;
    let agent = Agent::start(&[&fake.address], MINUTE)?;
    let mut stream = with_one_output(&mut fake).await?;
    agent.request.send_replace(ShutdownRequest::Drain);
    assert_eq!(stream.news().await?, Up::Draining(v1::Draining {}));
    agent.request.send_replace(ShutdownRequest::Leave);
    assert_eq!(stream.news().await?, Up::Goodbye(v1::Goodbye { clean: false }));
    drop(stream);
    assert!(matches!(agent.ended().await??, ExitReason::AtOnce(Holdings { outputs: 1, .. })));
    Ok(())
}

async fn without_a_coordinator_an_empty_worker_exits_and_one_with_outputs_waits() -> Result<()> {
    let mut fake = Fake::start().await?;
    let idle = Agent::start(&["127.0.0.1:1"], MINUTE)?;
    idle.request.send_replace(ShutdownRequest::Drain);
    assert_eq!(idle.ended().await??, ExitReason::Drained);

    let agent = Agent::start(&[&fake.address], MINUTE)?;
    drop(with_one_output(&mut fake).await?);
    fake.knock().await?.refuse(Status::unavailable("stops to lead"));
    agent.request.send_replace(ShutdownRequest::Drain);
    let knock = fake.knock().await?;
    knock.refuse(Status::unavailable("stops to lead"));
    let stream = fake.let_in(2).await?;
    stream.say(Down::Release(attempt(0).job)).await?;
    stream.say(Down::Drained(v1::Drained {})).await?;
    assert_eq!(agent.ended().await??, ExitReason::Drained);
    Ok(())
}

async fn a_draining_worker_that_was_declared_lost_does_not_return() -> Result<()> {
    let mut fake = Fake::start().await?;
    let agent = Agent::start(&[&fake.address], MINUTE)?;
    let mut stream = with_one_output(&mut fake).await?;
    agent.request.send_replace(ShutdownRequest::Drain);
    assert_eq!(stream.news().await?, Up::Draining(v1::Draining {}));
    drop(stream);
    fake.knock().await?.refuse(Status::already_exists("given up"));
    assert!(matches!(agent.ended().await??, ExitReason::GivenUp(Holdings { outputs: 1, .. })));
    Ok(())
}

tally_tests::tests![
    mod async:
    a_worker_drains_on_request_and_exits_when_its_outputs_are_not_needed,
    a_drain_survives_a_broken_stream,
    a_drain_that_takes_too_long_ends_with_what_is_lost,
    a_second_request_ends_a_drain_at_once,
    without_a_coordinator_an_empty_worker_exits_and_one_with_outputs_waits,
    a_draining_worker_that_was_declared_lost_does_not_return,
];
