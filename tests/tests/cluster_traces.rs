//! One job is one trace: the spans that coordinator and workers send to a collector, here a receiver of OTLP in this test.

use std::collections::BTreeSet;
use std::net::SocketAddr;
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
use tally_tests::certs::{Authority, Signed};
use tally_tests::cluster::client::DEADLINE;
use tally_tests::cluster::truth::{DAY, Truth};
use tally_tests::cluster::{Setup, with_cluster};
use tally_tests::output::Place;
use tally_tests::process::Tally;
use tally_tests::wait::wait_for;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, ServerTlsConfig};
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

/// A collector that listens, in plain text or over TLS; returns its address and its runtime.
fn listen(signed: Option<&Signed>) -> Result<(Collector, SocketAddr, Runtime)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let collector = Collector::default();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    let mut server = tonic::transport::Server::builder();
    if let Some(signed) = signed {
        let identity = Identity::from_pem(std::fs::read(&signed.cert)?, std::fs::read(&signed.key)?);
        server = server.tls_config(ServerTlsConfig::new().identity(identity))?;
    }
    let service = TraceServiceServer::new(collector.clone()).accept_compressed(CompressionEncoding::Gzip);
    let server = server.add_service(service);
    let incoming = {
        let _runtime = runtime.enter();
        TcpIncoming::from(listener)
    };
    runtime.spawn(server.serve_with_incoming(incoming));
    Ok((collector, address, runtime))
}

impl Collector {
    fn spans(&self) -> Result<Vec<(String, Span)>> {
        Ok(self.0.lock().map_err(|_| anyhow!("the collector panicked"))?.clone())
    }
}

/// As a platform sets it for all of its programs.
#[test]
fn a_collector_is_reached_over_tls() -> Result<()> {
    let place = Place::new()?;
    let authority = Authority::new("a test's authority")?;
    let ca = authority.write(place.path(), "ca")?.display().to_string();
    let signed = authority.sign(place.path(), "collector", &["127.0.0.1"])?;
    let (collector, address, _runtime) = listen(Some(&signed))?;
    let environment = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("https://{address}")),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", ca),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip".into()),
        // Set but empty counts as not set.
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", String::new()),
    ];
    let setup = Setup { workers: 1, environment, ..Setup::default() };
    with_cluster(setup, |cluster| {
        cluster.client().submit_command(&DAY.root, &place, FLAGS).run()?.summary()?;
        wait_for("spans of both", DEADLINE, || {
            let spans = collector.spans()?;
            let of = |name: &str| spans.iter().any(|(service, _)| service == name);
            Ok((of("tally-worker") && of("tally-coordinator")).then_some(()))
        })
    })?;
    // A collector whose certificate is not trusted gets nothing, and the log reports it.
    let (distrusted, address, _runtime) = listen(Some(&signed))?;
    let environment = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", format!("https://{address}"))];
    with_cluster(Setup { workers: 1, environment, ..Setup::default() }, |cluster| {
        cluster.client().submit_command(&DAY.root, &Place::new()?, FLAGS).run()?.summary()?;
        wait_for("a line about the collector", DEADLINE, || {
            let said = [cluster.coordinators[0].process.said(), cluster.workers[0].process.said()];
            Ok(said.iter().all(|said| said.contains("traces")).then_some(()))
        })?;
        ensure!(distrusted.spans()?.is_empty(), "spans went to a collector that is not trusted");
        Ok(())
    })
}

#[test]
fn what_cannot_be_used_of_a_platforms_variables_is_a_warning() -> Result<()> {
    let environment = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:4318".to_string()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json".to_string()),
    ];
    with_cluster(Setup { workers: 1, environment, ..Setup::default() }, |cluster| {
        cluster.client().submit_command(&DAY.root, &Place::new()?, FLAGS).run()?.summary()?;
        for process in [&cluster.coordinators[0].process, &cluster.workers[0].process] {
            let said = process.said();
            let line = said.lines().find(|line| line.contains("no traces are sent"));
            let line = line.with_context(|| format!("{} says nothing of it: {said}", process.name()))?;
            ensure!(line.contains("WARN") && line.contains("http/json"), "{line}");
        }
        Ok(())
    })?;
    let place = Place::new()?;
    let state = place.path().join("state").display().to_string();
    let flags =
        ["--listen", "127.0.0.1:0", "--state-dir", &state, "--otlp-endpoint", "unix:///run/collector"];
    let given = Tally::new("coordinator").args(flags).run()?;
    given.expect_failure(2, &["--otlp-endpoint", "https://HOST:4317"])?;
    Ok(())
}

#[test]
fn a_job_is_one_trace_over_all_processes() -> Result<()> {
    let day = Truth::new(&["--clients", "20000", "--narrow"])?;
    let (collector, address, _runtime) = listen(None)?;
    let endpoint = format!("http://{address}");
    // Flags of a cluster have the lifetime of the test's process.
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
            spans = collector.spans()?;
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
