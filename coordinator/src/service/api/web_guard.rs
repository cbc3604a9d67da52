//! Which requests the API considers at all: by how they arrived, and by the host and the origin that a browser names. A
//! page of another site, also one whose name resolves to this machine or to a pod (DNS rebinding), must not reach the API.
//!
//! Not here: rates, identities and roles (`tally_common::security`).

use std::net::IpAddr;
use std::str::FromStr;

use tally_common::http::Channel;
use tonic::codegen::http::header::{HOST, HeaderMap, HeaderName, ORIGIN};
use tonic::codegen::http::request::Parts;

use super::problem::Problem;

/// Where a browser says which page a request comes from.
const FETCH_SITE: &str = "sec-fetch-site";
/// The longest host name.
const MAX_NAME: usize = 253;
/// The ends of names that only the DNS of a Kubernetes cluster resolves.
const CLUSTER_NAMES: [&str; 2] = [".svc", ".cluster.local"];

/// A host name by which clients reach the API, in lower case. `*.` at its start stands for any names before the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(String);

/// A text is not a host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("give a host name without a scheme and a port, such as tally.example.org or *.example.org")]
pub struct InvalidHostName;

impl FromStr for HostName {
    type Err = InvalidHostName;

    fn from_str(text: &str) -> Result<Self, InvalidHostName> {
        let labels = text.strip_prefix("*.").unwrap_or(text);
        let is_label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        let valid = text.len() <= MAX_NAME && labels.split('.').all(is_label);
        valid.then(|| HostName(text.to_ascii_lowercase())).ok_or(InvalidHostName)
    }
}

impl HostName {
    /// Whether a name in lower case is this one.
    fn matches(&self, name: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some(end) => name.len() > end.len() && name.ends_with(end),
            None => name == self.0,
        }
    }
}

/// The check, with the host names of `--http-host`.
pub(super) struct WebGuard(pub(super) Vec<HostName>);

impl WebGuard {
    /// Refuses plain text where gRPC refuses it, and requests that another site's page sends through a browser.
    pub(super) fn check(&self, parts: &Parts) -> Result<(), Problem> {
        let known = |is_own: fn(&str) -> bool| {
            let named = |name: &str| is_own(name) || self.0.iter().any(|host| host.matches(name));
            match is_host(&parts.headers, named) {
                true => Ok(()),
                false => Err(Problem::forbidden(
                    "the host in the URL is not one of this coordinator\nhint: use an address or localhost, or start the \
                     coordinator with --http-host NAME",
                )),
            }
        };
        match parts.extensions.get::<Channel>() {
            // The name is in the certificate, and other sites have neither a token nor a certificate.
            Some(Channel::Tls) => {}
            Some(Channel::Local) => known(is_local)?,
            Some(Channel::Trusted) => known(is_inside)?,
            Some(Channel::Exposed) | None => {
                return Err(Problem::forbidden(
                    "plain text is not accepted here\nhint: use https:// if the coordinator has certificates; otherwise \
                     start it with --tls-ca, --tls-cert and --tls-key, or with --insecure if this network is trusted",
                ));
            }
        }
        match is_same_origin(&parts.headers) {
            true => Ok(()),
            false => Err(Problem::forbidden("the request comes from a page of another site")),
        }
    }
}

/// Refuses changes, and requests that open a URL of the client, in plain text on a network: the port of health and metrics
/// is open to more clients than that of gRPC, such as Prometheus.
pub(super) fn check_change(parts: &Parts) -> Result<(), Problem> {
    match parts.extensions.get::<Channel>() {
        Some(Channel::Tls | Channel::Local) => Ok(()),
        _ => Err(Problem::forbidden(
            "jobs are not submitted and not cancelled, and outputs are not read, over HTTP in plain text on a \
             network\nhint: use `tally submit`, `tally cancel` or `tally report`, or start the coordinator with certificates \
             and --tokens-file",
        )),
    }
}

/// Whether every name of the host in the headers, in lower case and without its port, is known. An HTTP client can leave
/// the header out, a browser cannot.
fn is_host(headers: &HeaderMap, known: impl Fn(&str) -> bool) -> bool {
    headers.get_all(HOST).iter().all(|host| {
        let Ok(host) = host.to_str() else { return false };
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        known(&name.to_ascii_lowercase())
    })
}

/// Whether a name cannot be that of another site on this machine: an address or `localhost`.
fn is_local(name: &str) -> bool {
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name == "localhost" || address.parse::<IpAddr>().is_ok()
}

/// Whether a name cannot be that of another site on a network: also a name without dots, or one of a Kubernetes cluster.
fn is_inside(name: &str) -> bool {
    let single = !name.is_empty() && !name.contains('.');
    is_local(name) || single || CLUSTER_NAMES.iter().any(|end| name.ends_with(end))
}

/// Whether a request comes from a page of this server, or from no page.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let site = text(HeaderName::from_static(FETCH_SITE));
    if site.is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return false;
    }
    let Some(origin) = text(ORIGIN) else { return true };
    let host = origin.split_once("://").map(|(_, host)| host);
    host.is_some() && host == text(HOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_checked_and_match_without_case() {
        for wrong in ["", "*", "https://a", "a:1", "a..b", "a/b", "a*.b", "*.*.b", &"a".repeat(254)] {
            assert_eq!(wrong.parse::<HostName>(), Err(InvalidHostName), "{wrong}");
        }
        let one: HostName = "Tally.Example.org".parse().unwrap();
        assert!(one.matches("tally.example.org") && !one.matches("a.tally.example.org"));
        let all: HostName = "*.example.org".parse().unwrap();
        assert!(all.matches("a.example.org") && all.matches("a.b.example.org"));
        assert!(
            !all.matches("example.org") && !all.matches(".example.org") && !all.matches("evilexample.org")
        );
    }

    #[test]
    fn names_inside_a_network_are_known() {
        for inside in
            ["localhost", "10.0.0.1", "[::1]", "tally-web", "a.telemetry.svc", "a.b.svc.cluster.local"]
        {
            assert!(is_inside(inside), "{inside}");
        }
        for outside in
            ["", "evil.example", "tally.", "svc.example", "10.0.0.1.evil.example", "a.svc.evil.example"]
        {
            assert!(!is_inside(outside), "{outside}");
        }
        assert!(!is_local("tally-web") && !is_local("a.svc"));
    }
}
