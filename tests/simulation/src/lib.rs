//! Whole clusters in one thread and in virtual time: several coordinators with the real driver, scheduler, journal and
//! publish, workers with the real agent, clients, an object store, a file system, an election and a network, all of them with faults. A
//! seed decides everything, so that a schedule that violates an invariant can be replayed.
//!
//! `scenario` is what a seed decides; `schedule` runs it; `cluster` has the processes, `coordinator`, `worker` and `client`
//! what they do; `world` has what they share, `store`, `files`, `network` and `consul` their surroundings; `faults` and `trouble` are
//! what goes wrong; `check` is what must hold. `README.md` says what is not simulated.

pub mod batch;
mod check;
mod client;
mod cluster;
mod consul;
mod coordinator;
mod dataset;
mod event;
pub mod faults;
mod files;
mod network;
mod process;
mod rng;
pub mod scenario;
pub mod schedule;
pub mod shrink;
mod signal;
mod store;
mod tasks;
mod trouble;
mod worker;
mod world;

pub use scenario::Limits;
pub use schedule::{Report, run};
