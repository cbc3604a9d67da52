//! Notices of jobs for programs outside of the cluster: webhooks, and run events of OpenLineage.
//!
//! `queue` takes the notices of a term, `delivery` sends them. `webhook` and `lineage` build their contents, with names of
//! datasets from `dataset_name`; all three are pure. Not here: HTTP (`tally_common::receiver`), the ready marker (`publish`).

pub mod dataset_name;
pub mod delivery;
pub mod lineage;
pub mod queue;
pub mod webhook;
