//! The coordinator's service over a real server: workers and clients are played by the tests.

// What fails here fails the test.
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
