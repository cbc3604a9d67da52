//! Messages between the processes of a cluster, and tickets of readers.

use prost::Message;
use tally_coordinator::cluster::Hello;
use tally_coordinator::job::JobSpec;
use tally_proto::convert::required;
use tally_proto::dataset_options::DatasetOptions;
use tally_proto::dispatch::ReduceInputs;
use tally_proto::packed::{pack, unpack};
use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::v1::worker_message::Message as Up;
use tally_proto::{AttemptId, Failure, JobId, WorkerId, v1};
use tally_shuffle::flight::ticket::Request;

/// Reads a ticket like a Flight server. A valid ticket is encoded to an equal one.
pub fn ticket(bytes: &[u8]) {
    let Ok((request, key)) = Request::parse(bytes) else { return };
    let again = request.ticket(key.clone().into()).encode_to_vec();
    let (second, second_key) = Request::parse(&again).expect("an encoded ticket is valid");
    assert_eq!((request, key), (second, second_key));
}

fn attempt(attempt: Option<v1::Attempt>) {
    let Ok(attempt) = required(attempt, "attempt") else { return };
    if let Ok(id) = AttemptId::try_from(&attempt) {
        assert_eq!(v1::Attempt::from(&id), attempt, "an id is encoded to the same message");
    }
}

/// Reads a worker's message like a coordinator.
pub fn worker_message(bytes: &[u8]) {
    let Ok(v1::WorkerMessage { message: Some(message) }) = v1::WorkerMessage::decode(bytes) else { return };
    match message {
        Up::Hello(hello) => drop(Hello::try_from(hello)),
        Up::Inventory(inventory) => {
            inventory.outputs.into_iter().for_each(|held| attempt(held.attempt));
            inventory.running.into_iter().for_each(|running| attempt(Some(running)));
        }
        Up::Ended(ended) => {
            attempt(ended.attempt);
            if let Some(v1::ended::Outcome::Failure(failure)) = &ended.outcome {
                drop(Failure::try_from(failure).map(|failure| failure.to_string()));
            }
        }
        Up::OutputMigrated(moved) => {
            attempt(moved.attempt);
            drop(WorkerId::parse(&moved.to));
        }
        Up::MigrationFailed(kept) => {
            attempt(kept.attempt);
            drop(WorkerId::parse(&kept.to));
        }
        Up::Heartbeat(_) | Up::Draining(_) | Up::Goodbye(_) => {}
    }
}

/// Reads a coordinator's message like a worker, and a job specification like a coordinator.
pub fn coordinator_message(bytes: &[u8]) {
    if let Ok(spec) = v1::JobSpec::decode(bytes) {
        drop(JobSpec::asked(spec));
    }
    let Ok(v1::CoordinatorMessage { message: Some(message), .. }) = v1::CoordinatorMessage::decode(bytes)
    else {
        return;
    };
    match message {
        Down::Start(order) => attempt(order.attempt),
        Down::Stop(stopped) => attempt(Some(stopped)),
        Down::Release(job) => drop(JobId::parse(&job)),
        Down::Inputs(inputs) => {
            let stage = inputs.stage;
            let packed = inputs.tables.clone();
            let Ok(inputs) = ReduceInputs::try_from(inputs) else { return };
            for (table, packed) in inputs.tables.iter().zip(packed) {
                assert_eq!(table.outputs.len(), packed.locations.len());
                assert_eq!(unpack(&pack(table), stage).as_ref(), Ok(table), "packing loses nothing");
            }
        }
        Down::Options(options) => {
            let Ok(options) = DatasetOptions::try_from(options.options) else { return };
            let again = DatasetOptions::try_from(options.to_messages());
            assert_eq!(again, Ok(options), "sending loses nothing");
        }
        Down::MigrateOutputs(order) => order.attempts.into_iter().for_each(|given| attempt(Some(given))),
        Down::Admit(admit) => drop(JobId::parse(&admit.job)),
        Down::Welcome(_) | Down::Drain(_) | Down::Drained(_) | Down::Beat(_) => {}
    }
}
