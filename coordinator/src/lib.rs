//! The coordinator: plans jobs, drives the scheduler, publishes days.
//!
//! `job` specifies a job (`dataset_config`: its dataset; `dates` and `job_id`: its names); `plan` reads the inputs'
//! metadata and plans the tasks (listing, schemas, shards, part files); `driver` owns the scheduler and carries its
//! commands out through a `fleet` of workers; `publish` stages part files and makes a day visible in one step;
//! `output_folder` names the folders within a day; `audit` verifies and compares published days; `history` and `load`
//! show jobs and load to clients; `election` decides which of several coordinators may lead; `client` talks to the
//! leader; `notify` tells other programs of jobs. Not here: which task runs next (`tally-scheduler`), what tasks do
//! (`tally-worker`), what rows mean (`tally-dataset`), the `tally` command (`coordinator/cli`).

// `objectives::sample_report` is also part of another crate's tests.
#[cfg(test)]
extern crate self as tally_coordinator;

pub mod attempt_log;
pub mod audit;
pub mod client;
pub mod cluster;
pub mod dataset_config;
pub mod dates;
pub mod dispatch;
pub mod driver;
pub mod election;
pub mod estimate;
pub mod events;
pub mod expectations;
pub mod failures;
pub mod fleet;
pub mod history;
pub mod job;
pub mod job_id;
pub mod journal;
pub mod load;
pub mod notify;
pub mod objectives;
pub mod output_folder;
pub mod part_footer;
pub mod peak_memory;
pub mod plan;
pub mod publish;
pub mod ready_marker;
pub mod results;
pub mod service;
pub mod summary;
#[cfg(test)]
mod test_jobs;
pub mod view;
