//! The workers as the driver sees them: somebody that takes orders.
//!
//! Not here: which worker gets which order (`tally-scheduler`); workers in other processes
//! (`cluster`).

use std::sync::Arc;

use prost::Message;
use tally_proto::{AttemptId, JobId, WorkerId, v1};

use crate::cluster::RemoteFleet;

/// The inputs of a reduce order, the same for all partitions: built and encoded once, shared by all
/// orders.
#[derive(Debug)]
pub struct ReduceInputs {
    inputs: Vec<v1::TableOutputs>,
    holders: Vec<v1::Holder>,
    encoded: Vec<u8>,
}

impl ReduceInputs {
    /// Outputs of all map tasks, by input table, and who holds them.
    pub fn new(inputs: Vec<v1::TableOutputs>, holders: Vec<v1::Holder>) -> Self {
        let work = v1::ReduceWork { inputs, holders, ..v1::ReduceWork::default() };
        let encoded = work.encode_to_vec();
        ReduceInputs { inputs: work.inputs, holders: work.holders, encoded }
    }

    /// The fields `inputs` and `holders` of a [`v1::ReduceWork`].
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }
}

/// A task order; what many orders have in common is beside it.
#[derive(Debug, Clone)]
pub struct Order {
    /// The order, without the inputs of a reduce.
    pub head: v1::TaskOrder,
    /// The inputs of a reduce.
    pub inputs: Option<Arc<ReduceInputs>>,
}

impl Order {
    /// The order as one message.
    pub fn whole(self) -> v1::TaskOrder {
        let mut order = self.head;
        if let (Some(v1::task_order::Work::Reduce(work)), Some(shared)) = (&mut order.work, &self.inputs) {
            work.inputs.clone_from(&shared.inputs);
            work.holders.clone_from(&shared.holders);
        }
        order
    }
}

/// What a fleet can do at once, for planning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Slots of all workers.
    pub slots: usize,
    /// Bytes of tables that a reduce task may use on every one of them.
    pub reduce_table_bytes: u64,
}

/// Carries the driver's orders to workers. Reports come back as the driver's events.
pub trait Fleet: Send {
    /// Sends a worker an order.
    ///
    /// # Errors
    /// Why that is not possible: the worker counts as lost.
    fn start(&mut self, worker: &WorkerId, attempt: &AttemptId, order: Order) -> Result<(), String>;

    /// Where other workers reach this one's outputs; empty where they need no address.
    fn address(&self, worker: &WorkerId) -> String;

    /// Tells a worker to stop an attempt.
    fn stop(&mut self, worker: &WorkerId, attempt: &AttemptId);

    /// Tells all workers to drop a job's data.
    fn release(&mut self, job: &JobId);

    /// What it can do now.
    fn capacity(&self) -> Capacity;

    /// The fleet as one of workers in other processes, if it is one: only those attach, break
    /// off, drain.
    fn remote(&mut self) -> Option<&mut RemoteFleet> {
        None
    }
}
