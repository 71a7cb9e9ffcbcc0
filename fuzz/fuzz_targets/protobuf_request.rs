//! `cargo +nightly fuzz run protobuf_request --features libfuzzer`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| longrun_fuzz::protobuf_request(data));
