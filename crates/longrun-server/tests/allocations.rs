//! How often a Get allocates: a count, which is the same on every machine, where a time is not.

#![allow(clippy::unwrap_used)]

use allocation_counter::measure;
use axum::body::Body;
use http::Request;
use longrun::store::MemoryKv;
use longrun::{Call, Caller, Engine, KvStore};
use longrun_server::auth::Anonymous;
use longrun_server::{Faces, rest};
use longrun_snapshot::data::{ChunkFolder, DiskFolder};
use longrun_snapshot::service::{CreateSnapshotRequest, Limits};
use longrun_snapshot::{DataPlane, SnapshotService};
use tower::ServiceExt;

/// Some more than there are today, of which the engine has 22, the wire's forms 32 and axum 13.
const ALLOCATIONS_MAX: u64 = 80;

#[test]
fn a_get_over_rest_allocates_as_little_as_it_did() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let disks = folder.path().join("disks");
    std::fs::create_dir(&disks).unwrap();
    std::fs::File::create(disks.join("disk.raw")).unwrap().set_len(4 << 20).unwrap();
    let chunks = ChunkFolder::open(folder.path().join("chunks")).unwrap();
    let plane = DataPlane::new(DiskFolder::new(disks), chunks);
    let caller = Caller::new("somebody").unwrap();
    let (snapshots, id) = runtime.block_on(async {
        let limits = Limits::default();
        let engine = Engine::builder(KvStore::open(MemoryKv::new()).unwrap());
        let engine = SnapshotService::register(engine, &plane, limits).start().await.unwrap();
        let snapshots = SnapshotService::new(engine, plane, limits);
        let (folder_id, disk_id) = ("folder".to_owned(), "disk".to_owned());
        let request = CreateSnapshotRequest { folder_id, disk_id, ..Default::default() };
        let operation = snapshots.create(Call::by(caller.clone()), &request).await.unwrap();
        let operation = snapshots.engine().wait_done(operation.id()).await.unwrap();
        (snapshots, operation.id())
    });
    let router = rest::router(&Faces::of_snapshots(snapshots, Anonymous::as_caller(caller)));
    // The first has some things to make that last.
    for _ in 0..2 {
        let request = Request::get(format!("/operations/{id}")).body(Body::empty()).unwrap();
        let router = router.clone();
        let counted = measure(|| {
            let response = runtime.block_on(router.oneshot(request)).unwrap();
            assert!(response.status().is_success(), "{response:?}");
        });
        assert!(counted.count_total <= ALLOCATIONS_MAX, "{counted:?}");
    }
}
