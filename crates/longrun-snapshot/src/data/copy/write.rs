//! The writing half of a copy.

use std::{
    collections::BTreeMap,
    fmt,
    io::Read,
    sync::{Arc, atomic::AtomicBool},
};

use super::{Batch, CopyError, Cursor, HashedBatch};
use crate::data::{
    CHUNK_BYTES, ChunkError, ChunkName, ChunkStore, Digest, DiskInfo, Draft, Incarnation, ManifestEntry,
    ManifestHeader, ManifestReader, RunName, SnapshotId, Subject, Summary,
    geometry::{Geometry, next_link},
    manifest::{EntryReader, Unreadable, write_end},
    parallel::{Broken, in_parallel, worker_count},
};

/// How much of a draft is carried over at a time.
const CARRY_BYTES: usize = 1 << 20;

/// Stores what a [`CopyReader`](super::CopyReader) reads as one snapshot.
///
/// The caller has each batch [hashed](Self::hasher), takes references for its [`digests`](HashedBatch::digests), durably, and then
/// has it [stored](Self::store); the cursor that this returns is a checkpoint to be saved. At the end it calls
/// [`finish`](Self::finish). After an error, or in another process, it begins again with the last saved cursor.
pub struct CopyWriter {
    chunks: Arc<dyn ChunkStore>,
    snapshot: SnapshotId,
    geometry: Geometry,
    draft: Box<dyn Draft>,
    /// Has seen all that is in the draft.
    hasher: blake3::Hasher,
    cursor: Cursor,
    workers: usize,
    failed: bool,
}

impl CopyWriter {
    /// Begins a copy, or goes on from a cursor with what was copied before it.
    ///
    /// Each run has a draft of its own: an earlier one that is not over yet, though it was taken for dead, does no harm
    /// to it. The draft of the earlier run is taken over as far as the cursor goes; what was stored after it is copied
    /// again. If that is not possible the error is [`CopyError::Lost`], and a copy from the start will do.
    pub fn open(
        chunks: Arc<dyn ChunkStore>,
        snapshot: SnapshotId,
        run: RunName,
        disk: &DiskInfo,
        resume: Option<&Cursor>,
    ) -> Result<Self, CopyError> {
        Self::with_chunk_bytes(chunks, snapshot, run, disk, resume, CHUNK_BYTES)
    }

    /// With chunks of another length.
    pub(in crate::data) fn with_chunk_bytes(
        chunks: Arc<dyn ChunkStore>,
        snapshot: SnapshotId,
        run: RunName,
        disk: &DiskInfo,
        resume: Option<&Cursor>,
        chunk_bytes: u64,
    ) -> Result<Self, CopyError> {
        let header = ManifestHeader { disk_id: disk.id.clone(), disk_size: disk.size, chunk_bytes };
        let bad = CopyError::BadCursor { offset: 0, disk_size: disk.size };
        let geometry = header.geometry().ok_or(bad)?;
        let before = match resume {
            Some(cursor) if cursor.check(disk)? != geometry => {
                return Err(CopyError::BadCursor { offset: cursor.offset, disk_size: cursor.disk_size });
            }
            Some(cursor) => Some((cursor, open_draft_of(&*chunks, &snapshot, cursor)?)),
            None => None,
        };
        let start = Cursor {
            run: run.clone(),
            draft_bytes: 0,
            draft_digest: Digest::of(&[]),
            disk_identity: disk.identity.clone(),
            disk_size: disk.size,
            chunk_bytes,
            offset: 0,
            bytes_read: 0,
            chunks: 0,
            link: geometry.first_link(),
        };
        let draft = chunks.begin_draft(&snapshot, &run)?;
        let (hasher, workers) = (blake3::Hasher::new(), worker_count());
        let mut writer =
            Self { chunks, snapshot, geometry, draft, hasher, cursor: start, workers, failed: false };
        match before {
            Some((cursor, draft)) => writer.carry_over(&header, cursor, draft)?,
            None => {
                let mut bytes = Vec::new();
                header.write(&mut bytes);
                writer.append(&bytes)?;
            }
        }
        writer.draft.sync()?;
        Ok(writer)
    }

    /// How many threads store the chunks of a batch.
    #[cfg(test)]
    pub(in crate::data) fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// How far it has come: a checkpoint.
    pub const fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// What hashes batches before they are stored: by itself, so that one is hashed while the one before is stored.
    pub fn hasher(&self) -> BatchHasher {
        BatchHasher { snapshot: self.snapshot.clone(), workers: self.workers }
    }

    /// Stores the chunks of a batch that are not in the store, each under the incarnation that the caller was given for its
    /// digest, and returns how far the copy has come. All of it is durable on return.
    ///
    /// Chunks that are in the store already are trusted only if `trusted` says so: the others count as
    /// [fresh](ManifestEntry::fresh), as nobody is known to have read them back. `stop` is looked at between the chunks.
    pub fn store(
        &mut self,
        hashed: &HashedBatch,
        incarnations: &BTreeMap<Digest, Incarnation>,
        trusted: &(dyn Fn(&Digest) -> bool + Sync),
        stop: &AtomicBool,
    ) -> Result<Cursor, CopyError> {
        let batch = &hashed.batch;
        self.guarded(|writer| {
            if batch.start != writer.cursor.offset || batch.geometry != writer.geometry {
                return Err(CopyError::OutOfOrder { expected: writer.cursor.offset, found: batch.start });
            }
            if !batch.chunks.is_empty() {
                let stored = writer.store_chunks(hashed, incarnations, trusted, stop)?;
                writer.append_entries(hashed, stored)?;
            }
            writer.cursor.offset = batch.offset;
            writer.cursor.bytes_read = writer.cursor.bytes_read.saturating_add(batch.bytes_read);
            Ok(writer.cursor.clone())
        })
    }

    /// Makes the copy of the whole disk the manifest of the snapshot, and removes its drafts: the snapshot is complete,
    /// and durable on return.
    ///
    /// The caller has saved the [cursor](Self::cursor) before, also that of an empty disk, in a way that is refused to a run
    /// that is not the last one: so none that is not can get here with another copy than the last one has.
    pub fn finish(mut self) -> Result<Summary, CopyError> {
        self.guarded(|writer| {
            let Cursor { offset, disk_size, chunks, link, .. } = writer.cursor;
            if !writer.cursor.is_done() {
                return Err(CopyError::Unfinished { offset, disk_size });
            }
            let mut end = Vec::new();
            write_end(chunks, &link, &writer.hasher, &mut end);
            writer.append(&end)?;
            writer.draft.sync()?;
            let summary = writer.read_back()?;
            writer.chunks.seal(&writer.snapshot, &writer.cursor.run)?;
            Ok(summary)
        })
    }

    /// Runs one call, unless one before has failed.
    fn guarded<T>(&mut self, call: impl FnOnce(&mut Self) -> Result<T, CopyError>) -> Result<T, CopyError> {
        if self.failed {
            return Err(CopyError::Failed { snapshot: self.snapshot.clone() });
        }
        let result = call(self);
        self.failed = result.is_err();
        result
    }

    /// Stores each distinct chunk once, durably.
    fn store_chunks(
        &self,
        hashed: &HashedBatch,
        incarnations: &BTreeMap<Digest, Incarnation>,
        trusted: &(dyn Fn(&Digest) -> bool + Sync),
        stop: &AtomicBool,
    ) -> Result<BTreeMap<Digest, Stored>, CopyError> {
        let mut distinct = BTreeMap::new();
        for (digest, chunk) in hashed.chunks() {
            let incarnation = incarnations.get(&digest).ok_or(CopyError::NoIncarnation { digest })?;
            let name = ChunkName::new(digest, incarnation.clone());
            distinct.entry(digest).or_insert_with(|| (name, &chunk.plain[..]));
        }
        let distinct: Vec<(ChunkName, &[u8])> = distinct.into_values().collect();
        let store = &*self.chunks;
        let stored = in_parallel(&distinct, self.workers, stop, |(name, plain)| {
            Ok(match store.find(name)? {
                Some(stored_bytes) => (stored_bytes, !trusted(&name.digest)),
                None => (store.put(name, plain)?, true),
            })
        });
        let stored = stored.map_err(|broken| broken_copy(&self.snapshot, broken))?;
        let names: Vec<ChunkName> = distinct.into_iter().map(|(name, _)| name).collect();
        // Also those that were found: whoever put them may not have come to this yet.
        self.chunks.sync(&names)?;
        let stored = names
            .into_iter()
            .zip(stored)
            .map(|(name, (stored_bytes, fresh))| (name.digest, Stored { name, stored_bytes, fresh }));
        Ok(stored.collect())
    }

    /// Adds chunks that are durable to the draft, durably.
    fn append_entries(
        &mut self,
        hashed: &HashedBatch,
        mut stored: BTreeMap<Digest, Stored>,
    ) -> Result<(), CopyError> {
        let mut bytes = Vec::new();
        for (digest, chunk) in hashed.chunks() {
            let Some(stored) = stored.get_mut(&digest) else { continue };
            let Stored { name, stored_bytes, fresh } = stored.clone();
            // What comes again in this batch was written once.
            stored.fresh = false;
            self.add(&ManifestEntry { index: chunk.index, name, stored_bytes, fresh }, &mut bytes);
        }
        self.append(&bytes)?;
        Ok(self.draft.sync()?)
    }

    /// Writes an entry and counts it.
    fn add(&mut self, entry: &ManifestEntry, bytes: &mut Vec<u8>) {
        entry.write(bytes);
        self.cursor.chunks = self.cursor.chunks.saturating_add(1);
        self.cursor.link = next_link(&self.cursor.link, entry.index, &entry.name.digest);
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), ChunkError> {
        self.draft.append(bytes)?;
        self.hasher.update(bytes);
        self.cursor.draft_bytes = self.cursor.draft_bytes.saturating_add(bytes.len() as u64);
        self.cursor.draft_digest = Digest::from_bytes(*self.hasher.finalize().as_bytes());
        Ok(())
    }

    /// Takes over the draft of an earlier run up to a cursor, and checks that it is what the cursor promises.
    fn carry_over(
        &mut self,
        header: &ManifestHeader,
        cursor: &Cursor,
        draft: impl Read,
    ) -> Result<(), CopyError> {
        let lost = |why| CopyError::Lost { snapshot: self.snapshot.clone(), why };
        let (found, mut entries) = EntryReader::open(draft.take(cursor.draft_bytes))
            .map_err(|why| unreadable(&self.snapshot, why))?;
        if found != *header {
            return Err(lost("it is of another disk"));
        }
        let mut bytes = Vec::new();
        header.write(&mut bytes);
        while entries.length < cursor.draft_bytes {
            let entry = entries.next_entry().map_err(|why| unreadable(&self.snapshot, why))?;
            let Some(entry) = entry else { break };
            self.add(&entry, &mut bytes);
            if bytes.len() >= CARRY_BYTES {
                self.append(&bytes)?;
                bytes.clear();
            }
        }
        self.append(&bytes)?;
        let proof = |it: &Cursor| (it.draft_bytes, it.draft_digest, it.chunks, it.link);
        if proof(&self.cursor) != proof(cursor) {
            let why = "it has not the chunks that were stored";
            return Err(CopyError::Lost { snapshot: self.snapshot.clone(), why });
        }
        (self.cursor.offset, self.cursor.bytes_read) = (cursor.offset, cursor.bytes_read);
        Ok(())
    }

    /// Reads the complete draft once more, as what it will be.
    fn read_back(&self) -> Result<Summary, CopyError> {
        let (snapshot, run) = (&self.snapshot, &self.cursor.run);
        let gone = || ChunkError::NoDraft { snapshot: snapshot.clone(), run: run.clone() };
        let open = || {
            let draft = self.chunks.read_draft(snapshot, run)?;
            ManifestReader::of(draft.ok_or_else(gone)?, snapshot)
        };
        match Summary::of(open) {
            Ok(summary) if summary.content_hash == self.cursor.link => Ok(summary),
            Ok(_) => Err(CopyError::Lost { snapshot: snapshot.clone(), why: "its content hash is wrong" }),
            Err(ChunkError::DamagedManifest { why, .. }) => {
                Err(CopyError::Lost { snapshot: snapshot.clone(), why })
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl fmt::Debug for CopyWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyWriter")
            .field("snapshot", &self.snapshot)
            .field("cursor", &self.cursor)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// Hashes the chunks of batches, on several threads.
#[derive(Debug, Clone)]
pub struct BatchHasher {
    snapshot: SnapshotId,
    workers: usize,
}

impl BatchHasher {
    /// Hashes the chunks of a batch. `stop` is looked at between them.
    pub fn hash(&self, batch: Batch, stop: &AtomicBool) -> Result<HashedBatch, CopyError> {
        let digests = in_parallel(&batch.chunks, self.workers, stop, |chunk| Ok(Digest::of(&chunk.plain)));
        let chunk_digests = digests.map_err(|broken| broken_copy(&self.snapshot, broken))?;
        Ok(HashedBatch { batch, chunk_digests })
    }
}

/// The caller's error for what ended the workers.
fn broken_copy(snapshot: &SnapshotId, broken: Broken<ChunkError>) -> CopyError {
    let snapshot = snapshot.clone();
    match broken {
        Broken::Stopped => CopyError::Stopped { snapshot },
        Broken::Panicked(message) => CopyError::Panicked { snapshot, message },
        Broken::Failed(error) => error.into(),
    }
}

/// A chunk that is in the store.
#[derive(Debug, Clone)]
struct Stored {
    name: ChunkName,
    stored_bytes: u64,
    fresh: bool,
}

/// Opens the draft that a cursor belongs to.
///
/// A run that came to its end, but not to telling so, has left no draft but a manifest. That begins with
/// the same bytes.
fn open_draft_of(
    chunks: &dyn ChunkStore,
    snapshot: &SnapshotId,
    cursor: &Cursor,
) -> Result<impl Read + use<>, CopyError> {
    let draft = match chunks.read_draft(snapshot, &cursor.run)? {
        None => chunks.read_manifest(snapshot)?,
        draft => draft,
    };
    draft.ok_or_else(|| CopyError::Lost { snapshot: snapshot.clone(), why: "it is missing" })
}

fn unreadable(snapshot: &SnapshotId, why: Unreadable) -> CopyError {
    match why {
        Unreadable::Bad(why) => CopyError::Lost { snapshot: snapshot.clone(), why },
        Unreadable::Io(source) => {
            ChunkError::of_io("read", Subject::Draft(snapshot.clone()), None, source).into()
        }
    }
}
