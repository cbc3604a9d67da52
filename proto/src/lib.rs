//! What Tally's processes say to each other: ids, typed failures, and the generated messages.
//!
//! Not here: any I/O, any decision. A type lives here when two processes (or the coordinator's
//! state machine and its driver) must agree on it.

pub mod failure;
pub mod ids;

pub use failure::Failure;
pub use ids::{AttemptId, Epoch, JobId, StageId, TaskId, WorkerId};

/// The generated messages of protocol version 1.
pub mod v1 {
    #![allow(missing_docs, clippy::all)]
    tonic::include_proto!("tally.v1");
}

/// The descriptors of all messages and services, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub mod convert;
