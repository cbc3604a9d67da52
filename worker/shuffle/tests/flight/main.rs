//! Outputs read by other workers: a conformance suite for implementations of `Peers`, the refusals of the Flight
//! service, and output migration.

#![allow(clippy::unwrap_used)]

mod conformance;
mod faults;
mod migration;
mod pyarrow;
mod rig;
mod security;
mod slow;
mod tickets;

fn main() -> std::process::ExitCode {
    tally_tests::harness::run([
        conformance::tests(),
        faults::tests(),
        migration::tests(),
        pyarrow::tests(),
        security::tests(),
        slow::tests(),
        tickets::tests(),
    ])
}
