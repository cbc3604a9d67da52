//! The real agent, and the real process, against a coordinator that a test plays.

mod attach;
mod consul;
mod fake;
mod leave;
mod process;
mod rig;
