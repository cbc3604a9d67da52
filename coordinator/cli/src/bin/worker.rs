//! The `tally-worker` binary in packages that have both programs from one crate: the wheel, and `cargo install`.
//!
//! Not here: the worker (`tally_worker`), which has the same binary for the build of the workspace.

fn main() -> std::process::ExitCode {
    tally_worker::cli::main(tally_dataset::registry::BUILT_IN)
}
