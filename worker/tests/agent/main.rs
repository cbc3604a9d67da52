//! The real agent, and the real process, against a coordinator that a test plays.

// What fails here fails the test.
#![allow(clippy::unwrap_used)]

mod attach;
mod consul;
mod fake;
mod hand_over;
mod inputs;
mod leave;
mod process;
mod rig;

fn main() -> std::process::ExitCode {
    tally_tests::harness::run([
        attach::tests(),
        consul::tests(),
        hand_over::tests(),
        inputs::tests(),
        leave::tests(),
        process::tests(),
    ])
}
