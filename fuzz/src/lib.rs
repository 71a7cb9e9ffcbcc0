//! What is fuzzed. Each target is a plain function of bytes, so that the committed corpus is replayed by an ordinary test on
//! stable, and a finding is a file to add to it.

// A finding is a panic.
#![allow(clippy::expect_used)]

mod commands;
mod queries;
mod requests;

use longrun_store::conformance::records::{Form, reseal};
use longrun_store::{PageTokens, Position};

pub use commands::commands;
pub use queries::{filter, judge_query};
pub use requests::{Verdict, json_request, judge_json, judge_protobuf, protobuf_request};

/// Bytes from a disk, whatever they are, give a record or an error: no panic, no memory beyond the limit. What decodes, and is
/// encoded again, decodes to the same.
///
/// The envelope is sealed anew too, because a checksum would keep almost everything from the decoders.
pub fn record(data: &[u8]) {
    let mut sealed = data.to_vec();
    reseal(&mut sealed);
    for bytes in [data, &sealed] {
        for form in Form::ALL {
            if let Ok(record) = form.decode(bytes) {
                let encoded = record.encode().expect("what decodes can be encoded");
                assert_eq!(form.decode(&encoded).as_ref(), Ok(&record));
            }
        }
    }
}

/// Text from a stranger gives a position or an error. A token that was given out opens for its question and for no other.
pub fn page_token(data: &[u8]) {
    let tokens = PageTokens::new([7; 32]);
    let (question, rest) = data.split_at(data.len() / 2);
    if let Ok(text) = std::str::from_utf8(rest) {
        assert!(tokens.open(question, text).is_err(), "a stranger made a token of ours");
    }
    let position = Position(rest[..rest.len().min(50)].to_vec());
    let token = tokens.seal(question, &position);
    assert_eq!(tokens.open(question, &token), Ok(position));
    assert!(tokens.open(&[question, b"!"].concat(), &token).is_err());
}
