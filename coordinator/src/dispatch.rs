//! Tasks as the driver dispatches them. What the tasks of a job have in common is shared, and encoded once.
//!
//! Not here: which tasks are dispatched (the driver); how they are sent (`service::wire`).

use std::sync::{Arc, OnceLock};

use prost::Message;
use tally_proto::dataset_options::DatasetOptions;
use tally_proto::dispatch::ReduceInputs;
use tally_proto::limits::field_len;
use tally_proto::packed::pack;
use tally_proto::{JobId, v1};

/// Field numbers of the messages around a task and its inputs. A test compares them with the generated messages.
pub(crate) mod field {
    /// The task, in a message of the coordinator.
    pub(crate) const START: u32 = 3;
    /// The inputs of reduce tasks, in a message of the coordinator.
    pub(crate) const INPUTS: u32 = 11;
    /// The options of a job's dataset, in a message of the coordinator.
    pub(crate) const OPTIONS: u32 = 12;
    /// The work of a reduce task, in its task message.
    pub(crate) const REDUCE: u32 = 4;
}

/// The inputs of a job's reduce tasks. They are the same for all partitions, so they are built once, and encoded once
/// for all workers.
#[derive(Debug)]
pub struct SharedInputs {
    version: u64,
    list: Arc<ReduceInputs>,
    /// The sums of each partition, if all map tasks reported theirs.
    expected: Option<Vec<v1::Sums>>,
    packed: OnceLock<Vec<u8>>,
    whole: OnceLock<Vec<u8>>,
}

impl SharedInputs {
    /// The inputs of that version.
    pub fn new(version: u64, list: ReduceInputs, expected: Option<Vec<v1::Sums>>) -> Self {
        let (packed, whole) = (OnceLock::new(), OnceLock::new());
        SharedInputs { version, list: Arc::new(list), expected, packed, whole }
    }

    /// The sums of a partition, if all map tasks reported theirs.
    pub fn expected(&self, partition: u32) -> Option<v1::Sums> {
        self.expected.as_ref()?.get(partition as usize).copied()
    }

    /// The version of these inputs.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The inputs in the form that workers of this process take.
    pub fn list(&self) -> &Arc<ReduceInputs> {
        &self.list
    }

    /// The encoded [`v1::ReduceInputs`].
    pub fn packed(&self, job: &JobId) -> &[u8] {
        self.packed.get_or_init(|| {
            let tables = self.list.tables.iter().map(pack).collect();
            let stage = self.list.tables.iter().find_map(|table| table.outputs.first());
            let (job, stage) = (job.to_string(), stage.map_or(0, |output| output.stage));
            let locations = self.list.locations.clone();
            v1::ReduceInputs { job, version: self.version, stage, tables, locations }.encode_to_vec()
        })
    }

    /// The encoded fields `inputs` and `locations` of a [`v1::ReduceWork`], for workers of protocol 1.
    pub fn whole(&self) -> &[u8] {
        self.whole.get_or_init(|| {
            let (inputs, locations) = (self.list.tables.clone(), self.list.locations.clone());
            v1::ReduceWork { inputs, locations, ..v1::ReduceWork::default() }.encode_to_vec()
        })
    }
}

/// The options of a job's dataset. Every worker needs them, so they are encoded once.
#[derive(Debug)]
pub struct SharedOptions {
    options: DatasetOptions,
    packed: OnceLock<Vec<u8>>,
}

impl SharedOptions {
    /// The options, if there are any.
    pub fn new(options: &DatasetOptions) -> Option<Arc<Self>> {
        let shared = || Arc::new(SharedOptions { options: options.clone(), packed: OnceLock::new() });
        (!options.is_empty()).then(shared)
    }

    /// The options in the form that workers of this process take.
    pub fn get(&self) -> &DatasetOptions {
        &self.options
    }

    /// The encoded [`v1::JobOptions`].
    pub fn packed(&self, job: &JobId) -> &[u8] {
        self.packed.get_or_init(|| {
            v1::JobOptions { job: job.to_string(), options: self.options.to_messages() }.encode_to_vec()
        })
    }
}

/// A task for a worker, with what it shares with other tasks.
#[derive(Debug, Clone, Default)]
pub struct TaskDispatch {
    /// The task message, without shared inputs.
    pub head: v1::TaskDispatch,
    /// The inputs of a reduce task.
    pub inputs: Option<Arc<SharedInputs>>,
    /// The options of the job's dataset, if it has any.
    pub options: Option<Arc<SharedOptions>>,
}

impl TaskDispatch {
    /// The size of the encoded task message, with the inputs that are sent with it.
    pub fn encoded_len(&self) -> usize {
        let (head, Some(v1::task_dispatch::Work::Reduce(work)), Some(shared)) =
            (self.head.encoded_len(), &self.head.work, &self.inputs)
        else {
            return self.head.encoded_len();
        };
        let work = work.encoded_len();
        head - field_len(field::REDUCE, work) + field_len(field::REDUCE, work + shared.whole().len())
    }
}

#[cfg(test)]
mod tests {
    use tally_proto::MESSAGE_BYTES;
    use tally_proto::limits::MAX_TASKS;

    use super::*;

    /// Workers of a large cluster, with long names and addresses.
    const WORKERS: u32 = 8_000;

    #[test]
    fn the_inputs_of_reduce_tasks_fit_into_a_message_at_the_limit_of_map_tasks() {
        // No attempt has the number of the one before, so that no two of them share an entry.
        let output = |index: u32| v1::OutputRef {
            location: WORKERS - 1 - index % WORKERS,
            stage: 0,
            index,
            attempt: u32::MAX - index % 2,
        };
        let half = MAX_TASKS as u32 / 2;
        let table = |range: std::ops::Range<u32>| v1::TableOutputs { outputs: range.map(output).collect() };
        let location = |n: u32| v1::Location {
            worker: format!("tally-worker-{n:012x}-of-a-rack"),
            address: format!("tally-worker-{n}.tally-workers.telemetry.svc.cluster.local:7071"),
        };
        let tables = vec![table(0..half), table(half..MAX_TASKS as u32)];
        let list = ReduceInputs { tables, locations: (0..WORKERS).map(location).collect() };
        let job = JobId::parse(&"j".repeat(64)).unwrap();
        let packed = SharedInputs::new(u64::MAX, list, None).packed(&job).len();
        assert!(packed + 1024 <= MESSAGE_BYTES && packed > MESSAGE_BYTES / 2, "{packed} bytes");
    }
}
