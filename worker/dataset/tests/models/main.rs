//! The tables of the crate against those of the standard library: all insertions by each method, in any order, at each
//! step of growth. `PROPTEST_CASES` sets the number of seeds; a failure prints its seed.

// A panic here fails the test.
#![allow(clippy::unwrap_used)]

mod days;
mod folders;
mod groups;
mod numbers;
mod pings;
mod reference;
mod tables;
mod whole;
