//! `cargo +nightly fuzz run json_request --features libfuzzer`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| longrun_fuzz::json_request(data));
