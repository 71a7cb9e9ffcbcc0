//! Who may see and do what: what a caller may not see does not exist for it, down to the letter of the answers.

use longrun::{Call, Caller, Code, IdempotencyKey, ResourceId, Status};
use longrun_snapshot::service::{
    Access, Action, Admission, CreateSnapshotRequest, DeleteSnapshotRequest, GetSnapshotRequest,
    ListSnapshotOperationsRequest, ServiceError, Throttled, UpdateSnapshotRequest,
};
use longrun_snapshot::{Snapshot, SnapshotService};

use crate::common::{FOLDER, Lab, create_of, delete_of, done, get_of, list_of, made, made_by, millis, named};

/// In `folder-1` the owner does everything and the reader reads; nobody does anything elsewhere.
struct Strict;

impl Access for Strict {
    fn may(&self, caller: &Caller, folder: &ResourceId, action: Action) -> bool {
        let reads = action == Action::Read;
        folder.as_str() == FOLDER && (caller.as_str() == "owner" || caller.as_str() == "reader" && reads)
    }
}

/// A folder with a snapshot, and one with a delete in its grace.
async fn prepared(lab: &Lab) -> (SnapshotService, Snapshot, longrun::Operation) {
    lab.tiny_disk("disk-1", 1);
    let service = lab.start_on(lab.plane().delete_grace(millis(3_600_000))).await.access(Strict);
    let owner = || Call::by(named("owner"));
    let create = service.create(owner(), &create_of("disk-1")).await.unwrap();
    let snapshot = done(&service, &create).await.response().unwrap().decode().unwrap();
    let create = service.create(owner(), &create_of("disk-1")).await.unwrap();
    done(&service, &create).await;
    let delete = service.delete(owner(), &delete_of(&made_by(&create))).await.unwrap();
    (service, snapshot, delete)
}

/// What everything that can be asked about a snapshot is answered with.
async fn answers(service: &SnapshotService, caller: &str, id: &str, key: Option<&str>) -> Vec<Status> {
    let caller = named(caller);
    let call = || match key {
        Some(key) => Call::by(caller.clone()).key(IdempotencyKey::new(key).unwrap()),
        None => Call::by(caller.clone()),
    };
    let get = GetSnapshotRequest { snapshot_id: id.to_owned() };
    let update = UpdateSnapshotRequest { snapshot_id: id.to_owned(), ..Default::default() };
    let delete = DeleteSnapshotRequest { snapshot_id: id.to_owned() };
    let list = ListSnapshotOperationsRequest { snapshot_id: id.to_owned(), ..Default::default() };
    let target = std::env::temp_dir().join("nothing-is-restored.raw");
    let errors: [Result<(), ServiceError>; 6] = [
        service.get(&caller, &get).await.map(drop),
        service.update(call(), &update).await.map(drop),
        service.delete(call(), &delete).await.map(drop),
        service.list_operations(&caller, &list).await.map(drop),
        service.verify(&caller, &get).await.map(drop),
        service.restore(&caller, &get, target).await.map(drop),
    ];
    errors.into_iter().map(|error| error.unwrap_err().status()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_foreign_snapshot_is_answered_as_one_that_is_not_there() {
    let lab = Lab::new();
    let (service, snapshot, delete) = prepared(&lab).await;
    let deleting: longrun_snapshot::SnapshotMetadata = delete.metadata().decode().unwrap();
    let missing = Status::new(Code::NotFound, "the snapshot does not exist");
    for (place, key) in [None, Some("key")].into_iter().enumerate() {
        for id in [snapshot.id.as_str(), deleting.snapshot_id.as_str(), "fd8never", "NOT_AN_ID"] {
            let caller = format!("stranger-{place}");
            assert_eq!(answers(&service, &caller, id, key).await, vec![missing.clone(); 6], "{id}");
        }
    }
    assert_eq!(service.get(&named("owner"), &get_of(&snapshot.id)).await.unwrap(), snapshot);
}

/// Nobody else's snapshot, and none at all, can be told apart by a key either: not by one that the caller has used for
/// something of its own, and not by how much it may ask for.
#[tokio::test(start_paused = true)]
async fn a_used_key_does_not_tell_a_foreign_snapshot_from_one_that_is_not_there() {
    let lab = Lab::new();
    lab.tiny_disk("disk-1", 1);
    let everybody = lab.start().await;
    let call = || Call::by(named("guest")).key(IdempotencyKey::new("used").unwrap());
    let create = everybody.create(call(), &create_of("disk-1")).await.unwrap();
    done(&everybody, &create).await;
    let (id, name) = (made_by(&create).to_string(), "mine".to_owned());
    let update_mask = Some(vec!["name".to_owned()]);
    let renaming = UpdateSnapshotRequest { snapshot_id: id.clone(), name, update_mask, ..Default::default() };
    let update = everybody.update(call(), &renaming).await.unwrap();
    let delete = everybody.delete(call(), &delete_of(&made_by(&create))).await.unwrap();
    done(&everybody, &delete).await;
    // The repeats of what has removed it are answered, as it was.
    assert_eq!(everybody.update(call(), &renaming).await.unwrap().id(), update.id());
    let again = everybody.delete(call(), &delete_of(&made_by(&create))).await.unwrap();
    assert_eq!(again.id(), delete.id());
    let theirs = made(&everybody, &create_of("disk-1")).await;
    let service = everybody.access(Strict).admission(Nothing);
    let missing = Status::new(Code::NotFound, "the snapshot does not exist");
    // The last was the caller's own, before it was shut out.
    for asked in [theirs.id.as_str(), "fd8never", "NOT_AN_ID", &id] {
        assert_eq!(
            answers(&service, "guest", asked, Some("used")).await,
            vec![missing.clone(); 6],
            "{asked}"
        );
    }
    let shut_out = service.delete(call(), &delete_of(&made_by(&create))).await.unwrap_err();
    assert_eq!(shut_out.status(), missing);
}

/// Admits nothing.
struct Nothing;

impl Admission for Nothing {
    fn admit(&self, _: &ResourceId) -> Result<(), Throttled> {
        Err(Throttled { retry_after: millis(1000) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_foreign_operation_is_answered_as_one_that_is_not_there() {
    let lab = Lab::new();
    let (service, _, delete) = prepared(&lab).await;
    let stranger = named("stranger");
    let missing = Status::new(Code::NotFound, "the operation does not exist");
    for id in [delete.id().as_str(), "opr00000000000000000", "Not an id"] {
        let get = service.get_operation(&stranger, id).await.unwrap_err();
        let cancel = service.cancel_operation(&stranger, id).await.unwrap_err();
        assert_eq!([get.status(), cancel.status()], [missing.clone(), missing.clone()]);
        assert_eq!(get.to_string(), cancel.to_string());
    }
    let shown = service.get_operation(&named("owner"), delete.id().as_str()).await.unwrap();
    assert!(!shown.done() && shown.error().is_none());
}

#[tokio::test(start_paused = true)]
async fn who_may_only_read_reads_and_is_told_that_he_may_not_write() {
    let lab = Lab::new();
    let (service, snapshot, delete) = prepared(&lab).await;
    let reader = named("reader");
    let call = || Call::by(reader.clone());
    let get = get_of(&snapshot.id);
    assert_eq!(service.get(&reader, &get).await.unwrap(), snapshot);
    assert_eq!(service.list(&reader, &list_of(FOLDER)).await.unwrap().items.len(), 2);
    assert_eq!(service.get_operation(&reader, delete.id().as_str()).await.unwrap().id(), delete.id());
    let update = UpdateSnapshotRequest { snapshot_id: snapshot.id.to_string(), ..Default::default() };
    let refused: [Result<(), ServiceError>; 5] = [
        service.create(call(), &create_of("disk-1")).await.map(drop),
        service.update(call(), &update).await.map(drop),
        service.delete(call(), &delete_of(&snapshot.id)).await.map(drop),
        service.cancel_operation(&reader, delete.id().as_str()).await.map(drop),
        service.verify(&reader, &get).await.map(drop),
    ];
    for refused in refused {
        assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    }
    let shown = service.get_operation(&reader, delete.id().as_str()).await.unwrap();
    assert!(shown.error().is_none(), "it was not cancelled");
}

#[tokio::test(start_paused = true)]
async fn s40_folders_that_are_not_the_callers_are_closed_whether_they_are_there_or_not() {
    let lab = Lab::new();
    let (service, ..) = prepared(&lab).await;
    let stranger = named("stranger");
    let mut answers = Vec::new();
    for folder in [FOLDER, "folder-without-anything"] {
        let create = CreateSnapshotRequest { folder_id: folder.to_owned(), ..create_of("disk-1") };
        for result in [
            service.list(&stranger, &list_of(folder)).await.map(drop),
            service.create(Call::by(stranger.clone()), &create).await.map(drop),
        ] {
            answers.push(result.unwrap_err().status());
        }
    }
    let closed = Status::new(Code::PermissionDenied, "the caller may not do this in the folder");
    assert_eq!(answers, vec![closed; 4]);
}
