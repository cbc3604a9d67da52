//! The `tally-worker` binary. Everything else is in the library's `cli`.

fn main() -> std::process::ExitCode {
    tally_worker::cli::main(tally_dataset::registry::BUILT_IN)
}
