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

fn main() -> std::process::ExitCode {
    tally_tests::harness::run([
        conformance::tests(),
        faults::tests(),
        hand_over::tests(),
        pyarrow::tests(),
        security::tests(),
        tickets::tests(),
    ])
}
