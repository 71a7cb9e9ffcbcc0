//! The data plane on real files: copies, crashes, damage, disks that fail.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

use std::{
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use longrun_snapshot::data::*;
use proptest::prelude::*;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// A disk folder and a chunk folder.
struct World {
    folder: TempDir,
    disks: DiskFolder,
    chunks: ChunkFolder,
}

fn disk_id() -> DiskId {
    "disk-1".parse().unwrap()
}

fn snapshot() -> SnapshotId {
    "snap-1".parse().unwrap()
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

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("disks")).unwrap();
        let disks = DiskFolder::new(folder.path().join("disks"));
        let chunks = ChunkFolder::open(folder.path().join("chunks")).unwrap();
        Self { folder, disks, chunks }
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

    fn copier(&self, resume: Option<Cursor>) -> Copier {
        Copier::new(self.disk(), self.chunks.clone(), snapshot(), resume).unwrap()
    }

    fn copy(&self) -> Manifest {
        self.copier(None).finish().unwrap()
    }

    fn verify(&self) -> Result<Verified, ReadBackError> {
        verify(&self.chunks, &snapshot(), &mut |_| true)
    }

    fn restored(&self) -> PathBuf {
        let target = self.path("restored");
        restore(&self.chunks, &snapshot(), &target, &mut |_| true).unwrap();
        target
    }

    /// The snapshot is complete and gives back the disk as it is now; nothing else lies in its folder.
    fn assert_complete(&self) {
        let manifest = self.chunks.read_manifest(&snapshot()).unwrap();
        let verified = self.verify().unwrap();
        assert_eq!(verified.content_hash, manifest.content_hash);
        assert_eq!(verified.chunks, manifest.chunks.len() as u64);
        assert_eq!(manifest.stored_bytes(), self.chunks.stored_bytes(&snapshot()).unwrap());
        assert_eq!(self.snapshot_files().len(), manifest.chunks.len() + 1);
        assert!(fs::read(self.restored()).unwrap() == fs::read(self.image()).unwrap());
    }

    fn snapshot_files(&self) -> Vec<PathBuf> {
        let folder = self.path("chunks/snap-1");
        let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    fn assert_nothing_left(&self) {
        assert_eq!(fs::read_dir(self.path("chunks")).unwrap().count(), 0);
        assert!(self.chunks.list().unwrap().is_empty());
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
        self.read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.inner.read_at(offset, buffer)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskError> {
        self.inner.next_data(offset)
    }

    fn check_unchanged(&self) -> Result<(), DiskError> {
        self.inner.check_unchanged()
    }
}

// Round trips.

#[test]
fn sparse_images_come_back() {
    let world = mixed();
    world.copy();
    world.assert_complete();
    let images = [
        (0, vec![]),
        (1, vec![(0, vec![9])]),
        (1, vec![]),
        (3 * CHUNK_BYTES, vec![]),
        (3 * CHUNK_BYTES, vec![(0, vec![0; 3 * CHUNK_BYTES as usize])]),
        (3 * CHUNK_BYTES, vec![(2 * CHUNK_BYTES, noise(3, 1000))]),
        (3 * CHUNK_BYTES, vec![(0, noise(4, 1000)), (3 * CHUNK_BYTES - 1, vec![1])]),
        (3 * CHUNK_BYTES + 1, vec![(3 * CHUNK_BYTES, vec![1])]),
        (2 * CHUNK_BYTES - 1, vec![(CHUNK_BYTES - 1, vec![1, 2])]),
        (2 * CHUNK_BYTES, vec![(0, noise(5, 2 * CHUNK_BYTES as usize))]),
    ];
    for (size, pieces) in images {
        let world = World::with_disk(size, &pieces);
        let manifest = world.copy();
        assert_eq!(manifest.disk_size, size);
        world.assert_complete();
    }
}

#[test]
fn zeros_take_no_room_and_holes_are_not_read() {
    let world = mixed();
    let read = Arc::new(AtomicU64::new(0));
    let disk = Watched { inner: world.disk(), read: read.clone(), fail_at: None };
    let manifest =
        Copier::new(Box::new(disk), world.chunks.clone(), snapshot(), None).unwrap().finish().unwrap();
    let indexes: Vec<u64> = manifest.chunks.iter().map(|chunk| chunk.index).collect();
    assert_eq!(indexes, [0, 2, 3, 4, 5]);
    // Data is about 3.6 MiB; the file system rounds to its blocks.
    assert!(read.load(Ordering::Relaxed) < 5 * MIB, "{read:?}");
    assert!(manifest.stored_bytes() < 4 * MIB);
    world.assert_complete();
}

#[test]
fn a_restored_file_is_sparse() {
    let world = mixed();
    world.copy();
    let restored = world.restored().metadata().unwrap();
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
    let stopped = restore(&world.chunks, &snapshot(), &target, &mut |offset| offset < CHUNK_BYTES);
    assert!(matches!(stopped, Err(ReadBackError::Stopped { .. })));
    assert_eq!(fs::read(&target).unwrap(), b"old");
    assert_eq!(fs::read_dir(world.folder.path()).unwrap().count(), 3, "a temporary file is left");
    world.assert_complete();
}

// Going on after a crash.

/// Copies chunk by chunk with a checkpoint before each: all cursors there are.
fn all_cursors(world: &World) -> Vec<Cursor> {
    let mut copier = world.copier(None);
    let mut cursors = vec![copier.checkpoint().unwrap()];
    while !copier.copy_some(1).unwrap().done {
        cursors.push(copier.checkpoint().unwrap());
    }
    cursors.push(copier.checkpoint().unwrap());
    cursors
}

#[test]
fn a_copy_goes_on_from_every_cursor_and_every_crash_after_it() {
    let world = mixed();
    let expected = world.copy();
    let cursors = all_cursors(&world);
    for (saved, cursor) in cursors.iter().enumerate() {
        for crash_after in 0..cursors.len() - saved {
            world.chunks.remove(&snapshot()).unwrap();
            let mut first = world.copier(None);
            while first.checkpoint().unwrap().offset() < cursor.offset() {
                first.copy_some(1).unwrap();
            }
            for _ in 0..crash_after {
                first.copy_some(1).unwrap();
            }
            drop(first);
            // What a crash leaves: a part of a file under a temporary name.
            fs::write(world.path("chunks/snap-1/.1-1.tmp"), "part").unwrap();

            let json = serde_json::to_string(cursor).unwrap();
            let mut second = world.copier(Some(serde_json::from_str(&json).unwrap()));
            assert_eq!(second.checkpoint().unwrap(), *cursor);
            assert_eq!(second.finish().unwrap(), expected);
            assert_eq!(second.checkpoint().unwrap(), cursors[cursors.len() - 1]);
            world.assert_complete();
        }
    }
}

#[test]
fn a_crash_after_the_end_changes_nothing() {
    let world = mixed();
    let expected = world.copy();
    let last = all_cursors(&world).pop().unwrap();
    for resume in [Some(last), None] {
        world.copy();
        assert_eq!(world.copier(resume).finish().unwrap(), expected);
        world.assert_complete();
    }
}

#[test]
fn what_was_stored_after_the_cursor_is_not_believed() {
    let world = mixed();
    let start = all_cursors(&world).remove(0);
    // The guest discards and writes between the crash and the restart.
    world.write_disk(5 * CHUNK_BYTES + 1234, &[(CHUNK_BYTES, noise(9, 5000))]);
    world.copier(Some(start)).finish().unwrap();
    world.assert_complete();
}

#[test]
fn the_cursor_is_small_for_any_disk() {
    let world = World::with_disk(1 << 40, &[((1 << 40) - 5, vec![1; 5])]);
    let mut copier = world.copier(None);
    assert!(copier.copy_some(1).unwrap().done);
    let cursor = copier.checkpoint().unwrap();
    assert_eq!((cursor.offset(), cursor.chunks()), (1 << 40, 1));
    assert!(serde_json::to_string(&cursor).unwrap().len() < 300);
}

#[test]
fn a_chunk_lost_before_the_cursor_is_noticed_at_once() {
    let world = mixed();
    let cursor = all_cursors(&world).pop().unwrap();
    fs::remove_file(world.path("chunks/snap-1/0000000000000002.chunk")).unwrap();
    let error = Copier::new(world.disk(), world.chunks.clone(), snapshot(), Some(cursor)).unwrap_err();
    assert!(matches!(error, CopyError::Lost { .. }), "{error}");
}

#[test]
fn a_chunk_exchanged_before_the_cursor_is_noticed_at_the_end() {
    let world = mixed();
    let cursor = all_cursors(&world).pop().unwrap();
    world.chunks.put(&snapshot(), 2, b"something else").unwrap();
    let error = world.copier(Some(cursor)).finish().unwrap_err();
    assert!(matches!(error, CopyError::Lost { .. }), "{error}");
    assert!(matches!(world.chunks.read_manifest(&snapshot()), Err(ChunkError::NoManifest { .. })));
}

#[test]
fn a_cursor_of_another_disk_is_refused() {
    let world = mixed();
    let cursor = all_cursors(&world).pop().unwrap();
    world.write_disk(CHUNK_BYTES, &[]);
    let error =
        Copier::new(world.disk(), world.chunks.clone(), snapshot(), Some(cursor.clone())).unwrap_err();
    assert!(matches!(error, CopyError::Disk(DiskError::Changed { .. })), "{error}");

    let mut json = serde_json::to_value(cursor).unwrap();
    for offset in [1, 6 * CHUNK_BYTES] {
        json["offset"] = offset.into();
        let cursor = serde_json::from_value(json.clone()).unwrap();
        let error = Copier::new(world.disk(), world.chunks.clone(), snapshot(), Some(cursor)).unwrap_err();
        assert!(matches!(error, CopyError::BadCursor { .. }), "{error}");
    }
}

#[test]
fn pieces_keep_to_their_budget() {
    let world = World::with_disk(6 * CHUNK_BYTES, &[(0, noise(1, 6 * CHUNK_BYTES as usize))]);
    let mut copier = world.copier(None);
    let mut step = |budget| {
        let step = copier.copy_some(budget).unwrap();
        (step.copied_bytes / CHUNK_BYTES, step.offset / CHUNK_BYTES, step.done)
    };
    assert_eq!(step(0), (1, 1, false));
    assert_eq!(step(2 * CHUNK_BYTES), (2, 3, false));
    assert_eq!(step(CHUNK_BYTES + 1), (2, 5, false));
    assert_eq!(step(u64::MAX), (1, 6, true));
    assert_eq!(step(u64::MAX), (0, 6, true));
}

// Disks that fail.

#[test]
fn a_read_error_names_the_offset_and_stops_the_copier() {
    let world = mixed();
    let bad = 4 * CHUNK_BYTES + MIB;
    let disk = Watched { inner: world.disk(), read: Arc::default(), fail_at: Some(bad) };
    let mut copier = Copier::new(Box::new(disk), world.chunks.clone(), snapshot(), None).unwrap();
    while copier.checkpoint().unwrap().offset() < 4 * CHUNK_BYTES {
        copier.copy_some(1).unwrap();
    }
    let saved = copier.checkpoint().unwrap();
    let error = copier.copy_some(1).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot read disk disk-1 at offset {bad}"));
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "medium error");
    for again in [copier.copy_some(1).err(), copier.checkpoint().err(), copier.finish().err()] {
        assert!(matches!(again, Some(CopyError::Failed { .. })));
    }
    world.copier(Some(saved)).finish().unwrap();
    world.assert_complete();
}

/// What a copy says when this happens to the image after its first chunk.
fn in_mid_copy(happens: impl FnOnce(&World)) -> String {
    let world = mixed();
    let mut copier = world.copier(None);
    copier.copy_some(1).unwrap();
    happens(&world);
    copier.finish().unwrap_err().to_string()
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
    let mut copier = world.copier(None);
    while !copier.copy_some(1).unwrap().done {}
    fs::remove_file(world.image()).unwrap();
    assert!(matches!(copier.finish(), Err(CopyError::Disk(DiskError::Vanished { .. }))));
    assert!(matches!(world.chunks.read_manifest(&snapshot()), Err(ChunkError::NoManifest { .. })));
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
fn a_disk_too_large_is_refused_before_anything_is_written() {
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
    let copier = |size| {
        let disk = Huge(DiskInfo { id: disk_id(), size, product_ids: vec![], folder_id: None });
        Copier::new(Box::new(disk), world.chunks.clone(), snapshot(), None)
    };
    assert!(matches!(copier(DISK_BYTES_MAX + 1), Err(CopyError::TooLarge { .. })));
    world.assert_nothing_left();
    copier(DISK_BYTES_MAX).unwrap().finish().unwrap();
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

#[test]
fn the_same_again_changes_nothing_and_other_content_takes_its_place() {
    let world = World::new();
    let (chunks, id) = (&world.chunks, snapshot());
    chunks.create(&id).unwrap();
    chunks.create(&id).unwrap();
    let path = world.path("chunks/snap-1/0000000000000007.chunk");
    let inode = || path.metadata().unwrap().ino();

    let one = chunks.put(&id, 7, b"one").unwrap().unwrap();
    let before = inode();
    assert_eq!(chunks.put(&id, 7, b"one").unwrap(), Some(one));
    assert_eq!(inode(), before);

    let two = chunks.put(&id, 7, b"two").unwrap().unwrap();
    assert_eq!(chunks.get(&id, 7, &two.hash).unwrap(), b"two");
    assert!(matches!(chunks.get(&id, 7, &one.hash), Err(ChunkError::Damaged { chunk: 7, .. })));

    // What is damaged does not count as the same.
    fs::write(&path, "rubbish").unwrap();
    assert_eq!(chunks.put(&id, 7, b"two").unwrap(), Some(two));
    assert_eq!(chunks.get(&id, 7, &two.hash).unwrap(), b"two");
    assert_eq!(chunks.stored_bytes(&id).unwrap(), two.stored_bytes);

    assert_eq!(chunks.put(&id, 7, &[0; 100]).unwrap(), None);
    assert!(matches!(chunks.get(&id, 7, &two.hash), Err(ChunkError::NoChunk { chunk: 7, .. })));
    assert_eq!(chunks.stored_bytes(&id).unwrap(), 0);
}

#[test]
fn a_chunk_has_a_length() {
    let world = World::new();
    world.chunks.create(&snapshot()).unwrap();
    let put = |length: u64| world.chunks.put(&snapshot(), 0, &vec![1; length as usize]);
    assert!(matches!(put(0), Err(ChunkError::Length { .. })));
    assert!(matches!(put(CHUNK_BYTES + 1), Err(ChunkError::Length { .. })));
    put(1).unwrap();
    put(CHUNK_BYTES).unwrap();
}

#[test]
fn remove_leaves_nothing_and_may_be_repeated() {
    let world = mixed();
    world.chunks.remove(&snapshot()).unwrap();
    world.copy();
    fs::write(world.path("chunks/snap-1/.1-1.tmp"), "part").unwrap();
    assert_eq!(world.chunks.list().unwrap(), [snapshot()]);
    // Half gone.
    fs::remove_file(&world.snapshot_files()[2]).unwrap();
    for _ in 0..2 {
        world.chunks.remove(&snapshot()).unwrap();
        world.assert_nothing_left();
    }
    // A crash in the middle of it, and perhaps a copy begun anew since.
    for copied_again in [false, true] {
        world.copy();
        fs::rename(world.path("chunks/snap-1"), world.path("chunks/.snap-1.gone")).unwrap();
        if copied_again {
            world.copy();
        }
        assert_eq!(world.chunks.list().unwrap(), [snapshot()]);
        world.chunks.remove(&snapshot()).unwrap();
        world.assert_nothing_left();
    }
}

#[test]
fn remove_takes_one_snapshot_only() {
    let world = mixed();
    world.copy();
    let other: SnapshotId = "snap-2".parse().unwrap();
    Copier::new(world.disk(), world.chunks.clone(), other.clone(), None).unwrap().finish().unwrap();
    world.chunks.remove(&other).unwrap();
    assert_eq!(world.chunks.list().unwrap(), [snapshot()]);
    world.assert_complete();
}

/// A piece of copying cannot be interrupted: it may still run when the rollback has removed the snapshot.
#[test]
fn a_copy_that_goes_on_after_remove_leaves_nothing() {
    let world = mixed();
    let mut late = world.copier(None);
    late.copy_some(1).unwrap();
    world.chunks.remove(&snapshot()).unwrap();
    let error = late.copy_some(1).unwrap_err();
    assert!(matches!(error, CopyError::Chunk(ChunkError::NoSnapshot { .. })), "{error}");
    world.assert_nothing_left();
}

#[test]
fn remove_wins_against_writers_at_the_same_time() {
    for _ in 0..3 {
        let world = World::new();
        world.chunks.create(&snapshot()).unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let mut indexes = writer * 10_000..(writer + 1) * 10_000;
                let chunks = &world.chunks;
                scope.spawn(move || indexes.find(|&index| chunks.put(&snapshot(), index, b"x").is_err()));
            }
            while world.snapshot_files().len() < 40 {
                std::thread::yield_now();
            }
            world.chunks.remove(&snapshot()).unwrap();
        });
        world.assert_nothing_left();
    }
}

#[test]
fn a_missing_snapshot_is_named() {
    let world = World::new();
    let no =
        |error: &ChunkError| matches!(error, ChunkError::NoSnapshot { .. } | ChunkError::NoManifest { .. });
    assert!(no(&world.chunks.put(&snapshot(), 0, b"x").unwrap_err()));
    assert!(no(&world.chunks.sync(&snapshot()).unwrap_err()));
    assert!(no(&world.chunks.chunks(&snapshot()).unwrap_err()));
    assert!(no(&world.chunks.stored_bytes(&snapshot()).unwrap_err()));
    assert!(no(&world.chunks.read_manifest(&snapshot()).unwrap_err()));
    assert!(matches!(world.verify(), Err(ReadBackError::Chunk(error)) if no(&error)));
}

// Damage.

fn assert_damaged(world: &World, what: &str) {
    match world.verify() {
        Err(ReadBackError::Chunk(error)) => assert!(error.is_damage(), "{what}: {error}"),
        other => panic!("{what}: {other:?}"),
    }
    let target = world.path("restored");
    let restored = restore(&world.chunks, &snapshot(), &target, &mut |_| true);
    assert!(!target.exists());
    // A chunk too many is no reason to give nothing back.
    assert!(restored.is_err() || what == "stray");
    let _ = fs::remove_file(target);
}

#[test]
fn damage_to_any_part_of_any_file_is_found() {
    let world = mixed();
    world.copy();
    for path in world.snapshot_files() {
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
    world.assert_complete();
}

#[test]
fn exchanged_and_stray_chunks_are_found() {
    let world = mixed();
    world.copy();
    let path = |index: u64| world.path(&format!("chunks/snap-1/{index:016x}.chunk"));
    let exchange = |a: &Path, b: &Path| {
        fs::rename(a, world.path("x")).unwrap();
        fs::rename(b, a).unwrap();
        fs::rename(world.path("x"), b).unwrap();
    };
    exchange(&path(0), &path(2));
    assert_damaged(&world, "exchanged");
    exchange(&path(0), &path(2));
    fs::copy(path(0), path(1)).unwrap();
    let found = world.verify().unwrap_err();
    assert!(found.to_string().starts_with("chunk 1 of snapshot snap-1 is damaged"), "{found}");
}

#[test]
fn a_chunk_of_the_wrong_length_is_found() {
    let world = World::with_disk(100, &[(0, vec![1; 100])]);
    let manifest = world.copy();
    let short = world.chunks.put(&snapshot(), 0, &[1; 99]).unwrap().unwrap();
    let chunk = ManifestChunk { index: 0, hash: short.hash, stored_bytes: short.stored_bytes };
    let forged = Manifest::new(manifest.disk_id, 100, vec![chunk]);
    world.chunks.write_manifest(&snapshot(), &forged).unwrap();
    assert_damaged(&world, "short");
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
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_disk_comes_back_over_any_crashes(
        size in prop_oneof![0..4 * CHUNK_BYTES, (0..4u64).prop_map(|i| i * CHUNK_BYTES)],
        pieces in prop::collection::vec(any_piece(), 0..5),
        steps in prop::collection::vec((0..2 * CHUNK_BYTES, any::<bool>(), any::<bool>()), 0..8),
    ) {
        let world = World::with_disk(size, &pieces);
        let mut copier = world.copier(None);
        let mut saved = None;
        for (budget, checkpoint, crash) in steps {
            copier.copy_some(budget).unwrap();
            if checkpoint {
                saved = Some(copier.checkpoint().unwrap());
            }
            if crash {
                copier = world.copier(saved.clone());
            }
        }
        copier.finish().unwrap();
        world.assert_complete();
    }
}
