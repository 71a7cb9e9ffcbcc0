//! Replays the committed corpus, and inputs drawn from it by small changes, on stable.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

/// Inputs of a target, by name.
fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "the corpus of {target} is empty");
    files
}

/// Each input as it is; cut at every place; with every byte changed.
fn replay(target: &str, probe: fn(&[u8])) {
    for file in corpus(target) {
        let input = std::fs::read(&file).unwrap();
        probe(&input);
        for place in 0..input.len() {
            probe(&input[..place]);
            for change in [1, 0x80, 0xff] {
                let mut changed = input.clone();
                changed[place] ^= change;
                probe(&changed);
            }
        }
    }
}

#[test]
fn record() {
    replay("record", longrun_fuzz::record);
}

#[test]
fn page_token() {
    replay("page_token", longrun_fuzz::page_token);
}

#[test]
fn filter() {
    replay("filter", longrun_fuzz::filter);
}

#[test]
fn queries_of_the_corpus_are_filters_and_orders_and_neither() {
    let verdicts: Vec<_> = corpus("filter")
        .iter()
        .map(|file| longrun_fuzz::judge_query(&std::fs::read(file).unwrap()))
        .collect();
    for verdict in [(true, false), (false, true), (false, false)] {
        assert!(verdicts.contains(&verdict), "nothing is {verdict:?}");
    }
}

#[test]
fn commands() {
    replay("commands", longrun_fuzz::commands);
}

#[test]
fn json_request() {
    replay("json_request", longrun_fuzz::json_request);
}

#[test]
fn protobuf_request() {
    replay("protobuf_request", longrun_fuzz::protobuf_request);
}

/// A corpus of which nothing gets past the decoders, or past the checks, would try neither.
#[test]
fn requests_of_the_corpus_are_read_and_some_are_right() {
    use longrun_fuzz::Verdict::{Accepted, Refused, Unreadable};
    for (target, judge) in [
        ("json_request", longrun_fuzz::judge_json as fn(&[u8]) -> Vec<longrun_fuzz::Verdict>),
        ("protobuf_request", longrun_fuzz::judge_protobuf),
    ] {
        let verdicts: Vec<_> =
            corpus(target).iter().flat_map(|file| judge(&std::fs::read(file).unwrap())).collect();
        for verdict in [Unreadable, Refused, Accepted] {
            assert!(verdicts.contains(&verdict), "{target}: nothing is {verdict:?}");
        }
    }
}
