//! Traces by OTLP: one job is one trace, over all processes. The ids of traces and spans are digests of job and attempt
//! ids. So processes need not exchange them, and a job continues in the same trace under another coordinator.
//!
//! Traces are off unless a collector is configured. Spans that the collector does not take in time are lost: no work
//! waits for it. Not here: how the collector is reached (`collector`), the log (`logging`), metrics (`http`).

mod collector;

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfig, BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor,
};
use ring::digest::{SHA256, digest};
use tally_proto::ids::attempt_number;
use tally_proto::report::outcome_name;
use tally_proto::{AttemptId, Failure, JobId, WorkerId, v1};

use crate::secrets;
pub use collector::{EndpointProblem, TraceArgs, TraceError};

/// The time limit of the last export, at exit.
const LAST_SENDING: Duration = Duration::from_secs(2);

/// The exporter to the collector; not set if traces are off.
static PROCESSOR: OnceLock<BatchSpanProcessor> = OnceLock::new();

/// Starts the export of spans if a collector is configured. Call it once per process, on a runtime.
///
/// # Errors
/// [`TraceError`].
pub fn start(args: &TraceArgs, service: &'static str) -> Result<(), TraceError> {
    let Some(exporter) = collector::exporter(args)? else { return Ok(()) };
    let mut processor = BatchSpanProcessor::new(exporter, BatchConfig::default());
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    processor.set_resource(&Resource::builder().with_service_name(service).with_attribute(version).build());
    // A second call has no effect.
    let _ = PROCESSOR.set(processor);
    Ok(())
}

/// Exports the remaining spans. Blocks for at most 2 s, so do not call it on a thread of a runtime.
pub fn stop() {
    if let Some(processor) = PROCESSOR.get()
        && let Err(error) = processor.shutdown_with_timeout(LAST_SENDING)
    {
        tracing::warn!(%error, "the last spans were not exported");
    }
}

fn trace_id(job: &JobId) -> TraceId {
    let mut id = [0; 16];
    id.copy_from_slice(&digest(&SHA256, format!("tally trace {job}").as_bytes()).as_ref()[..16]);
    TraceId::from_bytes(id)
}

fn span_id(what: &str) -> SpanId {
    let mut id = [0; 8];
    id.copy_from_slice(&digest(&SHA256, format!("tally span {what}").as_bytes()).as_ref()[..8]);
    SpanId::from_bytes(id)
}

fn job_span(job: &JobId) -> SpanId {
    span_id(&job.to_string())
}

/// A span that has ended.
struct EndedSpan {
    job: JobId,
    id: SpanId,
    parent: SpanId,
    name: &'static str,
    began: SystemTime,
    ended: SystemTime,
    status: Status,
    attributes: Vec<KeyValue>,
}

fn send(processor: &BatchSpanProcessor, span: EndedSpan) {
    let trace = trace_id(&span.job);
    processor.on_end(SpanData {
        span_context: SpanContext::new(trace, span.id, TraceFlags::SAMPLED, false, TraceState::default()),
        parent_span_id: span.parent,
        parent_span_is_remote: span.parent != SpanId::INVALID,
        span_kind: SpanKind::Internal,
        name: span.name.into(),
        start_time: span.began,
        end_time: span.ended,
        attributes: span.attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: span.status,
        instrumentation_scope: InstrumentationScope::builder("tally").build(),
    });
}

fn status<E: std::fmt::Display>(outcome: &Result<(), E>) -> Status {
    match outcome {
        Ok(()) => Status::Ok,
        Err(why) => Status::error(secrets::cut(&why.to_string()).into_owned()),
    }
}

/// Records an attempt that has ended.
pub fn attempt(
    worker: &WorkerId,
    attempt: &AttemptId,
    stage: &'static str,
    began: SystemTime,
    outcome: &Result<v1::TaskResult, Failure>,
) {
    let Some(processor) = PROCESSOR.get() else { return };
    let task = &attempt.task;
    let attributes = vec![
        KeyValue::new("tally.job", task.job.to_string()),
        KeyValue::new("tally.stage", stage),
        KeyValue::new("tally.task", i64::from(task.index)),
        KeyValue::new("tally.attempt", i64::from(attempt_number(attempt.attempt))),
        KeyValue::new("tally.worker", worker.to_string()),
        KeyValue::new("tally.outcome", outcome_name(outcome)),
    ];
    send(
        processor,
        EndedSpan {
            id: span_id(&attempt.to_string()),
            parent: job_span(&task.job),
            job: task.job.clone(),
            name: stage,
            began,
            ended: SystemTime::now(),
            status: status(&outcome.as_ref().map(|_| ())),
            attributes,
        },
    );
}

/// Records a step of a job that the coordinator has completed.
pub fn step(job: &JobId, name: &'static str, took: Duration, outcome: Result<(), &str>) {
    let Some(processor) = PROCESSOR.get() else { return };
    let ended = SystemTime::now();
    send(
        processor,
        EndedSpan {
            job: job.clone(),
            id: span_id(&format!("{job} {name}")),
            parent: job_span(job),
            name,
            began: ended.checked_sub(took).unwrap_or(ended),
            ended,
            status: status(&outcome),
            attributes: vec![KeyValue::new("tally.job", job.to_string())],
        },
    );
}

/// Records a job that has ended, as the root of its trace.
pub fn job(job: &JobId, began: SystemTime, ended: SystemTime, outcome: Result<(), &str>) {
    let Some(processor) = PROCESSOR.get() else { return };
    let attributes = vec![KeyValue::new("tally.job", job.to_string())];
    let id = job_span(job);
    let status = status(&outcome);
    send(
        processor,
        EndedSpan {
            job: job.clone(),
            id,
            parent: SpanId::INVALID,
            name: "job",
            began,
            ended,
            status,
            attributes,
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_one_trace_with_distinct_spans() {
        let job = |name: &str| JobId::parse(name).unwrap();
        assert_eq!(trace_id(&job("a")), trace_id(&job("a")));
        assert_ne!(trace_id(&job("a")), trace_id(&job("b")));
        assert_ne!(job_span(&job("a")), span_id("a-0"));
        assert!(job_span(&job("a")) != SpanId::INVALID);
    }
}
