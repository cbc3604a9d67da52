//! One job is one trace: what coordinator and workers send to a collector, here a receiver of OTLP in this test.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow, bail, ensure};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use tally_tests::cluster::client::DEADLINE;
use tally_tests::cluster::truth::Truth;
use tally_tests::cluster::{Setup, with_cluster};
use tally_tests::output::Place;
use tally_tests::wait::wait_for;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

const FLAGS: &[&str] = &["--shard-bytes", "100KB", "--partitions", "8", "--target-file-size", "1MB"];

/// A collector; keeps each span with the name of its service.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = self.0.lock().map_err(|_| Status::internal("a test panicked"))?;
        for resource in request.into_inner().resource_spans {
            let described = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
            let service = text(&described, "service.name").unwrap_or_default();
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            kept.extend(spans.map(|span| (service.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match &found.value {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => Some(text.clone()),
        _ => None,
    }
}

#[test]
fn a_job_is_one_trace_over_all_processes() -> Result<()> {
    let day = Truth::new(&["--clients", "20000", "--narrow"])?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let collector = Collector::default();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
    let _runtime = runtime.enter();
    runtime.spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    // Flags of a cluster live as long as the test's process.
    let flags = vec!["--otlp-endpoint", &*endpoint.leak()];
    let setup =
        Setup { workers: 2, coordinator_flags: flags.clone(), worker_flags: flags, ..Setup::default() };
    with_cluster(setup, |cluster| {
        let place = Place::new()?;
        let summary = cluster.client().submit_command(&day.root, &place, FLAGS).run()?.summary()?;
        let tasks: u64 = ["map", "reduce", "write"]
            .iter()
            .map(|name| {
                summary.stages.iter().find(|stage| stage.name == *name).map_or(0, |stage| stage.tasks)
            })
            .sum();
        ensure!(tasks >= 10, "{tasks} tasks");
        let mut spans = vec![];
        wait_for("the spans of the job", DEADLINE, || {
            spans = collector.0.lock().map_err(|_| anyhow!("the collector panicked"))?.clone();
            let attempts = spans.iter().filter(|(service, _)| service == "tally-worker").count() as u64;
            Ok((attempts >= tasks && spans.iter().any(|(_, span)| span.name == "job")).then_some(()))
        })?;
        let traces: BTreeSet<_> = spans.iter().map(|(_, span)| &span.trace_id).collect();
        ensure!(traces.len() == 1, "{} traces", traces.len());
        let (service, root) = spans.iter().find(|(_, span)| span.name == "job").context("no root")?;
        ensure!(service == "tally-coordinator" && root.parent_span_id.is_empty(), "{root:?}");
        ensure!(text(&root.attributes, "tally.job").as_deref() == Some(&summary.job_id), "{root:?}");
        let mut workers = BTreeSet::new();
        for name in ["plan", "publish"] {
            let of_name: Vec<_> = spans.iter().filter(|(_, span)| span.name == name).collect();
            let [(service, span)] = of_name[..] else { bail!("{name}: {of_name:?}") };
            ensure!(service == "tally-coordinator" && span.parent_span_id == root.span_id, "{span:?}");
            // A job's times are whole milliseconds.
            let within = |at: u64| {
                at + 1_000_000 >= root.start_time_unix_nano && at <= root.end_time_unix_nano + 1_000_000
            };
            ensure!(
                within(span.start_time_unix_nano) && within(span.end_time_unix_nano),
                "{span:?} in {root:?}"
            );
        }
        let own = ["job", "plan", "publish"];
        for (service, span) in spans.iter().filter(|(_, span)| !own.contains(&span.name.as_str())) {
            ensure!(service == "tally-worker" && span.parent_span_id == root.span_id, "{span:?}");
            ensure!(["map", "reduce", "write"].contains(&span.name.as_str()), "{span:?}");
            ensure!(span.end_time_unix_nano >= span.start_time_unix_nano, "{span:?}");
            workers.insert(text(&span.attributes, "tally.worker"));
        }
        ensure!(workers.len() == 2, "spans of {workers:?}");
        let ids: BTreeSet<_> = spans.iter().map(|(_, span)| &span.span_id).collect();
        ensure!(ids.len() == spans.len(), "two spans of one id");
        Ok(())
    })
}
