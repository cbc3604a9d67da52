//! The testkit: everything that the tests under `tests/tests` share. It runs the built `tally` binary as a user does,
//! writes small days in every layout that Parquet knows, computes the expected output slowly, and compares.
//!
//! Not here: any code of the engine. Nothing below links the crates under test, so that a mistake there can't hide in
//! its own check.

pub mod autoscaler;
pub mod azurite;
pub mod certs;
pub mod checksum;
pub mod cluster;
pub mod columns;
pub mod consul;
pub mod day;
pub mod footer;
pub mod foreign;
pub mod generated;
pub mod golden;
pub mod golden_v2;
pub mod harness;
pub mod help;
pub mod http;
pub mod json_docs;
pub mod large;
pub mod many;
pub mod mounts;
pub mod naive;
pub mod naive_v2;
pub mod objectives;
pub mod output;
pub mod output_v2;
pub mod pings_v2;
pub mod pki;
pub mod ports;
pub mod process;
pub mod python;
pub mod random;
pub mod random_v2;
pub mod ranges;
pub mod reference;
pub mod refile;
pub mod rewrite;
pub mod rows;
pub mod s3;
pub mod scene;
pub mod scratch;
pub mod secrets;
pub mod seeds;
pub mod settings;
pub mod shard;
mod shred;
mod split;
pub mod table;
pub mod thrift;
pub mod wait;
pub mod writers;
