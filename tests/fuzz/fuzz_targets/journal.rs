//! The fuzzer of `tally_hostile::journal::record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tally_hostile::journal::record(data));
