//! The `tally` binary; everything is in the library.

fn main() -> std::process::ExitCode {
    tally::main(tally_dataset::registry::BUILT_IN)
}
