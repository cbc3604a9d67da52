//! A draining worker migrates its outputs to another worker, as requested, and reports the results.

use std::time::Duration;

use anyhow::{Result, bail};
use tally_proto::v1;
use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::v1::worker_message::Message as Up;
use tally_worker::agent::ExitReason;

use crate::fake::{Attached, Fake};
use crate::rig::{Agent, attempt, short};

const MINUTE: Duration = Duration::from_secs(60);

fn migrate_out(to: &v1::Hello, indexes: &[u32]) -> Down {
    let attempts = indexes.iter().map(|index| attempt(*index)).collect();
    Down::MigrateOutputs(v1::MigrateOutputs {
        to: to.worker.clone(),
        flight_address: to.flight_address.clone(),
        attempts,
    })
}

/// The results of `count` migrations, by index: the receiver, and whether the output was migrated.
async fn outcomes(migration: &mut Attached, count: usize) -> Result<Vec<(u32, String, bool)>> {
    let mut said = vec![];
    while said.len() < count {
        said.push(match migration.news().await? {
            Up::OutputMigrated(v1::OutputMigrated { attempt: Some(attempt), to }) => {
                (attempt.index, to, true)
            }
            Up::MigrationFailed(v1::MigrationFailed { attempt: Some(attempt), to, reason })
                if !reason.is_empty() =>
            {
                (attempt.index, to, false)
            }
            other => bail!("{other:?} instead of the result of a migration"),
        });
    }
    said.sort();
    Ok(said)
}

async fn outputs_are_migrated_as_ordered_and_stay_until_the_sender_exits() -> Result<()> {
    let mut fake = Fake::start().await?;
    let agent = Agent::start(&[&fake.address], MINUTE)?;
    let mut migration = fake.let_in(1).await?;
    migration.inventory().await?;
    for index in 0..2 {
        migration.say(Down::Start(short(index))).await?;
        migration.ended().await?;
    }
    let _other = Agent::start(&[&fake.address], MINUTE)?;
    let taker = fake.let_in(1).await?;
    let to = taker.hello.clone();
    migration.say(Down::Drain(v1::Draining {})).await?;
    assert_eq!(migration.news().await?, Up::Draining(v1::Draining {}));

    // No server at the address; an output that does not exist; a receiver that does not know the job.
    let unreachable = v1::Hello { flight_address: "127.0.0.1:1".into(), ..to.clone() };
    migration.say(migrate_out(&unreachable, &[0, 1])).await?;
    let expected = [0, 1].map(|index| (index, to.worker.clone(), false));
    assert_eq!(outcomes(&mut migration, 2).await?, expected);
    migration.say(migrate_out(&to, &[7, 0])).await?;
    let expected = [0, 7].map(|index| (index, to.worker.clone(), false));
    assert_eq!(outcomes(&mut migration, 2).await?, expected);

    let admit = v1::Admit { job: attempt(0).job, key: b"key".to_vec() };
    taker.say(Down::Admit(admit)).await?;
    for _ in 0..2 {
        migration.say(migrate_out(&to, &[1, 0])).await?;
        let expected = [0, 1].map(|index| (index, to.worker.clone(), true));
        assert_eq!(outcomes(&mut migration, 2).await?, expected);
    }
    // Both workers have them until the sender exits, so that readers that were sent to it are served.
    drop((migration, taker));
    let (mut held, mut streams) = (vec![], vec![]);
    for _ in 0..2 {
        let mut again = fake.let_in(2).await?;
        held.push(again.inventory().await?.outputs);
        if again.hello.draining {
            again.say(Down::Drained(v1::Drained {})).await?;
        }
        streams.push(again);
    }
    assert!(held[0].len() == 2 && held[0] == held[1], "{held:?}");
    assert_eq!(agent.ended().await??, ExitReason::Drained);
    Ok(())
}

tally_tests::tests![
    mod async:
    outputs_are_migrated_as_ordered_and_stay_until_the_sender_exits,
];
