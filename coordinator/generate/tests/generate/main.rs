//! The tests of generated days, in one binary as linking takes longer than they do. No helpers here: `support.rs`.

// Clippy's leave for tests covers the test functions, not what they call.
#![allow(clippy::unwrap_used)]

mod day;
mod format;
mod support;
