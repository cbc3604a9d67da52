//! The real agent, and the real process, against a fake coordinator.

// A panic fails the test.
#![allow(clippy::unwrap_used)]

mod attach;
mod consul;
mod fake;
mod inputs;
mod leave;
mod migrate;
mod process;
mod release;
mod rig;

fn main() -> std::process::ExitCode {
    tally_tests::harness::run([
        attach::tests(),
        consul::tests(),
        migrate::tests(),
        inputs::tests(),
        leave::tests(),
        process::tests(),
        release::tests(),
    ])
}
