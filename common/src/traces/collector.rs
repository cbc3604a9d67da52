//! The connection to the collector: its URL, its certificates, and the log of failed exports.
//!
//! A flag, its variable or a setting of the file is meant for Tally: if it cannot be used, the process fails. The variables of
//! OpenTelemetry are often set for a whole platform: if Tally cannot use them, it logs a warning and sends no traces.
//!
//! Not here: the spans (`traces`).

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{ArgMatches, Args, Command, FromArgMatches};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::SpanData;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};
use url::Url;

use crate::environment;

/// The time limit of an export.
const EXPORT: Duration = Duration::from_secs(5);
const SPECIFIC: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const GENERIC: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// The options of traces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceArgs {
    endpoint: Option<Endpoint>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Endpoint {
    url: String,
    /// The option or variable that sets it.
    by: &'static str,
}

impl Endpoint {
    fn is_generic(&self) -> bool {
        self.by != FLAG
    }
}

const FLAG: &str = "--otlp-endpoint";

#[derive(Debug, Args)]
struct Options {
    /// Collector that traces are sent to, by OTLP over gRPC: http://HOST:4317 or https://HOST:4317 [default: nowhere]
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
}

impl FromArgMatches for TraceArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = Options::from_arg_matches(matches)?.otlp_endpoint.filter(|url| !url.trim().is_empty());
        let given = given.map(|url| Endpoint { url, by: FLAG });
        let shared = |by| environment::text(by).map(|url| Endpoint { url, by });
        Ok(TraceArgs { endpoint: given.or_else(|| shared(SPECIFIC)).or_else(|| shared(GENERIC)) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for TraceArgs {
    fn augment_args(command: Command) -> Command {
        Options::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Options::augment_args_for_update(command)
    }
}

/// A collector that cannot be used; the text names the option.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The text is not a URL.
    #[error("{option}: not a URL; {ADVICE}")]
    NotUrl {
        /// The option or variable.
        option: &'static str,
    },
    /// Something is wrong with the URL or its settings.
    #[error("{option} {endpoint}: {problem}")]
    Endpoint {
        /// The option or variable.
        option: &'static str,
        /// The URL without secrets.
        endpoint: String,
        /// What is wrong.
        problem: EndpointProblem,
    },
}

/// What is wrong with a collector's URL or its settings.
#[derive(Debug, thiserror::Error)]
pub enum EndpointProblem {
    /// The URL has a user or a password.
    #[error("a URL must not contain a password: set OTEL_EXPORTER_OTLP_HEADERS instead")]
    Password,
    /// The URL is not one of HTTP.
    #[error("traces are sent over gRPC only; {ADVICE}")]
    Scheme,
    /// A variable asks for another protocol.
    #[error(
        "{variable} is {protocol:?}, and Tally supports only grpc; name a collector that supports it with {FLAG}"
    )]
    Protocol {
        /// The variable.
        variable: String,
        /// Its value.
        protocol: String,
    },
    /// A file of certificates or keys cannot be read.
    #[error("{variable} {file}: {source}")]
    File {
        /// The variable.
        variable: String,
        /// Its value.
        file: String,
        /// The system's words.
        source: io::Error,
    },
    /// A certificate without a key, or a key without a certificate.
    #[error("set OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and _CLIENT_KEY together")]
    Pair,
    /// The client library rejects the settings.
    #[error(transparent)]
    Client(#[from] ExporterBuildError),
}

const ADVICE: &str = "write http://HOST:4317 or https://HOST:4317";

/// The exporter to the collector; `None` where no collector is named.
///
/// # Errors
/// [`TraceError`].
pub(super) fn exporter(args: &TraceArgs) -> Result<Option<Exporter>, TraceError> {
    let Some(endpoint) = &args.endpoint else { return Ok(None) };
    let generic = endpoint.is_generic();
    let off =
        |name: &str, value: &str| environment::text(name).is_some_and(|set| set.eq_ignore_ascii_case(value));
    if generic && (off("OTEL_SDK_DISABLED", "true") || off("OTEL_TRACES_EXPORTER", "none")) {
        return Ok(None);
    }
    match made(endpoint, &environment::text) {
        Ok(exporter) => Ok(Some(exporter)),
        Err(why) if generic => {
            tracing::warn!("no traces are sent: {why}");
            Ok(None)
        }
        Err(why) => Err(why),
    }
}

fn made(endpoint: &Endpoint, variable: &impl Fn(&str) -> Option<String>) -> Result<Exporter, TraceError> {
    let (url, shown) = checked(endpoint, variable)?;
    let wrong = |problem| TraceError::Endpoint { option: endpoint.by, endpoint: shown.clone(), problem };
    let mut builder = SpanExporter::builder().with_tonic().with_endpoint(url.as_str()).with_timeout(EXPORT);
    if url.scheme() == "https" {
        builder = builder.with_tls_config(tls(variable).map_err(wrong)?);
    }
    let inner = builder.build().map_err(|e| wrong(e.into()))?;
    Ok(Exporter { inner, shown, failing: AtomicBool::new(false) })
}

/// The variable for traces, or else the one for all signals.
fn setting(name: &str, variable: &impl Fn(&str) -> Option<String>) -> Option<(String, String)> {
    let names = [format!("OTEL_EXPORTER_OTLP_TRACES_{name}"), format!("OTEL_EXPORTER_OTLP_{name}")];
    names.into_iter().find_map(|name| variable(&name).map(|value| (name, value)))
}

/// The URL, and its text without secrets.
fn checked(
    endpoint: &Endpoint,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<(Url, String), TraceError> {
    let mut text = endpoint.url.trim().to_string();
    if endpoint.is_generic() && !text.contains("://") {
        let plain =
            setting("INSECURE", variable).is_some_and(|(_, value)| value.eq_ignore_ascii_case("true"));
        text = format!("{}://{text}", if plain { "http" } else { "https" });
    }
    let Ok(url) = Url::parse(&text) else { return Err(TraceError::NotUrl { option: endpoint.by }) };
    let shown = format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
    let shown = url.port().map_or(shown.clone(), |port| format!("{shown}:{port}"));
    let wrong = |problem| Err(TraceError::Endpoint { option: endpoint.by, endpoint: shown.clone(), problem });
    if !url.username().is_empty() || url.password().is_some() {
        return wrong(EndpointProblem::Password);
    }
    if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
        return wrong(EndpointProblem::Scheme);
    }
    match setting("PROTOCOL", variable).filter(|(_, protocol)| endpoint.is_generic() && protocol != "grpc") {
        Some((variable, protocol)) => wrong(EndpointProblem::Protocol { variable, protocol }),
        None => Ok((url, shown)),
    }
}

fn tls(variable: &impl Fn(&str) -> Option<String>) -> Result<ClientTlsConfig, EndpointProblem> {
    let pem = |name: &str| {
        let named = setting(name, variable);
        let read = |(variable, file): (String, String)| {
            std::fs::read(&file).map_err(|source| EndpointProblem::File { variable, file, source })
        };
        named.map(read).transpose()
    };
    let config = match pem("CERTIFICATE")? {
        Some(authority) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    match (pem("CLIENT_CERTIFICATE")?, pem("CLIENT_KEY")?) {
        (Some(cert), Some(key)) => Ok(config.identity(Identity::from_pem(cert, key))),
        (None, None) => Ok(config),
        _ => Err(EndpointProblem::Pair),
    }
}

/// Exports spans, and logs when exports start to fail and when they succeed again.
#[derive(Debug)]
pub(super) struct Exporter {
    inner: SpanExporter,
    shown: String,
    failing: AtomicBool,
}

impl opentelemetry_sdk::trace::SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.inner.export(batch).await;
        let failed = self.failing.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Err(error) if !failed => {
                tracing::warn!(collector = self.shown, %error, "traces cannot be sent; spans are lost until the collector accepts them again");
            }
            Ok(()) if failed => tracing::info!(collector = self.shown, "traces are sent again"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use tally_tests::settings::{Shared, check_shared};

    use super::*;
    use crate::config;

    #[test]
    fn the_collector_is_taken_from_the_first_source_that_names_it() {
        let shared = Shared {
            long: "otlp-endpoint",
            variables: &[SPECIFIC, GENERIC],
            prefix: "http://collector-",
            default: None,
        };
        let test = "traces::collector::tests::the_collector_is_taken_from_the_first_source_that_names_it";
        check_shared(test, shared, |flags| {
            let command = TraceArgs::augment_args(Command::new("program").arg(config::option()));
            let argv = [&[OsString::from("program")], flags].concat();
            let matches = config::parse(config::with_variables(command), &[], &argv).unwrap();
            TraceArgs::from_arg_matches(&matches).unwrap().endpoint.map(|endpoint| endpoint.url)
        });
    }

    fn given(url: &str, by: &'static str) -> Endpoint {
        Endpoint { url: url.into(), by }
    }

    fn with<'a>(set: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string())
    }

    #[test]
    fn a_collector_is_an_http_url_and_is_shown_without_secrets() {
        let url = |text: &str, by| checked(&given(text, by), &with(&[])).map(|(url, _)| url.to_string());
        assert_eq!(url("https://c:4317", FLAG).unwrap(), "https://c:4317/");
        assert_eq!(url("c:4317", GENERIC).unwrap(), "https://c:4317/");
        for wrong in ["unix:///run/c", "c:4317", "nonsense", "http://"] {
            assert!(url(wrong, FLAG).unwrap_err().to_string().starts_with("--otlp-endpoint"), "{wrong}");
        }
        let error = url("http://user:secret@c:4317", FLAG).unwrap_err().to_string();
        assert!(error.contains("OTEL_EXPORTER_OTLP_HEADERS") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn variables_of_the_protocol_apply_to_the_endpoint_of_variables_only() {
        let set = [("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"), ("OTEL_EXPORTER_OTLP_INSECURE", "true")];
        let error = checked(&given("http://c:4318", GENERIC), &with(&set)).unwrap_err().to_string();
        assert!(error.contains("OTEL_EXPORTER_OTLP_PROTOCOL") && error.contains("http/json"), "{error}");
        assert!(checked(&given("http://c:4317", FLAG), &with(&set)).is_ok());
        let set = [("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"), set[0], set[1]];
        let (url, _) = checked(&given("c:4317", GENERIC), &with(&set)).unwrap();
        assert_eq!(url.scheme(), "http", "the signal's own variable comes first");
    }

    #[test]
    fn an_unreadable_file_of_certificates_is_named() {
        let set = [("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/ca.pem")];
        let error = made(&given("https://c:4317", FLAG), &with(&set)).unwrap_err().to_string();
        assert!(error.contains("OTEL_EXPORTER_OTLP_CERTIFICATE /no/ca.pem: "), "{error}");
        let error = tls(&with(&[("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/dev/null")])).unwrap_err().to_string();
        assert!(error.contains("together"), "{error}");
    }
}
