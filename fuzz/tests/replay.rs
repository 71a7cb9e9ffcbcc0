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

/// Each sort of record is tried: what is golden is in the corpus, to the byte.
#[test]
fn every_golden_record_is_in_the_corpus() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/longrun-store/tests/golden");
    let records = std::fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path());
    for file in records.filter(|file| file.extension().is_some_and(|extension| extension == "hex")) {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let input = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/record").join(name));
        let written: String = input.unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect();
        let golden: String = std::fs::read_to_string(&file).unwrap().split_whitespace().collect();
        assert_eq!(written, golden, "{name}");
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
