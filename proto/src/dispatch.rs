//! Dispatches of tasks as a worker's slots take them. The reduce tasks of a job share their inputs instead of copying
//! them.
//!
//! Not here: how dispatches are sent (the worker's `agent`, or the coordinator within one process).

use std::sync::Arc;

use crate::convert::BadMessage;
use crate::dataset_options::DatasetOptions;
use crate::packed::unpack;
use crate::v1;

/// The inputs of the reduce tasks of a job: the outputs of all map tasks, and their locations.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReduceInputs {
    /// The outputs by input table, each in the order of the tasks.
    pub tables: Vec<v1::TableOutputs>,
    /// The locations that outputs name by their index.
    pub locations: Vec<v1::Location>,
}

impl TryFrom<v1::ReduceInputs> for ReduceInputs {
    type Error = BadMessage;

    fn try_from(message: v1::ReduceInputs) -> Result<Self, BadMessage> {
        let tables = message.tables.iter().map(|table| unpack(table, message.stage));
        Ok(ReduceInputs { tables: tables.collect::<Result<_, _>>()?, locations: message.locations })
    }
}

/// A task to run.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// The message as it was sent.
    pub head: v1::TaskDispatch,
    /// The inputs of a reduce task.
    pub inputs: Option<Arc<ReduceInputs>>,
    /// The options of the job's dataset.
    pub options: DatasetOptions,
}
