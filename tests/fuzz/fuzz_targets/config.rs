//! The fuzzer of `tally_hostile::config::settings`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tally_hostile::config::settings(data));
