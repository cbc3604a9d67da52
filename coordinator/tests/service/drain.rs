//! Workers that want to go hand over what is needed, and only that.

use tally_proto::v1;
use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::v1::worker_message::Message as Up;

use crate::rig::{Player, Scene, becomes, hello, submit};

#[tokio::test]
async fn a_draining_worker_hands_over_what_is_needed_and_is_told_when_it_may_go() {
    let Scene { place, coordinator, mut jobs } = Scene::new().await;
    let mut going = coordinator.worker("going").await;
    let job = submit(&mut jobs, place.spec("out")).await.unwrap().job;
    let order = going.order().await;
    going.finish(&order).await;
    let last = going.order().await;
    let mut staying = coordinator.worker("staying").await;
    let status = jobs.drain_worker(v1::WorkerRequest { worker: "going".into() }).await.unwrap().into_inner();
    assert_eq!(status.state, "draining");
    let mut moved = vec![];
    going.say(Up::Draining(v1::Draining {})).await;
    going.finish(&last).await;
    loop {
        match going.next().await.unwrap() {
            Down::Drain(_) => {}
            Down::HandOver(order) => {
                assert_eq!((order.to.as_str(), order.flight_address.as_str()), ("staying", "127.0.0.1:1"));
                for attempt in order.attempts {
                    moved.push(attempt.index);
                    going.say(Up::Moved(v1::Moved { attempt: Some(attempt), to: "staying".into() })).await;
                }
            }
            Down::Drained(_) => break,
            other => panic!("{other:?}"),
        }
    }
    moved.sort_unstable();
    let key = order.key.clone();
    let mut made = [order, last].map(|order| order.attempt.unwrap().index);
    made.sort_unstable();
    assert_eq!(moved, made);
    going.say(Up::Goodbye(v1::Goodbye { clean: true })).await;
    // The reduce tasks read all outputs where they are now.
    let reduced = staying.until_reduce().await;
    let inputs = staying.inputs.clone().unwrap();
    assert_eq!(reduced.inputs_version, inputs.version);
    // The taker was told of the job before, with the key that the job's orders carry.
    assert_eq!(staying.admitted[0], v1::Admit { job: job.clone(), key });
    assert_eq!(inputs.holders.iter().map(|holder| holder.worker.as_str()).collect::<Vec<_>>(), ["staying"]);
    staying.work().await;
    let status = becomes(&mut jobs, &job, v1::JobState::Done).await;
    assert!(status.stages.iter().all(|stage| stage.reruns == 0 && stage.failed_attempts == 0), "{status:?}");
}

#[tokio::test]
async fn what_one_does_not_take_is_given_to_another() {
    let Scene { place, coordinator, mut jobs } = Scene::new().await;
    let mut going = coordinator.worker("going").await;
    submit(&mut jobs, place.spec("out")).await.unwrap();
    let order = going.order().await;
    // The one with most room comes first.
    let large = v1::Hello { memory_limit: 1 << 40, ..hello("large") };
    let _large = Player::attach(&coordinator, large).await.unwrap();
    let _small = coordinator.worker("small").await;
    going.say(Up::Draining(v1::Draining {})).await;
    going.finish(&order).await;
    let mut asked = vec![];
    while asked.len() < 2 {
        if let Down::HandOver(ordered) = going.next().await.unwrap() {
            let (to, attempt) = (ordered.to, ordered.attempts[0].clone());
            assert_eq!(Some(&attempt), order.attempt.as_ref());
            asked.push(to.clone());
            let what = match asked.len() {
                1 => Up::NotMoved(v1::NotMoved { attempt: Some(attempt), to, reason: "full".into() }),
                _ => Up::Moved(v1::Moved { attempt: Some(attempt), to }),
            };
            going.say(what).await;
        }
    }
    assert_eq!(asked, ["large", "small"]);
    while !matches!(going.next().await.unwrap(), Down::Drained(_)) {}
}
