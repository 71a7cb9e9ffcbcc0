//! Delete.

use longrun::{Code, Operation, ResourceStatus};
use longrun_snapshot::data::CHUNK_BYTES;
use longrun_snapshot::operations::SnapshotMetadata;
use longrun_snapshot::{Snapshot, SnapshotService};

use crate::common::chunks::{Door, Verb, When};
use crate::common::{
    FOLDER, Lab, call, caller, create_of, delete_of, done, get_of, keyed, list_of, made, made_by, millis,
    noise, pass, status,
};

async fn prepared(lab: &Lab) -> (SnapshotService, Snapshot) {
    lab.disk("disk-1", CHUNK_BYTES + 3000, &[(0, &noise(1, 4096)), (CHUNK_BYTES, &noise(2, 3000))]);
    let service = lab.start_on(lab.plane().delete_grace(millis(10_000))).await;
    let snapshot = made(&service, &create_of("disk-1")).await;
    (service, snapshot)
}

async fn delete(service: &SnapshotService, snapshot: &Snapshot) -> Operation {
    service.delete(call(), &delete_of(&snapshot.id)).await.unwrap()
}

async fn assert_gone(lab: &Lab, service: &SnapshotService, snapshot: &Snapshot, operation: &Operation) {
    let done = done(service, operation).await;
    let response = done.response().unwrap_or_else(|| panic!("{done:?}"));
    assert_eq!(response.type_url(), "type.googleapis.com/google.protobuf.Empty");
    assert_eq!(response.json().bytes().as_ref(), b"{}");
    assert!(done.error().is_none());
    assert_eq!(service.get(&caller(), &get_of(&snapshot.id)).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(service.list(&caller(), &list_of(FOLDER)).await.unwrap().items, []);
    lab.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn a_ready_snapshot_shows_as_deleting_and_goes() {
    let lab = Lab::new();
    let (service, snapshot) = prepared(&lab).await;
    let operation = delete(&service, &snapshot).await;
    assert!(!operation.done());
    let metadata: SnapshotMetadata = operation.metadata().decode().unwrap();
    assert_eq!(metadata.snapshot_id, snapshot.id);
    let shown = service.get(&caller(), &get_of(&snapshot.id)).await.unwrap();
    assert_eq!(shown, Snapshot { status: ResourceStatus::Deleting, ..snapshot.clone() });
    assert_gone(&lab, &service, &snapshot, &operation).await;
    // It does not exist, and that is what a second delete is told.
    let error = service.delete(call(), &delete_of(&snapshot.id)).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_in_error_goes_too_whatever_is_left_of_it() {
    let lab = Lab::new();
    let (service, snapshot) = prepared(&lab).await;
    std::fs::remove_file(lab.path_of("manifests").join(snapshot.id.as_str())).unwrap();
    let chunk = lab.chunk_files().into_keys().find(|path| path.len() > 20).unwrap();
    std::fs::remove_file(lab.path_of(&chunk)).unwrap();
    service.verify(&caller(), &get_of(&snapshot.id)).await.unwrap();
    assert_eq!(status(&service, &snapshot.id).await, Some(ResourceStatus::Error));
    let operation = delete(&service, &snapshot).await;
    assert_eq!(status(&service, &snapshot.id).await, Some(ResourceStatus::Deleting));
    assert_gone(&lab, &service, &snapshot, &operation).await;
}

#[tokio::test(start_paused = true)]
async fn c15_a_repeated_delete_is_the_same_operation_also_when_the_snapshot_is_gone() {
    let lab = Lab::new();
    let (service, snapshot) = prepared(&lab).await;
    let first = service.delete(keyed("key"), &delete_of(&snapshot.id)).await.unwrap();
    let repeat = service.delete(keyed("key"), &delete_of(&snapshot.id)).await.unwrap();
    assert_eq!(repeat.id(), first.id());
    let finished = done(&service, &first).await;
    assert_eq!(service.delete(keyed("key"), &delete_of(&snapshot.id)).await.unwrap(), finished);
    let error = service.delete(keyed("another"), &delete_of(&snapshot.id)).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn what_is_created_or_deleted_just_now_is_not_deleted_and_the_operation_is_named() {
    let lab = Lab::new();
    let (service, snapshot) = prepared(&lab).await;
    lab.gate.close_at(0);
    let create = service.create(call(), &create_of("disk-1")).await.unwrap();
    let first = delete(&service, &snapshot).await;
    for (id, holder) in [(made_by(&create), &create), (snapshot.id.clone(), &first)] {
        let error = service.delete(call(), &delete_of(&id)).await.unwrap_err();
        assert_eq!(error.code(), Code::Aborted);
        assert!(error.to_string().contains(holder.id().as_str()), "{error}");
    }
    lab.gate.open();
    assert!(done(&service, &create).await.response().is_some());
    assert!(done(&service, &first).await.response().is_some());
}

async fn assert_as_before(lab: &Lab, service: &SnapshotService, snapshot: &Snapshot) {
    assert_eq!(service.get(&caller(), &get_of(&snapshot.id)).await.unwrap(), *snapshot);
    let verification = service.verify(&caller(), &get_of(&snapshot.id)).await.unwrap();
    assert_eq!((verification.damage, verification.operation), (None, None));
    assert_eq!(verification.verdict.unwrap().verified.chunks, 2);
    assert!(lab.restored(service, &snapshot.id).await == std::fs::read(lab.image("disk-1")).unwrap());
}

#[tokio::test(start_paused = true)]
async fn c13_a_delete_that_is_cancelled_during_its_grace_leaves_all_as_it_was() {
    let lab = Lab::new();
    let (service, snapshot) = prepared(&lab).await;
    let operation = delete(&service, &snapshot).await;
    pass(9_000).await;
    assert_eq!(status(&service, &snapshot.id).await, Some(ResourceStatus::Deleting));
    service.cancel_operation(&caller(), operation.id().as_str()).await.unwrap();
    let done = done(&service, &operation).await;
    assert_eq!(done.error().unwrap().code(), Code::Cancelled);
    assert_as_before(&lab, &service, &snapshot).await;
    // It can be deleted still.
    let operation = delete(&service, &snapshot).await;
    assert_gone(&lab, &service, &snapshot, &operation).await;
}

#[tokio::test(start_paused = true)]
async fn the_grace_of_a_delete_counts_from_its_acceptance_over_restarts() {
    let lab = Lab::new();
    let (service, snapshot) = prepared(&lab).await;
    let operation = delete(&service, &snapshot).await;
    let mut service = Some(service);
    for _ in 0..3 {
        pass(3_000).await;
        drop(service.take());
        service = Some(lab.start_on(lab.plane().delete_grace(millis(10_000))).await);
    }
    let service = service.unwrap();
    pass(900).await;
    assert_eq!(status(&service, &snapshot.id).await, Some(ResourceStatus::Deleting));
    assert_eq!(lab.chunk_files().len(), 2, "9.9 of 10 seconds are over");
    let waited = tokio::time::Instant::now();
    assert_gone(&lab, &service, &snapshot, &operation).await;
    assert!(waited.elapsed() < millis(1_000), "{:?}", waited.elapsed());
}

#[tokio::test(start_paused = true)]
async fn c13_a_cancelled_delete_of_a_snapshot_in_error_restores_the_error() {
    let lab = Lab::new();
    let (service, snapshot) = prepared(&lab).await;
    std::fs::remove_file(lab.path_of("manifests").join(snapshot.id.as_str())).unwrap();
    service.verify(&caller(), &get_of(&snapshot.id)).await.unwrap();
    let broken = service.get(&caller(), &get_of(&snapshot.id)).await.unwrap();
    let operation = delete(&service, &snapshot).await;
    service.cancel_operation(&caller(), operation.id().as_str()).await.unwrap();
    done(&service, &operation).await;
    assert_eq!(service.get(&caller(), &get_of(&snapshot.id)).await.unwrap(), broken);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_after_the_point_of_no_return_changes_nothing() {
    let lab = Lab::new();
    for held in [Verb::Discard, Verb::Remove] {
        let (service, snapshot) = prepared(&lab).await;
        let door = Door::at(&lab.switch, held, When::Before);
        let operation = delete(&service, &snapshot).await;
        door.somebody().await;
        let cancelled = service.cancel_operation(&caller(), operation.id().as_str()).await.unwrap();
        assert!(!cancelled.done() && cancelled.error().is_none(), "{cancelled:?}");
        assert_eq!(status(&service, &snapshot.id).await, Some(ResourceStatus::Deleting));
        door.open();
        assert_gone(&lab, &service, &snapshot, &operation).await;
        lab.switch.off();
    }
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_loses_its_engine_comes_to_its_end() {
    for (held, when) in
        [(Verb::Discard, When::Before), (Verb::Discard, When::After), (Verb::Remove, When::After)]
    {
        let lab = Lab::new();
        let (service, snapshot) = prepared(&lab).await;
        let door = Door::at(&lab.switch, held, when);
        let operation = delete(&service, &snapshot).await;
        door.somebody().await;
        drop(service);
        lab.switch.off();
        let service = lab.start().await;
        assert_gone(&lab, &service, &snapshot, &operation).await;
        door.open();
        drop(service);
        lab.settle().await;
        lab.assert_nothing_left();
    }
}

#[tokio::test(start_paused = true)]
async fn l4_a_delete_whose_chunks_cannot_be_removed_is_tried_until_they_can() {
    let lab = Lab::new();
    let (service, snapshot) = prepared(&lab).await;
    lab.switch.on(|verb, when| match (verb, when) {
        (Verb::Remove, When::Before) => Err(std::io::ErrorKind::PermissionDenied),
        _ => Ok(()),
    });
    let operation = delete(&service, &snapshot).await;
    pass(3_600_000).await;
    let shown = service.get_operation(&caller(), operation.id().as_str()).await.unwrap();
    assert!(!shown.done() && !shown.blocked().is_empty(), "{shown:?}");
    assert_eq!(status(&service, &snapshot.id).await, Some(ResourceStatus::Deleting));
    lab.switch.off();
    assert_gone(&lab, &service, &snapshot, &operation).await;
}
