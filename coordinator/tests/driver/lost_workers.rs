//! Workers that are gone, however their stream ended: their attempts run elsewhere.

use tally_coordinator::cluster::{Hello, Inventory, WorkerInput};
use tally_proto::AttemptId;
use tokio::sync::oneshot;

use crate::rig::{GRACE, Player, Rig, SILENCE, hello};

/// Two workers with one task each. The second has ended its own.
fn two_workers() -> (Rig, Player, Player, AttemptId) {
    let mut rig = Rig::new(2);
    let mut dies = rig.attach(hello("dies"), Inventory::default());
    let mut stays = rig.attach(hello("stays"), Inventory::default());
    rig.job("out");
    let (lost, own) = (dies.task(), stays.task());
    rig.end(&stays, own);
    (rig, dies, stays, lost)
}

fn runs_again(stays: &mut Player, lost: &AttemptId) {
    let again = stays.task();
    assert!(again.task == lost.task && again.attempt > lost.attempt, "{again} instead of {lost}");
}

#[test]
fn a_worker_that_dies_between_hello_and_inventory_is_given_up() {
    let (mut rig, _old_stream, mut stays, lost) = two_workers();
    let generation = rig.hello(hello("dies")).generation;
    rig.advance(SILENCE / 2);
    let worker = lost_worker();
    rig.tell(WorkerInput::Attaching { worker, generation });
    rig.advance(SILENCE * 3 / 4);
    assert_eq!(stays.next(), None, "it sent a part of its inventory");
    rig.advance(SILENCE / 2);
    runs_again(&mut stays, &lost);
    let (reply, mut answer) = oneshot::channel();
    rig.tell(WorkerInput::Hello(Hello::try_from(hello("dies")).unwrap(), reply));
    assert!(answer.try_recv().unwrap().is_err(), "it has to come back under another id");
}

fn lost_worker() -> tally_proto::WorkerId {
    tally_proto::WorkerId::parse("dies").unwrap()
}

#[test]
fn a_worker_that_dies_before_it_is_welcomed_is_given_up_like_one_whose_stream_broke() {
    let (mut rig, _old_stream, mut stays, lost) = two_workers();
    let (reply, answer) = oneshot::channel();
    drop(answer);
    rig.tell(WorkerInput::Hello(Hello::try_from(hello("dies")).unwrap(), reply));
    rig.advance(GRACE / 2);
    assert_eq!(stays.next(), None);
    rig.advance(GRACE);
    runs_again(&mut stays, &lost);
}

#[test]
fn a_worker_whose_channel_closes_without_a_report_is_given_up() {
    let (mut rig, dies, mut stays, lost) = two_workers();
    drop(dies);
    rig.advance(GRACE / 2);
    assert_eq!(stays.next(), None);
    rig.advance(GRACE);
    runs_again(&mut stays, &lost);
}

#[test]
fn a_worker_is_not_given_up_while_this_process_does_not_run() {
    let (mut rig, _old_stream, mut stays, lost) = two_workers();
    let generation = rig.hello(hello("dies")).generation;
    rig.pause(SILENCE * 10);
    assert_eq!(stays.next(), None);
    rig.tell(WorkerInput::Attaching { worker: lost_worker(), generation });
    rig.advance(SILENCE * 2);
    runs_again(&mut stays, &lost);
}

#[test]
fn a_worker_whose_address_refuses_connections_is_given_up_at_once_unless_it_attached_again() {
    let (mut rig, _old_stream, mut stays, lost) = two_workers();
    let worker = lost_worker();
    let generation = rig.hello(hello("dies")).generation;
    rig.tell(WorkerInput::Gone { worker: worker.clone(), generation: generation - 1 });
    assert_eq!(stays.next(), None, "it was about an earlier stream");
    rig.tell(WorkerInput::Broken { worker: worker.clone(), generation });
    rig.tell(WorkerInput::Gone { worker, generation });
    runs_again(&mut stays, &lost);
}
