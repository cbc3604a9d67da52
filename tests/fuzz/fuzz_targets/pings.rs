//! The fuzzer of `tally_hostile::parquet::pings`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    // libFuzzer's panic hook ends the process even for panics that are caught, as in decoders. Uncaught panics still end it.
    init: drop(std::panic::take_hook()),
    |data: &[u8]| tally_hostile::parquet::pings(data)
);
