//! The `tally-worker` binary; everything is in the library's `cli`.

fn main() -> std::process::ExitCode {
    tally_worker::memory::keep_freed_memory();
    tally_worker::cli::main()
}
