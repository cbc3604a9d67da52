//! `tally` with an additional dataset.

fn main() -> std::process::ExitCode {
    tally::main(tally_toy::DATASETS)
}
