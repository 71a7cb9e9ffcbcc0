//! `cargo +nightly fuzz run page_token --features libfuzzer`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| longrun_fuzz::page_token(data));
