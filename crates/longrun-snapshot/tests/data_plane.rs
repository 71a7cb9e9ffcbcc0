//! The data plane on real files: copies that share chunks, crashes, damage, disks and stores that fail.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use longrun_snapshot::data::*;
use proptest::prelude::*;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
static GO_ON: AtomicBool = AtomicBool::new(false);

/// A disk folder, a chunk folder, and who holds which chunk.
struct World {
    folder: TempDir,
    disks: DiskFolder,
    chunks: Arc<ChunkFolder>,
    references: Mutex<References>,
    runs: AtomicU64,
}

/// The references as the engine's store has them.
#[derive(Default)]
struct References {
    held: BTreeMap<(SnapshotId, Digest), Incarnation>,
    records: BTreeMap<Digest, (Incarnation, usize)>,
    count: usize,
}

impl References {
    fn take(&mut self, holder: &SnapshotId, digests: BTreeSet<Digest>) -> BTreeMap<Digest, Incarnation> {
        let mut taken = BTreeMap::new();
        for digest in digests {
            let record = self.records.entry(digest).or_insert_with(|| {
                self.count += 1;
                (format!("fdv-{}", self.count).parse().unwrap(), 0)
            });
            if self.held.insert((holder.clone(), digest), record.0.clone()).is_none() {
                record.1 += 1;
            }
            taken.insert(digest, record.0.clone());
        }
        taken
    }

    /// Drops all of a holder and returns what nobody holds now.
    fn drop_all(&mut self, holder: &SnapshotId) -> Vec<ChunkName> {
        let (dropped, kept) =
            std::mem::take(&mut self.held).into_iter().partition(|((of, _), _)| of == holder);
        self.held = kept;
        let dropped: BTreeMap<(SnapshotId, Digest), Incarnation> = dropped;
        let mut dead = Vec::new();
        for ((_, digest), incarnation) in dropped {
            let record = self.records.get_mut(&digest).unwrap();
            record.1 -= 1;
            if record.1 == 0 {
                self.records.remove(&digest);
                dead.push(ChunkName::new(digest, incarnation));
            }
        }
        dead
    }

    fn is_live(&self, name: &ChunkName) -> bool {
        self.records.get(&name.digest).is_some_and(|(incarnation, _)| *incarnation == name.incarnation)
    }
}

fn disk_id() -> DiskId {
    "disk-1".parse().unwrap()
}

fn snapshot() -> SnapshotId {
    "snap-1".parse().unwrap()
}

fn other() -> SnapshotId {
    "snap-2".parse().unwrap()
}

/// Bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The files below a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}

/// Everybody is known to have read back what he wrote.
fn trust_all(_: &Digest) -> bool {
    true
}

/// A copy under way: what a service does, in one place.
struct Copying<'a> {
    world: &'a World,
    snapshot: SnapshotId,
    reader: CopyReader,
    writer: CopyWriter,
}

impl Copying<'_> {
    /// The next batch, ready to be stored. `None`: all is read.
    fn next(&mut self, budget: u64) -> Result<Option<HashedBatch>, CopyError> {
        let Some(batch) = self.reader.next_batch(budget)? else { return Ok(None) };
        self.writer.hasher().hash(batch, &GO_ON).map(Some)
    }

    /// Copies one batch. `None`: all is copied.
    fn some(&mut self, budget: u64) -> Result<Option<Cursor>, CopyError> {
        let Some(batch) = self.next(budget)? else { return Ok(None) };
        let taken = self.world.references.lock().unwrap().take(&self.snapshot, batch.digests());
        self.writer.store(&batch, &taken, &trust_all, &GO_ON).map(Some)
    }

    fn finish(mut self, budget: u64) -> Result<Summary, CopyError> {
        while self.some(budget)?.is_some() {}
        self.writer.finish()
    }
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("disks")).unwrap();
        let disks = DiskFolder::new(folder.path().join("disks"));
        let chunks = Arc::new(ChunkFolder::open(folder.path().join("store")).unwrap());
        Self { folder, disks, chunks, references: Mutex::default(), runs: AtomicU64::new(0) }
    }

    /// A world with a disk of this size: all a hole but for the pieces given as offset and bytes.
    fn with_disk(size: u64, pieces: &[(u64, Vec<u8>)]) -> Self {
        let world = Self::new();
        world.write_disk(size, pieces);
        world
    }

    fn write_disk(&self, size: u64, pieces: &[(u64, Vec<u8>)]) {
        let file = File::create(self.image()).unwrap();
        for (offset, bytes) in pieces {
            file.write_all_at(bytes, *offset).unwrap();
        }
        file.set_len(size).unwrap();
        file.sync_all().unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn image(&self) -> PathBuf {
        self.path("disks/disk-1.raw")
    }

    fn disk(&self) -> Box<dyn DiskRead> {
        DiskSource::open(&self.disks, &disk_id()).unwrap()
    }

    /// Begins a new run, or what it says.
    fn copying_from(
        &self,
        disk: Box<dyn DiskRead>,
        store: Arc<dyn ChunkStore>,
        snapshot: SnapshotId,
        resume: Option<&Cursor>,
    ) -> Result<Copying<'_>, CopyError> {
        let run = format!("1-{}", self.runs.fetch_add(1, Ordering::Relaxed)).parse().unwrap();
        let reader = CopyReader::open(disk, resume)?;
        let writer = CopyWriter::open(store, snapshot.clone(), run, reader.info(), resume)?;
        Ok(Copying { world: self, snapshot, reader, writer })
    }

    fn try_copying(&self, resume: Option<&Cursor>) -> Result<Copying<'_>, CopyError> {
        self.copying_from(self.disk(), self.store(), snapshot(), resume)
    }

    fn copying(&self, resume: Option<&Cursor>) -> Copying<'_> {
        self.try_copying(resume).unwrap()
    }

    fn copy_to(&self, snapshot: SnapshotId) -> Summary {
        let copying = self.copying_from(self.disk(), self.store(), snapshot, None).unwrap();
        copying.finish(u64::MAX).unwrap()
    }

    fn copy(&self) -> Summary {
        self.copy_to(snapshot())
    }

    fn store(&self) -> Arc<dyn ChunkStore> {
        Arc::clone(&self.chunks) as Arc<dyn ChunkStore>
    }

    fn delete(&self, snapshot: &SnapshotId) {
        let dead = self.references.lock().unwrap().drop_all(snapshot);
        self.chunks.remove(&dead).unwrap();
        self.chunks.discard(snapshot).unwrap();
    }

    fn sweep(&self) -> Swept {
        let references = self.references.lock().unwrap();
        self.chunks
            .sweep(&mut |names| Ok(names.iter().map(|name| references.is_live(name)).collect()))
            .unwrap()
    }

    fn entries(&self, snapshot: &SnapshotId) -> Vec<ManifestEntry> {
        ManifestReader::open(&*self.chunks, snapshot).unwrap().map(Result::unwrap).collect()
    }

    fn verify(&self) -> Result<Verified, ReadBackError> {
        verify(&*self.chunks, &snapshot(), &mut |_| true)
    }

    fn restored(&self, snapshot: &SnapshotId) -> PathBuf {
        let target = self.path("restored");
        restore(&*self.chunks, snapshot, &target, &mut |_| true).unwrap();
        target
    }

    fn chunk_files(&self) -> Vec<PathBuf> {
        files(&self.path("store/chunks"))
    }

    fn chunk_path(&self, name: &ChunkName) -> PathBuf {
        let name = name.to_string();
        self.path("store/chunks").join(&name[..2]).join(name)
    }

    fn manifest_path(&self) -> PathBuf {
        self.path("store/manifests/snap-1")
    }

    /// What the files of all chunks take.
    fn stored_bytes(&self) -> u64 {
        self.chunk_files().iter().map(|path| path.metadata().unwrap().len()).sum()
    }

    /// The snapshot is complete and gives back the disk as it is now; there is no draft of it.
    fn assert_complete(&self) {
        let inspection = inspect(&*self.chunks, &snapshot()).unwrap();
        let verified = self.verify().unwrap();
        assert_eq!(verified.content_hash, inspection.summary.content_hash);
        assert_eq!(verified.chunks, inspection.summary.chunks);
        assert_eq!(inspection.header.disk_size, inspection.summary.disk_size);
        assert_eq!(inspection.entries.count() as u64, inspection.summary.chunks);
        assert_eq!(fs::read_dir(self.path("store/drafts")).unwrap().count(), 0);
        assert!(fs::read(self.restored(&snapshot())).unwrap() == fs::read(self.image()).unwrap());
    }

    /// As [`Self::assert_complete`], and the store has the chunks of this snapshot and nothing else.
    fn assert_alone(&self) {
        self.assert_complete();
        let names: BTreeSet<_> = self.entries(&snapshot()).into_iter().map(|entry| entry.name).collect();
        assert_eq!(self.chunk_files(), names.iter().map(|name| self.chunk_path(name)).collect::<Vec<_>>());
        let summary = inspect(&*self.chunks, &snapshot()).unwrap().summary;
        assert_eq!(summary.stored_bytes, self.stored_bytes());
    }

    fn assert_nothing_left(&self) {
        assert_eq!(files(&self.path("store")), Vec::<PathBuf>::new());
        assert_eq!(fs::read_dir(self.path("store/drafts")).unwrap().count(), 0);
    }
}

/// Five chunks and a bit: noise, a hole, text over a border, zeros that are written, noise, a short end.
fn mixed() -> World {
    let text = b"to be or not to be, that is the question\n".repeat(10_000);
    World::with_disk(
        5 * CHUNK_BYTES + 1234,
        &[
            (0, noise(1, 100_000)),
            (3 * CHUNK_BYTES - 200_000, text),
            (3 * CHUNK_BYTES + MIB, vec![0; 50_000]),
            (4 * CHUNK_BYTES + 17, noise(2, 3 * MIB as usize)),
            (5 * CHUNK_BYTES + 1000, b"the end".to_vec()),
        ],
    )
}

/// A wrapper that counts what is read, and fails where it is told to.
struct Watched {
    inner: Box<dyn DiskRead>,
    read: Arc<AtomicU64>,
    /// What was announced, up to here.
    announced: Arc<AtomicU64>,
    fail_at: Option<u64>,
}

impl DiskRead for Watched {
    fn info(&self) -> &DiskInfo {
        self.inner.info()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let range = offset..offset + buffer.len() as u64;
        if let Some(offset) = self.fail_at.filter(|at| range.contains(at)) {
            let source = io::Error::other("medium error");
            return Err(DiskError::Read { disk: self.info().id.clone(), offset, source });
        }
        assert!(range.end <= self.announced.load(Ordering::Relaxed), "{range:?} was not announced");
        self.read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.inner.read_at(offset, buffer)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskError> {
        self.inner.next_data(offset)
    }

    fn will_read(&self, range: Range<u64>) {
        assert_eq!(self.next_data(range.start).unwrap().map(|data| data.start), Some(range.start), "a hole");
        self.announced.fetch_max(range.end, Ordering::Relaxed);
        self.inner.will_read(range);
    }

    fn check_unchanged(&self) -> Result<(), DiskError> {
        self.inner.check_unchanged()
    }
}

/// A store that counts, and fails where it is told to.
#[derive(Debug)]
struct Troubled {
    inner: Arc<ChunkFolder>,
    /// How many chunks there is room for.
    room: AtomicU64,
    /// How many bytes of drafts there is room for.
    draft_room: Arc<AtomicU64>,
    panics: bool,
    puts: AtomicU64,
    gets: AtomicU64,
}

impl Troubled {
    fn new(world: &World) -> Self {
        Self {
            inner: Arc::clone(&world.chunks),
            room: AtomicU64::new(u64::MAX),
            draft_room: Arc::new(AtomicU64::new(u64::MAX)),
            panics: false,
            puts: AtomicU64::new(0),
            gets: AtomicU64::new(0),
        }
    }
}

fn full(what: Subject) -> ChunkError {
    ChunkError::of_io("write", what, None, io::ErrorKind::StorageFull.into())
}

fn fits(room: &AtomicU64, bytes: u64) -> bool {
    room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(bytes)).is_ok()
}

impl ChunkStore for Troubled {
    fn claim(&self, owner: &Owner, epoch: u64) -> Result<(), ChunkError> {
        self.inner.claim(owner, epoch)
    }

    fn put(&self, name: &ChunkName, plain: &[u8]) -> Result<u64, ChunkError> {
        assert!(!self.panics, "oh");
        if !fits(&self.room, 1) {
            return Err(full(Subject::Chunk(name.clone())));
        }
        self.puts.fetch_add(1, Ordering::Relaxed);
        self.inner.put(name, plain)
    }

    fn find(&self, name: &ChunkName) -> Result<Option<u64>, ChunkError> {
        self.inner.find(name)
    }

    fn get(&self, name: &ChunkName) -> Result<Vec<u8>, ChunkError> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        self.inner.get(name)
    }

    fn sync(&self, names: &[ChunkName]) -> Result<(), ChunkError> {
        self.inner.sync(names)
    }

    fn remove(&self, names: &[ChunkName]) -> Result<(), ChunkError> {
        self.inner.remove(names)
    }

    fn sweep(&self, is_live: &mut IsLive<'_>) -> Result<Swept, SweepError> {
        self.inner.sweep(is_live)
    }

    fn begin_draft(&self, snapshot: &SnapshotId, run: &RunName) -> Result<Box<dyn Draft>, ChunkError> {
        let (draft, room) = (self.inner.begin_draft(snapshot, run)?, Arc::clone(&self.draft_room));
        Ok(Box::new(TroubledDraft { snapshot: snapshot.clone(), draft, room }))
    }

    fn read_draft(&self, snapshot: &SnapshotId, run: &RunName) -> Result<Option<ByteStream>, ChunkError> {
        self.inner.read_draft(snapshot, run)
    }

    fn seal(&self, snapshot: &SnapshotId, run: &RunName) -> Result<(), ChunkError> {
        self.inner.seal(snapshot, run)
    }

    fn read_manifest(&self, snapshot: &SnapshotId) -> Result<Option<ByteStream>, ChunkError> {
        self.inner.read_manifest(snapshot)
    }

    fn discard_drafts(&self, snapshot: &SnapshotId) -> Result<bool, ChunkError> {
        self.inner.discard_drafts(snapshot)
    }

    fn discard(&self, snapshot: &SnapshotId) -> Result<(), ChunkError> {
        self.inner.discard(snapshot)
    }

    fn snapshots(
        &self,
        see: &mut dyn FnMut(&[SnapshotId]) -> Result<(), BoxError>,
    ) -> Result<(), SweepError> {
        self.inner.snapshots(see)
    }
}

#[derive(Debug)]
struct TroubledDraft {
    snapshot: SnapshotId,
    draft: Box<dyn Draft>,
    room: Arc<AtomicU64>,
}

impl Draft for TroubledDraft {
    fn append(&mut self, bytes: &[u8]) -> Result<(), ChunkError> {
        if fits(&self.room, bytes.len() as u64) {
            return self.draft.append(bytes);
        }
        // As a full disk has it: a part is written.
        let room = self.room.swap(0, Ordering::Relaxed) as usize;
        self.draft.append(&bytes[..room])?;
        Err(full(Subject::Draft(self.snapshot.clone())))
    }

    fn sync(&mut self) -> Result<(), ChunkError> {
        self.draft.sync()
    }
}

// Round trips.

#[test]
fn sparse_images_come_back() {
    let world = mixed();
    world.copy();
    world.assert_alone();
    let images = [
        (0, vec![]),
        (1, vec![(0, vec![9])]),
        (1, vec![]),
        (3 * CHUNK_BYTES, vec![]),
        (3 * CHUNK_BYTES, vec![(0, vec![0; 3 * CHUNK_BYTES as usize])]),
        (3 * CHUNK_BYTES, vec![(2 * CHUNK_BYTES, noise(3, 1000))]),
        (3 * CHUNK_BYTES, vec![(0, noise(4, 1000)), (3 * CHUNK_BYTES - 1, vec![1])]),
        (3 * CHUNK_BYTES + 1, vec![(3 * CHUNK_BYTES, vec![1])]),
        (2 * CHUNK_BYTES - 1, vec![(CHUNK_BYTES - 2, vec![1, 2])]),
        (2 * CHUNK_BYTES, vec![(0, noise(5, 2 * CHUNK_BYTES as usize))]),
        (10 * CHUNK_BYTES, (0..10).map(|index| (index * CHUNK_BYTES, noise(index, 10))).collect()),
    ];
    for (size, pieces) in images {
        let world = World::with_disk(size, &pieces);
        assert_eq!(world.copy().disk_size, size);
        world.assert_alone();
    }
}

#[test]
fn zeros_take_no_room_and_holes_are_not_read() {
    let world = mixed();
    let (read, announced) = (Arc::new(AtomicU64::new(0)), Arc::<AtomicU64>::default());
    let disk =
        Watched { inner: world.disk(), read: read.clone(), announced: announced.clone(), fail_at: None };
    let copying = world.copying_from(Box::new(disk), world.store(), snapshot(), None).unwrap();
    let summary = copying.finish(u64::MAX).unwrap();
    let indexes: Vec<u64> = world.entries(&snapshot()).iter().map(|entry| entry.index).collect();
    assert_eq!(indexes, [0, 2, 3, 4, 5]);
    // Data is about 3.6 MiB; the file system rounds to its blocks.
    assert!(read.load(Ordering::Relaxed) < 5 * MIB, "{read:?}");
    assert_eq!(announced.load(Ordering::Relaxed), 5 * CHUNK_BYTES + 1234);
    assert!(summary.stored_bytes < 4 * MIB);
    world.assert_alone();
}

#[test]
fn a_restored_file_is_sparse() {
    let world = mixed();
    world.copy();
    let restored = world.restored(&snapshot()).metadata().unwrap();
    assert_eq!(restored.len(), 5 * CHUNK_BYTES + 1234);
    assert!(restored.blocks() * 512 < 5 * MIB);
}

#[test]
fn the_content_hash_is_that_of_the_bytes_not_of_the_holes() {
    let bytes = noise(1, 10_000);
    let sparse = World::with_disk(2 * CHUNK_BYTES, &[(0, bytes.clone())]);
    let full =
        World::with_disk(2 * CHUNK_BYTES, &[(0, vec![0; 2 * CHUNK_BYTES as usize]), (0, bytes.clone())]);
    let longer = World::with_disk(2 * CHUNK_BYTES + 1, &[(0, bytes.clone())]);
    let moved = World::with_disk(2 * CHUNK_BYTES, &[(CHUNK_BYTES, bytes)]);
    let hash = sparse.copy().content_hash;
    assert_eq!(hash, full.copy().content_hash);
    assert_ne!(hash, longer.copy().content_hash);
    assert_ne!(hash, moved.copy().content_hash);
}

#[test]
fn restore_takes_the_place_of_a_file_only_when_all_is_well() {
    let world = mixed();
    world.copy();
    let target = world.path("restored");
    fs::write(&target, "old").unwrap();
    let stopped = restore(&*world.chunks, &snapshot(), &target, &mut |offset| offset < CHUNK_BYTES);
    assert!(matches!(stopped, Err(ReadBackError::Stopped { .. })));
    assert_eq!(fs::read(&target).unwrap(), b"old");
    assert_eq!(fs::read_dir(world.folder.path()).unwrap().count(), 3, "a temporary file is left");
    world.assert_complete();
}

// Sharing.

#[test]
fn a_chunk_that_occurs_again_takes_its_room_once() {
    let same = noise(1, CHUNK_BYTES as usize);
    let pieces: Vec<_> = (0..5).map(|index| (2 * index * CHUNK_BYTES, same.clone())).collect();
    let world = World::with_disk(10 * CHUNK_BYTES, &pieces);
    for budget in [u64::MAX, CHUNK_BYTES] {
        let summary = world.copying(None).finish(budget).unwrap();
        assert_eq!((summary.chunks, summary.stored_bytes), (5, CHUNK_BYTES + 64));
        world.assert_alone();
    }
    // It was written for the first of its places; the second copy has found it.
    assert!(world.entries(&snapshot()).iter().all(|entry| !entry.fresh));
    world.delete(&snapshot());
    world.copy();
    let fresh: Vec<bool> = world.entries(&snapshot()).iter().map(|entry| entry.fresh).collect();
    assert_eq!(fresh, [true, false, false, false, false]);
}

#[test]
fn snapshots_share_what_is_the_same_and_keep_what_they_need() {
    let world = mixed();
    let first = world.copy();
    let all = world.stored_bytes();
    let second = world.copy_to(other());
    assert_eq!((second, world.stored_bytes()), (first, all));
    assert!(world.entries(&other()).iter().all(|entry| !entry.fresh));

    world.delete(&snapshot());
    assert!(matches!(world.verify(), Err(ReadBackError::Chunk(ChunkError::NoManifest { .. }))));
    assert_eq!(world.stored_bytes(), all);
    assert!(fs::read(world.restored(&other())).unwrap() == fs::read(world.image()).unwrap());
    assert_eq!(world.sweep(), Swept { kept: 5, ..Swept::default() });
    world.delete(&other());
    world.assert_nothing_left();
}

#[test]
fn a_second_snapshot_writes_only_what_changed() {
    let size = 50 * CHUNK_BYTES;
    let mut pieces: Vec<_> = (0..50).map(|index| (index * CHUNK_BYTES + 5000, noise(index, 5000))).collect();
    let world = World::with_disk(size, &pieces);
    world.copy_to(other());
    let before = world.chunk_files().len();
    pieces[42].1 = noise(1000, 5000);
    world.write_disk(size, &pieces);

    let store = Arc::new(Troubled::new(&world));
    let copying = world.copying_from(world.disk(), store.clone(), snapshot(), None).unwrap();
    copying.finish(u64::MAX).unwrap();
    assert_eq!(store.puts.load(Ordering::Relaxed), 1);
    assert_eq!(world.chunk_files().len(), before + 1);
    let fresh: Vec<_> = world.entries(&snapshot()).into_iter().filter(|entry| entry.fresh).collect();
    assert_eq!(fresh.iter().map(|entry| entry.index).collect::<Vec<_>>(), [42]);
    world.assert_complete();

    // Only what was written is read back.
    let read_back = |of: &SnapshotId| {
        let before = store.gets.load(Ordering::Relaxed);
        let verified = verify_fresh(&*store, of, &mut |_| true).unwrap();
        assert_eq!(store.gets.load(Ordering::Relaxed) - before, verified.chunks);
        verified.chunks
    };
    assert_eq!(read_back(&snapshot()), 1);

    // Or what was found, but is not known to have been read back by those who wrote it.
    let third: SnapshotId = "snap-3".parse().unwrap();
    let mut copying = world.copying_from(world.disk(), store.clone(), third.clone(), None).unwrap();
    let doubtful: BTreeSet<_> = world.entries(&snapshot())[..7].iter().map(|it| it.name.digest).collect();
    while let Some(batch) = copying.next(u64::MAX).unwrap() {
        let taken = world.references.lock().unwrap().take(&third, batch.digests());
        let trusted = |digest: &Digest| !doubtful.contains(digest);
        copying.writer.store(&batch, &taken, &trusted, &GO_ON).unwrap();
    }
    copying.writer.finish().unwrap();
    assert_eq!(store.puts.load(Ordering::Relaxed), 1, "all are there");
    assert_eq!(read_back(&third), 7);
}

#[test]
fn a_digest_that_comes_back_is_not_hit_by_a_late_removal() {
    let world = mixed();
    world.copy();
    let dead = world.references.lock().unwrap().drop_all(&snapshot());
    world.copy_to(other());
    world.chunks.remove(&dead).unwrap();
    world.chunks.discard(&snapshot()).unwrap();
    verify(&*world.chunks, &other(), &mut |_| true).unwrap();
    assert_eq!(world.chunk_files().len(), 5);
}

// Going on after a crash.

/// Copies chunk by chunk: all cursors there are, and the copy that gave them.
fn all_cursors(world: &World) -> (Vec<Cursor>, Copying<'_>) {
    let mut copying = world.copying(None);
    let mut cursors = vec![copying.writer.cursor().clone()];
    while let Some(cursor) = copying.some(1).unwrap() {
        cursors.push(cursor);
    }
    (cursors, copying)
}

#[test]
fn a_copy_goes_on_from_every_cursor_and_every_crash_after_it() {
    let world = mixed();
    let expected = world.copying(None).finish(1).unwrap();
    let manifest = fs::read(world.manifest_path()).unwrap();
    let count = all_cursors(&world).0.len();
    assert_eq!(count, 6);
    for saved in 0..count {
        for crash_after in 0..count - saved {
            world.delete(&snapshot());
            world.references.lock().unwrap().count = 0;
            let mut first = world.copying(None);
            (0..saved).for_each(|_| drop(first.some(1).unwrap()));
            let json = serde_json::to_string(first.writer.cursor()).unwrap();
            (0..crash_after).for_each(|_| drop(first.some(1).unwrap()));

            let cursor: Cursor = serde_json::from_str(&json).unwrap();
            let second = world.copying(Some(&cursor));
            let now = second.writer.cursor();
            assert_eq!((now.offset(), now.bytes_read()), (cursor.offset(), cursor.bytes_read()));
            assert_eq!((now.chunks(), second.reader.offset()), (cursor.chunks(), cursor.offset()));
            assert_eq!(second.finish(1).unwrap(), expected);
            world.assert_alone();
            if crash_after == 0 {
                assert_eq!(fs::read(world.manifest_path()).unwrap(), manifest);
            }
        }
    }
}

#[test]
fn a_run_that_was_taken_for_dead_does_no_harm() {
    let world = mixed();
    let mut zombie = world.copying(None);
    zombie.some(1).unwrap();
    let cursor = zombie.some(1).unwrap().unwrap();
    let mut second = world.copying(Some(&cursor));
    second.some(1).unwrap();
    // It goes on in its own draft, of which the second run has a copy.
    while zombie.some(1).unwrap().is_some() {}
    second.finish(1).unwrap();
    world.assert_alone();
    let error = zombie.writer.finish().unwrap_err();
    assert!(matches!(error, CopyError::Superseded { .. }), "{error}");
    world.assert_alone();
}

#[test]
fn a_copy_that_goes_on_after_its_snapshot_is_removed_leaves_rubbish_only() {
    let world = mixed();
    let mut late = world.copying(None);
    late.some(1).unwrap();
    // The batch that is being stored when the rollback comes by.
    let batch = late.next(1).unwrap().unwrap();
    let taken = world.references.lock().unwrap().take(&snapshot(), batch.digests());
    world.delete(&snapshot());
    world.assert_nothing_left();
    let error = late.writer.store(&batch, &taken, &trust_all, &GO_ON).unwrap_err();
    assert!(matches!(error, CopyError::Superseded { .. }), "{error}");
    assert_eq!(world.chunk_files().len(), 1);
    let swept = world.sweep();
    assert_eq!((swept.removed, swept.kept), (1, 0));
    world.assert_nothing_left();
}

#[test]
fn a_crash_after_the_end_changes_nothing() {
    let world = mixed();
    let (cursors, copying) = all_cursors(&world);
    let expected = copying.writer.finish().unwrap();
    let manifest = fs::read(world.manifest_path()).unwrap();
    for cursor in cursors.iter().rev().map(Some).chain([None]) {
        // There is no draft any more, but the manifest begins as the draft did.
        assert_eq!(world.copying(cursor).finish(1).unwrap(), expected);
        world.assert_alone();
        if cursor == cursors.last() {
            assert_eq!(fs::read(world.manifest_path()).unwrap(), manifest);
        }
    }
}

#[test]
fn what_was_stored_after_the_cursor_is_not_believed() {
    let world = mixed();
    let cursors = all_cursors(&world).0;
    // The guest discards and writes between the crash and the restart.
    world.write_disk(5 * CHUNK_BYTES + 1234, &[(CHUNK_BYTES, noise(9, 5000))]);
    world.copying(Some(&cursors[0])).finish(1).unwrap();
    world.assert_complete();
}

#[test]
fn the_cursor_is_small_for_any_disk() {
    let world = World::with_disk(1 << 40, &[((1 << 40) - 5, vec![1; 5])]);
    let mut copying = world.copying(None);
    let cursor = copying.some(1).unwrap().unwrap();
    assert_eq!((cursor.offset(), cursor.chunks(), cursor.is_done()), (1 << 40, 1, true));
    assert!(serde_json::to_string(&cursor).unwrap().len() < 500);
}

#[test]
fn a_draft_that_is_not_as_the_cursor_says_is_lost() {
    let world = mixed();
    let (cursors, _copying) = all_cursors(&world);
    let cursor = cursors.last().unwrap();
    let draft = world.path("store/drafts/snap-1").join(cursor.run().as_str());
    let good = fs::read(&draft).unwrap();
    let assert_lost = |what: &str| match world.try_copying(Some(cursor)) {
        Err(CopyError::Lost { .. }) => {}
        other => panic!("{what}: {:?}", other.map(|copying| copying.writer)),
    };
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(&draft, &bad).unwrap();
        assert_lost(&format!("byte {at}"));
    }
    for length in (0..good.len()).step_by(7) {
        fs::write(&draft, &good[..length]).unwrap();
        assert_lost(&format!("cut at {length}"));
    }
    fs::remove_file(&draft).unwrap();
    assert_lost("removed");
    // What comes behind does not matter.
    fs::write(&draft, [&good[..], b"more"].concat()).unwrap();
    world.copying(Some(cursor)).finish(1).unwrap();
    world.assert_alone();
    // And a copy from the start does.
    world.chunks.discard(&snapshot()).unwrap();
    assert_lost("discarded");
    world.copying(None).finish(1).unwrap();
    world.assert_alone();
}

#[test]
fn a_manifest_of_another_copy_is_not_taken_for_the_draft() {
    let world = mixed();
    let (cursors, copying) = all_cursors(&world);
    drop(copying);
    world.write_disk(5 * CHUNK_BYTES + 1234, &[(0, noise(9, 5000))]);
    world.copy();
    let error = world.try_copying(cursors.last()).map(|copying| copying.writer).unwrap_err();
    assert!(matches!(error, CopyError::Lost { .. }), "{error}");
    world.copy();
    world.assert_complete();
}

#[test]
fn a_cursor_of_another_disk_is_refused() {
    let world = mixed();
    let cursor = all_cursors(&world).0.pop().unwrap();
    let refused = |cursor: &Cursor| {
        let error = CopyReader::open(world.disk(), Some(cursor)).unwrap_err();
        let run = "2-1".parse().unwrap();
        let again = CopyWriter::open(world.store(), snapshot(), run, world.disk().info(), Some(cursor));
        assert_eq!(again.unwrap_err().to_string(), error.to_string());
        error
    };
    let mut json = serde_json::to_value(&cursor).unwrap();
    for offset in [1, 6 * CHUNK_BYTES] {
        json["offset"] = offset.into();
        let error = refused(&serde_json::from_value(json.clone()).unwrap());
        assert!(matches!(error, CopyError::BadCursor { .. }), "{error}");
    }
    let mut json = serde_json::to_value(&cursor).unwrap();
    json["chunk_bytes"] = (CHUNK_BYTES / 2).into();
    let error = refused(&serde_json::from_value(json).unwrap());
    assert!(matches!(error, CopyError::BadCursor { .. }), "{error}");

    // The same file of another size, and another file of the same size.
    world.write_disk(CHUNK_BYTES, &[]);
    let error = refused(&cursor);
    assert!(matches!(error, CopyError::Disk(DiskError::Changed { .. })), "{error}");
    fs::remove_file(world.image()).unwrap();
    world.write_disk(cursor.disk_size(), &[]);
    let error = refused(&cursor);
    assert!(matches!(error, CopyError::Disk(DiskError::Replaced { .. })), "{error}");
}

// Batches.

#[test]
fn batches_keep_to_their_budget() {
    let world = World::with_disk(20 * CHUNK_BYTES, &[(0, noise(1, 20 * CHUNK_BYTES as usize))]);
    let mut reader = CopyReader::open(world.disk(), None).unwrap();
    let mut batch = |budget| {
        let batch = reader.next_batch(budget).unwrap().unwrap();
        assert_eq!(batch.bytes_read(), batch.chunk_bytes());
        (batch.chunk_bytes() / CHUNK_BYTES, batch.offset() / CHUNK_BYTES)
    };
    assert_eq!(batch(0), (1, 1));
    assert_eq!(batch(2 * CHUNK_BYTES), (2, 3));
    assert_eq!(batch(CHUNK_BYTES + 1), (2, 5));
    let most = BATCH_BYTES_MAX / CHUNK_BYTES;
    for at in [5, 5 + most, 5 + 2 * most] {
        assert_eq!(batch(u64::MAX), (most, at + most));
    }
    assert_eq!(batch(u64::MAX), (20 - 5 - 3 * most, 20));
    assert!(reader.next_batch(u64::MAX).unwrap().is_none());
}

#[test]
fn zeros_that_are_written_are_read_but_bounded() {
    let world = World::with_disk(10 * CHUNK_BYTES, &[(0, vec![0; 10 * CHUNK_BYTES as usize])]);
    let mut copying = world.copying(None);
    let cursor = copying.some(u64::MAX).unwrap().unwrap();
    assert_eq!(
        (cursor.offset(), cursor.chunks(), cursor.bytes_read()),
        (BATCH_BYTES_MAX, 0, BATCH_BYTES_MAX)
    );
    let summary = copying.finish(u64::MAX).unwrap();
    assert_eq!((summary.chunks, summary.stored_bytes), (0, 0));
    world.assert_alone();
}

#[test]
fn batches_are_stored_in_order_and_with_an_incarnation() {
    let world = mixed();
    let mut copying = world.copying(None);
    let first = copying.next(1).unwrap().unwrap();
    let second = copying.next(1).unwrap().unwrap();
    let taken = world.references.lock().unwrap().take(&snapshot(), second.digests());
    let error = copying.writer.store(&second, &taken, &trust_all, &GO_ON).unwrap_err();
    assert!(matches!(error, CopyError::OutOfOrder { expected: 0, .. }), "{error}");
    // It is not known any more what is durable.
    let error = copying.writer.store(&first, &taken, &trust_all, &GO_ON).unwrap_err();
    assert!(matches!(error, CopyError::Failed { .. }), "{error}");
    assert!(matches!(copying.writer.finish(), Err(CopyError::Failed { .. })));

    let mut copying = world.copying(None);
    let error = copying.writer.store(&first, &taken, &trust_all, &GO_ON).unwrap_err();
    assert!(matches!(error, CopyError::NoIncarnation { .. }), "{error}");

    let mut copying = world.copying(None);
    copying.some(1).unwrap();
    let error = copying.writer.finish().unwrap_err();
    assert!(matches!(error, CopyError::Unfinished { offset: CHUNK_BYTES, .. }), "{error}");
    assert!(matches!(world.verify(), Err(ReadBackError::Chunk(ChunkError::NoManifest { .. }))));
}

#[test]
fn a_copy_that_is_told_to_stop_neither_hashes_nor_stores() {
    let world = World::with_disk(BATCH_BYTES_MAX, &[(0, noise(1, BATCH_BYTES_MAX as usize))]);
    let store = Arc::new(Troubled::new(&world));
    let mut copying = world.copying_from(world.disk(), store.clone(), snapshot(), None).unwrap();
    let cursor = copying.writer.cursor().clone();
    let batch = copying.next(u64::MAX).unwrap().unwrap();
    assert_eq!(batch.digests().len(), 4);
    let taken = world.references.lock().unwrap().take(&snapshot(), batch.digests());
    let stop = AtomicBool::new(true);
    let error = copying.writer.store(&batch, &taken, &trust_all, &stop).unwrap_err();
    assert!(matches!(error, CopyError::Stopped { .. }), "{error}");
    assert_eq!(store.puts.load(Ordering::Relaxed), 0);
    let mut copying = world.copying(Some(&cursor));
    let batch = copying.reader.next_batch(u64::MAX).unwrap().unwrap();
    let error = copying.writer.hasher().hash(batch, &stop).unwrap_err();
    assert!(matches!(error, CopyError::Stopped { .. }), "{error}");
    world.copying(Some(&cursor)).finish(u64::MAX).unwrap();
    world.assert_alone();
}

#[test]
fn a_panic_in_the_store_is_an_error() {
    let world = mixed();
    let store = Troubled { panics: true, ..Troubled::new(&world) };
    let copying = world.copying_from(world.disk(), Arc::new(store), snapshot(), None).unwrap();
    let error = copying.finish(u64::MAX).unwrap_err();
    assert!(matches!(error, CopyError::Panicked { .. }), "{error}");
    assert!(format!("{error:?}").contains("oh") && !error.to_string().contains("oh"));
    world.copy();
    world.assert_alone();
}

#[test]
fn a_full_store_is_no_space_and_nothing_is_lost() {
    let world = mixed();
    let expected = world.copy();
    let drafts: u64 = fs::metadata(world.manifest_path()).unwrap().len();
    world.delete(&snapshot());
    let rooms =
        (0..5).map(|room| (room, u64::MAX)).chain((0..drafts).step_by(50).map(|room| (u64::MAX, room)));
    for (room, draft_room) in rooms {
        let store = Troubled::new(&world);
        store.room.store(room, Ordering::Relaxed);
        store.draft_room.store(draft_room, Ordering::Relaxed);
        let mut saved = None;
        let copied = world.copying_from(world.disk(), Arc::new(store), snapshot(), None);
        let copied = copied.and_then(|mut copying| {
            while let Some(cursor) = copying.some(1)? {
                saved = Some(cursor);
            }
            copying.writer.finish()
        });
        let error = copied.unwrap_err();
        assert!(matches!(error, CopyError::Chunk(ChunkError::NoSpace { .. })), "{error}");
        // When there is space again it goes on.
        assert_eq!(world.copying(saved.as_ref()).finish(1).unwrap(), expected);
        world.assert_alone();
        world.delete(&snapshot());
        world.assert_nothing_left();
    }
}

// Disks that fail.

#[test]
fn a_read_error_names_the_offset() {
    let world = mixed();
    let bad = 4 * CHUNK_BYTES + MIB;
    let disk =
        Watched { inner: world.disk(), read: Arc::default(), announced: Arc::default(), fail_at: Some(bad) };
    let mut copying = world.copying_from(Box::new(disk), world.store(), snapshot(), None).unwrap();
    let mut saved = None;
    let error = loop {
        match copying.some(1) {
            Ok(cursor) => saved = cursor,
            Err(error) => break error,
        }
    };
    assert_eq!(error.to_string(), format!("cannot read disk disk-1 at offset {bad}"));
    assert_eq!(error.source().unwrap().to_string(), "medium error");
    // The reader has not gone on.
    assert_eq!(copying.some(1).unwrap_err().to_string(), error.to_string());
    assert_eq!(saved.as_ref().unwrap().offset(), 4 * CHUNK_BYTES);
    world.copying(saved.as_ref()).finish(1).unwrap();
    world.assert_alone();
}

/// What a copy says when this happens to the image after its first chunk.
fn in_mid_copy(happens: impl FnOnce(&World)) -> String {
    let world = mixed();
    let mut copying = world.copying(None);
    copying.some(1).unwrap();
    happens(&world);
    let error = copying.finish(u64::MAX).unwrap_err().to_string();
    assert!(matches!(world.verify(), Err(ReadBackError::Chunk(ChunkError::NoManifest { .. }))));
    error
}

#[test]
fn a_disk_that_changes_in_mid_copy() {
    let resize = |length| {
        move |world: &World| File::options().write(true).open(world.image()).unwrap().set_len(length).unwrap()
    };
    let was = 5 * CHUNK_BYTES + 1234;
    let changed = |now| format!("disk disk-1 changed its size from {was} to {now} bytes");
    for now in [0, 1, CHUNK_BYTES, 4 * CHUNK_BYTES + MIB, was - 1, was + 1] {
        assert_eq!(in_mid_copy(resize(now)), changed(now));
    }
    assert_eq!(in_mid_copy(|world| fs::remove_file(world.image()).unwrap()), "disk disk-1 vanished");
    let replaced = in_mid_copy(|world| {
        fs::copy(world.image(), world.path("other")).unwrap();
        fs::rename(world.path("other"), world.image()).unwrap();
    });
    assert_eq!(replaced, "disk disk-1 was replaced by another file");
}

#[test]
fn a_disk_that_changes_before_the_end_is_no_snapshot() {
    let world = mixed();
    let mut copying = world.copying(None);
    while !copying.some(1).unwrap().unwrap().is_done() {}
    fs::remove_file(world.image()).unwrap();
    assert!(matches!(copying.finish(1), Err(CopyError::Disk(DiskError::Vanished { .. }))));
    assert!(matches!(world.verify(), Err(ReadBackError::Chunk(ChunkError::NoManifest { .. }))));
}

#[test]
fn a_read_past_the_end_is_a_short_read() {
    let world = World::with_disk(1000, &[]);
    let error = world.disk().read_at(900, &mut [0; 150]).unwrap_err();
    assert_eq!(error.to_string(), "disk disk-1 ends at offset 1000, 50 bytes too early");

    let disk = world.disk();
    world.write_disk(10, &[]);
    let error = disk.read_at(0, &mut [0; 1000]).unwrap_err();
    assert_eq!(error.to_string(), "disk disk-1 changed its size from 1000 to 10 bytes");
}

#[test]
fn what_is_no_disk() {
    let world = mixed();
    let open = |id: &str| world.disks.open(&id.parse().unwrap()).unwrap_err();
    assert!(matches!(open("none"), DiskError::NotFound { .. }));

    fs::write(world.path("secret"), "secret").unwrap();
    symlink(world.path("secret"), world.path("disks/link.raw")).unwrap();
    symlink("disk-1.raw", world.path("disks/near.raw")).unwrap();
    fs::create_dir(world.path("disks/folder.raw")).unwrap();
    for id in ["link", "near", "folder"] {
        assert!(matches!(open(id), DiskError::NotAFile { .. }), "{id}");
    }
}

#[test]
fn a_disk_too_large_is_refused() {
    struct Huge(DiskInfo);
    impl DiskRead for Huge {
        fn info(&self) -> &DiskInfo {
            &self.0
        }
        fn read_at(&self, _: u64, _: &mut [u8]) -> Result<(), DiskError> {
            Ok(())
        }
        fn next_data(&self, _: u64) -> Result<Option<Range<u64>>, DiskError> {
            Ok(None)
        }
        fn check_unchanged(&self) -> Result<(), DiskError> {
            Ok(())
        }
    }
    let world = World::new();
    let open = |size| {
        let identity = String::new();
        let disk = Huge(DiskInfo { id: disk_id(), size, identity, product_ids: vec![], folder_id: None });
        world.copying_from(Box::new(disk), world.store(), snapshot(), None)
    };
    assert_eq!(DISK_BYTES_MAX, 28_587_302_322_176, "the API's largest disk");
    assert!(matches!(open(DISK_BYTES_MAX + 1), Err(CopyError::TooLarge { .. })));
    world.assert_nothing_left();
    open(DISK_BYTES_MAX).unwrap().finish(1).unwrap();
}

#[test]
fn the_identity_is_that_of_the_file() {
    let world = mixed();
    let identity = || world.disk().info().identity.clone();
    let first = identity();
    world.write_disk(10, &[]);
    assert_eq!(identity(), first);
    fs::remove_file(world.image()).unwrap();
    world.write_disk(10, &[]);
    assert_ne!(identity(), first);
}

#[test]
fn sidecars() {
    let world = mixed();
    let with = |text: &str| {
        fs::write(world.path("disks/disk-1.json"), text).unwrap();
        world.disks.open(&disk_id()).map(|disk| disk.info().clone())
    };
    let info = with(r#"{"product_ids": ["p1", "p2"], "folder_id": "f"}"#).unwrap();
    assert_eq!((info.product_ids, info.folder_id), (vec!["p1".into(), "p2".into()], Some("f".into())));
    assert_eq!(with("{}").unwrap().product_ids, Vec::<String>::new());
    let long = format!("{{{}}}", " ".repeat(64 * 1024));
    for bad in ["", "[]x", r#"{"products": []}"#, r#"{"product_ids": 1}"#, &long] {
        assert!(matches!(with(bad), Err(DiskError::Sidecar { .. })), "{bad}");
    }
    fs::remove_file(world.path("disks/disk-1.json")).unwrap();
    symlink("/etc/hostname", world.path("disks/disk-1.json")).unwrap();
    assert!(matches!(world.disks.open(&disk_id()), Err(DiskError::Sidecar { .. })));
}

// The chunk store.

fn name(content: &[u8], incarnation: &str) -> ChunkName {
    ChunkName::new(Digest::of(content), incarnation.parse().unwrap())
}

#[test]
fn a_chunk_is_stored_found_and_removed() {
    let world = World::new();
    let (store, one, again) = (&world.chunks, name(b"one", "a-1"), name(b"one", "a-2"));
    assert_eq!(store.find(&one).unwrap(), None);
    assert!(matches!(store.get(&one), Err(ChunkError::Missing { .. })));
    for _ in 0..2 {
        assert_eq!(store.put(&one, b"one").unwrap(), 64 + 3);
        assert_eq!(store.find(&one).unwrap(), Some(64 + 3));
        assert_eq!(store.get(&one).unwrap(), b"one");
    }
    assert_eq!(world.chunk_files(), [world.chunk_path(&one)]);
    assert_eq!(store.find(&again).unwrap(), None);
    store.put(&again, b"one").unwrap();
    store.sync(&[one.clone(), again.clone()]).unwrap();
    for _ in 0..2 {
        store.remove(&[one.clone(), name(b"two", "b")]).unwrap();
        assert_eq!((store.find(&one).unwrap(), store.find(&again).unwrap()), (None, Some(67)));
    }
    // A store that is opened again has what it had.
    let reopened = ChunkFolder::open(world.path("store")).unwrap();
    assert_eq!(reopened.get(&again).unwrap(), b"one");
}

#[test]
fn what_is_found_damaged_is_put_again() {
    let world = World::new();
    let (store, one, two) = (&world.chunks, name(b"one", "a"), name(b"two", "a"));
    store.put(&one, b"one").unwrap();
    store.put(&two, b"two").unwrap();
    let path = world.chunk_path(&one);
    let good = fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[8] ^= 1;
    let another = fs::read(world.chunk_path(&two)).unwrap();
    let longer = [&good[..], b"x"].concat();
    for bad in [&b""[..], b"rubbish", &good[..66], &flipped, &another, &longer] {
        fs::write(&path, bad).unwrap();
        assert_eq!(store.find(&one).unwrap(), None);
        assert!(matches!(store.get(&one), Err(ChunkError::Damaged { .. })));
        store.put(&one, b"one").unwrap();
        assert_eq!(store.get(&one).unwrap(), b"one");
    }
}

/// Cuts the file of a chunk short.
fn cut(world: &World, name: &ChunkName) {
    let path = world.chunk_path(name);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
}

/// Whoever found it damaged may come late: by then somebody may have written it anew.
#[test]
fn only_a_damaged_chunk_is_taken_out_of_use() {
    let world = World::new();
    let (store, one) = (&world.chunks, name(b"one", "a"));
    let moved = world.path("store/damaged").join(one.to_string());
    store.quarantine(&one).unwrap();
    store.put(&one, b"one").unwrap();
    store.quarantine(&one).unwrap();
    assert_eq!((store.find(&one).unwrap(), store.get(&one).unwrap()), (Some(67), b"one".to_vec()));
    assert!(!moved.exists());
    cut(&world, &one);
    store.quarantine(&one).unwrap();
    assert_eq!(store.find(&one).unwrap(), None);
    assert!(matches!(store.get(&one), Err(ChunkError::Damaged { .. })));
    // Written anew, and once more reported by somebody who comes late: the whole file stays, whatever lies in the other place.
    store.put(&one, b"one").unwrap();
    store.quarantine(&one).unwrap();
    assert_eq!((store.find(&one).unwrap(), store.get(&one).unwrap()), (Some(67), b"one".to_vec()));
}

#[test]
fn what_was_taken_out_of_use_goes_with_the_chunk() {
    let world = World::new();
    let (store, one, two) = (&world.chunks, name(b"one", "a"), name(b"two", "a"));
    let moved = |name: &ChunkName| world.path("store/damaged").join(name.to_string());
    for name in [&one, &two] {
        store.put(name, &b"one"[..]).unwrap();
        cut(&world, name);
        store.quarantine(name).unwrap();
    }
    store.put(&one, b"one").unwrap();
    // For as long as somebody refers to it.
    let kept = store.sweep(&mut |names| Ok(vec![true; names.len()])).unwrap();
    assert_eq!(kept, Swept { kept: 1, ..Swept::default() });
    assert!(moved(&one).exists() && moved(&two).exists());
    store.remove(std::slice::from_ref(&one)).unwrap();
    assert!(!moved(&one).exists() && moved(&two).exists());
    let swept = world.sweep();
    assert_eq!((swept.removed, swept.removed_bytes), (1, 66));
    assert!(!moved(&two).exists());
    // Somebody was put back, and a crash left it its second name.
    store.put(&one, b"one").unwrap();
    fs::hard_link(world.chunk_path(&one), moved(&one)).unwrap();
    let swept = store.sweep(&mut |names| Ok(vec![true; names.len()])).unwrap();
    assert_eq!((swept.kept, swept.temporaries), (1, 1));
    assert_eq!(store.get(&one).unwrap(), b"one");
    assert!(!moved(&one).exists());
}

#[test]
fn a_chunk_has_a_length() {
    let world = World::new();
    let put = |length: u64| world.chunks.put(&name(b"", "a"), &vec![1; length as usize]);
    assert!(matches!(put(0), Err(ChunkError::Length { .. })));
    assert!(matches!(put(CHUNK_BYTES + 1), Err(ChunkError::Length { .. })));
    put(1).unwrap();
    put(CHUNK_BYTES).unwrap();
}

#[test]
fn a_sweep_takes_what_is_dead_and_what_crashes_left() {
    let world = World::new();
    let (live, dead) = (name(b"one", "a"), name(b"one", "b"));
    let unwritten = name(b"one", "c");
    world.chunks.put(&live, b"one").unwrap();
    world.chunks.put(&dead, b"one").unwrap();
    let folder = world.chunk_path(&live).parent().unwrap().to_owned();
    let temporary = |name: &ChunkName| folder.join(format!(".{name}.77-7.tmp"));
    for name in [&live, &dead, &unwritten] {
        fs::write(temporary(name), "part").unwrap();
    }
    fs::write(folder.join("README"), "strange").unwrap();
    fs::write(world.path("store/chunks/README"), "strange").unwrap();
    let sweep = || world.chunks.sweep(&mut |names| Ok(names.iter().map(|name| *name != dead).collect()));
    let swept = Swept {
        kept: 1,
        removed: 1,
        removed_bytes: 67,
        temporaries: 2,
        temporary_bytes: 8,
        strange: 2,
        failed: 0,
    };
    assert_eq!(sweep().unwrap(), swept);
    // This one may be being written just now.
    assert!(temporary(&unwritten).exists() && !temporary(&live).exists());
    assert_eq!(sweep().unwrap(), Swept { kept: 1, strange: 2, ..Swept::default() });
    assert_eq!(world.chunks.get(&live).unwrap(), b"one");
}

#[test]
fn a_sweep_asks_for_some_at_a_time_and_ends_when_told() {
    let world = World::new();
    let folder = world.chunk_path(&name(b"x", "a")).parent().unwrap().to_owned();
    for count in 0..2500 {
        fs::write(folder.join(name(b"x", &format!("i-{count}")).to_string()), "x").unwrap();
    }
    let mut asked = Vec::new();
    let error = world.chunks.sweep(&mut |names| {
        asked.push(names.len());
        if asked.len() == 3 { Err("enough".into()) } else { Ok(vec![true; names.len()]) }
    });
    assert!(matches!(error, Err(SweepError::Ended(why)) if why.to_string() == "enough"));
    assert_eq!(asked, [1000, 1000, 500]);
    // No answer is not a no.
    world.chunks.sweep(&mut |_| Ok(vec![])).unwrap();
    assert_eq!(world.chunk_files().len(), 2500);
    assert_eq!(world.sweep().removed, 2500);
}

fn owner(name: &str) -> Owner {
    name.parse().unwrap()
}

#[test]
fn an_empty_store_belongs_to_whoever_claims_it_first() {
    let world = World::new();
    let (first, second) = (owner("first"), owner("second"));
    for _ in 0..2 {
        world.chunks.claim(&first, 1).unwrap();
        let error = world.chunks.claim(&second, 1).unwrap_err();
        assert!(matches!(&error, ChunkError::Foreign { owner, ours } if (owner, ours) == (&first, &second)));
        assert!(!error.is_damage());
        world.chunks.put(&name(b"one", "a"), b"one").unwrap();
    }
    let reopened = ChunkFolder::open(world.path("store")).unwrap();
    reopened.claim(&first, 1).unwrap();
    assert!(matches!(reopened.claim(&second, 1), Err(ChunkError::Foreign { .. })));
}

#[test]
fn a_store_with_something_in_it_and_no_mark_is_not_claimed() {
    let things: [fn(&World); 4] = [
        |world| _ = world.chunks.put(&name(b"one", "a"), b"one").unwrap(),
        |world| fs::write(world.path("store/manifests/snap-1"), "").unwrap(),
        |world| fs::create_dir(world.path("store/drafts/snap-1")).unwrap(),
        |world| {
            fs::create_dir(world.path("store/damaged")).unwrap();
            fs::write(world.path("store/damaged/x"), "").unwrap();
        },
    ];
    for thing in things {
        let world = World::new();
        thing(&world);
        let ours = owner("ours");
        let claimed = world.chunks.claim(&ours, 1);
        assert!(matches!(claimed, Err(ChunkError::Unmarked { ours: found }) if found == ours));
        assert!(!world.path("store/owner").exists());
        // An operator says whose it is.
        fs::write(world.path("store/owner"), "ours").unwrap();
        world.chunks.claim(&ours, 1).unwrap();
        assert!(matches!(world.chunks.claim(&owner("theirs"), 1), Err(ChunkError::Foreign { .. })));
    }
}

fn mark(world: &World) -> String {
    fs::read_to_string(world.path("store/owner")).unwrap()
}

#[test]
fn the_epoch_of_the_owner_only_grows_and_an_older_one_is_refused() {
    let world = World::new();
    let ours = owner("ours");
    for (epoch, marked) in [(3, 3), (3, 3), (7, 7)] {
        world.chunks.claim(&ours, epoch).unwrap();
        assert_eq!(mark(&world), format!("ours {marked}\n"));
    }
    world.chunks.put(&name(b"one", "a"), b"one").unwrap();
    let error = world.chunks.claim(&ours, 6).unwrap_err();
    assert!(matches!(error, ChunkError::Outdated { marked: 7, epoch: 6, .. }) && !error.is_damage());
    assert!(matches!(world.chunks.claim(&owner("theirs"), 9), Err(ChunkError::Foreign { .. })));
    assert_eq!(mark(&world), "ours 7\n");
    // An operator says that it is all right.
    fs::write(world.path("store/owner"), "ours\n").unwrap();
    world.chunks.claim(&ours, 6).unwrap();
    assert_eq!(mark(&world), "ours 6\n");
    // Of all who come at once the highest stays on record.
    std::thread::scope(|scope| {
        for epoch in 10..40 {
            let (world, ours) = (&world, &ours);
            scope.spawn(move || _ = world.chunks.claim(ours, epoch));
        }
    });
    assert_eq!(mark(&world), "ours 39\n");
    assert_eq!(files(&world.path("store")).len(), 2, "the mark and the chunk");
}

#[test]
fn what_cannot_be_a_mark_is_as_good_as_none() {
    for bad in ["", "\n", "No Name", "ours x", "ours 1 2", "ours -1", "\u{fffd}"] {
        let world = World::new();
        fs::write(world.path("store/owner"), bad).unwrap();
        world.chunks.claim(&owner("ours"), 1).unwrap();
        assert_eq!(mark(&world), "ours 1\n");
        world.chunks.put(&name(b"one", "a"), b"one").unwrap();
        fs::write(world.path("store/owner"), bad).unwrap();
        assert!(matches!(world.chunks.claim(&owner("ours"), 1), Err(ChunkError::Unmarked { .. })), "{bad:?}");
        assert_eq!(mark(&world), bad);
    }
}

/// Data of disks is for the service's user alone, whatever the umask.
#[test]
fn nobody_else_may_read_what_is_stored_or_given_back() {
    use std::os::unix::fs::PermissionsExt;
    fn walk(path: &Path, seen: &mut usize) {
        let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{path:?}");
        *seen += 1;
        if path.is_dir() {
            fs::read_dir(path).unwrap().for_each(|entry| walk(&entry.unwrap().path(), seen));
        }
    }
    let world = mixed();
    world.copy();
    let copying = world.copying(None);
    world.chunks.put(&name(b"one", "a"), b"one").unwrap();
    cut(&world, &name(b"one", "a"));
    world.chunks.quarantine(&name(b"one", "a")).unwrap();
    let empty = World::new();
    empty.chunks.claim(&owner("ours"), 1).unwrap();
    let mut seen = 0;
    walk(&empty.path("store"), &mut seen);
    walk(&world.path("store"), &mut seen);
    assert!(seen > 256 + 4);
    drop(copying);
    restore(&*world.chunks, &snapshot(), &world.path("restored"), &mut |_| true).unwrap();
    walk(&world.path("restored"), &mut seen);
}

#[test]
fn of_many_who_claim_a_store_at_once_one_gets_it() {
    for _ in 0..10 {
        let world = World::new();
        let claim = |number: usize| {
            // As another process would.
            let store = ChunkFolder::open(world.path("store")).unwrap();
            store.claim(&owner(&format!("owner-{}", number % 4)), 1).map(|()| number % 4)
        };
        let won: BTreeSet<usize> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|number| scope.spawn(move || claim(number))).collect();
            all.into_iter().filter_map(|one| one.join().unwrap().ok()).collect()
        });
        assert_eq!(won.len(), 1);
        let left = files(&world.path("store"));
        assert_eq!(left, [world.path("store/owner")], "and nothing else is left");
    }
}

#[test]
fn what_a_crash_leaves_of_a_claim_is_swept() {
    let world = World::new();
    // Before its mark had its name, and after.
    for temporary in [".owner.77-1.tmp", ".owner.77-2.tmp"] {
        fs::write(world.path("store").join(temporary), "ours\n").unwrap();
    }
    world.chunks.claim(&owner("ours"), 1).unwrap();
    let swept = world.sweep();
    assert_eq!((swept.temporaries, swept.temporary_bytes, swept.failed), (2, 10, 0));
    assert_eq!(files(&world.path("store")), [world.path("store/owner")]);
}

#[test]
fn drafts_of_a_complete_snapshot_are_removed_and_the_manifest_stays() {
    let world = mixed();
    world.copy();
    assert!(!world.chunks.discard_drafts(&snapshot()).unwrap(), "there are none");
    let mut late = world.chunks.begin_draft(&snapshot(), &"late".parse().unwrap()).unwrap();
    assert!(world.chunks.discard_drafts(&snapshot()).unwrap());
    assert!(matches!(late.sync(), Err(ChunkError::NoDraft { .. })));
    // What a crash left of that.
    fs::create_dir(world.path("store/drafts/.snap-1.gone")).unwrap();
    assert!(world.chunks.discard_drafts(&snapshot()).unwrap());
    assert!(!world.chunks.discard_drafts(&snapshot()).unwrap());
    world.assert_complete();
}

#[test]
fn snapshots_are_shown_though_a_folder_cannot_be_listed() {
    let world = mixed();
    world.copying(None).some(1).unwrap();
    fs::remove_dir_all(world.path("store/manifests")).unwrap();
    let mut seen = Vec::new();
    let error = world.chunks.snapshots(&mut |some| {
        seen.extend(some.iter().cloned());
        Ok(())
    });
    assert!(matches!(error, Err(SweepError::Chunk(ChunkError::Io { .. }))), "{error:?}");
    assert_eq!(seen, [snapshot()]);
}

#[test]
fn a_writer_whose_temporary_file_is_swept_does_not_fail() {
    let world = World::new();
    let (bytes, done) = (noise(1, MIB as usize), AtomicBool::new(false));
    let chunk = name(&bytes, "a");
    world.chunks.put(&chunk, &bytes).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                world.chunks.sweep(&mut |names| Ok(vec![true; names.len()])).unwrap();
            }
        });
        for _ in 0..100 {
            world.chunks.put(&chunk, &bytes).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(world.chunk_files().len(), 1);
}

#[test]
fn discard_leaves_nothing_and_may_be_repeated() {
    let world = mixed();
    let mut seen = Vec::new();
    let mut see_all = || {
        seen.clear();
        let mut see = |some: &[SnapshotId]| {
            seen.extend(some.iter().cloned());
            Ok(())
        };
        world.chunks.snapshots(&mut see).unwrap();
        seen.clone()
    };
    world.chunks.discard(&snapshot()).unwrap();
    world.copy();
    world.copy_to(other());
    let mut copying = world.copying(None);
    copying.some(1).unwrap();
    assert_eq!(see_all().into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([snapshot(), other()]));
    // A crash in the middle of it, and perhaps a copy begun anew since.
    let drafts = world.path("store/drafts");
    fs::rename(drafts.join("snap-1"), drafts.join(".snap-1.gone")).unwrap();
    fs::remove_file(world.manifest_path()).unwrap();
    assert!(see_all().contains(&snapshot()));
    for again in [false, true] {
        if again {
            world.copying(None).some(1).unwrap();
        }
        world.chunks.discard(&snapshot()).unwrap();
        assert_eq!(see_all(), [other()]);
        assert_eq!(fs::read_dir(&drafts).unwrap().count(), 0);
    }
    assert!(matches!(copying.some(1), Err(CopyError::Superseded { .. })));
    verify(&*world.chunks, &other(), &mut |_| true).unwrap();
}

#[test]
fn an_error_names_the_thing_and_not_the_path() {
    let world = mixed();
    world.copy();
    let entry = world.entries(&snapshot()).remove(0);
    let folder = world.chunk_path(&entry.name).parent().unwrap().to_owned();
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "no folder").unwrap();
    let read: Box<dyn Error> = Box::new(world.verify().unwrap_err());
    let written: Box<dyn Error> = Box::new(world.copying(None).finish(1).unwrap_err());
    let root = world.folder.path().to_str().unwrap();
    for error in [read, written] {
        let causes = std::iter::successors(Some(&*error as &dyn Error), |error| (*error).source());
        let text: Vec<String> = causes.map(ToString::to_string).collect();
        assert!(text[0].contains(&format!("chunk {}", entry.name)), "{text:?}");
        assert!(text.len() == 2 && !text.concat().contains(root), "{text:?}");
        assert!(format!("{error:?}").contains(root));
    }
}

// Damage.

/// Where damage is found, also by going on, and that nothing is given back.
fn assert_damaged(world: &World, what: &str) -> Vec<DamagedPlace> {
    let error = world.verify().unwrap_err();
    assert!(error.is_damage(), "{what}: {error}");
    let places = match (verify_all(&*world.chunks, &snapshot(), &mut |_| true), error) {
        (Ok(verdict), ReadBackError::Damaged { place, .. }) => {
            assert_eq!(verdict.damaged, verdict.places.len() as u64);
            assert_eq!(verdict.verified.chunks + verdict.damaged, 5);
            assert_eq!(verdict.places[0], *place, "{what}");
            verdict.places
        }
        (Err(ReadBackError::Chunk(all)), ReadBackError::Chunk(first)) => {
            assert_eq!(all.to_string(), first.to_string(), "{what}");
            vec![]
        }
        other => panic!("{what}: {other:?}"),
    };
    let target = world.path("restored");
    let restored = restore(&*world.chunks, &snapshot(), &target, &mut |_| true).unwrap_err();
    assert!(restored.is_damage() && !target.exists(), "{what}");
    places
}

#[test]
fn damage_to_any_part_of_any_file_is_found() {
    let world = mixed();
    world.copy();
    for path in world.chunk_files().into_iter().chain([world.manifest_path()]) {
        let length = path.metadata().unwrap().len();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let spread = (0..20).map(|part| 64 + part * length.saturating_sub(65) / 20);
        for at in (0..64).step_by(3).chain(spread).chain([length - 1]).filter(|&at| at < length) {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
            assert_damaged(&world, &format!("{path:?} at {at}"));
            file.write_all_at(&byte, at).unwrap();
        }
        let bytes = fs::read(&path).unwrap();
        for wrong in [&bytes[..0], &bytes[..10], &bytes[..bytes.len() - 1], &[&bytes[..], b"\n"].concat()] {
            fs::write(&path, wrong).unwrap();
            assert_damaged(&world, &format!("{path:?} with {} bytes", wrong.len()));
        }
        fs::remove_file(&path).unwrap();
        assert_damaged(&world, &format!("{path:?} removed"));
        fs::write(&path, bytes).unwrap();
    }
    world.assert_alone();
}

#[test]
fn all_damage_is_told_with_its_place() {
    let world = mixed();
    world.copy();
    let entries = world.entries(&snapshot());
    let path = |at: usize| world.chunk_path(&entries[at].name);
    fs::remove_file(path(1)).unwrap();
    fs::write(path(4), "rubbish").unwrap();
    let places = assert_damaged(&world, "two");
    let found: Vec<_> =
        places.iter().map(|place| (place.index, place.offset / CHUNK_BYTES, place.why)).collect();
    assert_eq!(found, [(2, 2, "it is missing"), (5, 5, "it is cut short")]);
    let error = world.verify().unwrap_err().to_string();
    let chunk = &entries[1].name;
    assert_eq!(
        error,
        format!("snapshot snap-1 is damaged at offset 8388608: it is missing (chunk 2, {chunk})")
    );
    // What was not written by this copy is not looked at, if the caller does not want it.
    let fresh = verify_fresh(&*world.chunks, &snapshot(), &mut |_| true);
    assert!(matches!(fresh, Err(ReadBackError::Damaged { .. })));

    // Another copy finds that they are not there, and writes them again: both snapshots are whole.
    world.copy_to(other());
    world.assert_complete();
}

#[test]
fn an_exchanged_chunk_is_found() {
    let world = mixed();
    world.copy();
    let entries = world.entries(&snapshot());
    let (a, b) = (world.chunk_path(&entries[0].name), world.chunk_path(&entries[2].name));
    fs::rename(&a, world.path("x")).unwrap();
    fs::rename(&b, &a).unwrap();
    fs::rename(world.path("x"), &b).unwrap();
    let places = assert_damaged(&world, "exchanged");
    assert!(places.len() == 2 && places.iter().all(|place| place.why == "it is another chunk"));
}

// Any disk, any pieces, any crashes.

fn any_piece() -> impl Strategy<Value = (u64, Vec<u8>)> {
    let end = 3 * CHUNK_BYTES;
    let offset = prop_oneof![0..end, (0..3u64).prop_map(|i| i * CHUNK_BYTES), Just(CHUNK_BYTES - 1)];
    let bytes = prop_oneof![
        (any::<u64>(), 1..200_000usize).prop_map(|(seed, length)| noise(seed, length)),
        (any::<u8>(), 1..200_000usize).prop_map(|(byte, length)| vec![byte; length]),
    ];
    (offset, bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_disk_comes_back_over_any_crashes(
        size in prop_oneof![0..4 * CHUNK_BYTES, (0..4u64).prop_map(|i| i * CHUNK_BYTES)],
        pieces in prop::collection::vec(any_piece(), 0..5),
        steps in prop::collection::vec((0..2 * CHUNK_BYTES, any::<bool>(), any::<bool>()), 0..8),
    ) {
        let world = World::with_disk(size, &pieces);
        let mut copying = world.copying(None);
        let mut saved = None;
        for (budget, save, crash) in steps {
            let cursor = copying.some(budget).unwrap();
            if save {
                saved = cursor.or(saved);
            }
            if crash {
                copying = world.copying(saved.as_ref());
            }
        }
        copying.finish(u64::MAX).unwrap();
        world.assert_alone();
    }
}
