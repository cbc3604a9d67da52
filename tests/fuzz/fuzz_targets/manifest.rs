//! The fuzzer of `tally_hostile::manifest::decision`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tally_hostile::manifest::decision(data));
