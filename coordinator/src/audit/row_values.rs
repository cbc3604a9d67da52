//! The values of a row, to be shown.
//!
//! Not here: which rows are shown.

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_cast::display::array_value_to_string;
use arrow_schema::DataType;
use serde::{Serialize, Serializer};
use serde_json::Value;

/// The values of a row by column, in the order of the columns.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowValues(pub Vec<(String, Value)>);

impl RowValues {
    /// The value of a column.
    pub fn get(&self, column: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| name == column).map(|(_, value)| value)
    }
}

impl Serialize for RowValues {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// The values of a row of a batch.
pub(super) fn values(batch: &RecordBatch, row: usize) -> RowValues {
    let fields = batch.schema_ref().fields().iter().zip(batch.columns());
    RowValues(fields.map(|(field, column)| (field.name().clone(), value(column, row))).collect())
}

fn value(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        _ => array_value_to_string(column, row).unwrap_or_default().into(),
    }
}
