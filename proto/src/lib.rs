//! What Tally's processes say to each other: ids, typed failures, and the generated messages.
//!
//! Not here: any I/O, any decision. A type lives here when two processes (or the coordinator's
//! state machine and its driver) must agree on it.

pub mod failure;
pub mod ids;
pub mod packed;

pub use failure::Failure;
pub use ids::{AttemptId, Epoch, JobId, StageId, TaskId, WorkerId};

/// The generated messages of protocol version 1.
pub mod v1 {
    #![allow(missing_docs, clippy::all)]
    tonic::include_proto!("tally.v1");
}

/// The generated messages of KEDA's external scalers.
pub mod externalscaler {
    #![allow(missing_docs, clippy::all)]
    tonic::include_proto!("externalscaler");
}

/// The descriptors of all messages and services, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The version of the protocol between coordinators and workers that this program speaks. Fields are
/// added without a new version where a peer that ignores them does what is right. 2: the inputs of
/// reduce orders are sent once a stream.
pub const PROTOCOL: u32 = 2;

/// The oldest version that a coordinator understands: workers of the release before stay attached
/// while a cluster is upgraded, coordinators first.
pub const OLDEST_PROTOCOL: u32 = 1;

/// Metadata of a refusal: the address (`host:port`) of the coordinator that leads.
pub const LEADER_METADATA: &str = "tally-leader";

/// The longest message between coordinators, workers and clients, in bytes. (Flight's are longer.)
pub const MESSAGE_BYTES: usize = 4 << 20;

pub mod convert;
