//! The driver step by step, in virtual time, with workers that the test plays.

// A panic here fails the test.
#![allow(clippy::unwrap_used)]

mod jobs;
mod lost_messages;
mod lost_workers;
mod rig;
mod stopped_attempts;
mod strangers;
