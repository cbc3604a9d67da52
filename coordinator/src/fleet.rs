//! The workers as the driver sees them: somebody that takes orders.
//!
//! Not here: which worker gets which order (`tally-scheduler`); workers in other processes
//! (`cluster`).

use std::sync::{Arc, OnceLock};

use prost::Message;
use tally_proto::packed::pack;
use tally_proto::{AttemptId, JobId, WorkerId, v1};
use tally_worker::order::ReduceInputs;

use crate::cluster::RemoteFleet;

/// The inputs of a job's reduce orders, the same for all partitions: built once, and encoded once for
/// all workers.
#[derive(Debug)]
pub struct SharedInputs {
    version: u64,
    list: Arc<ReduceInputs>,
    /// What there is of each partition, as far as all map tasks told.
    expected: Option<Vec<v1::Sums>>,
    packed: OnceLock<Vec<u8>>,
    whole: OnceLock<Vec<u8>>,
}

impl SharedInputs {
    /// Inputs that orders know as that version.
    pub fn new(version: u64, list: ReduceInputs, expected: Option<Vec<v1::Sums>>) -> Self {
        let (packed, whole) = (OnceLock::new(), OnceLock::new());
        SharedInputs { version, list: Arc::new(list), expected, packed, whole }
    }

    /// What a partition has, if all map tasks told.
    pub fn expected(&self, partition: u32) -> Option<v1::Sums> {
        self.expected.as_ref()?.get(partition as usize).copied()
    }

    /// Which of the job's inputs these are.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// As slots take them.
    pub fn list(&self) -> &Arc<ReduceInputs> {
        &self.list
    }

    /// A [`v1::ReduceInputs`], encoded.
    pub fn packed(&self, job: &JobId) -> &[u8] {
        self.packed.get_or_init(|| {
            let tables = self.list.tables.iter().map(pack).collect();
            let stage = self.list.tables.iter().find_map(|table| table.outputs.first());
            let (job, stage) = (job.to_string(), stage.map_or(0, |output| output.stage));
            let holders = self.list.holders.clone();
            v1::ReduceInputs { job, version: self.version, stage, tables, holders }.encode_to_vec()
        })
    }

    /// The fields `inputs` and `holders` of a [`v1::ReduceWork`], for workers of protocol 1.
    pub fn whole(&self) -> &[u8] {
        self.whole.get_or_init(|| {
            let (inputs, holders) = (self.list.tables.clone(), self.list.holders.clone());
            v1::ReduceWork { inputs, holders, ..v1::ReduceWork::default() }.encode_to_vec()
        })
    }
}

/// A task order; what many orders have in common is beside it.
#[derive(Debug, Clone)]
pub struct Order {
    /// The order.
    pub head: v1::TaskOrder,
    /// What a reduce reads.
    pub inputs: Option<Arc<SharedInputs>>,
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
