//! Collection: what nobody refers to goes, everything else stays, whatever else is going on.

use std::collections::BTreeSet;
use std::num::NonZeroU64;

use longrun::store::Table;
use longrun::{Code, ResourceStatus, StepIndex, Verb as Act};
use longrun_snapshot::data::{CHUNK_BYTES, Digest};
use longrun_snapshot::service::Collected;

use crate::common::chunks::{Door, Verb, When};
use crate::common::{
    Lab, call, caller, create_of, delete_of, done, get_of, made, made_by, noise, pass, status,
};

fn names(lab: &Lab) -> BTreeSet<String> {
    lab.files().into_keys().collect()
}

fn write(lab: &Lab, path: &str) {
    let path = lab.path_of(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, "garbage").unwrap();
}

#[tokio::test(start_paused = true)]
async fn garbage_goes_and_what_lives_or_is_being_made_stays() {
    let lab = Lab::new();
    lab.disk("disk-1", CHUNK_BYTES + 3000, &[(0, &noise(1, 4096)), (CHUNK_BYTES, &noise(2, 3000))]);
    let image: Vec<(u64, Vec<u8>)> = (0..10).map(|n| (n * CHUNK_BYTES, noise(10 + n, 512))).collect();
    let places: Vec<(u64, &[u8])> = image.iter().map(|(at, bytes)| (*at, &bytes[..])).collect();
    lab.disk("disk-2", 10 * CHUNK_BYTES, &places);
    let service = lab.start().await;
    let snapshot = made(&service, &create_of("disk-1")).await;
    // One that is being made: its first chunks are there, and its draft.
    lab.gate.close_at(9 * CHUNK_BYTES);
    let create = service.create(call(), &create_of("disk-2")).await.unwrap();
    lab.gate.reader().await;
    while lab.chunk_files().len() < 2 + 4 {
        tokio::task::yield_now().await;
    }
    assert_eq!(service.collect().await.unwrap().swept.removed, 0);
    let alive = names(&lab);
    let live_chunk = alive.iter().find(|path| path.starts_with("chunks/")).unwrap().clone();
    let (fan_out, chunk) = live_chunk.rsplit_once('/').unwrap();
    let dead = Digest::of(b"nobody's").to_string();
    let garbage = [
        format!("chunks/{}/{dead}-abc", &dead[..2]),
        // An earlier life of a chunk that lives.
        format!("{}-dead", live_chunk.split('-').next().unwrap()),
        format!("chunks/{}/.{dead}-abc.1-1.tmp", &dead[..2]),
        // Somebody wrote it and was late.
        format!("{fan_out}/.{chunk}.1-1.tmp"),
        "manifests/fd8unknown".to_owned(),
        "drafts/fd8lost/1-1".to_owned(),
        "drafts/.fd8removed.gone/1-1".to_owned(),
        // A run that was given up began it when the snapshot was READY already.
        format!("drafts/{}/1-1", snapshot.id),
    ];
    for path in &garbage {
        write(&lab, path);
    }
    let strange = ["chunks/README".to_owned(), format!("{fan_out}/what-is-this")];
    for path in &strange {
        write(&lab, path);
    }
    let Collected { orphans, swept, unknown_snapshots, late_drafts, failed, .. } =
        service.collect().await.unwrap();
    assert_eq!((orphans, swept.removed, swept.temporaries, swept.strange), (0, 2, 2, 2));
    assert_eq!((swept.removed_bytes, swept.temporary_bytes), (14, 14));
    assert_eq!((unknown_snapshots, late_drafts, failed), (3, 1, 0));
    let mut expected = alive;
    expected.extend(strange);
    assert_eq!(names(&lab), expected);
    let again = service.collect().await.unwrap();
    assert_eq!((again.swept.removed, again.swept.temporaries, again.unknown_snapshots), (0, 0, 0));
    lab.gate.open();
    assert!(done(&service, &create).await.response().is_some());
    for (id, disk) in [(snapshot.id, "disk-1"), (made_by(&create), "disk-2")] {
        assert_eq!(service.verify(&caller(), &get_of(&id)).await.unwrap().damage, None);
        assert!(lab.restored(&service, &id).await == std::fs::read(lab.image(disk)).unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn orphans_of_a_delete_that_was_given_up_go() {
    let lab = Lab::new();
    lab.tiny_disk("disk-1", 1);
    let service = lab.start().await;
    let snapshot = made(&service, &create_of("disk-1")).await;
    lab.switch.on(|verb, when| match (verb, when) {
        (Verb::Remove, When::Before) => Err(std::io::ErrorKind::PermissionDenied),
        _ => Ok(()),
    });
    let delete = service.delete(call(), &delete_of(&snapshot.id)).await.unwrap();
    pass(3_600_000).await;
    let given_up =
        service.engine().intervene(delete.id(), &caller(), Act::Abandon, "the disk is lost").await.unwrap();
    let given_up = if given_up.done() { given_up } else { done(&service, &delete).await };
    assert!(given_up.was_abandoned() && given_up.error().is_some());
    assert_eq!(status(&service, &snapshot.id).await, Some(ResourceStatus::Error));
    assert_eq!((lab.counts().orphans, lab.chunk_files().len()), (1, 1));
    // As long as it cannot be removed it stays on record.
    let collected = service.collect().await.unwrap();
    assert_eq!((collected.orphans, collected.failed, lab.counts().orphans), (0, 1, 1));
    lab.switch.off();
    let collected = service.collect().await.unwrap();
    assert_eq!((collected.orphans, collected.failed), (1, 0));
    assert_eq!((lab.counts().orphans, lab.chunk_files().len()), (0, 0));
    // The row is still there for the operator to delete.
    let delete = service.delete(call(), &delete_of(&snapshot.id)).await.unwrap();
    assert!(done(&service, &delete).await.response().is_some());
    lab.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn collections_without_end_do_no_harm_to_creates_and_deletes() {
    let lab = Lab::new();
    for disk in 0..3_u64 {
        // The first chunk is the same for all.
        let own = noise(disk, 2000);
        lab.disk(&format!("disk-{disk}"), CHUNK_BYTES + 2000, &[(0, &noise(9, 512)), (CHUNK_BYTES, &own)]);
    }
    let service = lab.start().await;
    let collecting = {
        let service = service.clone();
        tokio::spawn(async move {
            loop {
                service.collect().await.unwrap();
                tokio::task::yield_now().await;
            }
        })
    };
    let mut kept = Vec::new();
    for round in 0..4 {
        let mut creates = Vec::new();
        for disk in 0..3 {
            creates.push((disk, service.create(call(), &create_of(&format!("disk-{disk}"))).await.unwrap()));
        }
        for (disk, create) in creates {
            let snapshot = done(&service, &create).await;
            assert!(snapshot.response().is_some(), "{:?}", snapshot.error());
            if (round + disk) % 3 == 0 {
                kept.push((made_by(&create), disk));
                continue;
            }
            let delete = service.delete(call(), &delete_of(&made_by(&create))).await.unwrap();
            assert!(done(&service, &delete).await.response().is_some());
        }
    }
    collecting.abort();
    assert!(collecting.await.unwrap_err().is_cancelled());
    for (id, disk) in &kept {
        assert_eq!(service.verify(&caller(), &get_of(id)).await.unwrap().damage, None);
        let image = std::fs::read(lab.image(&format!("disk-{disk}"))).unwrap();
        assert!(lab.restored(&service, id).await == image);
    }
    service.collect().await.unwrap();
    let counts = lab.counts();
    assert_eq!((counts.items, counts.orphans), (lab.chunk_files().len(), 0));
}

#[tokio::test(start_paused = true)]
async fn c04_what_an_operator_declares_undone_or_passes_over_goes_with_the_next_collection() {
    for verb in [Act::MarkUndone(StepIndex(0)), Act::SkipUndo(StepIndex(0))] {
        let lab = Lab::new();
        // The first chunk is the same in both.
        let common = noise(9, 512);
        lab.disk("disk-1", CHUNK_BYTES + 2000, &[(0, &common), (CHUNK_BYTES, &noise(1, 2000))]);
        lab.disk("disk-2", 5 * CHUNK_BYTES, &[(0, &common), (CHUNK_BYTES, &noise(2, 2000))]);
        let service = lab.start_on(lab.plane().copy_rate(NonZeroU64::new(CHUNK_BYTES).unwrap())).await;
        let other = made(&service, &create_of("disk-1")).await;
        let create = service.create(call(), &create_of("disk-2")).await.unwrap();
        while lab.chunk_files().len() < 3 {
            pass(100).await;
        }
        lab.switch.on(|verb, when| match (verb, when) {
            (Verb::Discard, When::Before) => Err(std::io::ErrorKind::PermissionDenied),
            _ => Ok(()),
        });
        service.cancel_operation(&caller(), create.id().as_str()).await.unwrap();
        pass(3_600_000).await;
        service.engine().intervene(create.id(), &caller(), verb, "removed by hand").await.unwrap();
        assert_eq!(done(&service, &create).await.error().unwrap().code(), Code::Cancelled);
        assert_eq!(status(&service, &made_by(&create)).await, None);
        assert_eq!(lab.chunk_files().len(), 3, "nobody has removed anything");
        lab.switch.off();
        let collected = service.collect().await.unwrap();
        assert_eq!((collected.references, collected.orphans, collected.unknown_snapshots), (2, 1, 1));
        let counts = lab.counts();
        assert_eq!((counts.references, counts.items, counts.orphans), (2, 2, 0));
        assert_eq!(service.verify(&caller(), &get_of(&other.id)).await.unwrap().damage, None);
        let again = service.collect().await.unwrap();
        assert_eq!((again.references, again.orphans, again.failed), (0, 0, 0));
        let delete = service.delete(call(), &delete_of(&other.id)).await.unwrap();
        assert!(done(&service, &delete).await.response().is_some());
        lab.assert_nothing_left();
    }
}

/// Puts a folder, with something in it, in the place of a file: it can be neither read nor removed as one.
fn make_unreadable(lab: &Lab, path: &str) {
    let path = lab.path_of(path);
    if path.exists() {
        std::fs::remove_file(&path).unwrap();
    }
    std::fs::create_dir_all(path.join("something")).unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_collected_is_counted_and_keeps_nothing_else_from_going() {
    let lab = Lab::new();
    lab.disk("disk-1", CHUNK_BYTES + 3000, &[(0, &noise(1, 4096)), (CHUNK_BYTES, &noise(2, 3000))]);
    lab.disk("disk-2", CHUNK_BYTES + 3000, &[(0, &noise(3, 4096)), (CHUNK_BYTES, &noise(4, 3000))]);
    let service = lab.start().await;
    let kept = made(&service, &create_of("disk-1")).await;
    let of_kept = lab.chunk_files();
    // A delete that was given up before it had removed a chunk: two orphans, one of them in the way.
    let gone = made(&service, &create_of("disk-2")).await;
    lab.switch.on(|verb, when| match (verb, when) {
        (Verb::Remove, When::Before) => Err(std::io::ErrorKind::PermissionDenied),
        _ => Ok(()),
    });
    let delete = service.delete(call(), &delete_of(&gone.id)).await.unwrap();
    pass(3_600_000).await;
    service.engine().intervene(delete.id(), &caller(), Act::Abandon, "the disk is lost").await.unwrap();
    lab.switch.off();
    let orphan = lab.chunk_files().into_keys().find(|path| !of_kept.contains_key(path)).unwrap();
    make_unreadable(&lab, &orphan);
    // A dead chunk, a temporary file and a manifest in the way, and others of each that are not.
    let dead = |n: u8| {
        let digest = Digest::of(&[n]).to_string();
        format!("{}/{digest}", &digest[..2])
    };
    make_unreadable(&lab, &format!("chunks/{}-abc", dead(1)));
    let (fan_out, name) = live_temporary(&dead(2));
    make_unreadable(&lab, &format!("chunks/{fan_out}/{name}"));
    make_unreadable(&lab, "manifests/fd8unreadable");
    let others = [format!("chunks/{}-abc", dead(3)), "manifests/fd8unknown".to_owned()];
    others.iter().for_each(|path| write(&lab, path));

    let collected = service.collect().await.unwrap();
    // The file of the orphan is met by the sweep, too.
    assert_eq!((collected.failed, collected.swept.failed), (1 + 3 + 1, 3));
    assert_eq!((collected.orphans, collected.swept.removed, collected.unknown_snapshots), (1, 1, 1));
    assert!(others.iter().all(|path| !lab.path_of(path).exists()));
    assert_eq!(lab.counts().orphans, 1, "it stays on record");
    assert_eq!(service.verify(&caller(), &get_of(&kept.id)).await.unwrap().damage, None);
    // When they can be, they are.
    for path in [orphan, format!("chunks/{}-abc", dead(1)), "manifests/fd8unreadable".to_owned()] {
        std::fs::remove_dir_all(lab.path_of(&path)).unwrap();
        write(&lab, &path);
    }
    std::fs::remove_dir_all(lab.path_of("chunks").join(fan_out).join(name)).unwrap();
    let collected = service.collect().await.unwrap();
    assert_eq!((collected.failed, collected.orphans, collected.swept.removed), (0, 1, 1));
    assert_eq!(collected.unknown_snapshots, 1);
}

/// The folder and the name of a temporary file of this chunk.
fn live_temporary(dead: &str) -> (String, String) {
    let (fan_out, digest) = dead.split_once('/').unwrap();
    (fan_out.to_owned(), format!(".{digest}-abc.1-1.tmp"))
}

#[tokio::test(start_paused = true)]
async fn c18_a_damaged_record_keeps_its_chunk_and_its_snapshot_and_nothing_else_from_going() {
    let lab = Lab::new();
    lab.disk("disk-1", CHUNK_BYTES + 3000, &[(0, &noise(1, 4096)), (CHUNK_BYTES, &noise(2, 3000))]);
    lab.tiny_disk("disk-2", 5);
    let service = lab.start().await;
    made(&service, &create_of("disk-1")).await;
    let unknown = made(&service, &create_of("disk-2")).await;
    let before = names(&lab);
    lab.damage(Table::Items, b"compute.chunk\0");
    lab.damage(Table::Resources, format!("compute.snapshot\0{}", unknown.id).as_bytes());
    let dead = Digest::of(b"nobody's").to_string();
    write(&lab, &format!("chunks/{}/{dead}-abc", &dead[..2]));
    write(&lab, "manifests/fd8unknown");
    let collected = service.collect().await.unwrap();
    assert_eq!((collected.swept.removed, collected.unknown_snapshots), (1, 1));
    // The item once, the row when references and when files are looked at.
    assert_eq!((collected.failed, collected.swept.failed), (3, 1));
    assert_eq!(names(&lab), before);
}

#[tokio::test(start_paused = true)]
async fn a_service_of_another_store_is_refused_and_removes_nothing() {
    let lab = Lab::new();
    lab.tiny_disk("disk-1", 1);
    let service = lab.start().await;
    let snapshot = made(&service, &create_of("disk-1")).await;
    let before = names(&lab);
    let [ours, theirs] = [lab.store.id(), Lab::store_of(8).id()];
    assert_ne!(ours, theirs);

    // The same folder under a fresh store: to it all of it is garbage.
    let other = lab.start_over(Lab::store_of(8)).await;
    let refused = [
        other.claim_chunks().await.map(drop),
        other.collect().await.map(drop),
        other.create(call(), &create_of("disk-1")).await.map(drop),
    ];
    for error in refused.map(Result::unwrap_err) {
        assert_eq!(error.code(), Code::FailedPrecondition);
        let say = format!("the chunk store belongs to {ours}, not to {theirs}");
        assert!(error.to_string().contains(&say), "{error}");
    }
    assert_eq!(names(&lab), before);
    drop(other);

    // Several services on one store share it, one after another here.
    drop(service);
    let service = lab.start().await;
    service.claim_chunks().await.unwrap();
    assert_eq!(service.collect().await.unwrap().failed, 0);
    assert_eq!(service.verify(&caller(), &get_of(&snapshot.id)).await.unwrap().damage, None);
    assert_eq!(names(&lab), before);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_not_deleted_or_called_damaged_in_the_chunk_folder_of_another_store() {
    let lab = Lab::new();
    lab.tiny_disk("disk-1", 1);
    let service = lab.start().await;
    let snapshot = made(&service, &create_of("disk-1")).await;
    drop(service);
    // The folders were mixed up at a restart.
    let mark = lab.path_of("owner");
    let ours = std::fs::read_to_string(&mark).unwrap();
    std::fs::write(&mark, format!("{}\n", Lab::store_of(8).id())).unwrap();
    let service = lab.start().await;
    let error = service.verify(&caller(), &get_of(&snapshot.id)).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    let target = lab.folder.path().join("restored");
    let error = service.restore(&caller(), &get_of(&snapshot.id), target).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    let delete = service.delete(call(), &delete_of(&snapshot.id)).await.unwrap();
    pass(600_000).await;
    assert_eq!(lab.chunk_files().len(), 1, "nothing is removed");
    assert_eq!(status(&service, &snapshot.id).await, Some(ResourceStatus::Deleting));
    let counts = lab.counts();
    assert_eq!((counts.references, counts.unfinished), (1, 1));
    // When that is mended the delete comes to its end.
    std::fs::write(&mark, ours).unwrap();
    assert!(done(&service, &delete).await.response().is_some());
    lab.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn a_chunk_folder_that_lost_its_mark_is_nobodys_until_an_operator_says_whose_it_is() {
    let lab = Lab::new();
    lab.tiny_disk("disk-1", 1);
    let service = lab.start().await;
    let snapshot = made(&service, &create_of("disk-1")).await;
    let lab_epoch = service.engine().fence().0;
    drop(service);
    let mark = lab.path_of("owner");
    let ours = std::fs::read_to_string(&mark).unwrap();
    assert_eq!(ours, format!("{} {}\n", lab.store.id(), lab_epoch));
    for lost in [None, Some(""), Some("no name of anybody"), Some("\u{fffd}")] {
        std::fs::remove_file(&mark).unwrap();
        if let Some(text) = lost {
            std::fs::write(&mark, text).unwrap();
        }
        let before = names(&lab);
        let service = lab.start().await;
        let error = service.collect().await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert!(error.to_string().contains("does not say whose it is"), "{error}");
        assert!(error.to_string().contains(&lab.store.id().to_string()), "{error}");
        assert_eq!(names(&lab), before);
        if lost.is_none() {
            std::fs::write(&mark, "").unwrap();
        }
    }
    std::fs::write(&mark, ours).unwrap();
    let service = lab.start().await;
    service.collect().await.unwrap();
    assert_eq!(service.verify(&caller(), &get_of(&snapshot.id)).await.unwrap().damage, None);
}

#[tokio::test(start_paused = true)]
async fn a_chunk_folder_that_is_exchanged_under_a_running_service_is_not_touched() {
    let lab = Lab::new();
    lab.tiny_disk("disk-1", 1);
    let service = lab.start().await;
    let snapshot = made(&service, &create_of("disk-1")).await;
    let mark = lab.path_of("owner");
    let ours = std::fs::read_to_string(&mark).unwrap();
    let dead = Digest::of(b"somebody's").to_string();
    write(&lab, &format!("chunks/{}/{dead}-abc", &dead[..2]));
    write(&lab, "manifests/fd8another");
    let before = names(&lab);
    std::fs::write(&mark, format!("{}\n", Lab::store_of(8).id())).unwrap();
    assert_eq!(service.collect().await.unwrap_err().code(), Code::FailedPrecondition);
    let delete = service.delete(call(), &delete_of(&snapshot.id)).await.unwrap();
    pass(600_000).await;
    assert_eq!(names(&lab), before);
    assert_eq!(lab.counts().references, 1);
    std::fs::write(&mark, ours).unwrap();
    assert!(done(&service, &delete).await.response().is_some());
    assert_eq!(service.collect().await.unwrap().swept.removed, 1);
    lab.assert_nothing_left();
}

/// The store is restored from a backup of a time before there was any snapshot, beside the chunks of today.
#[tokio::test(start_paused = true)]
async fn a_store_older_than_the_chunks_removes_none_until_an_operator_says_so() {
    let lab = Lab::new();
    lab.tiny_disk("disk-1", 1);
    drop(lab.start().await);
    let service = lab.start().await;
    made(&service, &create_of("disk-1")).await;
    let before = names(&lab);
    drop(service);
    let older = Lab::store_of(7);
    assert_eq!(older.id(), lab.store.id());
    let restored = lab.start_over(older).await;
    for error in [
        restored.claim_chunks().await.unwrap_err(),
        restored.collect().await.unwrap_err(),
        restored.create(call(), &create_of("disk-1")).await.unwrap_err(),
    ] {
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert!(error.to_string().contains("in epoch 2, later than 1"), "{error}");
    }
    assert_eq!(names(&lab), before);
    std::fs::write(lab.path_of("owner"), lab.store.id().to_string()).unwrap();
    assert_eq!(restored.collect().await.unwrap().swept.removed, 1);
    lab.store.take_over().await.unwrap();
    assert_eq!(std::fs::read_to_string(lab.path_of("owner")).unwrap(), format!("{} 1\n", lab.store.id()));
}

#[tokio::test(start_paused = true)]
async fn a_collection_that_is_dropped_stops() {
    let lab = Lab::new();
    lab.tiny_disk("disk-1", 1);
    let service = lab.start().await;
    made(&service, &create_of("disk-1")).await;
    for number in 0..2 {
        let dead = Digest::of(&[number]).to_string();
        write(&lab, &format!("chunks/{}/{dead}-abc", &dead[..2]));
    }
    let before = names(&lab);
    let door = Door::at(&lab.switch, Verb::Sweep, When::Before);
    let collecting = {
        let service = service.clone();
        tokio::spawn(async move { service.collect().await })
    };
    door.somebody().await;
    collecting.abort();
    assert!(collecting.await.unwrap_err().is_cancelled());
    door.open();
    drop(service);
    lab.settle().await;
    assert_eq!(names(&lab), before);
}
