//! The coordinator: plans jobs, drives the scheduler, publishes days.
//!
//! `job` says what a job is; `plan` looks at the inputs and cuts the work (listing, schemas,
//! shards, part files); `driver` owns the scheduler's state and carries its commands out through
//! a `fleet` of workers; `publish` stages part files and makes a day visible in one step;
//! `history` and `load` are what others may see of them; `embedded` puts it all into one process; `election` says who of several may lead; `client` speaks
//! to whoever does; `cli` is the `tally` command. Not here: which task runs next (`tally-scheduler`),
//! what tasks do (`tally-worker`), what rows mean (`tally-dataset`).

pub mod cli;
pub mod client;
pub mod cluster;
pub mod driver;
pub mod election;
pub mod embedded;
pub mod fleet;
pub mod history;
pub mod job;
pub mod journal;
pub mod load;
pub mod memory;
pub mod plan;
pub mod publish;
pub mod results;
pub mod service;
pub mod summary;
