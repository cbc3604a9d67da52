//! Workers that want to go hand over what is needed, and only that.

use tally_proto::v1;
use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::v1::worker_message::Message as Up;

use crate::rig::{Coordinator, Place, Player, becomes, hello, submit};

#[tokio::test]
async fn a_draining_worker_hands_over_what_is_needed_and_is_told_when_it_may_go() {
    let place = Place::new();
    let coordinator = Coordinator::start(&place).await;
    let mut jobs = coordinator.jobs().await;
    let mut going = Player::attach(&coordinator, hello("going")).await.unwrap();
    let job = submit(&mut jobs, place.spec("out")).await.unwrap().job;
    let order = going.order().await;
    going.finish(&order).await;
    let last = going.order().await;
    let mut staying = Player::attach(&coordinator, hello("staying")).await.unwrap();
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
    let mut made = [order, last].map(|order| order.attempt.unwrap().index);
    made.sort_unstable();
    assert_eq!(moved, made);
    going.say(Up::Goodbye(v1::Goodbye { clean: true })).await;
    // The reduce tasks read all outputs where they are now.
    let mut reduced = None;
    while reduced.is_none() {
        let order = staying.order().await;
        if let Some(v1::task_order::Work::Reduce(work)) = &order.work {
            reduced = Some(work.clone());
        }
        staying.finish(&order).await;
    }
    let reduced = reduced.unwrap();
    assert_eq!(reduced.holders.iter().map(|holder| holder.worker.as_str()).collect::<Vec<_>>(), ["staying"]);
    staying.work().await;
    let status = becomes(&mut jobs, &job, v1::JobState::Done).await;
    assert!(status.stages.iter().all(|stage| stage.reruns == 0 && stage.failed_attempts == 0), "{status:?}");
}
