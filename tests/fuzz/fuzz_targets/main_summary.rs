//! The fuzzer of `tally_hostile::parquet::main_summary`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tally_hostile::parquet::main_summary(data));
