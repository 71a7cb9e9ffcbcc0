//! A laboratory: disks, a chunk folder and a store that outlive services; doubles that hold, fail and count; virtual time.
// Each test file uses its own part.
#![allow(dead_code)]

pub(crate) mod chunks;
pub(crate) mod disks;
pub(crate) mod time;

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use longrun::store::conformance::{Counts, verify_indexes};
use longrun::store::faulty::{Faults, FaultyKv};
use longrun::store::{Batch, Direction, KeyRange, Kv, MemoryKv, Table};
use longrun::{
    BuildError, Call, Caller, Engine, EngineBuilder, IdempotencyKey, KvStore, Operation, ResourceId,
    ResourceStatus, Store,
};
use longrun_snapshot::data::{ChunkFolder, DiskFolder, SnapshotId};
use longrun_snapshot::service::{
    CreateSnapshotRequest, DeleteSnapshotRequest, GetSnapshotRequest, Limits, ListSnapshotsRequest,
};
use longrun_snapshot::{CreateSnapshotMetadata, DataPlane, Snapshot, SnapshotService};
use tempfile::TempDir;

use chunks::{Doubled, Switch};
use disks::{Gate, GatedDisks};
use time::VirtualTime;

pub(crate) const FOLDER: &str = "folder-1";
pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) async fn pass(span: u64) {
    tokio::time::sleep(millis(span)).await;
}

pub(crate) fn named(caller: &str) -> Caller {
    Caller::new(caller).unwrap()
}

pub(crate) fn caller() -> Caller {
    named("tester")
}

pub(crate) fn call() -> Call {
    Call::by(caller())
}

pub(crate) fn keyed(key: &str) -> Call {
    call().key(IdempotencyKey::new(key).unwrap())
}

pub(crate) fn create_of(disk: &str) -> CreateSnapshotRequest {
    CreateSnapshotRequest {
        folder_id: FOLDER.to_owned(),
        disk_id: disk.to_owned(),
        ..CreateSnapshotRequest::default()
    }
}

pub(crate) fn get_of(id: &ResourceId) -> GetSnapshotRequest {
    GetSnapshotRequest { snapshot_id: id.to_string() }
}

pub(crate) fn delete_of(id: &ResourceId) -> DeleteSnapshotRequest {
    DeleteSnapshotRequest { snapshot_id: id.to_string() }
}

pub(crate) fn list_of(folder: &str) -> ListSnapshotsRequest {
    ListSnapshotsRequest { folder_id: folder.to_owned(), ..ListSnapshotsRequest::default() }
}

pub(crate) fn data_id(id: &ResourceId) -> SnapshotId {
    id.as_str().parse().unwrap()
}

/// The snapshot that a create makes.
pub(crate) fn made_by(operation: &Operation) -> ResourceId {
    operation.metadata().decode::<CreateSnapshotMetadata>().unwrap().snapshot_id
}

/// Where the files of a test go: to memory, if the machine has a folder for that.
pub(crate) fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let in_memory = memory.is_dir().then(|| tempfile::tempdir_in(memory).ok()).flatten();
    in_memory.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.gate.open();
        self.switch.open_all();
    }
}

/// Everything that outlives a service, and the means to disturb it.
pub(crate) struct Lab {
    pub(crate) folder: TempDir,
    pub(crate) memory: Arc<MemoryKv>,
    pub(crate) faults: Faults,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) time: VirtualTime,
    pub(crate) gate: Arc<Gate>,
    pub(crate) switch: Arc<Switch>,
    pub(crate) chunks: Arc<ChunkFolder>,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let folder = scratch();
        std::fs::create_dir(folder.path().join("disks")).unwrap();
        let memory = Arc::new(MemoryKv::new());
        let (kv, faults) = FaultyKv::new(Arc::clone(&memory));
        let chunks = Arc::new(ChunkFolder::open(folder.path().join("store")).unwrap());
        Self {
            folder,
            memory,
            faults,
            store: Arc::new(KvStore::open_inline(kv, [7; 32]).unwrap()),
            time: VirtualTime::new(),
            gate: Arc::default(),
            switch: Arc::default(),
            chunks,
        }
    }

    /// A data plane, as a new process would have it.
    pub(crate) fn plane(&self) -> DataPlane {
        let disks = GatedDisks(DiskFolder::new(self.folder.path().join("disks")), Arc::clone(&self.gate));
        DataPlane::new(disks, Doubled::new(Arc::clone(&self.chunks), Arc::clone(&self.switch)))
    }

    pub(crate) async fn start(&self) -> SnapshotService {
        self.start_on(self.plane()).await
    }

    pub(crate) async fn start_on(&self, plane: DataPlane) -> SnapshotService {
        self.try_start_on(plane).await.unwrap()
    }

    pub(crate) async fn try_start_on(&self, plane: DataPlane) -> Result<SnapshotService, BuildError> {
        self.start_with(plane, |builder| builder).await
    }

    pub(crate) async fn start_with(
        &self,
        plane: DataPlane,
        more: impl FnOnce(EngineBuilder) -> EngineBuilder,
    ) -> Result<SnapshotService, BuildError> {
        let builder = Engine::builder_shared(Arc::clone(&self.store)).environment(self.time.clone());
        let builder = more(SnapshotService::register(builder, &plane, Limits::documented()));
        Ok(SnapshotService::new(builder.start().await?, plane, Limits::documented()))
    }

    /// A store in memory, other than that of another number.
    pub(crate) fn store_of(number: u8) -> Arc<dyn Store> {
        Arc::new(KvStore::open_inline(MemoryKv::new(), [number; 32]).unwrap())
    }

    /// A service on the same disks and chunks, over another store.
    pub(crate) async fn start_over(&self, store: Arc<dyn Store>) -> SnapshotService {
        let (plane, limits) = (self.plane(), Limits::documented());
        let builder = Engine::builder_shared(store).environment(self.time.clone());
        let engine = SnapshotService::register(builder, &plane, limits).start().await.unwrap();
        SnapshotService::new(engine, plane, limits)
    }

    /// Writes rubbish over the first record whose key begins like this.
    pub(crate) fn damage(&self, table: Table, key: &[u8]) {
        let found = self.memory.scan(table, &KeyRange::prefix(key), Direction::Forward, 1).unwrap();
        let mut batch = Batch::default();
        batch.put(table, found[0].0.clone(), b"rubbish".to_vec());
        self.memory.commit(&batch).unwrap();
    }

    pub(crate) fn image(&self, disk: &str) -> PathBuf {
        self.folder.path().join(format!("disks/{disk}.raw"))
    }

    /// Makes a sparse disk with some bytes in it.
    pub(crate) fn disk(&self, disk: &str, length: u64, places: &[(u64, &[u8])]) {
        let file = std::fs::File::create(self.image(disk)).unwrap();
        file.set_len(length).unwrap();
        for (offset, bytes) in places {
            file.write_all_at(bytes, *offset).unwrap();
        }
    }

    /// A disk of one short chunk, whose bytes depend on `seed`.
    pub(crate) fn tiny_disk(&self, disk: &str, seed: u64) {
        self.disk(disk, 5000, &[(0, &noise(seed, 5000))]);
    }

    pub(crate) fn sidecar(&self, disk: &str, json: &str) {
        std::fs::write(self.folder.path().join(format!("disks/{disk}.json")), json).unwrap();
    }

    /// What a restored snapshot is, byte by byte.
    pub(crate) async fn restored(&self, service: &SnapshotService, id: &ResourceId) -> Vec<u8> {
        let target = self.folder.path().join(format!("{id}.restored"));
        service.restore(&caller(), &get_of(id), target.clone()).await.unwrap();
        let bytes = std::fs::read(&target).unwrap();
        std::fs::remove_file(target).unwrap();
        bytes
    }

    /// Everything in the chunk folder but the folders that are always there: paths, and lengths of files.
    pub(crate) fn files(&self) -> BTreeMap<String, u64> {
        let root = self.folder.path().join("store");
        let mut found = BTreeMap::new();
        walk(&root, &root, &mut found);
        let fixed = |path: &str| {
            let fan_out = path.strip_prefix("chunks/").is_some_and(|name| name.len() == 2);
            matches!(path, "chunks" | "manifests" | "drafts" | "owner") || fan_out
        };
        found.retain(|path, _| !fixed(path));
        found
    }

    /// The chunk files, with their lengths.
    pub(crate) fn chunk_files(&self) -> BTreeMap<String, u64> {
        let mut files = self.files();
        files.retain(|path, _| path.starts_with("chunks/"));
        files
    }

    pub(crate) fn path_of(&self, file: &str) -> PathBuf {
        self.folder.path().join("store").join(file)
    }

    /// Whether the store is in order, and what it holds. Only when nothing writes to it.
    pub(crate) fn counts(&self) -> Counts {
        verify_indexes(&self.memory as &dyn Kv).unwrap()
    }

    /// Nothing of any snapshot: no file, no row, no reference, no orphan.
    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(self.files(), BTreeMap::new());
        let counts = self.counts();
        let left = [counts.rows, counts.references, counts.items, counts.orphans, counts.unfinished];
        assert_eq!(left, [0; 5]);
    }
}

fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, u64>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let (path, meta) = entry.map(|entry| (entry.path(), entry.metadata())).unwrap();
        let meta = meta.unwrap();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        found.insert(name, if meta.is_file() { meta.len() } else { 0 });
        if meta.is_dir() {
            walk(root, &path, found);
        }
    }
}

/// Bytes that do not compress.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut dice = time::Dice::new(seed);
    (0..length.div_ceil(8)).flat_map(|_| dice.next().to_le_bytes()).take(length).collect()
}

/// Accepts a create and waits for its end.
pub(crate) async fn made(service: &SnapshotService, request: &CreateSnapshotRequest) -> Snapshot {
    let accepted = service.create(call(), request).await.unwrap();
    let done = done(service, &accepted).await;
    done.response().unwrap_or_else(|| panic!("{:?}", done.error())).decode().unwrap()
}

pub(crate) async fn done(service: &SnapshotService, operation: &Operation) -> Operation {
    service.engine().wait_done(operation.id()).await.unwrap()
}

/// Where a snapshot stands, for the tester.
pub(crate) async fn status(service: &SnapshotService, id: &ResourceId) -> Option<ResourceStatus> {
    service.engine().resource::<Snapshot>(id).await.unwrap().map(|found| found.row.status)
}

/// A chunk file, or where it was put when it was found damaged.
pub(crate) fn where_it_is(path: &Path) -> PathBuf {
    let damaged = path.ancestors().nth(3).unwrap().join("damaged").join(path.file_name().unwrap());
    if damaged.exists() { damaged } else { path.to_owned() }
}

pub(crate) fn flip_last_byte(path: &Path) {
    let path = &where_it_is(path);
    let mut bytes = std::fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(path, bytes).unwrap();
}

impl Lab {
    /// Waits until nothing that a service left behind is at work on the chunks any more.
    pub(crate) async fn settle(&self) {
        // The laboratory holds one itself; so does every data plane, and whatever works for one.
        let began = std::time::Instant::now();
        while Arc::strong_count(&self.chunks) > 1 {
            assert!(began.elapsed() < Duration::from_secs(30), "somebody goes on for ever");
            std::thread::sleep(millis(1));
            tokio::task::yield_now().await;
        }
    }
}
