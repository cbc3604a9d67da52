//! The tests of generated days, in one binary, because linking takes longer than the tests. No helpers here: `support.rs`.

// Clippy's exception for tests covers test functions, but not their helpers.
#![allow(clippy::unwrap_used)]

mod day;
mod format;
mod sample_days;
mod support;
