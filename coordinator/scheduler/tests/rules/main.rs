//! The scheduler's rules, one test each, through its public face: what is told, and what it
//! orders, in short words (see `rig`). Random worlds are in `tests/simulation.rs`.

mod demand;
mod failures;
mod jobs;
mod losses;
mod reports;
mod rig;
mod speculation;
mod takeover;
mod workers;
