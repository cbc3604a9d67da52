//! Files of outputs are removed while the disk hangs: the agent does not wait for it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_common::budget::Reservation;
use tally_proto::v1;
use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::v1::ended::Outcome;
use tally_proto::v1::worker_message::Message as Up;
use tally_shuffle::store::Store;
use tally_worker::runner::Gauges;
use tokio::time::{Instant, sleep};
use tonic::Status;

use crate::fake::{Attached, DEADLINE, Fake};
use crate::inputs::map;
use crate::rig::{Agent, attempt, golden_file};

const MINUTE: Duration = Duration::from_secs(60);

/// Takes the memory of outputs, so that they are spilled.
fn fill(store: &Store) -> Result<Reservation> {
    let budget = store.budget();
    let free = budget.limit().saturating_sub(budget.used());
    budget.try_reserve(usize::try_from(free)?).context("the memory is in use")
}

/// Runs a map task. Returns the bytes in the spill directory after it.
async fn spill(stream: &mut Attached, gauges: &Gauges, index: u32) -> Result<u64> {
    let before = gauges.store().spill().used();
    stream.say(Down::Start(map(index, 0, &golden_file())?)).await?;
    let ended = stream.ended().await?;
    ensure!(matches!(ended.outcome, Some(Outcome::Done(_))), "{ended:?}");
    let after = gauges.store().spill().used();
    ensure!(after > before, "nothing was spilled");
    Ok(after)
}

async fn heartbeats_go_on_while_a_release_hangs() -> Result<()> {
    let mut fake = Fake::start().await?;
    let agent = Agent::start(&[&fake.address], MINUTE)?;
    let mut stream = fake.let_in(1).await?;
    stream.inventory().await?;
    let gauges = agent.status.gauges().context("no incarnation")?;
    let _full = fill(gauges.store())?;
    let first = spill(&mut stream, &gauges, 0).await?;

    let hung = gauges.store().spill().hold_removals();
    stream.say(Down::Release("job".into())).await?;
    let both = spill(&mut stream, &gauges, 1).await?;
    let mut beats = 0;
    while beats < 20 {
        if let Some(Up::Heartbeat(_)) = stream.next().await.context("no heartbeat")? {
            beats += 1;
        }
    }
    assert_eq!(gauges.store().spill().used(), both, "the first file is still on the disk, and counted");
    drop(hung);
    let deadline = Instant::now() + DEADLINE;
    while gauges.store().spill().used() != both - first {
        ensure!(Instant::now() < deadline, "the file is never removed");
        sleep(Duration::from_millis(10)).await;
    }

    drop(stream);
    let outputs = fake.let_in(1).await?.inventory().await?.outputs;
    let held: Vec<_> = outputs.into_iter().flat_map(|held| held.attempt).collect();
    assert_eq!(held, [attempt(1)], "the output that was made after the release is kept");
    Ok(())
}

async fn a_hung_disk_does_not_keep_a_lost_worker_from_returning() -> Result<()> {
    let mut fake = Fake::start().await?;
    let agent = Agent::start(&[&fake.address], MINUTE)?;
    let mut stream = fake.let_in(1).await?;
    stream.inventory().await?;
    let gauges = agent.status.gauges().context("no incarnation")?;
    let _full = fill(gauges.store())?;
    spill(&mut stream, &gauges, 0).await?;
    let hung = gauges.store().spill().hold_removals();
    let first = stream.hello.worker.clone();
    drop(stream);
    fake.knock().await?.refuse(Status::already_exists("given up"));
    let mut stream = fake.let_in(1).await?;
    assert_ne!(stream.hello.worker, first);
    assert_eq!(stream.inventory().await?, v1::Inventory::default());
    drop(hung);
    Ok(())
}

tally_tests::tests![
    mod async:
    heartbeats_go_on_while_a_release_hangs,
    a_hung_disk_does_not_keep_a_lost_worker_from_returning,
];
