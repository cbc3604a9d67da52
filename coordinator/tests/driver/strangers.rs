//! Results that no leader asked for.

use tally_coordinator::cluster::{Inventory, WorkerUpdate};
use tally_coordinator::driver::first_attempt;
use tally_proto::v1;
use tally_proto::v1::coordinator_message::Message;

use crate::rig::{EPOCH, Rig, attempt, hello, mapped};

#[test]
fn results_of_attempts_that_were_not_dispatched_are_not_used() {
    let mut rig = Rig::new(2);
    let mut worker = rig.attach(hello("w"), Inventory::default());
    let job = rig.job("out");
    let own = worker.task();
    let first = first_attempt(EPOCH);
    let numbers = [0, first - 1, first, first + 1, first + 9, first_attempt(EPOCH + 1), u32::MAX];
    let claims = || numbers.into_iter().flat_map(|number| [0, 1].map(|index| (index, number)));
    // In its inventory, and as reports.
    let outputs = claims().map(|(index, number)| (attempt(&job, index, number), mapped())).collect();
    let running = vec![attempt(&job, 1, first + 20), attempt(&job, 0, 3)];
    let draining = v1::Hello { draining: true, ..hello("liar") };
    let mut liar = rig.attach(draining, Inventory { outputs, running: running.clone() });
    for _ in running {
        assert!(matches!(liar.next(), Some(Message::Stop(_))));
    }
    for (index, number) in claims() {
        rig.update(&liar, WorkerUpdate::Ended(attempt(&job, index, number), Ok(mapped())));
    }
    assert_eq!(rig.done(&job), 0);
    rig.end(&worker, own.clone());
    assert_eq!(rig.done(&job), 1);
    // The second report of an attempt changes nothing.
    rig.end(&worker, own);
    let second = worker.task();
    assert!(second.task.index == 1 && second.attempt == first, "{second}");
}

/// A worker of this term that comes back with an output that was declared lost meanwhile.
#[test]
fn a_known_output_of_this_term_counts_again_when_its_worker_is_back() {
    let mut rig = Rig::new(2);
    let mut worker = rig.attach(hello("w"), Inventory::default());
    let job = rig.job("out");
    let made = worker.task();
    rig.end(&worker, made.clone());
    let running = worker.task();
    rig.detach(worker);
    let inventory = Inventory { outputs: vec![(made, mapped())], running: vec![running] };
    let mut worker = rig.attach(hello("w"), inventory);
    assert_eq!((worker.next(), rig.done(&job)), (None, 1));
}
