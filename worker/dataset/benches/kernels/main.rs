//! Kernels of the datasets: ids, tables, partitions, mappers and reducers.
//!
//! `cargo bench -p tally-dataset --bench kernels`. Not here: decoding (the worker's benches), the whole job (`tests/bench`).

// The tests of the tables use all of it.
#[path = "../../tests/models/numbers.rs"]
#[allow(dead_code)]
mod numbers;
mod pings;
mod support;
mod tables;

fn main() {
    divan::main();
}
