//! The `tally` binary; everything is in the library's `cli`.

fn main() -> std::process::ExitCode {
    tally_worker::memory::keep_freed_memory();
    tally_coordinator::cli::main()
}
