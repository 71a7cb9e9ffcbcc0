//! Verify and restore: damage goes on record, and so does its end.

use std::path::PathBuf;

use longrun::{Code, Operation, ResourceStatus};
use longrun_snapshot::data::CHUNK_BYTES;
use longrun_snapshot::{Snapshot, SnapshotService};

use crate::common::chunks::{Door, Verb, When};
use crate::common::{
    Lab, call, caller, create_of, delete_of, done, flip_last_byte, get_of, made, made_by, millis, noise,
    where_it_is,
};

async fn prepared(lab: &Lab) -> (SnapshotService, Snapshot) {
    lab.disk("disk-1", CHUNK_BYTES + 3000, &[(0, &noise(1, 4096)), (CHUNK_BYTES, &noise(2, 3000))]);
    let service = lab.start().await;
    let snapshot = made(&service, &create_of("disk-1")).await;
    (service, snapshot)
}

/// The chunk at the end of the disk, the small one: its file and its name.
fn last_chunk(lab: &Lab) -> (PathBuf, String) {
    let smallest = |(path, bytes): &(String, u64)| (*bytes, path.clone());
    let (path, _) = lab.chunk_files().into_iter().min_by_key(smallest).unwrap();
    (lab.path_of(&path), path.rsplit('/').next().unwrap().to_owned())
}

/// The file of a chunk of bytes that do not compress, by their number.
fn last_chunk_of(lab: &Lab, length: u64) -> (PathBuf, String) {
    let fits = |(_, bytes): &(String, u64)| (length..length + 128).contains(bytes);
    let (path, _) = lab.chunk_files().into_iter().find(fits).unwrap();
    (lab.path_of(&path), path.rsplit('/').next().unwrap().to_owned())
}

async fn get(service: &SnapshotService, snapshot: &Snapshot) -> Snapshot {
    service.get(&caller(), &get_of(&snapshot.id)).await.unwrap()
}

/// The damage that a verification finds, and the operation that puts it on record.
async fn verify(service: &SnapshotService, snapshot: &Snapshot) -> (Option<String>, Option<Operation>) {
    let verification = service.verify(&caller(), &get_of(&snapshot.id)).await.unwrap();
    (verification.damage, verification.operation)
}

/// Damages a snapshot, and repairs it.
async fn damaged(lab: &Lab, say: &[&str], damage: impl FnOnce(), repair: impl FnOnce()) {
    let (service, before) = {
        let service = lab.start().await;
        let page = service.list(&caller(), &crate::common::list_of("folder-1")).await.unwrap();
        (service, page.items[0].clone())
    };
    assert_eq!(verify(&service, &before).await, (None, None));
    damage();
    let (found, operation) = verify(&service, &before).await;
    let (found, operation) = (found.unwrap(), operation.unwrap());
    for words in say {
        assert!(found.contains(words), "{found}");
    }
    assert!(!found.contains(lab.folder.path().to_str().unwrap()), "no path is shown: {found}");
    assert_eq!(operation.kind().as_str(), "compute.snapshot.find");
    let expected = Snapshot { status: ResourceStatus::Error, damage: Some(found.clone()), ..before.clone() };
    assert_eq!(operation.response().unwrap().decode::<Snapshot>().unwrap(), expected);
    assert_eq!(get(&service, &before).await, expected);
    // It is no news any more.
    assert_eq!(verify(&service, &before).await, (Some(found), None));
    let target = lab.folder.path().join("restored");
    let error = service.restore(&caller(), &get_of(&before.id), target.clone()).await.unwrap_err();
    assert_eq!(error.code(), Code::DataLoss);
    assert!(!target.exists());
    repair();
    let (found, operation) = verify(&service, &before).await;
    assert_eq!(found, None);
    assert_eq!(operation.unwrap().response().unwrap().decode::<Snapshot>().unwrap(), before);
    assert_eq!(get(&service, &before).await, before);
    assert!(lab.restored(&service, &before.id).await == std::fs::read(lab.image("disk-1")).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_flipped_bit_in_a_chunk_is_on_record_until_it_is_repaired() {
    let lab = Lab::new();
    prepared(&lab).await;
    let (path, name) = last_chunk(&lab);
    let say = ["1 damaged", &format!("offset {CHUNK_BYTES}"), &name];
    damaged(&lab, &say, || flip_last_byte(&path), || flip_last_byte(&path)).await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_chunk_is_on_record_until_it_is_back() {
    let lab = Lab::new();
    prepared(&lab).await;
    let (path, name) = last_chunk(&lab);
    let aside = lab.folder.path().join("aside");
    let say = ["1 damaged", "missing", &name];
    let take = || std::fs::rename(&path, &aside).unwrap();
    damaged(&lab, &say, take, || std::fs::rename(&aside, &path).unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_or_damaged_manifest_is_on_record_until_it_is_back() {
    let lab = Lab::new();
    let (_, snapshot) = prepared(&lab).await;
    let path = lab.path_of("manifests").join(snapshot.id.as_str());
    let aside = lab.folder.path().join("aside");
    let take = || std::fs::rename(&path, &aside).unwrap();
    damaged(&lab, &["no manifest"], take, || std::fs::rename(&aside, &path).unwrap()).await;
    damaged(&lab, &["manifest", "damaged"], || flip_last_byte(&path), || flip_last_byte(&path)).await;
}

#[tokio::test(start_paused = true)]
async fn other_damage_replaces_what_is_on_record() {
    let lab = Lab::new();
    let (service, snapshot) = prepared(&lab).await;
    let (path, _) = last_chunk(&lab);
    flip_last_byte(&path);
    let (first, _) = verify(&service, &snapshot).await;
    std::fs::remove_file(where_it_is(&path)).unwrap();
    let (second, operation) = verify(&service, &snapshot).await;
    assert_ne!(first, second);
    assert!(operation.is_some());
    let shown = get(&service, &snapshot).await;
    assert_eq!((shown.status, shown.damage), (ResourceStatus::Error, second));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_read_is_no_damage() {
    let lab = Lab::new();
    let (service, snapshot) = prepared(&lab).await;
    for held in [Verb::Get, Verb::ReadManifest] {
        lab.switch.on(move |verb, _| match verb {
            verb if verb == held => Err(std::io::ErrorKind::PermissionDenied),
            _ => Ok(()),
        });
        let error = service.verify(&caller(), &get_of(&snapshot.id)).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable);
        assert_eq!(get(&service, &snapshot).await, snapshot);
    }
}

#[tokio::test(start_paused = true)]
async fn a_restored_file_takes_the_place_of_another_and_is_sparse() {
    use std::os::unix::fs::MetadataExt;
    let lab = Lab::new();
    lab.disk("disk-1", 16 << 20, &[(5 << 20, &noise(1, 4096))]);
    let service = lab.start().await;
    let snapshot = made(&service, &create_of("disk-1")).await;
    let target = lab.folder.path().join("restored");
    std::fs::write(&target, "something else").unwrap();
    let summary = service.restore(&caller(), &get_of(&snapshot.id), target.clone()).await.unwrap();
    assert_eq!(summary.disk_size, 16 << 20);
    assert!(std::fs::read(&target).unwrap() == std::fs::read(lab.image("disk-1")).unwrap());
    assert!(std::fs::metadata(&target).unwrap().blocks() * 512 < 1 << 20);
    let nowhere = lab.folder.path().join("no-such-folder/restored");
    let error = service.restore(&caller(), &get_of(&snapshot.id), nowhere).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_neither_ready_nor_in_error_can_be_neither_verified_nor_restored() {
    let lab = Lab::new();
    prepared(&lab).await;
    let service = lab.start_on(lab.plane().delete_grace(millis(60_000))).await;
    let page = service.list(&caller(), &crate::common::list_of("folder-1")).await.unwrap();
    let delete = service.delete(call(), &delete_of(&page.items[0].id)).await.unwrap();
    lab.gate.close_at(0);
    let create = service.create(call(), &create_of("disk-1")).await.unwrap();
    let target = lab.folder.path().join("restored");
    for id in [made_by(&create), page.items[0].id.clone()] {
        let verify = service.verify(&caller(), &get_of(&id)).await.unwrap_err();
        assert_eq!(verify.code(), Code::FailedPrecondition);
        let restore = service.restore(&caller(), &get_of(&id), target.clone()).await.unwrap_err();
        assert_eq!(restore.code(), Code::FailedPrecondition, "{restore}");
    }
    lab.gate.open();
    done(&service, &create).await;
    done(&service, &delete).await;
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_deleted_while_it_is_read_is_not_called_damaged() {
    for restore in [false, true] {
        let lab = Lab::new();
        let (service, snapshot) = prepared(&lab).await;
        let door = Door::at(&lab.switch, Verb::Get, When::Before);
        let reading = {
            let (service, request) = (service.clone(), get_of(&snapshot.id));
            let target = lab.folder.path().join("restored");
            tokio::spawn(async move {
                match restore {
                    true => service.restore(&caller(), &request, target).await.map(drop),
                    false => service.verify(&caller(), &request).await.map(drop),
                }
            })
        };
        door.somebody().await;
        let delete = service.delete(call(), &delete_of(&snapshot.id)).await.unwrap();
        done(&service, &delete).await;
        door.open();
        let error = reading.await.unwrap().unwrap_err();
        assert!(matches!(error.code(), Code::NotFound | Code::Aborted), "{error:?}");
    }
}

/// A chunk that was found damaged is not used again: the next snapshot of the same bytes writes it anew, which mends both.
#[tokio::test(start_paused = true)]
async fn a_damaged_chunk_is_written_anew_by_the_next_copy() {
    let lab = Lab::new();
    let (service, snapshot) = prepared(&lab).await;
    let (path, _) = last_chunk(&lab);
    flip_last_byte(&path);
    assert!(verify(&service, &snapshot).await.0.is_some());
    assert_eq!(get(&service, &snapshot).await.status, ResourceStatus::Error);
    let second = made(&service, &create_of("disk-1")).await;
    assert_eq!(verify(&service, &second).await, (None, None));
    assert!(lab.restored(&service, &second.id).await == std::fs::read(lab.image("disk-1")).unwrap());
    assert_eq!(verify(&service, &snapshot).await.0, None);
    assert_eq!(get(&service, &snapshot).await, snapshot);
}

/// Cuts the file of a chunk short: a copy that needs it sees that at once, and writes it anew.
fn cut(path: &std::path::Path) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
}

/// A verification that found a chunk damaged comes late to taking it out of use: a copy has written it anew meanwhile.
#[tokio::test(start_paused = true)]
async fn a_chunk_that_was_written_anew_meanwhile_stays() {
    let lab = Lab::new();
    let (service, snapshot) = prepared(&lab).await;
    cut(&last_chunk(&lab).0);
    let door = Door::at(&lab.switch, Verb::Quarantine, When::Before);
    let verifying = {
        let (service, snapshot) = (service.clone(), snapshot.clone());
        tokio::spawn(async move { verify(&service, &snapshot).await })
    };
    door.somebody().await;
    let second = made(&service, &create_of("disk-1")).await;
    door.open();
    assert!(verifying.await.unwrap().0.is_some());
    assert_eq!(verify(&service, &second).await, (None, None));
    assert_eq!(verify(&service, &snapshot).await.0, None);
    assert_eq!(lab.chunk_files().len(), 2);
}

/// A chunk was confirmed, and is found damaged, or missing. What a copy writes in its place nobody has read back yet, so
/// another copy that finds it there reads it back itself before its snapshot is READY.
#[tokio::test(start_paused = true)]
async fn what_is_written_anew_counts_as_confirmed_only_when_it_was_read_back() {
    for verified in [true, false] {
        let lab = Lab::new();
        let (service, snapshot) = prepared(&lab).await;
        let (path, _) = last_chunk(&lab);
        if verified {
            flip_last_byte(&path);
            assert!(verify(&service, &snapshot).await.0.is_some());
        } else {
            cut(&path);
        }
        let door = Door::at(&lab.switch, Verb::Get, When::Before);
        let first = service.create(call(), &create_of("disk-1")).await.unwrap();
        door.somebody().await;
        // The disk rots on.
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let second = service.create(call(), &create_of("disk-1")).await.unwrap();
        let manifest = lab.path_of("manifests").join(made_by(&second).as_str());
        while !manifest.exists() {
            std::thread::sleep(millis(1));
            tokio::task::yield_now().await;
        }
        door.open();
        for create in [first, second] {
            let ended = done(&service, &create).await;
            assert_eq!(ended.error().map(|error| error.code()), Some(Code::DataLoss), "{verified}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_scrub_reads_every_complete_snapshot_and_puts_on_record_what_it_finds() {
    let lab = Lab::new();
    let (service, damaged) = prepared(&lab).await;
    lab.tiny_disk("disk-2", 7);
    let whole = made(&service, &create_of("disk-2")).await;
    lab.tiny_disk("disk-3", 8);
    let going = made(&service, &create_of("disk-3")).await;
    let (path, _) = last_chunk_of(&lab, 3000);
    drop(service);
    let service = lab.start_on(lab.plane().delete_grace(millis(60_000))).await;
    let delete = service.delete(call(), &delete_of(&going.id)).await.unwrap();
    let scrubber = crate::common::named("scrubber");
    let first = service.scrub(&scrubber).await.unwrap();
    assert_eq!((first.whole, first.damaged, first.recorded, first.failed), (2, 0, 0, 0));
    flip_last_byte(&path);
    let second = service.scrub(&scrubber).await.unwrap();
    assert_eq!((second.whole, second.damaged, second.recorded, second.failed), (1, 1, 1, 0));
    assert_eq!(get(&service, &whole).await, whole);
    let shown = get(&service, &damaged).await;
    assert_eq!(shown.status, ResourceStatus::Error);
    // Clients see it in the list of operations, and why.
    let request = longrun_snapshot::service::ListSnapshotOperationsRequest {
        snapshot_id: damaged.id.to_string(),
        ..Default::default()
    };
    let newest = service.list_operations(&caller(), &request).await.unwrap().items.remove(0);
    assert_eq!(newest.created_by(), &scrubber);
    let why: String = format!("Data of the snapshot is damaged: {}", shown.damage.unwrap());
    assert_eq!(newest.description(), why.chars().take(256).collect::<String>());
    // It is no news any more, until it is mended.
    let third = service.scrub(&scrubber).await.unwrap();
    assert_eq!((third.damaged, third.recorded), (1, 0));
    flip_last_byte(&path);
    let fourth = service.scrub(&scrubber).await.unwrap();
    assert_eq!((fourth.whole, fourth.recorded), (2, 1));
    assert_eq!(get(&service, &damaged).await, damaged);
    done(&service, &delete).await;
}

#[tokio::test(start_paused = true)]
async fn a_scrub_that_is_dropped_stops() {
    let lab = Lab::new();
    let (service, _) = prepared(&lab).await;
    let door = Door::at(&lab.switch, Verb::Get, When::Before);
    let scrubbing = {
        let service = service.clone();
        tokio::spawn(async move { service.scrub(&caller()).await })
    };
    door.somebody().await;
    scrubbing.abort();
    assert!(scrubbing.await.unwrap_err().is_cancelled());
    door.open();
    drop(service);
    lab.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_restore_takes_its_turn() {
    let lab = Lab::new();
    let (_, snapshot) = prepared(&lab).await;
    let service = lab.start_on(lab.plane().parallel(std::num::NonZeroUsize::MIN)).await;
    let door = Door::at(&lab.switch, Verb::Get, When::Before);
    let verifying = {
        let (service, snapshot) = (service.clone(), snapshot.clone());
        tokio::spawn(async move { verify(&service, &snapshot).await })
    };
    door.somebody().await;
    let restoring = {
        let (service, request) = (service.clone(), get_of(&snapshot.id));
        let target = lab.folder.path().join("restored/disk");
        std::fs::create_dir(target.parent().unwrap()).unwrap();
        tokio::spawn(async move { service.restore(&caller(), &request, target).await })
    };
    let begun = || std::fs::read_dir(lab.folder.path().join("restored")).unwrap().count();
    for _ in 0..1000 {
        assert_eq!(begun(), 0, "it writes while another reads");
        tokio::task::yield_now().await;
    }
    door.open();
    assert_eq!(verifying.await.unwrap(), (None, None));
    restoring.await.unwrap().unwrap();
    assert_eq!(begun(), 1);
}
