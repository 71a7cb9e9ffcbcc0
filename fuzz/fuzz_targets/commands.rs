//! `cargo +nightly fuzz run commands --features libfuzzer`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| longrun_fuzz::commands(data));
