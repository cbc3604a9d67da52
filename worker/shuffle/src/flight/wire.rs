//! Encodes batches as Flight messages, and decodes them. Buffers are not compressed, because ids are not compressible.
//!
//! Not here: the selection of batches (`produce`), streams (`fetch`).

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BinaryArray, RecordBatch};
use arrow_buffer::Buffer;
use arrow_flight::{FlightData, SchemaAsIpc};
use arrow_ipc::convert::try_schema_from_flatbuffer_bytes;
use arrow_ipc::reader::read_record_batch;
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_ipc::{MessageHeader, root_as_message};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use bytes::Bytes;

/// The schema, as the first message of a stream.
pub fn schema_message(schema: &Schema) -> FlightData {
    SchemaAsIpc::new(schema, &IpcWriteOptions::default()).into()
}

/// The rows as one message with the metadata `metadata`.
///
/// # Errors
/// The error of Arrow.
pub fn batch_message(batch: &RecordBatch, metadata: Bytes) -> Result<FlightData, ArrowError> {
    let mut context = IpcWriteContext::default();
    let mut dictionaries = DictionaryTracker::new(false);
    let options = IpcWriteOptions::default();
    let encoded = IpcDataGenerator::default().encode(batch, &mut dictionaries, &options, &mut context);
    Ok(FlightData::from(encoded?.1).with_app_metadata(metadata))
}

/// Whether a message contains a schema.
pub fn is_schema(message: &FlightData) -> bool {
    root_as_message(&message.data_header).is_ok_and(|message| message.header_type() == MessageHeader::Schema)
}

/// Decodes the messages of a stream to batches.
#[derive(Default)]
pub struct Decoder {
    schema: Option<SchemaRef>,
}

impl Decoder {
    /// The batch in a message; `None` if it contains the schema of the following batches. The batch refers to the
    /// memory of the message.
    ///
    /// # Errors
    /// The message is neither, or does not match the schema.
    pub fn take(&mut self, message: &FlightData) -> Result<Option<RecordBatch>, ArrowError> {
        self.decode(&message.data_header, &Buffer::from(message.data_body.clone()))
    }

    /// Like [`Decoder::take`], but the batch has its own memory, without unused bytes.
    ///
    /// # Errors
    /// As for [`Decoder::take`].
    pub fn take_copied(&mut self, message: &FlightData) -> Result<Option<RecordBatch>, ArrowError> {
        self.decode(&message.data_header, &Buffer::from(&*message.data_body))
    }

    fn decode(&mut self, header: &[u8], body: &Buffer) -> Result<Option<RecordBatch>, ArrowError> {
        let bad = |e: &dyn std::fmt::Display| {
            ArrowError::ParseError(format!("the header of a message is invalid: {e}"))
        };
        let message = root_as_message(header).map_err(|e| bad(&e))?;
        match message.header_type() {
            MessageHeader::Schema => {
                self.schema = Some(Arc::new(try_schema_from_flatbuffer_bytes(header)?));
                Ok(None)
            }
            MessageHeader::RecordBatch => {
                let schema = self.schema.clone().ok_or_else(|| bad(&"a batch precedes its schema"))?;
                let batch = message.header_as_record_batch().ok_or_else(|| bad(&"it has no batch"))?;
                // Arrow's reader panics if a buffer ends after the body.
                let end =
                    |b: &arrow_ipc::Buffer| b.offset().checked_add(b.length()).filter(|_| b.length() >= 0);
                let inside = |b| end(b).is_some_and(|end| b.offset() >= 0 && end as u64 <= body.len() as u64);
                if !batch.buffers().is_some_and(|buffers| buffers.iter().all(inside)) {
                    return Err(bad(&"its buffers exceed its body"));
                }
                read_record_batch(body, batch, schema, &HashMap::new(), None, &message.version()).map(Some)
            }
            other => Err(bad(&format!("{other:?} is unexpected"))),
        }
    }
}

/// The schema in which parts of a file are sent: one column.
pub fn bytes_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("bytes", DataType::Binary, false)]))
}

/// A part of a file as a batch of one row.
///
/// # Errors
/// The part has more than 2 GiB.
pub fn bytes_batch(part: &[u8]) -> Result<RecordBatch, ArrowError> {
    let column: ArrayRef = Arc::new(BinaryArray::from_vec(vec![part]));
    RecordBatch::try_new(bytes_schema(), vec![column])
}

struct Owned(Buffer);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The bytes of a batch of file parts. Nothing is copied.
///
/// # Errors
/// The batch has another schema.
pub fn bytes_of(batch: &RecordBatch) -> Result<Bytes, ArrowError> {
    let column = batch.columns().first().and_then(|c| c.as_any().downcast_ref::<BinaryArray>());
    let column = column.ok_or_else(|| ArrowError::SchemaError("the batch has no column of bytes".into()))?;
    let ends = column.value_offsets();
    let (start, end) = (ends[0] as usize, ends[column.len()] as usize);
    Ok(Bytes::from_owner(Owned(column.values().slice_with_length(start, end - start))))
}

#[cfg(test)]
mod tests {
    use arrow_array::types::UInt32Type;
    use arrow_array::{FixedSizeBinaryArray, Int64Array, ListArray};

    use super::*;

    #[test]
    fn slices_are_transferred_and_malformed_messages_are_rejected() {
        let ids = FixedSizeBinaryArray::try_from_iter((0u8..100).map(|i| [i; 16])).unwrap();
        let items = (0..100).map(|row| Some((0..row % 5).map(Some).collect::<Vec<_>>()));
        let columns: [(&str, ArrayRef); 3] = [
            ("id", Arc::new(ids)),
            ("items", Arc::new(ListArray::from_iter_primitive::<UInt32Type, _, _>(items))),
            ("day", Arc::new(Int64Array::from_iter_values(0..100))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap().slice(13, 50);
        let message = batch_message(&batch, Bytes::from_static(b"m")).unwrap();
        assert!(message.data_body.len() < 4000, "only the slice is sent");
        let mut decoder = Decoder::default();
        assert!(decoder.take(&message).is_err(), "no schema yet");
        assert!(decoder.take(&schema_message(&batch.schema())).unwrap().is_none());
        assert_eq!(decoder.take(&message).unwrap().unwrap(), batch);
        assert_eq!(decoder.take_copied(&message).unwrap().unwrap(), batch);
        let short = FlightData { data_body: message.data_body.slice(..100), ..message.clone() };
        assert!(decoder.take(&short).is_err());
        let garbage = FlightData { data_header: Bytes::from_static(b"garbage!"), ..message };
        assert!(decoder.take(&garbage).is_err());
        let part = bytes_batch(b"hello").unwrap();
        assert_eq!(bytes_of(&part).unwrap(), "hello");
        assert!(bytes_of(&batch).is_err());
    }
}
