//! The rules of JSON in the facts of the API, section 9, one by one.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use longrun_api::google::rpc;
use longrun_api::well_known::{Any, FieldMask, Timestamp};
use longrun_api::yandex::cloud::compute::v1::snapshot::Status;
use longrun_api::yandex::cloud::compute::v1::{
    CreateSnapshotRequest, HardwareGeneration, ListSnapshotsRequest, PciTopology, Snapshot,
    UpdateSnapshotRequest, hardware_generation::Features,
};
use longrun_api::yandex::cloud::operation::Operation;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn read<M: DeserializeOwned>(text: &str) -> Result<M, serde_json::Error> {
    // Both ways in: a body is read from its bytes, a query by way of a value.
    let from_text = serde_json::from_str(text);
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        assert_eq!(serde_json::from_value::<M>(value).is_ok(), from_text.is_ok(), "{text}");
    }
    from_text
}

#[test]
fn keys_are_lower_camel_case() {
    let snapshot = Snapshot {
        id: "a".into(),
        folder_id: "b".into(),
        created_at: Some(Timestamp::default()),
        source_disk_id: "c".into(),
        product_ids: vec!["d".into()],
        ..Snapshot::default()
    };
    let shown = serde_json::to_value(&snapshot).unwrap();
    let keys: Vec<&String> = shown.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["createdAt", "folderId", "id", "productIds", "sourceDiskId"]);
    // The mapping of protobuf lets the protocol's own spelling pass, too.
    let request: CreateSnapshotRequest = read(r#"{"folder_id": "b1g", "diskId": "epd"}"#).unwrap();
    assert_eq!((request.folder_id.as_str(), request.disk_id.as_str()), ("b1g", "epd"));
}

#[test]
fn a_field_that_is_not_known_is_refused_and_so_is_one_given_twice() {
    for text in [
        r#"{"folder": "b1g"}"#,
        r#"{"FolderId": "b1g"}"#,
        r#"{"folderId": "a", "folderId": "b"}"#,
        r#"{"folderId": "a", "folder_id": "b"}"#,
        r#"{"hardwareGeneration": {"features": {}}}"#,
    ] {
        // A value cannot hold a key twice, so this is about text.
        let found = serde_json::from_str::<CreateSnapshotRequest>(text);
        assert!(found.is_err(), "{text}: {found:?}");
    }
}

#[test]
fn enums_go_out_by_name_and_come_in_by_name_or_number() {
    for (status, name) in [
        (Status::Creating, "CREATING"),
        (Status::Ready, "READY"),
        (Status::Error, "ERROR"),
        (Status::Deleting, "DELETING"),
    ] {
        let snapshot = Snapshot { status: status.into(), ..Snapshot::default() };
        assert_eq!(serde_json::to_value(&snapshot).unwrap(), json!({ "status": name }));
        for text in [format!(r#"{{"status": "{name}"}}"#), format!(r#"{{"status": {}}}"#, i32::from(status))]
        {
            assert_eq!(read::<Snapshot>(&text).unwrap(), snapshot);
        }
    }
    assert!(read::<Snapshot>(r#"{"status": "ready"}"#).is_err());
    let generation: HardwareGeneration =
        read(r#"{"legacyFeatures": {"pciTopology": "PCI_TOPOLOGY_V2"}}"#).unwrap();
    let Some(Features::LegacyFeatures(legacy)) = generation.features else { unreachable!() };
    assert_eq!(legacy.pci_topology(), PciTopology::V2);
}

#[test]
fn int64_goes_out_as_a_string_and_comes_in_as_either() {
    // Beyond what a double holds.
    let number = 9_007_199_254_740_993;
    let snapshot = Snapshot { disk_size: number, storage_size: i64::MAX, ..Snapshot::default() };
    let shown = json!({ "diskSize": "9007199254740993", "storageSize": "9223372036854775807" });
    assert_eq!(serde_json::to_value(&snapshot).unwrap(), shown);
    for text in ["9007199254740993", r#""9007199254740993""#] {
        assert_eq!(read::<Snapshot>(&format!(r#"{{"diskSize": {text}}}"#)).unwrap().disk_size, number);
    }
    for (text, expected) in
        [("50", 50), (r#""50""#, 50), ("-1", -1), (r#""-1""#, -1), ("0", 0), (r#""0""#, 0)]
    {
        let request: ListSnapshotsRequest = read(&format!(r#"{{"pageSize": {text}}}"#)).unwrap();
        assert_eq!(request.page_size, expected);
    }
    for text in
        ["1.5", r#""1.5""#, r#""""#, r#"" 1""#, r#""many""#, "9223372036854775808", "true", "[]", "{}"]
    {
        let found = read::<ListSnapshotsRequest>(&format!(r#"{{"pageSize": {text}}}"#));
        assert!(found.is_err(), "{text}: {found:?}");
    }
}

#[test]
fn timestamps_are_rfc_3339_with_0_to_9_digits() {
    for (digits, nanos) in [
        ("", 0),
        (".3", 300_000_000),
        (".31", 310_000_000),
        (".311", 311_000_000),
        (".3110", 311_000_000),
        (".31101", 311_010_000),
        (".311001", 311_001_000),
        (".3110001", 311_000_100),
        (".31100001", 311_000_010),
        (".311000001", 311_000_001),
    ] {
        let expected = Timestamp { seconds: 1_535_567_475, nanos };
        for text in
            [format!(r#""2018-08-29T18:31:15{digits}Z""#), format!(r#""2018-08-29T21:31:15{digits}+03:00""#)]
        {
            assert_eq!(read::<Timestamp>(&text).unwrap(), expected, "{text}");
        }
        let shown = serde_json::to_value(expected).unwrap();
        let shown = shown.as_str().unwrap();
        let written =
            shown.trim_start_matches("2018-08-29T18:31:15").trim_start_matches('.').trim_end_matches('Z');
        assert!([0, 3, 6, 9].contains(&written.len()) && shown.ends_with('Z'), "{shown}");
    }
}

#[test]
fn an_instant_that_protobuf_does_not_have_is_neither_read_nor_written() {
    for text in [
        "2018-08-29",
        "2018-08-29T18:31:15",
        "2018-13-29T18:31:15Z",
        "2018-08-29T18:31:15.Z",
        "0000-12-31T23:59:59Z",
        "10000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        // A leap second would have to be a second of 2,000,000,000 nanoseconds.
        "2016-12-31T23:59:60Z",
        "2016-12-31T23:59:60.5Z",
    ] {
        let found = read::<Timestamp>(&format!("\"{text}\""));
        assert!(found.is_err(), "{text}: {found:?}");
    }
    for (seconds, nanos) in
        [(-62_135_596_801, 0), (253_402_300_800, 0), (0, 1_000_000_000), (59, 1_500_000_000), (0, -1)]
    {
        assert!(serde_json::to_string(&Timestamp { seconds, nanos }).is_err(), "{seconds} {nanos}");
    }
}

#[test]
fn labels_are_an_object_of_strings() {
    let request: CreateSnapshotRequest = read(r#"{"labels": {"env": "prod", "team": ""}}"#).unwrap();
    let labels = BTreeMap::from([("env".to_owned(), "prod".to_owned()), ("team".to_owned(), String::new())]);
    assert_eq!(request.labels, labels);
    let shown = json!({ "labels": { "env": "prod", "team": "" } });
    assert_eq!(serde_json::to_value(&request).unwrap(), shown);
    for text in
        [r#"{"labels": {"a": 1}}"#, r#"{"labels": {"a": null}}"#, r#"{"labels": []}"#, r#"{"labels": "a"}"#]
    {
        assert!(read::<CreateSnapshotRequest>(text).is_err(), "{text}");
    }
}

#[test]
fn the_mask_is_one_string() {
    let request: UpdateSnapshotRequest = read(r#"{"updateMask": "name,description"}"#).unwrap();
    let mask = FieldMask { paths: vec!["name".to_owned(), "description".to_owned()] };
    assert_eq!(request.update_mask, Some(mask));
    assert_eq!(serde_json::to_value(&request).unwrap(), json!({ "updateMask": "name,description" }));
    // Given and empty is another thing than not given.
    assert_eq!(
        read::<UpdateSnapshotRequest>(r#"{"updateMask": ""}"#).unwrap().update_mask,
        Some(FieldMask::default())
    );
    assert_eq!(read::<UpdateSnapshotRequest>("{}").unwrap().update_mask, None);
    for text in
        [r#"{"updateMask": ["name"]}"#, r#"{"updateMask": {"paths": ["name"]}}"#, r#"{"updateMask": 1}"#]
    {
        assert!(read::<UpdateSnapshotRequest>(text).is_err(), "{text}");
    }
}

#[test]
fn an_operation_says_that_it_is_not_done_and_has_no_result_until_there_is_one() {
    let shown = serde_json::to_value(Operation::default()).unwrap();
    assert_eq!(shown, json!({ "id": "", "description": "", "createdBy": "", "done": false }));
    assert!(
        read::<Operation>(r#"{"error": {"code": 1}, "response": {"@type": "x/google.protobuf.Empty"}}"#)
            .is_err()
    );
}

#[test]
fn any_is_an_object_with_a_type_and_empty_may_have_a_value() {
    for text in [
        r#"{"@type": "type.googleapis.com/google.protobuf.Empty"}"#,
        r#"{"@type": "type.googleapis.com/google.protobuf.Empty", "value": {}}"#,
    ] {
        let any: Any = read(text).unwrap();
        assert_eq!((any.name(), any.value.len()), ("google.protobuf.Empty", 0));
    }
    for text in [
        r#"{"value": {}}"#,
        r#"{"@type": 5}"#,
        r#"{"@type": "type.googleapis.com/google.protobuf.Empty", "value": {"a": 1}}"#,
        r#"{"@type": "type.googleapis.com/google.protobuf.Empty", "more": 1}"#,
        r#"{"@type": "type.googleapis.com/google.protobuf.Struct", "value": {}, "more": 1}"#,
        r#"{"@type": "type.googleapis.com/google.protobuf.Struct", "more": 1}"#,
        r#"{"@type": "type.googleapis.com/yandex.cloud.compute.v1.Snapshot", "no": 1}"#,
    ] {
        let found = read::<Any>(text);
        assert!(found.is_err(), "{text}: {found:?}");
    }
}

#[test]
fn an_error_is_a_status() {
    let status = longrun_api::ApiError::new(longrun_api::Reason::NotFound, "it is gone").to_status("2f6a");
    let shown = serde_json::to_value(&status).unwrap();
    assert_eq!((shown["code"].as_i64(), shown["message"].as_str()), (Some(5), Some("it is gone")));
    assert!(shown["details"].as_array().unwrap().iter().all(|detail| detail["@type"].is_string()));
    assert_eq!(serde_json::from_value::<rpc::Status>(shown).unwrap(), status);
}
