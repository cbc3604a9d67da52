//! The messages that Tally's processes exchange: ids, typed failures, and the generated types. A type belongs here if
//! two processes, or the coordinator's state machine and its driver, must agree on it.
//!
//! Not here: I/O and decisions.

pub mod class;
pub mod convert;
pub mod dataset_options;
pub mod dispatch;
pub mod failure;
pub mod ids;
pub mod limits;
pub mod packed;
pub mod report;

pub use failure::Failure;
pub use ids::{AttemptId, Epoch, JobId, StageId, TaskId, WorkerId};
pub use limits::MESSAGE_BYTES;

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

/// The version of this program's protocol between coordinators and workers. A field that a peer may ignore needs no new
/// version. 2: the inputs of reduce tasks are sent once per stream. 3: workers read the footers of small files
/// ([`ALL_ROW_GROUPS`]). 4: the dataset of a job has options.
pub const PROTOCOL: u32 = 4;

/// The oldest version that a coordinator supports: workers of the previous release stay attached during an upgrade,
/// which starts with the coordinators.
pub const OLDEST_PROTOCOL: u32 = 1;

/// As the only value of [`v1::InputPiece::row_groups`]: all row groups of a file that was planned by its size. The worker
/// reads the file's footer and reports it ([`v1::MapResult::footers`]). No file has a row group of this number, so a
/// worker that does not know the constant fails instead of reading nothing.
pub const ALL_ROW_GROUPS: u32 = u32::MAX;

/// The metadata key of a refusal that contains the address (`host:port`) of the leader.
pub const LEADER_METADATA: &str = "tally-leader";
