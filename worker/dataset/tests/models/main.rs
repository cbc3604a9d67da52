//! The crate's own tables against the standard library's: everything that is put in by whatever way, in whatever order,
//! over every step of growth. `PROPTEST_CASES` asks for more seeds; a failure prints its own.

// What fails here fails the test.
#![allow(clippy::unwrap_used)]

mod days;
mod numbers;
mod reference;
mod tables;
mod whole;
