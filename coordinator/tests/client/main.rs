//! The commands that speak to a coordinator, run as a user runs them, against one that a test plays.

// What fails here fails the test.
#![allow(clippy::unwrap_used)]

mod ask;
mod consul;
mod fake;
mod submit;

fn main() -> std::process::ExitCode {
    tally_tests::harness::run([ask::tests(), consul::tests(), submit::tests()])
}
