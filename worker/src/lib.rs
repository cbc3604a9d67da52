//! The worker: runs a job's tasks.
//!
//! `runner` has the slots that run task orders (`order`), `context` what a task has at hand; `map` makes
//! partials of a shard (reading Parquet through `scan`), `reduce` makes rows of a partition, `write`
//! makes part files of rows; `store` keeps task outputs readable, in memory and then on disk
//! (`spill`); `peers` is how tasks read them, in process or through `flight`; `texts` numbers a job's
//! strings; `budget` bounds memory. `agent` is the process in a cluster: it attaches to the
//! coordinator that `leader` finds; `consul` and `membership` are the cluster as Consul sees it;
//! `security` says who may connect, `http` shows health and metrics, `logging` is the log, `traces` are sent to collectors, `config` reads settings of files;
//! `cli` is the command `tally-worker`. Not here: what a dataset means (`tally-dataset`), which task
//! runs where (`tally-scheduler`), planning and publishing (`tally-coordinator`).

pub mod agent;
pub mod budget;
pub mod cli;
pub mod config;
pub mod consul;
pub mod context;
pub mod duration;
mod encode;
pub mod error;
pub mod flight;
pub mod http;
pub mod leader;
pub mod logging;
pub mod map;
pub mod membership;
pub mod memory;
pub mod order;
pub mod peers;
pub mod port_file;
pub mod reduce;
pub mod refusals;
pub mod runner;
pub mod scan;
pub mod security;
pub mod size;
pub mod spill;
pub mod store;
pub mod texts;
pub mod traces;
pub mod urls;
pub mod write;
