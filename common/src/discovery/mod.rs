//! How processes find the leader (`leader`), from a list or from Consul (`consul`), and how they register in Consul
//! (`membership`).
//!
//! Not here: the election of a leader (the coordinator's `election`), Consul's API (`consul-api-client`).

pub mod consul;
pub mod leader;
pub mod membership;
