//! The worker: runs a job's tasks.
//!
//! `runner` has the slots that run task orders; `map` makes partials of a shard (reading Parquet
//! through `scan`), `reduce` makes rows of a partition, `write` makes part files of rows; `store`
//! keeps task outputs readable, in memory and then on disk (`spill`); `peers` is how tasks read
//! them, in process or through `flight`; `texts` numbers a job's strings; `budget` bounds memory;
//! `leader` finds the leading coordinator; `consul` and `membership` are the cluster as Consul sees
//! it. Not here: what a dataset means (`tally-dataset`), which task runs where (`tally-scheduler`),
//! planning and publishing (`tally-coordinator`).

pub mod budget;
pub mod consul;
pub mod error;
pub mod flight;
pub mod leader;
pub mod map;
pub mod membership;
pub mod peers;
pub mod reduce;
pub mod runner;
pub mod scan;
pub mod spill;
pub mod store;
pub mod texts;
pub mod urls;
pub mod write;
