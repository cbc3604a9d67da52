//! Services of the local agent, which registers and checks them. Only an agent runs checks: a service that is written to
//! the catalog directly stays "passing" forever.
//!
//! Not here: other instances of a service (`health`).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::client::{Call, Client, Op, segment};
use crate::error::{Error, Result};
use crate::health::{CheckState, CheckStatus};
use crate::session::span;

/// How the agent checks a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Calls the standard gRPC health service at `host:port` or `host:port/service`.
    Grpc { target: String, tls: bool },
    /// Requests a URL: 2xx passes, 429 warns, all other statuses are critical.
    Http { url: String },
    /// Opens a connection to `host:port`.
    Tcp { target: String },
    /// Expects calls of [`Agent::update_ttl`].
    Ttl { ttl: Duration },
}

/// A check of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Unique on the agent; by default `service:` and the service's id.
    pub id: Option<String>,
    pub probe: Probe,
    /// The interval between probes; not used for a TTL.
    pub interval: Duration,
    /// The time limit of a probe; not used for a TTL.
    pub timeout: Duration,
    /// Removes the service after the check is critical for this long; Consul requires at least a minute.
    pub deregister_after: Option<Duration>,
    /// The status until the first result. Consul's default is critical.
    pub initial: CheckStatus,
    /// Whether the probes accept any certificate.
    pub skip_verify: bool,
}

impl Check {
    /// A check every 10 s with a time limit of 5 s, critical until the first result, that never removes the service.
    pub fn new(probe: Probe) -> Self {
        Self {
            id: None,
            probe,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            deregister_after: None,
            initial: CheckStatus::Critical,
            skip_verify: false,
        }
    }
}

/// A service to register. Registering the same id again replaces it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Unique on the agent.
    pub id: String,
    /// The name that clients look up.
    pub name: String,
    /// Its address; empty for the agent's own address.
    pub address: String,
    pub port: u16,
    pub tags: Vec<String>,
    /// Consul accepts 64 pairs, keys up to 128 characters of `A-Z a-z 0-9 _ -`, values up to 512.
    pub meta: BTreeMap<String, String>,
    pub checks: Vec<Check>,
}

/// The agent part of the API.
#[derive(Clone, Copy, Debug)]
pub struct Agent<'c> {
    client: &'c Client,
}

impl Client {
    /// Services of the agent that this client is connected to.
    pub fn agent(&self) -> Agent<'_> {
        Agent::new(self)
    }
}

impl<'c> Agent<'c> {
    pub(crate) fn new(client: &'c Client) -> Self {
        Self { client }
    }

    /// The agent's node.
    ///
    /// # Errors
    /// See [`Error`]; also if the token may not read the agent.
    pub async fn node(&self) -> Result<String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Me {
            config: Config,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Config {
            node_name: String,
        }
        let op = Op::new("ask for the agent's node", "");
        let me: Me = self.client.call(Call::get(op, "/v1/agent/self".into())).await?.json()?;
        Ok(me.config.node_name)
    }

    /// The agent's view of a service's checks and of the maintenance mode of its node. Without checks of the service, the
    /// agent does not know it, or it has none.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn checks(&self, service_id: &str) -> Result<Vec<CheckState>> {
        let op = Op::new("look up checks of service", service_id);
        if service_id.contains(['"', '\\']) {
            return Err(op.argument("a filter can't contain this id"));
        }
        let filter = format!("ServiceID == \"{service_id}\" or CheckID == \"_node_maintenance\"");
        let call = Call::get(op, "/v1/agent/checks".into()).query("filter", filter);
        let checks: BTreeMap<String, CheckState> = self.client.call(call).await?.json()?;
        Ok(checks.into_values().collect())
    }

    /// Registers a service, or replaces it. The state of its checks is reset.
    ///
    /// # Errors
    /// See [`Error`]; Consul refuses invalid values with a status and the reason.
    pub async fn register(&self, service: &Service) -> Result<()> {
        let op = Op::new("register service", &service.id);
        if service.id.is_empty() || service.name.is_empty() {
            return Err(op.argument("a service needs an id and a name"));
        }
        let checks =
            service.checks.iter().enumerate().map(|(at, check)| body_of(service, at, check)).collect();
        let body = ServiceBody {
            id: &service.id,
            name: &service.name,
            address: &service.address,
            port: service.port,
            tags: &service.tags,
            meta: &service.meta,
            checks,
        };
        let call = Call::put(op, "/v1/agent/service/register".into()).json(&body)?;
        self.client.call(call).await.map(|_| ())
    }

    /// Removes a service; succeeds also if the agent does not know it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn deregister(&self, service_id: &str) -> Result<()> {
        let op = Op::new("deregister service", service_id);
        let path = format!("/v1/agent/service/deregister/{}", segment(op, service_id)?);
        self.client.call(Call::put(op, path).or_not_found()).await.map(|_| ())
    }

    /// Sets the state of a TTL check; `output` is for display (servers truncate it at 4 KiB). Returns `false` if the agent
    /// does not know the check, for example after a restart without its data: then register the service again.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn update_ttl(&self, check_id: &str, status: CheckStatus, output: &str) -> Result<bool> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Body<'a> {
            status: CheckStatus,
            output: &'a str,
        }
        let op = Op::new("update check", check_id);
        if status == CheckStatus::Maintenance {
            return Err(op.argument("a check can't be in maintenance; set the service's mode"));
        }
        let path = format!("/v1/agent/check/update/{}", segment(op, check_id)?);
        let call = Call::put(op, path).json(&Body { status, output })?.or_not_found();
        match self.client.call(call).await {
            Ok(answer) => Ok(answer.found()),
            // Consul before 1.11 has no separate status for this.
            Err(Error::Status { status: 500, body, .. }) if body.contains("does not have associated TTL") => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Puts a service into maintenance mode, in which it does not count as passing, or ends the mode. Returns `false` if
    /// the agent does not know the service.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn maintenance(&self, service_id: &str, on: bool, reason: &str) -> Result<bool> {
        let op = Op::new("set maintenance mode of service", service_id);
        let path = format!("/v1/agent/service/maintenance/{}", segment(op, service_id)?);
        let call = Call::put(op, path).query("enable", on.to_string()).query("reason", reason);
        Ok(self.client.call(call.or_not_found()).await?.found())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceBody<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    name: &'a str,
    address: &'a str,
    port: u16,
    tags: &'a [String],
    meta: &'a BTreeMap<String, String>,
    checks: Vec<CheckBody<'a>>,
}

/// The JSON of a check. The fields that are present determine its kind.
#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct CheckBody<'a> {
    #[serde(rename = "CheckID")]
    id: String,
    status: CheckStatus,
    #[serde(rename = "GRPC", skip_serializing_if = "Option::is_none")]
    grpc: Option<&'a str>,
    #[serde(rename = "GRPCUseTLS", skip_serializing_if = "Option::is_none")]
    grpc_tls: Option<bool>,
    #[serde(rename = "HTTP", skip_serializing_if = "Option::is_none")]
    http: Option<&'a str>,
    #[serde(rename = "TCP", skip_serializing_if = "Option::is_none")]
    tcp: Option<&'a str>,
    #[serde(rename = "TTL", skip_serializing_if = "Option::is_none")]
    ttl: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    #[serde(rename = "TLSSkipVerify")]
    skip_verify: bool,
    #[serde(rename = "DeregisterCriticalServiceAfter", skip_serializing_if = "Option::is_none")]
    deregister_after: Option<String>,
}

fn body_of<'a>(service: &Service, at: usize, check: &'a Check) -> CheckBody<'a> {
    let id = check.id.clone().unwrap_or_else(|| match at {
        0 => format!("service:{}", service.id),
        _ => format!("service:{}:{}", service.id, at + 1),
    });
    let mut body = CheckBody {
        id,
        status: check.initial,
        skip_verify: check.skip_verify,
        deregister_after: check.deregister_after.map(span),
        ..CheckBody::default()
    };
    match &check.probe {
        Probe::Grpc { target, tls } => {
            body.grpc = Some(target);
            body.grpc_tls = Some(*tls);
        }
        Probe::Http { url } => body.http = Some(url),
        Probe::Tcp { target } => body.tcp = Some(target),
        Probe::Ttl { ttl } => {
            body.ttl = Some(span(*ttl));
            return body;
        }
    }
    body.interval = Some(span(check.interval));
    body.timeout = Some(span(check.timeout));
    body
}
