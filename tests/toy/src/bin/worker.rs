//! `tally-worker` with an additional dataset.

fn main() -> std::process::ExitCode {
    tally_worker::cli::main(tally_toy::DATASETS)
}
