//! Task orders as slots take them: what the reduce orders of a job have in common is shared, not
//! copied.
//!
//! Not here: how orders travel (`agent`, or the coordinator in one process).

use std::sync::Arc;

use tally_proto::convert::BadMessage;
use tally_proto::packed::unpack;
use tally_proto::v1;

/// What the reduce tasks of a job read: outputs of all map tasks, and who holds them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReduceInputs {
    /// By input table, each in the order of the tasks.
    pub tables: Vec<v1::TableOutputs>,
    /// The holders that outputs name by their place here.
    pub holders: Vec<v1::Holder>,
}

impl TryFrom<v1::ReduceInputs> for ReduceInputs {
    type Error = BadMessage;

    fn try_from(message: v1::ReduceInputs) -> Result<Self, BadMessage> {
        let tables = message.tables.iter().map(|table| unpack(table, message.stage));
        Ok(ReduceInputs { tables: tables.collect::<Result<_, _>>()?, holders: message.holders })
    }
}

/// An order.
#[derive(Debug, Clone)]
pub struct Order {
    /// The order as it was sent.
    pub head: v1::TaskOrder,
    /// What it reads, if it is a reduce's.
    pub inputs: Option<Arc<ReduceInputs>>,
}
