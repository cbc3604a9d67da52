//! The fuzzer of `tally_hostile::messages::ticket`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tally_hostile::messages::ticket(data));
