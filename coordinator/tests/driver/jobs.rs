//! Submissions and cancellations, in every order.

use tally_coordinator::cluster::Inventory;
use tally_coordinator::driver::AfterRecord;
use tally_proto::v1;
use tally_proto::v1::coordinator_message::Message;
use tokio::sync::oneshot::error::TryRecvError;

use crate::rig::{Rig, hello};

#[test]
fn a_cancellation_is_answered_when_it_is_durable() {
    let mut rig = Rig::new(1);
    let job = rig.job("out");
    rig.holds_records = true;
    let (mut first, mut second) = (rig.cancel(&job), rig.cancel(&job));
    assert!(matches!(first.try_recv(), Err(TryRecvError::Empty)));
    assert!(matches!(rig.unwritten.back(), Some(AfterRecord::Cancelled(_))));
    rig.write();
    assert!(first.try_recv().is_ok() && second.try_recv().is_ok());
    // Too late, and answered when the job's end is durable: then the status says how it ended.
    let mut late = rig.cancel(&job);
    assert!(matches!(late.try_recv(), Err(TryRecvError::Empty)));
    assert!(matches!(rig.unwritten.back(), Some(AfterRecord::Ended(_))));
    rig.write();
    assert!(late.try_recv().is_ok() && rig.cancel(&job).try_recv().is_ok());
    assert_eq!(rig.registry.get(&job).unwrap().state(), v1::JobState::Cancelled);
}

#[test]
fn a_submit_does_not_join_a_job_that_is_being_cancelled() {
    let mut rig = Rig::new(1);
    let mut worker = rig.attach(hello("w"), Inventory::default());
    let job = rig.job("out");
    let attempt = worker.task();
    rig.holds_records = true;
    rig.cancel(&job);
    let (mut again, mut same) = (rig.submit("out"), rig.submit("out"));
    let mut other = rig.submit("other");
    rig.holds_records = false;
    rig.write();
    assert_eq!(worker.next(), Some(Message::Stop((&attempt).into())));
    assert_eq!(rig.registry.get(&job).unwrap().state(), v1::JobState::Cancelled);
    let (again, same) = (again.try_recv().unwrap().unwrap(), same.try_recv().unwrap().unwrap());
    assert!(again.job != job && !again.existing);
    assert!(same.job == again.job && same.existing, "the third submit joins the new job");
    rig.write();
    assert!(!other.try_recv().unwrap().unwrap().existing);
}
