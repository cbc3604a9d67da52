//! The worker: runs the tasks of jobs.
//!
//! `runner` has the slots that run task messages; `task` has the tasks, and `encode` encodes rows as Parquet for them;
//! `shares` divides a worker's memory. `agent` is the process in a cluster, which attaches to the leading coordinator;
//! `cli` is the command `tally-worker`. Not here: the meaning of a dataset (`tally-dataset`), reading Parquet
//! (`tally-scan`), outputs and their transfer (`tally-shuffle`), what every process needs (`tally-common`), the
//! assignment of tasks (`tally-scheduler`), planning and publishing (`tally-coordinator`).

pub mod agent;
pub mod cli;
mod encode;
pub mod runner;
pub mod shares;
pub mod task;
