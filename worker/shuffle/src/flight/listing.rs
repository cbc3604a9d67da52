//! The data that a Flight client without a job's key may read: the list of outputs with their schemas and sizes.
//! Tickets are listed without a key, so they grant no access.
//!
//! Not here: the rows.

use std::sync::Arc;

use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use arrow_schema::{Schema, SchemaRef};
use bytes::Bytes;
use prost::Message;
use tally_proto::{AttemptId, JobId, StageId, TaskId};
use tonic::Status;

use super::ticket::Request;
use super::{FILE_PART, wire};
use crate::store::{MapOutput, Output, Run, Store};

/// The schema of the stream that `do_get` returns for an output.
pub fn schema(output: &Output) -> SchemaRef {
    match output {
        Output::Map(output) => {
            output.runs.first().map_or_else(|| Arc::new(Schema::empty()), |run| run.schema().clone())
        }
        Output::File(_) => wire::bytes_schema(),
    }
}

fn map_size(output: &MapOutput) -> (u64, u64) {
    let partitions = |run: &Run| 0..run.partitions();
    let rows = |run: &Run| partitions(run).map(|p| run.size(p).rows).sum::<u64>();
    let bytes = |run: &Run| partitions(run).map(|p| run.bytes(p)).sum::<u64>();
    output.runs.iter().fold((0, 0), |(r, b), run| (r + rows(run), b + bytes(run)))
}

/// Rows and bytes of the stream that `do_get` returns for an output.
pub fn size(output: &Output) -> (u64, u64) {
    match output {
        Output::Map(output) => map_size(output),
        // One row per message.
        Output::File(file) => (file.len().div_ceil(FILE_PART as u64), file.len()),
    }
}

/// Describes an output as a flight. Its path is job, stage, task, attempt.
///
/// # Errors
/// The schema cannot be encoded.
pub fn info(attempt: &AttemptId, output: &Output) -> Result<FlightInfo, Status> {
    let task = &attempt.task;
    let path = [task.job.to_string(), task.stage.0.to_string(), task.index.to_string()];
    let path = path.into_iter().chain([attempt.attempt.to_string()]).collect();
    let (records, bytes) = size(output);
    let request = Request { job: task.job.clone(), outputs: vec![attempt.clone()], what: None, skip: 0 };
    let ticket = Ticket::new(request.ticket(Bytes::new()).encode_to_vec());
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let info = FlightInfo::new()
        .with_descriptor(FlightDescriptor::new_path(path))
        .with_endpoint(FlightEndpoint::new().with_ticket(ticket))
        .with_total_records(number(records))
        .with_total_bytes(number(bytes))
        .with_ordered(true);
    info.try_with_schema(&schema(output)).map_err(|e| Status::internal(e.to_string()))
}

/// The output that a descriptor's path names.
///
/// # Errors
/// INVALID_ARGUMENT if the path is invalid, NOT_FOUND if the output is not here.
pub fn described(store: &Store, descriptor: &FlightDescriptor) -> Result<(AttemptId, Output), Status> {
    let bad = || Status::invalid_argument("the path of a flight is its job, stage, task and attempt");
    if descriptor.r#type() != DescriptorType::Path {
        return Err(bad());
    }
    let [job, numbers @ ..] = descriptor.path.as_slice() else { return Err(bad()) };
    let numbers: Vec<u32> = numbers.iter().map(|n| n.parse()).collect::<Result<_, _>>().map_err(|_| bad())?;
    let [stage, index, attempt] = numbers[..] else { return Err(bad()) };
    let job = JobId::parse(job).map_err(|_| bad())?;
    let attempt = AttemptId { task: TaskId { job, stage: StageId(stage), index }, attempt };
    let output = store.get(&attempt);
    output
        .map(|output| (attempt.clone(), output))
        .ok_or_else(|| Status::not_found(format!("the output of {attempt} is not here")))
}

/// The attempts whose outputs are listed: all, or those of one job.
///
/// # Errors
/// INVALID_ARGUMENT if the criteria are not the id of a job.
pub fn listed(store: &Store, criteria: &[u8]) -> Result<Vec<AttemptId>, Status> {
    let mut all: Vec<AttemptId> = store.inventory().into_iter().map(|(attempt, _)| attempt).collect();
    if !criteria.is_empty() {
        let job = std::str::from_utf8(criteria).ok().and_then(|text| JobId::parse(text).ok());
        let job =
            job.ok_or_else(|| Status::invalid_argument("the criteria must be empty or the id of a job"))?;
        all.retain(|attempt| attempt.task.job == job);
    }
    Ok(all)
}
