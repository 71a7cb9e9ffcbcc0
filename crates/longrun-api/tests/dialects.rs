//! The rules of the two dialects of one operation.

#![allow(clippy::unwrap_used)]

mod common;

use longrun_api::dialect::{cloud, google};
use longrun_api::longrun::v1::OperationMetadata;
use longrun_api::snapshot::types;
use longrun_api::well_known::{Any, Struct};
use longrun_api::yandex::cloud::compute::v1 as compute;
use longrun_api::{google::longrunning, yandex};
use longrun_core::{Operation, Phase, Progress, ProgressUnit};
use serde_json::{Value, json};

fn in_cloud(operation: &Operation) -> (yandex::cloud::operation::Operation, Value) {
    let wire = cloud::operation(operation, &types());
    let shown = serde_json::to_value(&wire).unwrap();
    (wire, shown)
}

fn in_google(operation: &Operation) -> (longrunning::Operation, Value) {
    let wire = google::operation(operation, &types());
    let shown = serde_json::to_value(&wire).unwrap();
    (wire, shown)
}

#[test]
fn c02_a_done_operation_has_exactly_one_of_error_and_response_and_no_other_has_a_response() {
    for (name, operation) in common::views() {
        for shown in [in_cloud(&operation).1, in_google(&operation).1] {
            let (error, response) = (shown.get("error").is_some(), shown.get("response").is_some());
            if operation.done() {
                assert!(error != response, "{name}: {shown}");
            } else {
                assert!(!response, "{name}: {shown}");
            }
        }
    }
}

#[test]
fn c03_while_it_rolls_back_cloud_shows_the_error_and_google_does_not_until_done() {
    let mut seen = 0;
    for (name, operation) in common::views() {
        let (cloud, google) = (in_cloud(&operation).1, in_google(&operation).1);
        let cause = google["metadata"].get("rollbackCause");
        match operation.phase() {
            Phase::Pending => {
                assert!(cloud.get("error").is_none() && google.get("error").is_none(), "{name}");
                assert!(cause.is_none(), "{name}");
            }
            Phase::RollingBack => {
                assert!(cloud["error"]["code"].as_i64().unwrap() > 0, "{name}");
                assert!(google.get("error").is_none(), "{name}");
                assert_eq!(cause, Some(&cloud["error"]), "{name}: the cause is not hidden");
                seen += 1;
            }
            Phase::Done => {
                assert_eq!(cloud.get("error"), google.get("error"), "{name}");
                assert!(cause.is_none(), "{name}: it is its error now");
            }
        }
    }
    assert_eq!(seen, 3, "rolling back, blocked, cancelling");
}

#[test]
fn c03_a_cancelled_operation_has_code_1() {
    for name in ["cancelling", "cancelled"] {
        assert_eq!(in_cloud(&common::view(name)).1["error"]["code"], 1, "{name}");
    }
}

#[test]
fn done_is_written_out_and_every_field_that_is_always_there_is_there() {
    for (name, operation) in common::views() {
        let (_, shown) = in_cloud(&operation);
        assert_eq!(shown["done"], json!(operation.done()), "{name}");
        for field in ["id", "createdAt", "createdBy", "modifiedAt", "description", "metadata"] {
            assert!(shown.get(field).is_some(), "{name}: {field}");
        }
        assert!(shown["createdAt"].as_str() <= shown["modifiedAt"].as_str(), "{name}");
    }
}

#[test]
fn c06_the_id_of_the_resource_is_there_from_the_first_moment() {
    let (pending, shown) = in_cloud(&common::view("pending"));
    assert_eq!(shown["metadata"]["snapshotId"], "fd8snapshot0");
    let metadata: compute::CreateSnapshotMetadata = pending.metadata.unwrap().unpack().unwrap();
    assert_eq!((metadata.snapshot_id.as_str(), metadata.disk_id.as_str()), ("fd8snapshot0", "epddisk"));
}

/// Facts of the API, section 5.
#[test]
fn the_type_urls_are_those_of_the_api() {
    let metadata_of = |name: &str| in_cloud(&common::view(name)).1["metadata"]["@type"].clone();
    let response_of = |name: &str| in_cloud(&common::view(name)).1["response"]["@type"].clone();
    for (found, expected) in [
        (metadata_of("pending"), "yandex.cloud.compute.v1.CreateSnapshotMetadata"),
        (metadata_of("updated"), "yandex.cloud.compute.v1.UpdateSnapshotMetadata"),
        (metadata_of("deleted"), "yandex.cloud.compute.v1.DeleteSnapshotMetadata"),
        (response_of("done_response"), "yandex.cloud.compute.v1.Snapshot"),
        (response_of("updated"), "yandex.cloud.compute.v1.Snapshot"),
        (response_of("deleted"), "google.protobuf.Empty"),
        (in_google(&common::view("pending")).1["metadata"]["@type"].clone(), "longrun.v1.OperationMetadata"),
    ] {
        assert_eq!(found, format!("type.googleapis.com/{expected}"));
    }
}

#[test]
fn the_response_of_a_delete_is_empty_and_packed_with_no_bytes() {
    let (wire, shown) = in_cloud(&common::view("deleted"));
    assert_eq!(shown["response"], json!({ "@type": common::EMPTY }));
    let Some(yandex::cloud::operation::operation::Result::Response(response)) = wire.result else {
        unreachable!("it is done and did not fail");
    };
    assert_eq!(response, Any { type_url: common::EMPTY.to_owned(), ..Any::default() });
}

#[test]
fn what_has_no_message_goes_out_as_struct_with_nothing_lost() {
    let (wire, shown) = in_cloud(&common::view("unregistered"));
    let metadata = json!({ "cake": "sacher", "layers": 2, "notes": [true, null] });
    assert_eq!(shown["metadata"], json!({ "@type": common::STRUCT, "value": metadata }));
    // A value that is no object has none of a Struct's fields: it stands in one.
    assert_eq!(shown["response"], json!({ "@type": common::STRUCT, "value": { "value": "a cake" } }));
    let metadata = wire.metadata.unwrap();
    assert!(metadata.unpack::<compute::Snapshot>().is_none());
    let fields = <Struct as prost::Message>::decode(metadata.value).unwrap().fields;
    assert_eq!(fields.len(), 3);
    // So does a detail of an error.
    let (_, failed) = in_cloud(&common::view("done_error"));
    assert_eq!(
        failed["error"]["details"][0],
        json!({ "@type": common::STRUCT, "value": { "sector": 4096 } })
    );
}

#[test]
fn what_was_stored_by_a_program_with_another_idea_of_the_type_is_still_shown() {
    let mut subject = common::create();
    subject.metadata = common::payload(subject.metadata.type_url(), &json!({ "snapshot": 5 }));
    let (_, shown) = in_cloud(&common::Story::of(subject).operation());
    assert_eq!(shown["metadata"], json!({ "@type": common::STRUCT, "value": { "snapshot": 5 } }));
}

#[test]
fn google_s_metadata_tells_progress_and_what_is_blocked() {
    let metadata_of = |name: &str| -> OperationMetadata {
        in_google(&common::view(name)).0.metadata.unwrap().unpack().unwrap()
    };
    let shown = in_google(&common::view("progress")).1;
    let progress = json!({ "done": "4294967297", "total": "10737418240", "unit": "BYTES" });
    assert_eq!(shown["metadata"]["progress"], progress);
    assert!(metadata_of("pending").progress.is_none());
    let blocked = metadata_of("blocked").blocked;
    assert_eq!(blocked.len(), 1);
    assert_eq!((blocked[0].name.as_str(), blocked[0].undo, blocked[0].failures), ("verify-copy", true, 2));
    assert!(blocked[0].error.as_ref().unwrap().code == 14 && blocked[0].again_at.is_some());
    assert!(metadata_of("abandoned").blocked.is_empty());
}

#[test]
fn a_number_beyond_the_wire_s_range_is_the_largest_of_it() {
    let most = Progress { done: u64::MAX, total: u64::MAX, unit: ProgressUnit::Items };
    let shown = in_google(&common::view("pending").with_progress(most)).1;
    let most = i64::MAX.to_string();
    assert_eq!(shown["metadata"]["progress"], json!({ "done": most, "total": most, "unit": "ITEMS" }));
}

#[test]
fn the_name_in_google_s_dialect_holds_the_id() {
    let operation = common::view("pending");
    let (wire, _) = in_google(&operation);
    assert_eq!(wire.name, format!("operations/{}", operation.id()));
    assert_eq!(google::id_of_name(&wire.name), operation.id().to_string());
}
