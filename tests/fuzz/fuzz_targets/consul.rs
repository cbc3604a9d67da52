//! The fuzzer of `tally_hostile::consul::answer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tally_hostile::consul::answer(data));
