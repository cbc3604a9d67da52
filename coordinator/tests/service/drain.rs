//! Draining workers migrate the outputs that are needed, and only those.

use tally_proto::v1;
use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::v1::worker_message::Message as Up;

use crate::rig::{Player, Scene, becomes, hello, submit};

#[tokio::test]
async fn a_draining_worker_migrates_needed_outputs_and_is_told_when_it_is_drained() {
    let Scene { place, coordinator, mut jobs } = Scene::new().await;
    let mut going = coordinator.worker("going").await;
    let job = submit(&mut jobs, place.spec("out")).await.unwrap().job;
    let dispatch = going.next_task().await;
    going.finish(&dispatch).await;
    let last = going.next_task().await;
    let mut staying = coordinator.worker("staying").await;
    let status = jobs.drain_worker(v1::WorkerRequest { worker: "going".into() }).await.unwrap().into_inner();
    assert_eq!(status.state, "draining");
    let mut moved = vec![];
    going.say(Up::Draining(v1::Draining {})).await;
    going.finish(&last).await;
    loop {
        match going.next().await.unwrap() {
            Down::Drain(_) => {}
            Down::MigrateOutputs(dispatch) => {
                assert_eq!(
                    (dispatch.to.as_str(), dispatch.flight_address.as_str()),
                    ("staying", hello("staying").flight_address.as_str())
                );
                for attempt in dispatch.attempts {
                    moved.push(attempt.index);
                    going
                        .say(Up::OutputMigrated(v1::OutputMigrated {
                            attempt: Some(attempt),
                            to: "staying".into(),
                        }))
                        .await;
                }
            }
            Down::Drained(_) => break,
            other => panic!("{other:?}"),
        }
    }
    moved.sort_unstable();
    let key = dispatch.key.clone();
    let mut made = [dispatch, last].map(|dispatch| dispatch.attempt.unwrap().index);
    made.sort_unstable();
    assert_eq!(moved, made);
    going.say(Up::Goodbye(v1::Goodbye { clean: true })).await;
    // The reduce tasks read all outputs from their new locations.
    let reduced = staying.until_reduce().await;
    let inputs = staying.inputs.clone().unwrap();
    assert_eq!(reduced.inputs_version, inputs.version);
    // The job was announced to the receiver before, with the key that is in the job's task messages.
    assert_eq!(staying.admitted[0], v1::Admit { job: job.clone(), key });
    assert_eq!(
        inputs.locations.iter().map(|location| location.worker.as_str()).collect::<Vec<_>>(),
        ["staying"]
    );
    staying.work().await;
    let status = becomes(&mut jobs, &job, v1::JobState::Done).await;
    assert!(status.stages.iter().all(|stage| stage.reruns == 0 && stage.failed_attempts == 0), "{status:?}");
}

#[tokio::test]
async fn an_output_that_one_worker_refuses_is_migrated_to_another() {
    let Scene { place, coordinator, mut jobs } = Scene::new().await;
    let mut going = coordinator.worker("going").await;
    submit(&mut jobs, place.spec("out")).await.unwrap();
    let dispatch = going.next_task().await;
    // The worker with the most free memory is first.
    let large = v1::Hello { memory_limit: 1 << 40, ..hello("large") };
    let _large = Player::attach(&coordinator, large).await.unwrap();
    let _small = coordinator.worker("small").await;
    going.say(Up::Draining(v1::Draining {})).await;
    going.finish(&dispatch).await;
    let mut asked = vec![];
    while asked.len() < 2 {
        if let Down::MigrateOutputs(migration) = going.next().await.unwrap() {
            let (to, attempt) = (migration.to, migration.attempts[0].clone());
            assert_eq!(Some(&attempt), dispatch.attempt.as_ref());
            asked.push(to.clone());
            let what = match asked.len() {
                1 => Up::MigrationFailed(v1::MigrationFailed {
                    attempt: Some(attempt),
                    to,
                    reason: "full".into(),
                }),
                _ => Up::OutputMigrated(v1::OutputMigrated { attempt: Some(attempt), to }),
            };
            going.say(what).await;
        }
    }
    assert_eq!(asked, ["large", "small"]);
    while !matches!(going.next().await.unwrap(), Down::Drained(_)) {}
}
