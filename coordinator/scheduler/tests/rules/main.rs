//! The scheduler's rules, one test each, through its public interface: events in, and commands out in a short form (see
//! `rig`). Random scenarios are in `tests/simulation.rs`.

mod demand;
mod failures;
mod jobs;
mod losses;
mod reports;
mod rig;
mod speculation;
mod takeover;
mod throttles;
mod workers;
