//! The coordinator's services on a real server, with simulated workers and clients.

// A panic here fails the test.
#![allow(clippy::unwrap_used)]

mod attach;
mod drain;
mod inputs;
mod jobs;
mod resume;
mod rig;
mod scaler;
mod security;
mod sums;
