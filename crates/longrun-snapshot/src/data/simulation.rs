//! Snapshots that share chunks are made, deleted and rolled back at the same time, over crashes.
//!
//! Each run of an operation is a thread, but only one goes on at a time: before each action on the store or on the
//! references it waits for its turn, which a seed decides. The seed also decides when
//!
//! * the power fails: all runs end where they are, what was not durable is kept or lost, and new runs begin;
//! * a run is taken for dead: another begins, and the old one goes on as a zombie. It can change no reference and
//!   no row any more, but nothing keeps it from the chunk store;
//! * a snapshot is deleted or rolled back, a disk is written to, a sweep goes by.
//!
//! The references are kept in maps as the [module's page](super) has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Cursor as Bytes},
    mem,
    ops::Range,
    panic,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
};

use super::{
    BoxError, ByteStream, ChunkError, ChunkFolder, ChunkName, ChunkStore, CopyError, CopyReader, CopyWriter,
    Cursor, Digest, DiskError, DiskInfo, DiskRead, Draft, HashedBatch, Incarnation, IsLive, ManifestReader,
    Owner, RunName, SnapshotId, Subject, SweepError, Swept,
    geometry::{Geometry, next_link},
    verify, verify_fresh,
};

const CHUNK: u64 = 16;

/// What is done wrong on purpose, to see that it is noticed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Fault {
    #[default]
    None,
    /// A digest that comes back has the incarnation that it had.
    SameIncarnation,
    /// The names of chunks are never durable.
    NoSync,
    /// References are dropped after the files are removed.
    FilesFirst,
}

/// A small random generator.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(0x9E37_79B9_7F4A_7C15))
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % end
    }

    fn letter(&mut self) -> u8 {
        b"\0abcd"[self.below(5)]
    }

    fn one_in(&mut self, sides: usize) -> bool {
        self.below(sides) == 0
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

// A disk of letters: each chunk is one letter all over; letter 0 is a hole.

struct Letters {
    info: DiskInfo,
    letters: Vec<u8>,
}

impl DiskRead for Letters {
    fn info(&self) -> &DiskInfo {
        &self.info
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        for (at, byte) in buffer.iter_mut().enumerate() {
            *byte = self.letters[((offset + at as u64) / CHUNK) as usize];
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskError> {
        let data = (offset..self.info.size).find(|at| self.letters[(at / CHUNK) as usize] != 0);
        Ok(data.map(|start| start..(start / CHUNK + 1).saturating_mul(CHUNK).min(self.info.size)))
    }

    fn check_unchanged(&self) -> Result<(), DiskError> {
        Ok(())
    }
}

/// The content hash of a disk of letters.
fn content_hash(letters: &[u8], size: u64) -> Digest {
    let disk = Geometry::new(size, CHUNK).unwrap();
    let chunks = letters.iter().enumerate().filter(|(_, letter)| **letter != 0);
    chunks.fold(disk.first_link(), |link, (index, &letter)| {
        next_link(&link, index as u64, &Digest::of(&vec![letter; disk.chunk_len(index as u64)]))
    })
}

// A chunk store in memory that knows what is durable.

#[derive(Debug, Default)]
struct Memory {
    fault: Fault,
    state: Mutex<MemoryState>,
}

#[derive(Debug, Default)]
struct MemoryState {
    /// With whether the name is durable.
    chunks: BTreeMap<ChunkName, (Vec<u8>, bool)>,
    drafts: BTreeMap<(SnapshotId, RunName), Arc<Mutex<MemoryFile>>>,
    manifests: BTreeMap<SnapshotId, Arc<Mutex<MemoryFile>>>,
}

#[derive(Debug, Default)]
struct MemoryFile {
    bytes: Vec<u8>,
    /// `None`: it was never synced.
    durable: Option<usize>,
    removed: bool,
}

impl MemoryState {
    /// What is not durable is kept or lost.
    fn lose_power(&mut self, dice: &mut Dice) {
        self.chunks.retain(|_, (_, durable)| *durable || dice.one_in(2));
        self.drafts.retain(|_, file| lock(file).durable.is_some() || dice.one_in(2));
        for file in self.drafts.values() {
            let mut file = lock(file);
            let (durable, length) = (file.durable.unwrap_or(0), file.bytes.len());
            file.bytes.truncate(durable + dice.below(length - durable + 1));
        }
    }

    fn retire_drafts(&mut self, snapshot: &SnapshotId) {
        self.drafts.retain(|(of, _), file| {
            let kept = of != snapshot;
            lock(file).removed |= !kept;
            kept
        });
    }
}

impl ChunkStore for Memory {
    fn claim(&self, _: &Owner, _: u64) -> Result<(), ChunkError> {
        Ok(())
    }

    fn put(&self, name: &ChunkName, plain: &[u8]) -> Result<u64, ChunkError> {
        assert_eq!(Digest::of(plain), name.digest);
        lock(&self.state).chunks.insert(name.clone(), (plain.to_vec(), false));
        Ok(plain.len() as u64)
    }

    fn find(&self, name: &ChunkName) -> Result<Option<u64>, ChunkError> {
        Ok(lock(&self.state).chunks.get(name).map(|(plain, _)| plain.len() as u64))
    }

    fn get(&self, name: &ChunkName) -> Result<Vec<u8>, ChunkError> {
        let found = lock(&self.state).chunks.get(name).map(|(plain, _)| plain.clone());
        found.ok_or_else(|| ChunkError::Missing { name: name.clone() })
    }

    fn sync(&self, names: &[ChunkName]) -> Result<(), ChunkError> {
        let mut state = lock(&self.state);
        for name in names {
            if let Some((_, durable)) = state.chunks.get_mut(name) {
                *durable = self.fault != Fault::NoSync;
            }
        }
        Ok(())
    }

    fn remove(&self, names: &[ChunkName]) -> Result<(), ChunkError> {
        let mut state = lock(&self.state);
        names.iter().for_each(|name| drop(state.chunks.remove(name)));
        Ok(())
    }

    fn sweep(&self, is_live: &mut IsLive<'_>) -> Result<Swept, SweepError> {
        let names: Vec<ChunkName> = lock(&self.state).chunks.keys().cloned().collect();
        for some in names.chunks(2) {
            let live = is_live(some).map_err(SweepError::Ended)?;
            for (name, _) in some.iter().zip(live).filter(|(_, live)| !live) {
                lock(&self.state).chunks.remove(name);
            }
        }
        Ok(Swept::default())
    }

    fn begin_draft(&self, snapshot: &SnapshotId, run: &RunName) -> Result<Box<dyn Draft>, ChunkError> {
        let file = Arc::<Mutex<MemoryFile>>::default();
        let key = (snapshot.clone(), run.clone());
        lock(&self.state).drafts.insert(key.clone(), Arc::clone(&file));
        Ok(Box::new(MemoryDraft { key, file }))
    }

    fn read_draft(&self, snapshot: &SnapshotId, run: &RunName) -> Result<Option<ByteStream>, ChunkError> {
        let state = lock(&self.state);
        let file = state.drafts.get(&(snapshot.clone(), run.clone()));
        Ok(file.map(|file| Box::new(Bytes::new(lock(file).bytes.clone())) as ByteStream))
    }

    fn seal(&self, snapshot: &SnapshotId, run: &RunName) -> Result<(), ChunkError> {
        let mut state = lock(&self.state);
        let key = (snapshot.clone(), run.clone());
        let (snapshot, run) = key.clone();
        let file = state.drafts.remove(&key).ok_or(ChunkError::NoDraft { snapshot, run })?;
        let synced = |file: &MemoryFile| file.durable == Some(file.bytes.len());
        assert!(synced(&lock(&file)), "sealed before it was synced");
        state.manifests.insert(key.0.clone(), file);
        state.retire_drafts(&key.0);
        Ok(())
    }

    fn read_manifest(&self, snapshot: &SnapshotId) -> Result<Option<ByteStream>, ChunkError> {
        let state = lock(&self.state);
        let file = state.manifests.get(snapshot);
        Ok(file.map(|file| Box::new(Bytes::new(lock(file).bytes.clone())) as ByteStream))
    }

    fn discard_drafts(&self, snapshot: &SnapshotId) -> Result<bool, ChunkError> {
        let mut state = lock(&self.state);
        let any = state.drafts.keys().any(|(of, _)| of == snapshot);
        state.retire_drafts(snapshot);
        Ok(any)
    }

    fn discard(&self, snapshot: &SnapshotId) -> Result<(), ChunkError> {
        let mut state = lock(&self.state);
        state.retire_drafts(snapshot);
        state.manifests.remove(snapshot);
        Ok(())
    }

    fn snapshots(
        &self,
        see: &mut dyn FnMut(&[SnapshotId]) -> Result<(), BoxError>,
    ) -> Result<(), SweepError> {
        let state = lock(&self.state);
        let drafts = state.drafts.keys().map(|(snapshot, _)| snapshot);
        let all: Vec<SnapshotId> = state.manifests.keys().chain(drafts).cloned().collect();
        drop(state);
        see(&all).map_err(SweepError::Ended)
    }
}

#[derive(Debug)]
struct MemoryDraft {
    key: (SnapshotId, RunName),
    file: Arc<Mutex<MemoryFile>>,
}

impl Draft for MemoryDraft {
    fn append(&mut self, bytes: &[u8]) -> Result<(), ChunkError> {
        lock(&self.file).bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), ChunkError> {
        let mut file = lock(&self.file);
        file.durable = Some(file.bytes.len());
        let (snapshot, run) = self.key.clone();
        if file.removed { Err(ChunkError::NoDraft { snapshot, run }) } else { Ok(()) }
    }
}

// What is in the engine's store: rows of snapshots and references. A change is atomic, durable, and refused to a run that
// is not the last of its operation.

#[derive(Default)]
struct Rows {
    fault: Fault,
    snapshots: BTreeMap<SnapshotId, Row>,
    /// Which holder has which digest, and in which incarnation.
    references: BTreeMap<(SnapshotId, Digest), Incarnation>,
    /// How many hold a digest, from the first taker to the last dropper.
    records: BTreeMap<Digest, (Incarnation, usize)>,
    /// Dropped by its last holder, this one, and perhaps not removed yet.
    dying: BTreeSet<(SnapshotId, ChunkName)>,
    /// Incarnations given out.
    count: u64,
}

struct Row {
    disk: usize,
    epoch: u64,
    phase: Phase,
}

#[derive(Clone, Debug)]
enum Phase {
    Copying(Option<Cursor>),
    Ready(Digest),
    Removing,
    Gone,
}

impl Rows {
    fn take(&mut self, holder: &SnapshotId, digests: BTreeSet<Digest>) -> BTreeMap<Digest, Incarnation> {
        let mut taken = BTreeMap::new();
        for digest in digests {
            let key = (holder.clone(), digest);
            if !self.references.contains_key(&key) {
                let record = self.records.entry(digest).or_insert_with(|| {
                    self.count += u64::from(self.fault != Fault::SameIncarnation);
                    (format!("i-{}", self.count).parse().unwrap(), 0)
                });
                record.1 += 1;
                self.references.insert(key.clone(), record.0.clone());
            }
            taken.insert(digest, self.references[&key].clone());
        }
        taken
    }

    /// Drops some references and returns what nobody holds now. Nothing: none are left.
    fn drop_some(&mut self, holder: &SnapshotId) -> Vec<ChunkName> {
        let of_holder: Vec<Digest> =
            self.references.keys().filter(|(of, _)| of == holder).map(|(_, digest)| *digest).collect();
        for digest in of_holder.into_iter().take(3) {
            let incarnation = self.references.remove(&(holder.clone(), digest)).unwrap();
            let record = self.records.get_mut(&digest).unwrap();
            assert_eq!(record.0, incarnation);
            record.1 -= 1;
            if record.1 == 0 {
                self.records.remove(&digest);
                self.dying.insert((holder.clone(), ChunkName::new(digest, incarnation)));
            }
        }
        self.dying.iter().filter(|(of, _)| of == holder).map(|(_, name)| name.clone()).collect()
    }

    /// What would have no holder left.
    fn held_by_one(&self, holder: &SnapshotId) -> Vec<ChunkName> {
        let of_holder = self.references.iter().filter(|((of, _), _)| of == holder);
        let alone = of_holder.filter(|((_, digest), _)| self.records[digest].1 == 1);
        alone.map(|((_, digest), incarnation)| ChunkName::new(*digest, incarnation.clone())).collect()
    }

    fn is_live(&self, name: &ChunkName) -> bool {
        self.records.get(&name.digest).is_some_and(|(incarnation, _)| *incarnation == name.incarnation)
    }
}

// Threads that take turns.

/// The thread's end of it: it waits for its turn, and learns when it is no more.
#[derive(Debug)]
struct Turn {
    thread: usize,
    tell: Sender<(usize, bool)>,
    go_on: Mutex<Receiver<bool>>,
    dead: AtomicBool,
}

impl Turn {
    fn wait(&self) -> Result<(), ChunkError> {
        let dead = self.dead.load(Ordering::Relaxed)
            || self.tell.send((self.thread, true)).is_err()
            || lock(&self.go_on).recv() != Ok(true);
        if !dead {
            return Ok(());
        }
        self.dead.store(true, Ordering::Relaxed);
        Err(ChunkError::of_io("reach", Subject::Store, None, io::Error::other("the power failed")))
    }
}

/// The store as a run sees it: it waits for its turn before each action.
#[derive(Debug)]
struct TakingTurns {
    store: Arc<dyn ChunkStore>,
    turn: Arc<Turn>,
}

impl ChunkStore for TakingTurns {
    fn claim(&self, owner: &Owner, epoch: u64) -> Result<(), ChunkError> {
        self.store.claim(owner, epoch)
    }

    fn put(&self, name: &ChunkName, plain: &[u8]) -> Result<u64, ChunkError> {
        self.turn.wait()?;
        self.store.put(name, plain)
    }

    fn find(&self, name: &ChunkName) -> Result<Option<u64>, ChunkError> {
        self.turn.wait()?;
        self.store.find(name)
    }

    fn get(&self, name: &ChunkName) -> Result<Vec<u8>, ChunkError> {
        self.store.get(name)
    }

    fn sync(&self, names: &[ChunkName]) -> Result<(), ChunkError> {
        self.turn.wait()?;
        self.store.sync(names)
    }

    fn remove(&self, names: &[ChunkName]) -> Result<(), ChunkError> {
        for name in names {
            self.turn.wait()?;
            self.store.remove(std::slice::from_ref(name))?;
        }
        Ok(())
    }

    fn sweep(&self, is_live: &mut IsLive<'_>) -> Result<Swept, SweepError> {
        self.store.sweep(&mut |names| {
            self.turn.wait()?;
            let live = is_live(names)?;
            self.turn.wait()?;
            Ok(live)
        })
    }

    fn begin_draft(&self, snapshot: &SnapshotId, run: &RunName) -> Result<Box<dyn Draft>, ChunkError> {
        self.turn.wait()?;
        let draft = self.store.begin_draft(snapshot, run)?;
        Ok(Box::new(DraftTakingTurns { draft, turn: Arc::clone(&self.turn) }))
    }

    fn read_draft(&self, snapshot: &SnapshotId, run: &RunName) -> Result<Option<ByteStream>, ChunkError> {
        self.turn.wait()?;
        self.store.read_draft(snapshot, run)
    }

    fn seal(&self, snapshot: &SnapshotId, run: &RunName) -> Result<(), ChunkError> {
        self.turn.wait()?;
        self.store.seal(snapshot, run)
    }

    fn read_manifest(&self, snapshot: &SnapshotId) -> Result<Option<ByteStream>, ChunkError> {
        self.turn.wait()?;
        self.store.read_manifest(snapshot)
    }

    fn discard_drafts(&self, snapshot: &SnapshotId) -> Result<bool, ChunkError> {
        self.turn.wait()?;
        self.store.discard_drafts(snapshot)
    }

    fn discard(&self, snapshot: &SnapshotId) -> Result<(), ChunkError> {
        self.turn.wait()?;
        self.store.discard(snapshot)
    }

    fn snapshots(
        &self,
        see: &mut dyn FnMut(&[SnapshotId]) -> Result<(), BoxError>,
    ) -> Result<(), SweepError> {
        self.store.snapshots(see)
    }
}

#[derive(Debug)]
struct DraftTakingTurns {
    draft: Box<dyn Draft>,
    turn: Arc<Turn>,
}

impl Draft for DraftTakingTurns {
    fn append(&mut self, bytes: &[u8]) -> Result<(), ChunkError> {
        self.turn.wait()?;
        self.draft.append(bytes)
    }

    fn sync(&mut self) -> Result<(), ChunkError> {
        self.turn.wait()?;
        self.draft.sync()
    }
}

// What a run does. This is the order in which a service has to do it.

/// The run was told that it is not the last one, or the power failed.
#[derive(Debug)]
enum Ended {
    Fenced,
    Copy(CopyError),
}

impl<E: Into<CopyError>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Copy(error.into())
    }
}

struct Run {
    rows: Arc<Mutex<Rows>>,
    disks: Arc<Mutex<Vec<Vec<u8>>>>,
    plain_store: Arc<dyn ChunkStore>,
    store: Arc<dyn ChunkStore>,
    turn: Arc<Turn>,
    snapshot: SnapshotId,
    epoch: u64,
    budget: u64,
}

impl Run {
    /// One commit.
    fn commit<T>(&self, change: impl FnOnce(&mut Rows) -> T) -> Result<T, Ended> {
        self.turn.wait()?;
        let mut rows = lock(&self.rows);
        let row = &rows.snapshots[&self.snapshot];
        if row.epoch == self.epoch { Ok(change(&mut rows)) } else { Err(Ended::Fenced) }
    }

    fn move_to(&self, phase: Phase) -> Result<(), Ended> {
        self.commit(|rows| rows.snapshots.get_mut(&self.snapshot).unwrap().phase = phase)
    }

    fn go(&self) -> Result<(), Ended> {
        match self.commit(|rows| rows.snapshots[&self.snapshot].phase.clone())? {
            Phase::Copying(cursor) => match self.copy(cursor) {
                Err(Ended::Copy(CopyError::Lost { .. })) => self.copy(None),
                copied => copied,
            },
            Phase::Removing => self.remove(),
            Phase::Ready(_) | Phase::Gone => Ok(()),
        }
    }

    fn copy(&self, cursor: Option<Cursor>) -> Result<(), Ended> {
        let disk = self.commit(|rows| rows.snapshots[&self.snapshot].disk)?;
        let run: RunName = format!("e-{}", self.epoch).parse().unwrap();
        let mut reader = CopyReader::with_chunk_bytes(open_disk(&self.disks, disk), cursor.as_ref(), CHUNK)?;
        let (store, snapshot, resume) = (Arc::clone(&self.store), self.snapshot.clone(), cursor.as_ref());
        let writer = CopyWriter::with_chunk_bytes(store, snapshot, run, reader.info(), resume, CHUNK)?;
        let mut writer = writer.workers(1);
        while let Some(batch) = reader.next_batch(self.budget)? {
            let batch = writer.hasher().hash(batch, &AtomicBool::new(false))?;
            let taken = self.take(&batch)?;
            // Nobody tells here which chunks were read back.
            let cursor = writer.store(&batch, &taken, &|_| false, &AtomicBool::new(false))?;
            self.move_to(Phase::Copying(Some(cursor)))?;
        }
        self.move_to(Phase::Copying(Some(writer.cursor().clone())))?;
        let summary = writer.finish()?;
        let verified = verify_fresh(&*self.plain_store, &self.snapshot, &mut |_| true);
        // A zombie has its chunks taken away under its eyes.
        let verified = self.commit(|_| verified)?;
        assert_eq!(verified.unwrap().content_hash, summary.content_hash);
        self.move_to(Phase::Ready(summary.content_hash))
    }

    fn take(&self, batch: &HashedBatch) -> Result<BTreeMap<Digest, Incarnation>, Ended> {
        self.commit(|rows| rows.take(&self.snapshot, batch.digests()))
    }

    fn remove(&self) -> Result<(), Ended> {
        if self.commit(|rows| rows.fault)? == Fault::FilesFirst {
            let held = self.commit(|rows| rows.held_by_one(&self.snapshot))?;
            self.store.remove(&held)?;
        }
        loop {
            let dying = self.commit(|rows| rows.drop_some(&self.snapshot))?;
            self.store.remove(&dying)?;
            let left = self.commit(|rows| {
                rows.dying.retain(|(of, name)| *of != self.snapshot || !dying.contains(name));
                rows.references.keys().any(|(of, _)| *of == self.snapshot)
            })?;
            if !left {
                break;
            }
        }
        self.store.discard(&self.snapshot)?;
        self.move_to(Phase::Gone)
    }
}

fn open_disk(disks: &Mutex<Vec<Vec<u8>>>, disk: usize) -> Box<dyn DiskRead> {
    let letters = lock(disks)[disk].clone();
    let info = DiskInfo {
        id: format!("disk-{disk}").parse().unwrap(),
        size: disk_size(&letters, disk),
        identity: "the same".into(),
        product_ids: vec![],
        folder_id: None,
    };
    Box::new(Letters { info, letters })
}

/// Some disks end in the middle of a chunk.
fn disk_size(letters: &[u8], disk: usize) -> u64 {
    letters.len() as u64 * CHUNK - if letters.is_empty() { 0 } else { disk as u64 % 3 }
}

// The world, which the seed moves on.

struct World {
    dice: Dice,
    memory: Option<Arc<Memory>>,
    store: Arc<dyn ChunkStore>,
    rows: Arc<Mutex<Rows>>,
    disks: Arc<Mutex<Vec<Vec<u8>>>>,
    written_to: bool,
    threads: BTreeMap<usize, Thread>,
    tell: Sender<(usize, bool)>,
    told: Receiver<(usize, bool)>,
    count: usize,
}

struct Thread {
    /// It seldom gets a turn: it is overtaken.
    slow: bool,
    go_on: Sender<bool>,
    thread: JoinHandle<()>,
}

/// Tells that a thread is over, also if it panics.
struct Over(usize, Sender<(usize, bool)>);

impl Drop for Over {
    fn drop(&mut self) {
        let _ = self.1.send((self.0, false));
    }
}

impl World {
    fn new(seed: u64, fault: Fault, store: Arc<dyn ChunkStore>, memory: Option<Arc<Memory>>) -> Self {
        let mut dice = Dice::new(seed);
        let mut disk = |_| (0..dice.below(8)).map(|_| dice.letter()).collect();
        let disks = (0..3).map(&mut disk).collect();
        let (tell, told) = channel();
        Self {
            written_to: dice.one_in(2),
            dice,
            memory,
            store,
            rows: Arc::new(Mutex::new(Rows { fault, ..Rows::default() })),
            disks: Arc::new(Mutex::new(disks)),
            threads: BTreeMap::new(),
            tell,
            told,
            count: 0,
        }
    }

    /// Begins a thread; it waits for its first turn.
    fn spawn(&mut self, work: impl FnOnce(Arc<Turn>) + Send + 'static) {
        self.count += 1;
        let (thread, (go_on, receiver)) = (self.count, channel());
        let turn = Arc::new(Turn {
            thread,
            tell: self.tell.clone(),
            go_on: Mutex::new(receiver),
            dead: AtomicBool::new(false),
        });
        let over = Over(thread, self.tell.clone());
        let handle = thread::spawn(move || {
            let _over = over;
            work(turn);
        });
        let slow = self.dice.one_in(3);
        self.threads.insert(thread, Thread { slow, go_on, thread: handle });
        self.until_it_waits();
    }

    /// Waits until the one thread that is going on waits or has ended.
    fn until_it_waits(&mut self) {
        if let (thread, false) = self.told.recv().unwrap() {
            self.threads.remove(&thread).unwrap().thread.join().unwrap();
        }
    }

    /// Lets one thread go on. `false`: there is none.
    fn turn(&mut self) -> bool {
        if self.threads.is_empty() {
            return false;
        }
        let at = self.dice.below(self.threads.len());
        let chosen = self.threads.values().nth(at).unwrap();
        if !chosen.slow || self.dice.one_in(20) {
            chosen.go_on.send(true).unwrap();
            self.until_it_waits();
        }
        true
    }

    /// Begins a new run of the operation on a snapshot. If there is one, it becomes a zombie.
    fn run(&mut self, snapshot: &SnapshotId) {
        let epoch = {
            let mut rows = lock(&self.rows);
            let row = rows.snapshots.get_mut(snapshot).unwrap();
            row.epoch += 1;
            row.epoch
        };
        let (rows, disks, plain_store) =
            (Arc::clone(&self.rows), Arc::clone(&self.disks), Arc::clone(&self.store));
        let (snapshot, budget) = (snapshot.clone(), CHUNK * (1 + self.dice.below(3)) as u64);
        self.spawn(move |turn| {
            let store = Arc::new(TakingTurns { store: Arc::clone(&plain_store), turn: Arc::clone(&turn) });
            let run = Run { rows, disks, plain_store, store, turn, snapshot, epoch, budget };
            match run.go() {
                Ok(()) | Err(Ended::Fenced) => {}
                Err(Ended::Copy(error)) => {
                    // Only the last run has a right to be served.
                    let last = lock(&run.rows).snapshots[&run.snapshot].epoch == run.epoch;
                    let dead = run.turn.dead.load(Ordering::Relaxed);
                    let superseded = matches!(error, CopyError::Superseded { .. });
                    assert!(dead || superseded || !last, "{error}: {error:?}");
                }
            }
        });
    }

    fn sweep(&mut self) {
        let (rows, store) = (Arc::clone(&self.rows), Arc::clone(&self.store));
        self.spawn(move |turn| {
            let store = TakingTurns { store, turn };
            let _ = store.sweep(&mut |names| {
                let rows = lock(&rows);
                Ok(names.iter().map(|name| rows.is_live(name)).collect())
            });
        });
    }

    fn snapshots_in(&self, phase: fn(&Phase) -> bool) -> Vec<SnapshotId> {
        let rows = lock(&self.rows);
        rows.snapshots.iter().filter(|(_, row)| phase(&row.phase)).map(|(id, _)| id.clone()).collect()
    }

    fn one_of(&mut self, snapshots: &[SnapshotId]) -> Option<SnapshotId> {
        (!snapshots.is_empty()).then(|| snapshots[self.dice.below(snapshots.len())].clone())
    }

    fn create(&mut self) {
        let disk = self.dice.below(3);
        let snapshot: SnapshotId = {
            let mut rows = lock(&self.rows);
            let id: SnapshotId = format!("s{}", rows.snapshots.len()).parse().unwrap();
            rows.snapshots.insert(id.clone(), Row { disk, epoch: 0, phase: Phase::Copying(None) });
            id
        };
        self.run(&snapshot);
    }

    fn remove(&mut self, snapshot: &SnapshotId) {
        lock(&self.rows).snapshots.get_mut(snapshot).unwrap().phase = Phase::Removing;
        self.run(snapshot);
    }

    fn lose_power(&mut self) {
        for (_, thread) in mem::take(&mut self.threads) {
            thread.go_on.send(false).unwrap();
            assert!(!self.told.recv().unwrap().1);
            thread.thread.join().unwrap();
        }
        if let Some(memory) = &self.memory {
            lock(&memory.state).lose_power(&mut self.dice);
        }
        for snapshot in self.unfinished() {
            self.run(&snapshot);
        }
    }

    fn unfinished(&self) -> Vec<SnapshotId> {
        self.snapshots_in(|phase| matches!(phase, Phase::Copying(_) | Phase::Removing))
    }

    /// Something happens.
    fn happen(&mut self) {
        match self.dice.below(12) {
            0..=2 if lock(&self.rows).snapshots.len() < 6 => self.create(),
            3..=4 => {
                let ready = self.snapshots_in(|phase| matches!(phase, Phase::Ready(_)));
                if let Some(snapshot) = self.one_of(&ready) {
                    self.remove(&snapshot);
                }
            }
            5 => {
                let copying = self.snapshots_in(|phase| matches!(phase, Phase::Copying(_)));
                if let Some(snapshot) = self.one_of(&copying) {
                    self.remove(&snapshot);
                }
            }
            6..=7 => {
                if let Some(snapshot) = self.one_of(&self.unfinished()) {
                    self.run(&snapshot);
                }
            }
            8..=9 => self.lose_power(),
            10 => self.sweep(),
            11 if self.written_to => {
                let mut disks = lock(&self.disks);
                let disk = &mut disks[self.dice.below(3)];
                if !disk.is_empty() {
                    let at = self.dice.below(disk.len());
                    disk[at] = self.dice.letter();
                }
            }
            _ => {}
        }
    }

    /// Gives turns until all has ended and nobody is left who could go on.
    fn settle(&mut self) {
        loop {
            while self.turn() {}
            let unfinished = self.unfinished();
            if unfinished.is_empty() {
                return;
            }
            // Runs that were superseded by a zombie, and give up, are run again.
            unfinished.iter().for_each(|snapshot| self.run(snapshot));
        }
    }

    /// What holds at any time: all that a complete snapshot needs is there.
    fn check(&self) {
        let Some(memory) = &self.memory else { return };
        let rows = lock(&self.rows);
        for (id, row) in &rows.snapshots {
            let Phase::Ready(hash) = row.phase else { continue };
            let mut manifest = ManifestReader::open(&**memory, id).unwrap();
            for entry in &mut manifest {
                let name = entry.unwrap().name;
                assert!(rows.is_live(&name), "{id} has {name} that is not live");
                assert!(memory.find(&name).unwrap().is_some(), "{id} has lost {name}");
            }
            assert_eq!(manifest.content_hash(), hash, "{id} has another manifest");
        }
    }

    /// What holds at the end.
    fn check_all(&mut self) {
        self.store
            .snapshots(&mut |some| {
                let rows = lock(&self.rows);
                for id in some.iter().filter(|id| matches!(rows.snapshots[*id].phase, Phase::Gone)) {
                    self.store.discard(id)?;
                }
                Ok(())
            })
            .unwrap();
        let rows = lock(&self.rows);
        let sweep = |store: &dyn ChunkStore| {
            let live = |names: &[ChunkName]| names.iter().map(|name| rows.is_live(name)).collect();
            store.sweep(&mut |names| Ok(live(names))).unwrap()
        };
        sweep(&*self.store);
        assert!(rows.dying.is_empty());
        let mut left = BTreeSet::new();
        let mut see = |some: &[SnapshotId]| {
            left.extend(some.iter().cloned());
            Ok(())
        };
        self.store.snapshots(&mut see).unwrap();
        for (id, row) in &rows.snapshots {
            let Phase::Ready(hash) = &row.phase else { continue };
            assert!(left.remove(id));
            let verified = verify(&*self.store, id, &mut |_| true).unwrap();
            assert_eq!(verified.content_hash, *hash, "{id}");
            let letters = &lock(&self.disks)[row.disk];
            if !self.written_to {
                assert_eq!(*hash, content_hash(letters, disk_size(letters, row.disk)));
            }
        }
        assert_eq!(left, BTreeSet::new(), "left over");
        let mut found = BTreeSet::new();
        self.store
            .sweep(&mut |names| {
                found.extend(names.iter().cloned());
                Ok(vec![true; names.len()])
            })
            .unwrap();
        assert!(found.iter().all(|name| rows.is_live(name)), "left over");
    }

    fn play(mut self, moves: usize) -> Arc<dyn ChunkStore> {
        self.create();
        for _ in 0..moves {
            if self.dice.one_in(12) {
                self.happen();
            } else {
                self.turn();
            }
            self.check();
        }
        self.settle();
        self.check_all();
        for snapshot in self.snapshots_in(|phase| matches!(phase, Phase::Ready(_))) {
            self.remove(&snapshot);
        }
        self.settle();
        self.check_all();
        self.store
    }
}

fn play_in_memory(seed: u64, fault: Fault) {
    let memory = Arc::new(Memory { fault, ..Memory::default() });
    World::new(seed, fault, Arc::clone(&memory) as _, Some(Arc::clone(&memory))).play(200);
    let state = lock(&memory.state);
    assert!(state.chunks.is_empty() && state.drafts.is_empty() && state.manifests.is_empty());
}

#[test]
fn nothing_is_lost_and_nothing_left_over() {
    for seed in 0..300 {
        // Seen if it fails.
        println!("seed {seed}");
        play_in_memory(seed, Fault::None);
    }
}

/// Each of these would be found by the seeds above.
#[test]
fn what_is_done_wrong_is_noticed() {
    for fault in [Fault::SameIncarnation, Fault::NoSync, Fault::FilesFirst] {
        let notices = |seed: &u64| panic::catch_unwind(|| play_in_memory(*seed, fault)).is_err();
        let noticed = (0..300).find(notices);
        println!("{fault:?} is noticed by seed {noticed:?}");
        assert!(noticed.is_some(), "{fault:?}");
    }
}

#[test]
fn nothing_is_lost_and_nothing_left_over_in_a_folder() {
    for seed in 1000..1010 {
        println!("seed {seed}");
        let folder = tempfile::tempdir().unwrap();
        let store = ChunkFolder::open(folder.path().join("store")).unwrap();
        World::new(seed, Fault::None, Arc::new(store), None).play(200);
        let files = |path: &str| walk(&folder.path().join("store").join(path));
        assert_eq!(files("chunks") + files("manifests") + files("drafts"), 0);
    }
}

/// How many files there are below a folder.
fn walk(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { walk(&path) } else { 1 }).sum()
}
