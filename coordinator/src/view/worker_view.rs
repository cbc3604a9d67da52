//! The JSON of workers.
//!
//! Not here: tables for people (`cli`).

use serde::Serialize;
use tally_proto::v1::WorkerStatus;

use super::seconds;

/// A worker.
#[derive(Serialize)]
pub struct Worker<'a> {
    worker_id: &'a str,
    state: &'a str,
    flight_address: &'a str,
    version: &'a str,
    slots: u32,
    running: u32,
    memory_limit: u64,
    memory_used: u64,
    spilled_bytes: u64,
    outputs: u64,
    heartbeat_age_seconds: f64,
    silent: bool,
    spill_used: u64,
    spill_limit: u64,
    resident_bytes: u64,
    waiting_for_memory: u32,
    waiting_for_store: u32,
    waiting_for_workers: u32,
}

impl<'a> From<&'a WorkerStatus> for Worker<'a> {
    fn from(worker: &'a WorkerStatus) -> Self {
        Worker {
            worker_id: &worker.worker,
            state: &worker.state,
            flight_address: &worker.flight_address,
            version: &worker.version,
            slots: worker.slots,
            running: worker.running,
            memory_limit: worker.memory_limit,
            memory_used: worker.memory_used,
            spilled_bytes: worker.spilled_bytes,
            outputs: worker.outputs,
            heartbeat_age_seconds: seconds(worker.heartbeat_age_millis),
            silent: worker.silent,
            spill_used: worker.spill_used,
            spill_limit: worker.spill_limit,
            resident_bytes: worker.resident_bytes,
            waiting_for_memory: worker.waiting_for_memory,
            waiting_for_store: worker.waiting_for_store,
            waiting_for_workers: worker.waiting_for_workers,
        }
    }
}

/// A page of workers.
#[derive(Serialize)]
pub struct Workers<'a> {
    workers: Vec<Worker<'a>>,
}

impl<'a> From<&'a [WorkerStatus]> for Workers<'a> {
    fn from(workers: &'a [WorkerStatus]) -> Self {
        Workers { workers: workers.iter().map(Worker::from).collect() }
    }
}
