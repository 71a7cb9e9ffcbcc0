//! Creating snapshots through the service: what callers see on the way, and what is left when it does not work out.
//!
//! A gate in the disk holds the copy where the test wants it, and time is virtual, so nothing here depends on how fast
//! anything is.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use longrun::{Code, Operation, ProgressUnit, ResourceId, ResourceStatus, Status};
use longrun_snapshot::data::CHUNK_BYTES;
use longrun_snapshot::service::{CreateSnapshotRequest, ServiceError};
use longrun_snapshot::{CreateSnapshotMetadata, DataPlane, Snapshot, SnapshotService};

use common::chunks::{Verb, When};
use common::{
    FOLDER, Lab, call, caller, create_of, done, get_of, list_of, made, made_by, millis, noise, status,
};

/// A laboratory with a disk of so many chunks, each with something of its own in it.
fn lab(chunks: u64) -> Lab {
    let lab = Lab::new();
    let places: Vec<(u64, Vec<u8>)> =
        (0..chunks).map(|index| (index * CHUNK_BYTES, noise(index, 4096))).collect();
    let places: Vec<(u64, &[u8])> = places.iter().map(|(offset, bytes)| (*offset, &bytes[..])).collect();
    lab.disk("disk-1", chunks * CHUNK_BYTES, &places);
    lab
}

/// Passes one chunk a second, so that there is a batch and a checkpoint for each.
fn slow(plane: DataPlane) -> DataPlane {
    plane.copy_rate(NonZeroU64::new(CHUNK_BYTES).unwrap())
}

async fn create(service: &SnapshotService) -> (Operation, ResourceId) {
    let operation = service.create(call(), &create_of("disk-1")).await.unwrap();
    let id = made_by(&operation);
    (operation, id)
}

/// What a create shows whose disk failed: the cause, and nothing else.
async fn assert_rolled_back(
    lab: &Lab,
    service: &SnapshotService,
    accepted: &Operation,
    code: Code,
    say: &[&str],
) {
    let done = done(service, accepted).await;
    let error = done.error().unwrap_or_else(|| panic!("{done:?}"));
    assert_eq!(error.code(), code, "{error}");
    for words in say {
        assert!(error.message().contains(words), "{error}");
    }
    assert!(done.response().is_none());
    let id = made_by(accepted);
    assert_eq!(service.get(&caller(), &get_of(&id)).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(service.list(&caller(), &list_of(FOLDER)).await.unwrap().items, []);
    lab.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn c06_the_snapshot_shows_at_once_and_is_ready_with_the_disks_bytes_when_done() {
    let lab = lab(3);
    lab.sidecar("disk-1", r#"{"product_ids": ["p1", "p2"]}"#);
    lab.gate.close_at(0);
    let service = lab.start().await;
    let request = CreateSnapshotRequest {
        name: "nightly".to_owned(),
        description: "before the move".to_owned(),
        labels: BTreeMap::from([("env".to_owned(), "test".to_owned())]),
        ..create_of("disk-1")
    };
    let accepted = service.create(call(), &request).await.unwrap();
    assert!(!accepted.done() && accepted.error().is_none() && accepted.response().is_none());
    let CreateSnapshotMetadata { snapshot_id: id, disk_id, folder_id } =
        accepted.metadata().decode().unwrap();
    assert_eq!((disk_id.as_str(), folder_id.as_str()), ("disk-1", FOLDER));
    // The id is usable at once, in Get and in List.
    let shown = service.get(&caller(), &get_of(&id)).await.unwrap();
    assert_eq!(shown.status, ResourceStatus::Creating);
    assert_eq!((shown.disk_size, shown.storage_size), (3 * CHUNK_BYTES, 0));
    assert_eq!(service.list(&caller(), &list_of(FOLDER)).await.unwrap().items, [shown]);
    lab.gate.open();
    let done = done(&service, &accepted).await;
    let response: Snapshot = done.response().unwrap().decode().unwrap();
    let shown = service.get(&caller(), &get_of(&id)).await.unwrap();
    assert_eq!(response, shown);
    assert_eq!(done.metadata(), accepted.metadata());
    assert_eq!(shown.status, ResourceStatus::Ready);
    assert_eq!((shown.name.as_str(), shown.description.as_str()), ("nightly", "before the move"));
    assert_eq!((shown.folder_id.as_str(), shown.source_disk_id.as_str()), (FOLDER, "disk-1"));
    assert_eq!((shown.labels["env"].as_str(), shown.product_ids), ("test", vec!["p1".into(), "p2".into()]));
    assert_eq!(shown.created_at, accepted.created_at());
    // What it takes is what is there.
    assert_eq!(shown.disk_size, 3 * CHUNK_BYTES);
    assert_eq!(shown.storage_size, lab.chunk_files().values().sum::<u64>());
    assert!(lab.restored(&service, &id).await == std::fs::read(lab.image("disk-1")).unwrap());
}

#[tokio::test(start_paused = true)]
async fn an_empty_disk_and_one_of_zeros_take_nothing_and_come_back() {
    let lab = Lab::new();
    lab.disk("empty", 0, &[]);
    lab.disk("zeros", 2 * CHUNK_BYTES + 1, &[]);
    let service = lab.start().await;
    for (disk, size) in [("empty", 0), ("zeros", 2 * CHUNK_BYTES + 1)] {
        let snapshot = made(&service, &create_of(disk)).await;
        assert_eq!((snapshot.disk_size, snapshot.storage_size), (size, 0));
        assert!(lab.restored(&service, &snapshot.id).await == vec![0; usize::try_from(size).unwrap()]);
    }
    assert_eq!(lab.chunk_files(), BTreeMap::new());
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_is_saved_every_64_mib() {
    let lab = lab(25);
    // Pieces are of 16 MiB: four are stored and on record; the fifth is stored, the sixth hashed, and the seventh is being read.
    lab.gate.close_at(24 * CHUNK_BYTES);
    let service = lab.start().await;
    let (accepted, id) = create(&service).await;
    lab.gate.reader().await;
    drop(service);
    // The piece that was being read comes to its end in the background, as it would not after a kill; its run is gone.
    lab.gate.open();
    let stored = lab.store.load(accepted.id()).await.unwrap().unwrap().operation();
    let saved = stored.progress().unwrap();
    assert_eq!(
        (saved.done, saved.total, saved.unit),
        (16 * CHUNK_BYTES, 25 * CHUNK_BYTES, ProgressUnit::Bytes)
    );
    lab.gate.close_at(u64::MAX);
    let service = lab.start().await;
    let done = done(&service, &accepted).await;
    assert!(done.response().is_some(), "{:?}", done.error());
    assert!(lab.gate.lowest().unwrap() >= saved.done);
    assert!(lab.restored(&service, &id).await == std::fs::read(lab.image("disk-1")).unwrap());
}

/// Loses the engine at chunk 4 of 6, of which 2 are copied and on record, and goes on with the next.
async fn interrupted(lab: &Lab, gently: bool) -> (SnapshotService, Operation, u64) {
    lab.gate.close_at(4 * CHUNK_BYTES);
    let service = lab.start_on(slow(lab.plane())).await;
    let (accepted, _) = create(&service).await;
    lab.gate.reader().await;
    if gently {
        let engine = service.engine().clone();
        let shutdown = tokio::spawn(async move { engine.shutdown(millis(60_000)).await });
        tokio::task::yield_now().await;
        lab.gate.open();
        assert!(shutdown.await.unwrap());
    }
    drop(service);
    lab.gate.open();
    let saved = lab.store.load(accepted.id()).await.unwrap().unwrap().operation().progress().unwrap();
    assert!((2 * CHUNK_BYTES..6 * CHUNK_BYTES).contains(&saved.done), "{saved:?}");
    lab.gate.close_at(u64::MAX);
    let service = lab.start_on(slow(lab.plane())).await;
    (service, accepted, saved.done)
}

#[tokio::test(start_paused = true)]
async fn c08_a_create_that_loses_its_engine_in_mid_copy_goes_on_from_its_checkpoint() {
    for gently in [false, true] {
        let lab = lab(6);
        let (service, accepted, saved) = interrupted(&lab, gently).await;
        let done = done(&service, &accepted).await;
        assert!(done.response().is_some(), "{:?}", done.error());
        assert!(lab.gate.lowest().unwrap() >= saved, "it began anew");
        let id = made_by(&accepted);
        assert_eq!(status(&service, &id).await, Some(ResourceStatus::Ready));
        assert!(lab.restored(&service, &id).await == std::fs::read(lab.image("disk-1")).unwrap());
        assert_eq!(lab.files().len(), 6 + 1, "six chunks and a manifest");
    }
}

#[tokio::test(start_paused = true)]
async fn a_create_whose_draft_is_lost_begins_anew() {
    let lab = lab(6);
    lab.gate.close_at(4 * CHUNK_BYTES);
    let service = lab.start_on(slow(lab.plane())).await;
    let (accepted, id) = create(&service).await;
    lab.gate.reader().await;
    drop(service);
    lab.gate.open();
    lab.settle().await;
    std::fs::remove_dir_all(lab.path_of("drafts").join(id.as_str())).unwrap();
    lab.gate.close_at(u64::MAX);
    let service = lab.start_on(slow(lab.plane())).await;
    let done = done(&service, &accepted).await;
    assert!(done.response().is_some(), "{:?}", done.error());
    assert_eq!(lab.gate.lowest(), Some(0));
    assert!(lab.restored(&service, &id).await == std::fs::read(lab.image("disk-1")).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_goes_on_or_begins_anew_on_a_changed_disk_keeps_no_reference_that_it_does_not_need() {
    for (lost, fails) in [(false, false), (true, false), (false, true)] {
        let lab = lab(6);
        lab.gate.close_at(4 * CHUNK_BYTES);
        let service = lab.start_on(slow(lab.plane())).await;
        let (accepted, id) = create(&service).await;
        lab.gate.reader().await;
        drop(service);
        lab.gate.open();
        lab.settle().await;
        if fails {
            // The references are dropped by then, and the run comes no further.
            let removals = AtomicU32::new(0);
            lab.switch.on(move |verb, when| match (verb, when) {
                (Verb::Remove, When::Before) if removals.fetch_add(1, Ordering::SeqCst) == 0 => {
                    Err(ErrorKind::Other)
                }
                _ => Ok(()),
            });
        }
        let taken = lab.counts().references;
        assert!(taken >= 3);
        if lost {
            std::fs::remove_dir_all(lab.path_of("drafts").join(id.as_str())).unwrap();
        }
        // Somebody writes to the disk, and all of it is other than it was.
        let image = std::fs::OpenOptions::new().write(true).open(lab.image("disk-1")).unwrap();
        for chunk in 0..6 {
            image.write_all_at(&noise(100 + chunk, 4096), chunk * CHUNK_BYTES).unwrap();
        }
        lab.gate.close_at(u64::MAX);
        let service = lab.start_on(slow(lab.plane())).await;
        let done = done(&service, &accepted).await;
        assert!(done.response().is_some(), "{:?}", done.error());
        assert_eq!(lab.gate.lowest() == Some(0), lost);
        let counts = lab.counts();
        assert_eq!((counts.references, counts.items, counts.orphans), (6, 6, 0));
        assert_eq!(lab.chunk_files().len(), 6, "chunks that only the first run had are gone");
        let verified = service.verify(&caller(), &get_of(&id)).await.unwrap();
        assert_eq!((verified.damage, verified.verdict.unwrap().verified.chunks), (None, 6));
    }
}

#[tokio::test(start_paused = true)]
async fn c13_a_create_that_is_cancelled_in_mid_copy_leaves_nothing() {
    let lab = lab(6);
    lab.gate.close_at(4 * CHUNK_BYTES);
    let service = lab.start_on(slow(lab.plane())).await;
    let (accepted, id) = create(&service).await;
    lab.gate.reader().await;
    assert!(lab.chunk_files().len() >= 2, "there is something to remove");
    let cancelled = service.cancel_operation(&caller(), accepted.id().as_str()).await.unwrap();
    assert_eq!(cancelled.error().unwrap().code(), Code::Cancelled);
    assert!(!cancelled.done());
    assert_eq!(status(&service, &id).await, Some(ResourceStatus::Deleting));
    lab.gate.open();
    assert_rolled_back(&lab, &service, &accepted, Code::Cancelled, &[]).await;
    // Once it is done, a cancel changes nothing.
    let again = service.cancel_operation(&caller(), accepted.id().as_str()).await.unwrap();
    assert_eq!(again, done(&service, &accepted).await);
}

#[tokio::test(start_paused = true)]
async fn c13_a_create_that_is_cancelled_while_its_engine_is_away_leaves_nothing() {
    let lab = lab(6);
    lab.gate.close_at(4 * CHUNK_BYTES);
    let service = lab.start_on(slow(lab.plane())).await;
    let (accepted, _) = create(&service).await;
    lab.gate.reader().await;
    drop(service);
    // The next engine finds the copy in mid flight, and its caller changes his mind at once.
    let service = lab.start_on(slow(lab.plane())).await;
    service.cancel_operation(&caller(), accepted.id().as_str()).await.unwrap();
    lab.gate.open();
    let error = done(&service, &accepted).await.error().unwrap().clone();
    assert_eq!(error.code(), Code::Cancelled);
    // What the first engine still had on its hands is over, too.
    drop(service);
    lab.settle().await;
    let service = lab.start().await;
    service.collect().await.unwrap();
    assert_rolled_back(&lab, &service, &accepted, Code::Cancelled, &[]).await;
}

#[tokio::test(start_paused = true)]
async fn c13_a_create_is_cancelled_while_its_copy_is_read_back() {
    let lab = lab(3);
    let door = common::chunks::Door::at(&lab.switch, Verb::Get, When::Before);
    let service = lab.start().await;
    let (accepted, id) = create(&service).await;
    door.somebody().await;
    assert_eq!(status(&service, &id).await, Some(ResourceStatus::Creating));
    service.cancel_operation(&caller(), accepted.id().as_str()).await.unwrap();
    door.open();
    assert_rolled_back(&lab, &service, &accepted, Code::Cancelled, &[]).await;
}

#[tokio::test(start_paused = true)]
async fn c13_a_rollback_waits_for_a_write_that_does_not_stop() {
    let lab = lab(3);
    let door = common::chunks::Door::at(&lab.switch, Verb::Put, When::Before);
    let service = lab.start().await;
    let (accepted, _) = create(&service).await;
    door.somebody().await;
    service.cancel_operation(&caller(), accepted.id().as_str()).await.unwrap();
    // Longer than the run is left to itself: it is dropped, but what it has begun goes on.
    for _ in 0..100 {
        tokio::time::advance(millis(100)).await;
        // A rollback that does not wait gets a chance: with too little of it the test proves nothing, but does not fail.
        std::thread::sleep(millis(1));
    }
    let shown = service.get_operation(&caller(), accepted.id().as_str()).await.unwrap();
    assert!(!shown.done(), "what is written now is left over");
    door.open();
    assert_rolled_back(&lab, &service, &accepted, Code::Cancelled, &[]).await;
}

/// Copies up to chunk 4 of 6, has something happen to the disk, and copies on.
async fn disturbed(code: Code, say: &[&str], disturb: impl FnOnce(&Lab)) {
    let lab = lab(6);
    lab.gate.close_at(4 * CHUNK_BYTES);
    let service = lab.start_on(slow(lab.plane())).await;
    let (accepted, _) = create(&service).await;
    lab.gate.reader().await;
    disturb(&lab);
    lab.gate.open();
    assert_rolled_back(&lab, &service, &accepted, code, say).await;
}

fn resize(lab: &Lab, length: u64) {
    let image = std::fs::OpenOptions::new().write(true).open(lab.image("disk-1")).unwrap();
    image.set_len(length).unwrap();
}

#[tokio::test(start_paused = true)]
async fn c04_a_disk_that_changes_its_size_in_mid_copy_rolls_back_with_the_cause() {
    for length in [CHUNK_BYTES, 6 * CHUNK_BYTES + 1] {
        let say = ["disk-1", "size", &length.to_string()];
        disturbed(Code::FailedPrecondition, &say, |lab| resize(lab, length)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn c04_a_disk_that_vanishes_in_mid_copy_rolls_back_with_the_cause() {
    let vanish = |lab: &Lab| std::fs::remove_file(lab.image("disk-1")).unwrap();
    disturbed(Code::FailedPrecondition, &["disk-1", "vanished"], vanish).await;
}

#[tokio::test(start_paused = true)]
async fn c04_a_disk_that_is_replaced_in_mid_copy_rolls_back_with_the_cause() {
    let replace = |lab: &Lab| {
        lab.disk("other", 6 * CHUNK_BYTES, &[]);
        std::fs::rename(lab.image("other"), lab.image("disk-1")).unwrap();
    };
    disturbed(Code::FailedPrecondition, &["disk-1", "replaced"], replace).await;
}

#[tokio::test(start_paused = true)]
async fn c04_a_read_error_rolls_back_and_names_the_offset() {
    let offset = 5 * CHUNK_BYTES + 512;
    let say = ["disk-1", &format!("offset {offset}"), "a bad sector"];
    disturbed(Code::DataLoss, &say, |lab| lab.gate.fail_at(offset)).await;
}

#[tokio::test(start_paused = true)]
async fn c04_a_disk_that_is_replaced_while_the_engine_is_away_rolls_back() {
    let lab = lab(6);
    lab.gate.close_at(4 * CHUNK_BYTES);
    let service = lab.start_on(slow(lab.plane())).await;
    let (accepted, _) = create(&service).await;
    lab.gate.reader().await;
    drop(service);
    lab.gate.open();
    lab.settle().await;
    lab.disk("other", 6 * CHUNK_BYTES, &[]);
    std::fs::rename(lab.image("other"), lab.image("disk-1")).unwrap();
    let service = lab.start().await;
    assert_rolled_back(&lab, &service, &accepted, Code::FailedPrecondition, &["replaced"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_names_no_folder_is_for_all_folders_unless_disks_have_to_name_theirs() {
    let lab = lab(1);
    lab.tiny_disk("named", 1);
    lab.sidecar("named", &format!(r#"{{"folder_id": "{FOLDER}"}}"#));
    let in_folder = |folder: &str, disk: &str| {
        let folder_id = folder.to_owned();
        CreateSnapshotRequest { folder_id, ..create_of(disk) }
    };
    let service = lab.start().await;
    for (folder, disk) in [(FOLDER, "disk-1"), ("folder-2", "disk-1"), (FOLDER, "named")] {
        made(&service, &in_folder(folder, disk)).await;
    }
    drop(service);
    let service = lab.start_on(lab.plane().require_folder()).await;
    made(&service, &in_folder(FOLDER, "named")).await;
    for (folder, disk) in [(FOLDER, "disk-1"), ("folder-2", "disk-1"), ("folder-2", "named")] {
        let error = service.create(call(), &in_folder(folder, disk)).await.unwrap_err();
        assert_eq!(error.status(), Status::new(Code::NotFound, "the disk does not exist"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_waited_for_and_the_copy_goes_on_when_there_is_space() {
    let lab = lab(3);
    let refused = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&refused);
    lab.switch.on(move |verb, when| match (verb, when) {
        (Verb::Put, When::Before) if count.fetch_add(1, Ordering::SeqCst) < 3 => Err(ErrorKind::StorageFull),
        _ => Ok(()),
    });
    let service = lab.start().await;
    let (accepted, id) = create(&service).await;
    let done = done(&service, &accepted).await;
    assert!(done.response().is_some(), "{:?}", done.error());
    assert!(refused.load(Ordering::SeqCst) > 3);
    assert!(lab.restored(&service, &id).await == std::fs::read(lab.image("disk-1")).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_stays_full_rolls_back_as_resource_exhausted() {
    for full in [Verb::Put, Verb::AppendDraft, Verb::BeginDraft, Verb::Seal] {
        let lab = lab(3);
        lab.switch.on(move |verb, when| match when {
            When::Before if verb == full => Err(ErrorKind::StorageFull),
            _ => Ok(()),
        });
        let service = lab.start().await;
        let (accepted, _) = create(&service).await;
        assert_rolled_back(&lab, &service, &accepted, Code::ResourceExhausted, &["no space left"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_reads_back_damaged_is_never_ready() {
    let lab = lab(3);
    let root = lab.path_of("chunks");
    // Behind the store's back, when all is written.
    lab.switch.on(move |verb, when| {
        if (verb, when) == (Verb::Seal, When::After) {
            let chunk = std::fs::read_dir(&root).unwrap().find_map(|fan_out| {
                std::fs::read_dir(fan_out.unwrap().path()).unwrap().next().map(|chunk| chunk.unwrap().path())
            });
            common::flip_last_byte(&chunk.unwrap());
        }
        Ok(())
    });
    let service = lab.start().await;
    let (accepted, _) = create(&service).await;
    assert_rolled_back(&lab, &service, &accepted, Code::DataLoss, &["damaged"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_not_there_is_refused_and_nothing_is_stored() {
    let lab = lab(1);
    lab.sidecar("theirs", r#"{"folder_id": "folder-2"}"#);
    lab.tiny_disk("theirs", 1);
    lab.tiny_disk("odd", 1);
    lab.sidecar("odd", r#"{"products": []}"#);
    let service = lab.start().await;
    let mut answers = Vec::new();
    for disk in ["disk-2", "DISK", "theirs", "odd"] {
        let error = service.create(call(), &create_of(disk)).await.unwrap_err();
        assert!(matches!(error, ServiceError::Submit(_)));
        answers.push(error.status());
    }
    // By its answer, a disk of another folder, or of one that nobody knows, cannot be told from none.
    let no_disk = Status::new(Code::NotFound, "the disk does not exist");
    assert_eq!(answers, vec![no_disk; 4]);
    let error = service.create(call(), &create_of("../disks/disk-1")).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let all = longrun::OperationQuery::All;
    assert_eq!(service.engine().list_operations(&all, &Default::default()).await.unwrap().items, []);
    lab.assert_nothing_left();
}
