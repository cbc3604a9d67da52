//! The fuzzer of `tally_hostile::parquet::addons`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    // libFuzzer's hook ends the process at any panic; those of decoders are caught, and one that is not still ends it.
    init: drop(std::panic::take_hook()),
    |data: &[u8]| tally_hostile::parquet::addons(data)
);
