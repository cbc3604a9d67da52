//! The client commands, run as processes against a fake coordinator.

// For the JSON of a job with all fields.
#![recursion_limit = "256"]
// A panic here fails the test.
#![allow(clippy::unwrap_used)]

mod ask;
mod consul;
mod fake;
mod submit;

fn main() -> std::process::ExitCode {
    tally_tests::harness::run([ask::tests(), consul::tests(), submit::tests()])
}
