//! A worker that drains gives its outputs to another one, as it is told, and says what came of it.

use std::time::Duration;

use anyhow::{Result, bail};
use tally_proto::v1;
use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::v1::worker_message::Message as Up;
use tally_worker::agent::Left;

use crate::fake::{Attached, Fake};
use crate::rig::{Agent, attempt, short};

const MINUTE: Duration = Duration::from_secs(60);

fn hand_over(to: &v1::Hello, indexes: &[u32]) -> Down {
    let attempts = indexes.iter().map(|index| attempt(*index)).collect();
    Down::HandOver(v1::HandOver {
        to: to.worker.clone(),
        flight_address: to.flight_address.clone(),
        attempts,
    })
}

/// What became of so many hand-overs, by index: to whom, and whether it took the output.
async fn outcomes(giver: &mut Attached, count: usize) -> Result<Vec<(u32, String, bool)>> {
    let mut said = vec![];
    while said.len() < count {
        said.push(match giver.news().await? {
            Up::Moved(v1::Moved { attempt: Some(attempt), to }) => (attempt.index, to, true),
            Up::NotMoved(v1::NotMoved { attempt: Some(attempt), to, reason }) if !reason.is_empty() => {
                (attempt.index, to, false)
            }
            other => bail!("{other:?} instead of a hand-over's end"),
        });
    }
    said.sort();
    Ok(said)
}

async fn outputs_go_to_whom_the_coordinator_names_and_stay_until_the_giver_goes() -> Result<()> {
    let mut fake = Fake::start().await?;
    let agent = Agent::start(&[&fake.address], MINUTE)?;
    let mut giver = fake.let_in(1).await?;
    giver.inventory().await?;
    for index in 0..2 {
        giver.say(Down::Start(short(index))).await?;
        giver.ended().await?;
    }
    let _other = Agent::start(&[&fake.address], MINUTE)?;
    let taker = fake.let_in(1).await?;
    let to = taker.hello.clone();
    giver.say(Down::Drain(v1::Draining {})).await?;
    assert_eq!(giver.news().await?, Up::Draining(v1::Draining {}));

    // Nobody is there; an output that is not here; one who does not know the job.
    let nobody = v1::Hello { flight_address: "127.0.0.1:1".into(), ..to.clone() };
    giver.say(hand_over(&nobody, &[0, 1])).await?;
    let expected = [0, 1].map(|index| (index, to.worker.clone(), false));
    assert_eq!(outcomes(&mut giver, 2).await?, expected);
    giver.say(hand_over(&to, &[7, 0])).await?;
    let expected = [0, 7].map(|index| (index, to.worker.clone(), false));
    assert_eq!(outcomes(&mut giver, 2).await?, expected);

    let admit = v1::Admit { job: attempt(0).job, key: b"key".to_vec() };
    taker.say(Down::Admit(admit)).await?;
    for _ in 0..2 {
        giver.say(hand_over(&to, &[1, 0])).await?;
        let expected = [0, 1].map(|index| (index, to.worker.clone(), true));
        assert_eq!(outcomes(&mut giver, 2).await?, expected);
    }
    // Both have them until the giver goes: those who were sent to it are served.
    drop((giver, taker));
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
    assert_eq!(agent.ended().await??, Left::Drained);
    Ok(())
}

tally_tests::tests![
    mod async:
    outputs_go_to_whom_the_coordinator_names_and_stay_until_the_giver_goes,
];
