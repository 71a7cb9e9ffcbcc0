//! Every view of an operation, in both dialects, as JSON and as bytes: what clients were told once, they are told again.
//!
//! `LONGRUN_WRITE_GOLDEN=1 cargo test -p longrun-api --all-features --test golden` writes files that are missing. To change
//! one, remove it first: a change shows in the commit.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::fmt::{Debug, Write};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use longrun_api::dialect::{cloud, google};
use longrun_api::snapshot::types;
use longrun_api::yandex::cloud::compute::v1 as compute;
use longrun_api::{ApiError, Reason};
use longrun_snapshot::Snapshot;
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn hex(bytes: &[u8]) -> String {
    bytes.chunks(32).fold(String::new(), |mut text, line| {
        for byte in line {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    let pair = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.as_bytes().chunks(2).map(pair).collect()
}

/// The text of a file; that of the moment, if the file is to be made.
fn golden(name: &str, text: &str) -> String {
    let path = folder().join(name);
    if std::env::var_os("LONGRUN_WRITE_GOLDEN").is_some() && !path.exists() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Compares a message with its two files, both ways, and gives their names.
fn check<M>(name: &str, message: &M) -> [String; 2]
where
    M: Message + Default + Serialize + DeserializeOwned + PartialEq + Debug,
{
    let names = [format!("{name}.json"), format!("{name}.hex")];
    let json = serde_json::to_string_pretty(message).unwrap() + "\n";
    let bytes = hex(&message.encode_to_vec());
    let [golden_json, golden_bytes] = [golden(&names[0], &json), golden(&names[1], &bytes)];
    assert_eq!(json, golden_json, "{name}");
    assert_eq!(bytes, golden_bytes, "{name}");
    assert_eq!(&serde_json::from_str::<M>(&golden_json).unwrap(), message, "{name}");
    assert_eq!(&M::decode(unhex(&golden_bytes).as_slice()).unwrap(), message, "{name}");
    names
}

/// Files of the folder, by their paths in it.
fn files() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder_of_one in fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()) {
        for file in fs::read_dir(&folder_of_one).unwrap().map(|entry| entry.unwrap().path()) {
            let name = file.strip_prefix(folder()).unwrap().to_str().unwrap();
            found.insert(name.to_owned());
        }
    }
    found
}

fn refusal() -> ApiError {
    ApiError::violation("name", "must be empty, or 3 to 63 characters")
        .with_violation("labels", "must be at most 64")
        .with_fact("operation", "fd8operation")
        .with_retry_after(Duration::from_millis(1500))
}

#[test]
fn every_view_is_what_it_ever_was() {
    let (types, views) = (types(), common::views());
    let mut known = BTreeSet::new();
    for (name, operation) in &views {
        known.extend(check(&format!("cloud/{name}"), &cloud::operation(operation, &types)));
        known.extend(check(&format!("google/{name}"), &google::operation(operation, &types)));
    }
    let snapshot: Snapshot = serde_json::from_value(common::snapshot()).unwrap();
    let snapshot = compute::Snapshot::from(snapshot);
    known.extend(check("snapshot/ready", &snapshot));
    let list =
        compute::ListSnapshotsResponse { snapshots: vec![snapshot], next_page_token: "next".to_owned() };
    known.extend(check("snapshot/list", &list));
    let operations = views[..2].iter().map(|(_, operation)| cloud::operation(operation, &types)).collect();
    let list = compute::ListSnapshotOperationsResponse { operations, next_page_token: String::new() };
    known.extend(check("snapshot/operations", &list));
    known.extend(check("error/invalid", &refusal().to_status("2f6a-1")));
    let internal = ApiError::new(Reason::Internal, "said to the log alone");
    known.extend(check("error/internal", &internal.to_status("2f6a-1")));
    assert_eq!(files(), known, "golden files that nothing is compared with, or the other way round");
}
