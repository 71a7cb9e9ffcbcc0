//! Update.

use std::collections::BTreeMap;

use longrun::{Code, Operation, ResourceStatus};
use longrun_snapshot::operations::SnapshotMetadata;
use longrun_snapshot::service::{CreateSnapshotRequest, UpdateSnapshotRequest};
use longrun_snapshot::{Snapshot, SnapshotService};

use crate::common::chunks::{Door, Verb, When};
use crate::common::{Lab, call, caller, create_of, delete_of, done, get_of, keyed, made, made_by};

type Labels = BTreeMap<String, String>;

fn labels<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn to(snapshot: &Snapshot, mask: &[&str]) -> UpdateSnapshotRequest {
    let update_mask = Some(mask.iter().map(|path| (*path).to_owned()).collect());
    UpdateSnapshotRequest { snapshot_id: snapshot.id.to_string(), update_mask, ..Default::default() }
}

async fn prepared(lab: &Lab) -> (SnapshotService, Snapshot) {
    lab.tiny_disk("disk-1", 1);
    let service = lab.start().await;
    let request = CreateSnapshotRequest {
        name: "before".to_owned(),
        description: "as it was".to_owned(),
        labels: labels([("a", "1"), ("b", "2")]),
        ..create_of("disk-1")
    };
    let snapshot = made(&service, &request).await;
    (service, snapshot)
}

/// What an update answers, which is done at once, and shows.
async fn updated(service: &SnapshotService, request: &UpdateSnapshotRequest) -> Snapshot {
    let operation = service.update(call(), request).await.unwrap();
    assert!(operation.done(), "{operation:?}");
    let response: Snapshot = operation.response().unwrap().decode().unwrap();
    let metadata: SnapshotMetadata = operation.metadata().decode().unwrap();
    assert_eq!((&metadata.snapshot_id, &metadata.folder_id), (&response.id, &response.folder_id));
    assert_eq!(service.get(&caller(), &get_of(&response.id)).await.unwrap(), response);
    response
}

#[tokio::test(start_paused = true)]
async fn with_a_mask_the_named_fields_change_and_those_without_a_value_are_reset() {
    let lab = Lab::new();
    let (service, before) = prepared(&lab).await;
    let named = UpdateSnapshotRequest {
        name: "after".to_owned(),
        description: "not named, not written".to_owned(),
        ..to(&before, &["name"])
    };
    let expected = Snapshot { name: "after".to_owned(), ..before.clone() };
    assert_eq!(updated(&service, &named).await, expected);
    let expected = Snapshot { description: String::new(), labels: Labels::new(), ..expected };
    assert_eq!(updated(&service, &to(&before, &["description", "labels"])).await, expected);
}

#[tokio::test(start_paused = true)]
async fn without_a_mask_the_fields_with_a_value_change() {
    let lab = Lab::new();
    let (service, before) = prepared(&lab).await;
    for mask in [None, Some(Vec::new())] {
        let request = UpdateSnapshotRequest {
            update_mask: mask,
            description: "changed".to_owned(),
            ..to(&before, &[])
        };
        let expected = Snapshot { description: "changed".to_owned(), ..before.clone() };
        assert_eq!(updated(&service, &request).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn labels_are_replaced_as_a_whole() {
    let lab = Lab::new();
    let (service, before) = prepared(&lab).await;
    let new = labels([("b", "3"), ("c", "")]);
    let request = UpdateSnapshotRequest { labels: new.clone(), ..to(&before, &["labels"]) };
    assert_eq!(updated(&service, &request).await.labels, new);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_path_is_refused_and_changes_nothing() {
    let lab = Lab::new();
    let (service, before) = prepared(&lab).await;
    for path in ["status", "Name", "labels.a", ""] {
        let request = UpdateSnapshotRequest { name: "after".to_owned(), ..to(&before, &["name", path]) };
        let error = service.update(call(), &request).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.to_string().contains("update_mask[1]"), "{error}");
    }
    assert_eq!(service.get(&caller(), &get_of(&before.id)).await.unwrap(), before);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_in_error_can_be_renamed_and_stays_in_error() {
    let lab = Lab::new();
    let (service, before) = prepared(&lab).await;
    std::fs::remove_file(lab.path_of("manifests").join(before.id.as_str())).unwrap();
    service.verify(&caller(), &get_of(&before.id)).await.unwrap();
    let broken = service.get(&caller(), &get_of(&before.id)).await.unwrap();
    assert_eq!(broken.status, ResourceStatus::Error);
    let request = UpdateSnapshotRequest { name: "broken".to_owned(), ..to(&before, &["name"]) };
    let expected = Snapshot { name: "broken".to_owned(), ..broken };
    assert_eq!(updated(&service, &request).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_gone_or_never_was_is_not_found() {
    let lab = Lab::new();
    let (service, snapshot) = prepared(&lab).await;
    let delete = service.delete(call(), &delete_of(&snapshot.id)).await.unwrap();
    done(&service, &delete).await;
    let never = Snapshot { id: longrun::ResourceId::new("fd8never").unwrap(), ..snapshot.clone() };
    for snapshot in [snapshot, never] {
        for call in [call(), keyed("key")] {
            let error = service.update(call, &to(&snapshot, &["name"])).await.unwrap_err();
            assert_eq!(error.code(), Code::NotFound);
        }
    }
}

async fn assert_busy(service: &SnapshotService, snapshot: &Snapshot, holder: &Operation) {
    let request = UpdateSnapshotRequest { name: "late".to_owned(), ..to(snapshot, &["name"]) };
    let error = service.update(call(), &request).await.unwrap_err();
    assert_eq!(error.code(), Code::Aborted);
    assert!(error.to_string().contains(holder.id().as_str()), "{error}");
}

#[tokio::test(start_paused = true)]
async fn while_it_is_created_or_deleted_an_update_is_aborted_and_names_the_operation() {
    let lab = Lab::new();
    let (service, snapshot) = prepared(&lab).await;
    let door = Door::at(&lab.switch, Verb::Discard, When::Before);
    let delete = service.delete(call(), &delete_of(&snapshot.id)).await.unwrap();
    door.somebody().await;
    assert_busy(&service, &snapshot, &delete).await;
    door.open();
    done(&service, &delete).await;
    lab.gate.close_at(0);
    let create = service.create(call(), &create_of("disk-1")).await.unwrap();
    let creating = service.get(&caller(), &get_of(&made_by(&create))).await.unwrap();
    assert_busy(&service, &creating, &create).await;
    lab.gate.open();
    assert!(done(&service, &create).await.response().is_some());
}

#[tokio::test(start_paused = true)]
async fn c15_a_repeated_update_is_the_same_operation_and_writes_nothing() {
    let lab = Lab::new();
    let (service, before) = prepared(&lab).await;
    let first = UpdateSnapshotRequest { name: "first".to_owned(), ..to(&before, &["name"]) };
    let operation = service.update(keyed("key"), &first).await.unwrap();
    let second = UpdateSnapshotRequest { name: "second".to_owned(), ..to(&before, &["name"]) };
    updated(&service, &second).await;
    assert_eq!(service.update(keyed("key"), &first).await.unwrap(), operation);
    assert_eq!(service.get(&caller(), &get_of(&before.id)).await.unwrap().name, "second");
}
