//! The instances of a service and their health.
//!
//! Not here: services of the local agent (`agent`), watches (`watch`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::client::{Call, Client, Op, segment};
use crate::error::Result;
use crate::query::{Indexed, Query};

/// The states of a check and of a service, from good to bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    Passing,
    Warning,
    #[default]
    Critical,
    /// The service or its node is in maintenance mode; only [`ServiceHealth::status`] returns it.
    Maintenance,
}

/// Which instances of a service are returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// Instances whose checks all pass.
    #[default]
    Passing,
    /// All registered instances.
    All,
}

/// One instance of a service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceHealth {
    pub node: Node,
    pub service: Instance,
    #[serde(deserialize_with = "or_empty")]
    pub checks: Vec<CheckState>,
}

/// The machine of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Node {
    #[serde(rename = "Node")]
    pub name: String,
    pub address: String,
    #[serde(default)]
    pub datacenter: String,
}

/// An instance as it was registered.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Instance {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Service")]
    pub name: String,
    /// May be empty; see [`ServiceHealth::address`].
    pub address: String,
    pub port: u16,
    #[serde(default, deserialize_with = "or_empty")]
    pub tags: Vec<String>,
    #[serde(default, deserialize_with = "or_empty")]
    pub meta: BTreeMap<String, String>,
    pub create_index: u64,
    pub modify_index: u64,
}

/// A check of an instance or of its node, with its last result.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CheckState {
    #[serde(rename = "CheckID")]
    pub id: String,
    pub name: String,
    pub status: CheckStatus,
    /// The output of the last probe.
    #[serde(default)]
    pub output: String,
    /// Notes; the reason of maintenance mode.
    #[serde(default)]
    pub notes: String,
    /// Empty for a check of the node.
    #[serde(default, rename = "ServiceID")]
    pub service_id: String,
}

impl CheckState {
    /// Whether this check represents the maintenance mode of a service or of its node.
    pub fn is_maintenance(&self) -> bool {
        self.id == "_node_maintenance" || self.id.starts_with("_service_maintenance:")
    }
}

impl ServiceHealth {
    /// The worst status of all checks; an instance without checks passes.
    pub fn status(&self) -> CheckStatus {
        let status = |check: &CheckState| match check.is_maintenance() {
            true => CheckStatus::Maintenance,
            false => check.status,
        };
        self.checks.iter().map(status).max().unwrap_or(CheckStatus::Passing)
    }

    /// The address to connect to, `host:port`; the service's address, or else its node's.
    pub fn address(&self) -> String {
        let host = match self.service.address.is_empty() {
            true => &self.node.address,
            false => &self.service.address,
        };
        match host.parse() {
            Ok(IpAddr::V6(address)) => format!("[{address}]:{}", self.service.port),
            _ => format!("{host}:{}", self.service.port),
        }
    }
}

/// The health part of the API.
#[derive(Clone, Copy, Debug)]
pub struct Health<'c> {
    client: &'c Client,
}

impl Client {
    /// Services of the datacenter and their health.
    pub fn health(&self) -> Health<'_> {
        Health::new(self)
    }
}

impl<'c> Health<'c> {
    pub(crate) fn new(client: &'c Client) -> Self {
        Self { client }
    }

    /// The instances of a service; empty if the service is not registered.
    ///
    /// # Errors
    /// See [`Error`](crate::Error). A token that may not see a service gets an empty list, not an error.
    pub async fn service(&self, name: &str, which: Which) -> Result<Vec<ServiceHealth>> {
        Ok(self.service_with(name, which, &Query::default()).await?.value)
    }

    /// [`Health::service`] with a query, for example a blocking one.
    ///
    /// # Errors
    /// See [`Error`](crate::Error).
    pub async fn service_with(
        &self,
        name: &str,
        which: Which,
        query: &Query,
    ) -> Result<Indexed<Vec<ServiceHealth>>> {
        let op = Op::new("look up service", name);
        let mut call = query.apply(Call::get(op, format!("/v1/health/service/{}", segment(op, name)?)));
        if which == Which::Passing {
            call = call.query("passing", "1");
        }
        let answer = self.client.call(call).await?;
        let found: Option<Vec<ServiceHealth>> = answer.json()?;
        Ok(Indexed::of(&answer, found.unwrap_or_default()))
    }
}

/// Consul sends null for empty values.
fn or_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(address: &str, checks: &[(&str, CheckStatus)]) -> ServiceHealth {
        let checks = checks.iter().map(|(id, status)| CheckState {
            id: (*id).into(),
            name: String::new(),
            status: *status,
            output: String::new(),
            notes: String::new(),
            service_id: String::new(),
        });
        ServiceHealth {
            node: Node { name: "n".into(), address: "10.0.0.1".into(), datacenter: "dc1".into() },
            service: Instance {
                id: "s-1".into(),
                name: "s".into(),
                address: address.into(),
                port: 80,
                tags: Vec::new(),
                meta: BTreeMap::new(),
                create_index: 1,
                modify_index: 1,
            },
            checks: checks.collect(),
        }
    }

    #[test]
    fn the_worst_check_counts() {
        let check = |checks: &[_], expect| assert_eq!(instance("", checks).status(), expect, "{checks:?}");
        check(&[], CheckStatus::Passing);
        check(&[("a", CheckStatus::Passing), ("b", CheckStatus::Warning)], CheckStatus::Warning);
        check(&[("a", CheckStatus::Critical), ("b", CheckStatus::Passing)], CheckStatus::Critical);
        check(&[("_service_maintenance:s-1", CheckStatus::Critical)], CheckStatus::Maintenance);
        check(&[("_node_maintenance", CheckStatus::Critical)], CheckStatus::Maintenance);
    }

    #[test]
    fn addresses_to_connect_to() {
        assert_eq!(instance("", &[]).address(), "10.0.0.1:80");
        assert_eq!(instance("host", &[]).address(), "host:80");
        assert_eq!(instance("::1", &[]).address(), "[::1]:80");
    }
}
