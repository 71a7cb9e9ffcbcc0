//! Get and Create.

use longrun::{Code, Operation, ResourceStatus};
use longrun_snapshot::data::CHUNK_BYTES;
use longrun_snapshot::service::{CreateSnapshotRequest, GetSnapshotRequest};
use longrun_snapshot::{Snapshot, SnapshotService};

use crate::common::{
    Lab, call, caller, create_of, delete_of, done, get_of, keyed, list_of, made, made_by, noise,
};

#[tokio::test(start_paused = true)]
async fn names_need_not_be_unique_and_may_be_empty() {
    let lab = Lab::new();
    lab.tiny_disk("disk-1", 1);
    let service = lab.start().await;
    let named = CreateSnapshotRequest { name: "nightly".to_owned(), ..create_of("disk-1") };
    let snapshots = [
        made(&service, &named).await,
        made(&service, &named).await,
        made(&service, &create_of("disk-1")).await,
        made(&service, &create_of("disk-1")).await,
    ];
    for snapshot in &snapshots {
        assert_eq!(service.get(&caller(), &get_of(&snapshot.id)).await.unwrap(), *snapshot);
    }
    assert_eq!(snapshots.map(|snapshot| snapshot.name), ["nightly", "nightly", "", ""]);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_no_snapshot_has_is_not_found_and_one_that_none_can_have_is_refused() {
    let lab = Lab::new();
    let service = lab.start().await;
    for (id, code) in [
        ("fd800000000000000000", Code::NotFound),
        ("../../etc", Code::InvalidArgument),
        ("F D", Code::InvalidArgument),
        (&"я".repeat(50), Code::InvalidArgument),
    ] {
        let error =
            service.get(&caller(), &GetSnapshotRequest { snapshot_id: id.to_owned() }).await.unwrap_err();
        assert_eq!(error.code(), code, "{id}");
        assert!(!error.to_string().contains(id));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_disk_is_is_in_its_sidecar() {
    let lab = Lab::new();
    lab.tiny_disk("disk-1", 1);
    let service = lab.start().await;
    assert_eq!(made(&service, &create_of("disk-1")).await.product_ids, [""; 0]);
    lab.sidecar("disk-1", r#"{"product_ids": ["p1", "p2"], "folder_id": "folder-1"}"#);
    assert_eq!(made(&service, &create_of("disk-1")).await.product_ids, ["p1", "p2"]);
    // It belongs to a folder now, and to no other.
    let elsewhere = CreateSnapshotRequest { folder_id: "folder-2".to_owned(), ..create_of("disk-1") };
    assert_eq!(service.create(call(), &elsewhere).await.unwrap_err().code(), Code::NotFound);
    lab.sidecar("disk-1", "{");
    let error = service.create(call(), &create_of("disk-1")).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "nobody knows whose it is");
    assert!(!error.to_string().contains(lab.folder.path().to_str().unwrap()), "no path is shown: {error}");
}

async fn create(service: &SnapshotService, disk: &str, key: &str) -> Operation {
    service.create(keyed(key), &create_of(disk)).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn c15_a_repeated_create_is_the_same_operation_even_when_disk_and_snapshot_are_gone() {
    let lab = Lab::new();
    lab.tiny_disk("disk-1", 1);
    let service = lab.start().await;
    let first = create(&service, "disk-1", "key").await;
    assert_eq!(create(&service, "disk-1", "key").await.id(), first.id());
    let finished = done(&service, &first).await;
    assert_eq!(create(&service, "disk-1", "key").await, finished);
    let delete = service.delete(call(), &delete_of(&made_by(&first))).await.unwrap();
    done(&service, &delete).await;
    std::fs::remove_file(lab.image("disk-1")).unwrap();
    assert_eq!(create(&service, "disk-1", "key").await, finished);
    // A key is its caller's and its request's.
    let other = CreateSnapshotRequest { name: "other".to_owned(), ..create_of("disk-1") };
    assert_eq!(service.create(keyed("key"), &other).await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(service.list(&caller(), &list_of("folder-1")).await.unwrap().items, []);
}

#[tokio::test(start_paused = true)]
async fn snapshots_share_the_chunks_that_they_have_in_common() {
    let lab = Lab::new();
    let (shared, own, other) = (noise(1, 4096), noise(2, 3000), noise(3, 2000));
    lab.disk("one", CHUNK_BYTES + 3000, &[(0, &shared), (CHUNK_BYTES, &own)]);
    lab.disk("two", 2 * CHUNK_BYTES + 2000, &[(CHUNK_BYTES, &shared), (2 * CHUNK_BYTES, &other)]);
    let service = lab.start().await;
    let one = made(&service, &create_of("one")).await;
    assert_eq!(one.storage_size, lab.chunk_files().values().sum::<u64>());
    let two = made(&service, &create_of("two")).await;
    let again = made(&service, &create_of("one")).await;
    assert_eq!(lab.chunk_files().len(), 3);
    let counts = lab.counts();
    assert_eq!((counts.items, counts.references, counts.orphans), (3, 6, 0));
    // What one gives up the others keep.
    for gone in [&one, &again] {
        let delete = service.delete(call(), &delete_of(&gone.id)).await.unwrap();
        done(&service, &delete).await;
        assert!(lab.restored(&service, &two.id).await == std::fs::read(lab.image("two")).unwrap());
    }
    assert_eq!(lab.chunk_files().len(), 2);
    let shown: Snapshot = service.get(&caller(), &get_of(&two.id)).await.unwrap();
    assert_eq!(shown.status, ResourceStatus::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_with_more_than_a_snapshot_can_hold_is_refused_at_once() {
    let lab = Lab::new();
    lab.tiny_disk("disk-1", 1);
    let service = lab.start().await;
    let ids = |count: usize| {
        let ids: Vec<String> = (0..count).map(|number| format!("f2e{number:017}")).collect();
        serde_json::json!({ "product_ids": ids }).to_string()
    };
    lab.sidecar("disk-1", &ids(500));
    assert_eq!(made(&service, &create_of("disk-1")).await.product_ids.len(), 500);
    lab.sidecar("disk-1", &ids(2000));
    let error = service.create(call(), &create_of("disk-1")).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
}
