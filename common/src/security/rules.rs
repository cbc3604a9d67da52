//! The roles that each request needs, by its path. A request that is not listed needs the operator role.
//!
//! Not here: the assignment of roles (`identity`, `tokens`).

use super::identity::{Role, Roles};

const WORKER: Roles = Roles::of(&[Role::Worker]);
const OPERATOR: Roles = Roles::of(&[Role::Operator]);
const READER: Roles = Roles::of(&[Role::Reader, Role::Operator]);
const SCALER: Roles = Roles::of(&[Role::Reader, Role::Operator, Role::Coordinator]);
const ALL: Roles = Roles::of(&Role::ALL);

const FLIGHT: &str = "/arrow.flight.protocol.FlightService/";
const JOBS: &str = "/tally.v1.Jobs/";
const SCALERS: &str = "/externalscaler.ExternalScaler/";

/// The roles for a request with this path; the client needs one of them.
pub(super) fn needed(path: &str) -> Roles {
    if path.starts_with("/tally.v1.Control/") {
        return WORKER;
    }
    if let Some(method) = path.strip_prefix(FLIGHT) {
        let of_members = matches!(method, "DoGet" | "DoPut" | "DoAction" | "DoExchange");
        return if of_members { WORKER } else { READER.and(WORKER) };
    }
    if let Some(method) = path.strip_prefix(JOBS) {
        let looks = matches!(method, "Get" | "Events" | "Watch" | "List" | "ListWorkers");
        return if looks { READER } else { OPERATOR };
    }
    if path.starts_with(SCALERS) {
        return SCALER;
    }
    if path.starts_with("/grpc.health.") || path.starts_with("/grpc.reflection.") {
        return ALL;
    }
    OPERATOR
}

/// Whether requests with this path count against the rate limit: those of people and programs, not those of the
/// cluster's processes.
pub(super) fn is_public(path: &str) -> bool {
    [JOBS, SCALERS, "/grpc."].iter().any(|prefix| path.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_needs_its_role() {
        let may = |path: &str| needed(path).to_string();
        assert_eq!(may("/tally.v1.Control/Attach"), "worker");
        assert_eq!(may("/arrow.flight.protocol.FlightService/DoGet"), "worker");
        assert_eq!(may("/arrow.flight.protocol.FlightService/DoPut"), "worker");
        assert_eq!(may("/arrow.flight.protocol.FlightService/ListFlights"), "worker, operator, reader");
        for method in ["Submit", "Cancel", "DrainWorker", "WhateverComes"] {
            assert_eq!(may(&format!("/tally.v1.Jobs/{method}")), "operator", "{method}");
        }
        for method in ["Get", "Events", "Watch", "List", "ListWorkers"] {
            assert_eq!(may(&format!("/tally.v1.Jobs/{method}")), "operator, reader", "{method}");
        }
        assert!(needed("/grpc.health.v1.Health/Check").has(Role::Reader));
        assert_eq!(may("/unknown"), "operator");
    }

    #[test]
    fn processes_of_the_cluster_are_not_limited() {
        assert!(is_public("/tally.v1.Jobs/Submit") && is_public("/grpc.health.v1.Health/Check"));
        assert!(!is_public("/tally.v1.Control/Attach"));
        assert!(!is_public("/arrow.flight.protocol.FlightService/DoGet"));
    }
}
