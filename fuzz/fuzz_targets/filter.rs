//! `cargo +nightly fuzz run filter --features libfuzzer`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| longrun_fuzz::filter(data));
