//! Creating snapshots through the engine: what callers see on the way, and what is left when it does not work out.
//!
//! A gate in the disk holds the copy where the test wants it, so nothing here depends on how fast anything is.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use longrun::{
    Call, Caller, Code, Engine, KvStore, Operation, ResourceId, ResourceStatus, Store, SubmitError,
};
use longrun_snapshot::data::{
    CHUNK_BYTES, ChunkFolder, DiskError, DiskFolder, DiskId, DiskInfo, DiskRead, DiskSource, SnapshotId,
    restore,
};
use longrun_snapshot::{
    CreateSnapshot, CreateSnapshotMetadata, CreateSnapshotRequest, DataPlane, Snapshot, register,
};

const CHUNKS: u64 = 24;

/// Holds readers at an offset until it is opened, and notes how far they came.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    closed_at: Option<u64>,
    waiting: bool,
    lowest: Option<u64>,
}

impl Gate {
    fn close_at(&self, offset: u64) {
        *self.state.lock().unwrap() = GateState { closed_at: Some(offset), waiting: false, lowest: None };
    }

    fn open(&self) {
        self.state.lock().unwrap().closed_at = None;
        self.changed.notify_all();
    }

    fn pass(&self, offset: u64) {
        let mut state = self.state.lock().unwrap();
        state.lowest = Some(state.lowest.map_or(offset, |lowest| lowest.min(offset)));
        while state.closed_at.is_some_and(|closed_at| offset >= closed_at) {
            state.waiting = true;
            self.changed.notify_all();
            state = self.changed.wait(state).unwrap();
        }
    }

    /// Blocks until a reader stands at the gate.
    fn wait_for_reader(&self) {
        let mut state = self.state.lock().unwrap();
        while !state.waiting {
            state = self.changed.wait(state).unwrap();
        }
    }
}

struct GatedDisks(DiskFolder, Arc<Gate>);

impl DiskSource for GatedDisks {
    fn open(&self, disk: &DiskId) -> Result<Box<dyn DiskRead>, DiskError> {
        Ok(Box::new(GatedDisk(Box::new(self.0.open(disk)?), Arc::clone(&self.1))))
    }
}

struct GatedDisk(Box<dyn DiskRead>, Arc<Gate>);

impl DiskRead for GatedDisk {
    fn info(&self) -> &DiskInfo {
        self.0.info()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.1.pass(offset);
        self.0.read_at(offset, buffer)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskError> {
        self.0.next_data(offset)
    }

    fn check_unchanged(&self) -> Result<(), DiskError> {
        self.0.check_unchanged()
    }
}

/// A folder with a disk, a store that outlives engines, and a gate.
struct World {
    folder: tempfile::TempDir,
    store: Arc<dyn Store>,
    gate: Arc<Gate>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("disks")).unwrap();
        let image: Vec<u8> = (0..CHUNKS * CHUNK_BYTES).map(|place| (place / 4093 % 251) as u8).collect();
        std::fs::write(folder.path().join("disks/disk-1.raw"), image).unwrap();
        std::fs::write(folder.path().join("disks/disk-1.json"), r#"{"product_ids": ["p1", "p2"]}"#).unwrap();
        Self { folder, store: Arc::new(KvStore::memory().unwrap()), gate: Arc::default() }
    }

    fn chunks(&self) -> ChunkFolder {
        ChunkFolder::open(self.folder.path().join("chunks")).unwrap()
    }

    async fn engine(&self) -> Engine {
        let disks = GatedDisks(DiskFolder::new(self.folder.path().join("disks")), Arc::clone(&self.gate));
        let plane = DataPlane::new(disks, self.chunks());
        register(Engine::builder_shared(Arc::clone(&self.store)), &plane).start().await.unwrap()
    }

    fn request() -> CreateSnapshotRequest {
        CreateSnapshotRequest {
            folder_id: ResourceId::new("folder-1").unwrap(),
            disk_id: "disk-1".to_owned(),
            name: "nightly".to_owned(),
            description: String::new(),
            labels: BTreeMap::from([("env".to_owned(), "test".to_owned())]),
        }
    }

    fn left_over(&self) -> Vec<SnapshotId> {
        self.chunks().list().unwrap()
    }
}

fn caller() -> Caller {
    Caller::new("tester").unwrap()
}

async fn create(engine: &Engine) -> (Operation, ResourceId) {
    let operation = engine.submit::<CreateSnapshot>(&World::request(), Call::by(caller())).await.unwrap();
    let metadata: CreateSnapshotMetadata = operation.metadata().decode().unwrap();
    assert_eq!(metadata.disk_id, "disk-1");
    (operation, metadata.snapshot_id)
}

async fn status(engine: &Engine, id: &ResourceId) -> Option<ResourceStatus> {
    engine.resource::<Snapshot>(id).await.unwrap().map(|found| found.row.status)
}

/// Waits for the reader on a thread that may block.
async fn reader_at(gate: &Arc<Gate>) {
    let gate = Arc::clone(gate);
    tokio::task::spawn_blocking(move || gate.wait_for_reader()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn c06_the_snapshot_shows_at_once_and_is_ready_with_the_disks_bytes_when_done() {
    let world = World::new();
    world.gate.close_at(0);
    let engine = world.engine().await;
    let (accepted, id) = create(&engine).await;
    assert!(!accepted.done());
    assert_eq!(status(&engine, &id).await, Some(ResourceStatus::Creating));
    world.gate.open();
    let done = engine.wait_done(accepted.id()).await.unwrap();
    let response: Snapshot = done.response().unwrap().decode().unwrap();
    let shown = Snapshot::of(engine.resource::<Snapshot>(&id).await.unwrap().unwrap());
    assert_eq!(response, shown);
    assert_eq!(shown.status, ResourceStatus::Ready);
    assert_eq!(shown.disk_size, CHUNKS * CHUNK_BYTES);
    assert_eq!(shown.product_ids, ["p1", "p2"]);
    assert_eq!(shown.labels["env"], "test");
    assert!(shown.storage_size > 0 && shown.storage_size < shown.disk_size);
    let restored = world.folder.path().join("restored.raw");
    restore(&world.chunks(), &id.as_str().parse().unwrap(), &restored, &mut |_| true).unwrap();
    let disk = std::fs::read(world.folder.path().join("disks/disk-1.raw")).unwrap();
    assert!(std::fs::read(restored).unwrap() == disk, "the restored bytes differ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_loses_its_engine_in_mid_copy_goes_on_from_its_checkpoint() {
    let world = World::new();
    // Past the first checkpoint, which is saved after 64 MiB.
    world.gate.close_at(20 * CHUNK_BYTES);
    let engine = world.engine().await;
    let (accepted, id) = create(&engine).await;
    reader_at(&world.gate).await;
    drop(engine);
    // The piece that was being copied ends in the background, as it would not after a kill; its run is gone.
    world.gate.open();
    let saved = world.store.load(accepted.id()).await.unwrap().unwrap().operation().progress().unwrap();
    assert!(saved.done >= 16 * CHUNK_BYTES);
    world.gate.close_at(u64::MAX);
    let engine = world.engine().await;
    let done = engine.wait_done(accepted.id()).await.unwrap();
    assert!(done.response().is_some(), "{:?}", done.error());
    assert!(world.gate.state.lock().unwrap().lowest.unwrap() >= saved.done);
    assert_eq!(status(&engine, &id).await, Some(ResourceStatus::Ready));
}

#[tokio::test(flavor = "multi_thread")]
async fn c13_a_create_that_is_cancelled_in_mid_copy_leaves_nothing() {
    let world = World::new();
    world.gate.close_at(4 * CHUNK_BYTES);
    let engine = world.engine().await;
    let (accepted, id) = create(&engine).await;
    reader_at(&world.gate).await;
    let cancelled = engine.cancel(accepted.id(), &caller()).await.unwrap();
    assert_eq!(cancelled.error().unwrap().code(), Code::Cancelled);
    assert!(!cancelled.done());
    assert_eq!(status(&engine, &id).await, Some(ResourceStatus::Deleting));
    world.gate.open();
    let done = engine.wait_done(accepted.id()).await.unwrap();
    assert_eq!(done.error().unwrap().code(), Code::Cancelled);
    assert_eq!(status(&engine, &id).await, None);
    assert_eq!(world.left_over(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn c04_a_disk_that_changes_in_mid_copy_rolls_back_with_the_cause() {
    let world = World::new();
    world.gate.close_at(4 * CHUNK_BYTES);
    let engine = world.engine().await;
    let (accepted, id) = create(&engine).await;
    reader_at(&world.gate).await;
    let image = world.folder.path().join("disks/disk-1.raw");
    std::fs::OpenOptions::new().write(true).open(image).unwrap().set_len(CHUNK_BYTES).unwrap();
    world.gate.open();
    let done = engine.wait_done(accepted.id()).await.unwrap();
    let error = done.error().unwrap();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains("disk-1") && error.message().contains("size"), "{error}");
    assert_eq!(status(&engine, &id).await, None);
    assert_eq!(world.left_over(), []);
}

#[tokio::test]
async fn a_disk_that_is_not_there_is_refused_and_nothing_is_stored() {
    let world = World::new();
    let engine = world.engine().await;
    for (disk, code) in [("disk-2", Code::NotFound), ("../disk-1", Code::InvalidArgument)] {
        let request = CreateSnapshotRequest { disk_id: disk.to_owned(), ..World::request() };
        let error = engine.submit::<CreateSnapshot>(&request, Call::by(caller())).await.unwrap_err();
        assert!(matches!(error, SubmitError::Refused(_)));
        assert_eq!(error.code(), code);
        assert!(!error.to_string().contains(".."));
    }
    let page = engine.list_operations(&longrun::OperationQuery::All, &Default::default()).await.unwrap();
    assert_eq!(page.items, []);
    assert!(engine.shutdown(Duration::from_secs(5)).await);
}
