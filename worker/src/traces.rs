//! Traces by OTLP: one job is one trace, whatever processes work on it. Its id, and those of its spans, are digests of
//! what they are about, so no process has to be told by another, and a job that is taken up by another coordinator
//! goes on in the same trace.
//!
//! Off unless a collector is named. What is lost on the way there (it is away, or slow) is lost: nothing waits for it.
//! Not here: lines of the log (`logging`), counts (`http`).

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use clap::Args;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfig, BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor,
};
use ring::digest::{SHA256, digest};
use tally_proto::{AttemptId, Failure, JobId, WorkerId, v1};

use crate::runner::outcome_name;

/// For one sending, and for the last one when the process ends.
const SENDING: Duration = Duration::from_secs(5);
const LAST_SENDING: Duration = Duration::from_secs(2);

/// The way to the collector; none where traces are off.
static PROCESSOR: OnceLock<BatchSpanProcessor> = OnceLock::new();

/// Where traces go.
#[derive(Debug, Clone, Default, Args)]
pub struct TraceArgs {
    /// Collector that traces are sent to, by OTLP over gRPC: http://HOST:4317 [default: nowhere]
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
}

/// Sends spans from now on, if a collector is named; once a process, on a runtime.
///
/// # Errors
/// A sentence that names the option.
pub fn start(args: &TraceArgs, service: &'static str) -> Result<(), String> {
    let Some(endpoint) = args.otlp_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty()) else {
        return Ok(());
    };
    let wrong = |why: &str| format!("--otlp-endpoint {endpoint}: {why}; write http://HOST:4317");
    if !endpoint.starts_with("http://") {
        return Err(wrong("collectors are spoken to in plain text: have one beside this process"));
    }
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(SENDING).build();
    let mut processor =
        BatchSpanProcessor::new(exporter.map_err(|e| wrong(&e.to_string()))?, BatchConfig::default());
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    processor.set_resource(&Resource::builder().with_service_name(service).with_attribute(version).build());
    // A second call would come from the same process and say the same.
    let _ = PROCESSOR.set(processor);
    Ok(())
}

/// Sends what is left. Blocks for 2 s at most, so never on a runtime's thread.
pub fn stop() {
    if let Some(processor) = PROCESSOR.get()
        && let Err(error) = processor.shutdown_with_timeout(LAST_SENDING)
    {
        tracing::warn!(%error, "the last traces were not sent");
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

/// A span that is over.
struct Ended {
    job: JobId,
    id: SpanId,
    parent: SpanId,
    name: &'static str,
    began: SystemTime,
    ended: SystemTime,
    status: Status,
    attributes: Vec<KeyValue>,
}

fn send(processor: &BatchSpanProcessor, span: Ended) {
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
        Err(why) => Status::error(why.to_string()),
    }
}

/// An attempt that began then is over.
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
        KeyValue::new("tally.attempt", i64::from(attempt.attempt)),
        KeyValue::new("tally.worker", worker.to_string()),
        KeyValue::new("tally.outcome", outcome_name(outcome)),
    ];
    send(
        processor,
        Ended {
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

/// A step of a job that the coordinator takes itself, and that began so long ago, is over.
pub fn step(job: &JobId, name: &'static str, took: Duration, outcome: Result<(), &str>) {
    let Some(processor) = PROCESSOR.get() else { return };
    let ended = SystemTime::now();
    send(
        processor,
        Ended {
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

/// A job is over: the root of its trace.
pub fn job(job: &JobId, began: SystemTime, ended: SystemTime, outcome: Result<(), &str>) {
    let Some(processor) = PROCESSOR.get() else { return };
    let attributes = vec![KeyValue::new("tally.job", job.to_string())];
    let id = job_span(job);
    let status = status(&outcome);
    send(
        processor,
        Ended {
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
    fn a_job_is_one_trace_and_its_spans_are_told_apart() {
        let job = |name: &str| JobId::parse(name).unwrap();
        assert_eq!(trace_id(&job("a")), trace_id(&job("a")));
        assert_ne!(trace_id(&job("a")), trace_id(&job("b")));
        assert_ne!(job_span(&job("a")), span_id("a-0"));
        assert!(job_span(&job("a")) != SpanId::INVALID);
    }

    #[test]
    fn a_collector_that_is_none_is_named() {
        let args = TraceArgs { otlp_endpoint: Some("https://collector:4317".into()) };
        assert!(start(&args, "t").unwrap_err().contains("--otlp-endpoint https://collector:4317: "));
        assert_eq!(start(&TraceArgs::default(), "t"), Ok(()));
    }
}
