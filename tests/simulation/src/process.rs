//! The state of a simulated process that others can see: whether it runs, and what it holds.

use crate::worker::outputs::Outputs;
use crate::world::Micros;

/// A process.
#[derive(Debug, Default)]
pub struct Process {
    /// The number of its start.
    pub life: u32,
    /// It runs, or is paused.
    pub alive: bool,
    /// It does nothing until then.
    pub paused_until: Micros,
    /// Its clock, seen from virtual time, in milliseconds.
    pub clock: i64,
    /// Its disk is full until then.
    pub full_until: Micros,
    /// The outputs that it holds.
    pub outputs: Outputs,
    /// Its requests to the store.
    pub requests: u32,
}
