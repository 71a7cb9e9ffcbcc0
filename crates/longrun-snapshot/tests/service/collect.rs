//! Collection: what nobody refers to goes, everything else stays, whatever else is going on.

use std::collections::BTreeSet;

use longrun::{Code, ResourceStatus, Verb as Act};
use longrun_snapshot::data::{CHUNK_BYTES, Digest};
use longrun_snapshot::service::Collected;

use crate::common::chunks::{Verb, When};
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
    while lab.chunk_files().len() < 2 + 8 {
        std::thread::sleep(std::time::Duration::from_millis(1));
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
    ];
    for path in &garbage {
        write(&lab, path);
    }
    let strange = ["chunks/README".to_owned(), format!("{fan_out}/what-is-this")];
    for path in &strange {
        write(&lab, path);
    }
    let Collected { orphans, swept, unknown_snapshots } = service.collect().await.unwrap();
    assert_eq!((orphans, swept.removed, swept.temporaries, swept.strange), (0, 2, 2, 2));
    assert_eq!((swept.removed_bytes, swept.temporary_bytes), (14, 14));
    assert_eq!(unknown_snapshots, 3);
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
    assert_eq!(service.collect().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!((lab.counts().orphans, lab.chunk_files().len()), (1, 1));
    lab.switch.off();
    assert_eq!(service.collect().await.unwrap().orphans, 1);
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
