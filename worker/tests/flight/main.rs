//! Outputs read by other workers: one suite over both carriers of `Peers`, what the Flight service
//! refuses, and the hand-over.

#![allow(clippy::unwrap_used)]

mod conformance;
mod faults;
mod hand_over;
mod pyarrow;
mod rig;
mod security;
mod tickets;
