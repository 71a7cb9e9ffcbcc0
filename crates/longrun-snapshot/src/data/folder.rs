//! The local chunk store: a folder of files.
//!
//! ```text
//! <root>/chunks/<first 2 hex digits>/<digest>-<incarnation>
//! <root>/chunks/<first 2 hex digits>/.<digest>-<incarnation>.<writer>.tmp    left by a crash
//! <root>/manifests/<snapshot id>
//! <root>/drafts/<snapshot id>/<run>
//! <root>/drafts/.<snapshot id>.gone/                                         being removed
//! <root>/damaged/<digest>-<incarnation>                                      taken out of use; for people to look at
//! <root>/owner                                                               whose all this is, and in which epoch: a line of text
//! ```

use std::{
    collections::BTreeSet,
    fs::{self, File, ReadDir},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, atomic::AtomicBool},
};

use rustix::fs::statvfs;

use super::{
    BoxError, ByteStream, ChunkError, ChunkName, ChunkStore, Draft, IsLive, NAME_CHARS_MAX, Owner, RunName,
    SnapshotId, SweepError, Swept,
    error::Subject,
    files::{
        create_folder, create_private, failed, folder_of, open_file, remove_file, replace_file,
        stem_of_temporary, sync_folder, write_new_file,
    },
    frame::{self, FRAME_LEN_MAX, HEADER_LEN, Header, Press},
    geometry::CHUNK_LEN,
    parallel::{Broken, in_parallel},
};

/// How many names a sweep asks about at a time.
const SWEEP_NAMES: usize = 1000;
/// Bytes of the file system that chunks leave free, or a quarter of a small one: more than a store of records beside them
/// keeps for itself.
const RESERVE_BYTES: u64 = 128 * 1024 * 1024;
/// How many folders are synced at a time: the file system makes them durable together.
const SYNCS_AT_A_TIME: usize = 4;
/// How many presses are kept for the next chunk: some more than the workers of one copy.
const PRESSES_MAX: usize = 8;
/// The file that says whose the store is.
const OWNER: &str = "owner";
/// The longest mark that is read: an owner, an epoch, and white space.
const MARK_BYTES_MAX: u64 = NAME_CHARS_MAX as u64 + 24;
/// How often a folder is removed again because somebody was just adding a file to it.
const REMOVE_TRIES: usize = 10;

/// A chunk store in a folder.
///
/// Processes may share it, and so may machines where the file system has POSIX semantics for renaming and removing.
#[derive(Debug)]
pub struct ChunkFolder {
    root: PathBuf,
    chunks: PathBuf,
    manifests: PathBuf,
    drafts: PathBuf,
    damaged: PathBuf,
    presses: Mutex<Vec<Press>>,
}

impl ChunkFolder {
    /// Opens the store, and creates its folders if need be (not those above them).
    ///
    /// All folders that chunks go to are made here, so that storing one has no name to make durable but its own.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, ChunkError> {
        let root = root.into();
        let [chunks, manifests, drafts] = ["chunks", "manifests", "drafts"].map(|name| root.join(name));
        for folder in [&root, &chunks, &manifests, &drafts] {
            create_folder(folder, &Subject::Store)?;
        }
        for first in 0..=u8::MAX {
            create_folder(&chunks.join(format!("{first:02x}")), &Subject::Store)?;
        }
        // Also those that were there: who made them may have crashed before this.
        for folder in [&chunks, &root, folder_of(&root)] {
            sync_folder(folder, &Subject::Store)?;
        }
        let damaged = root.join("damaged");
        Ok(Self { root, chunks, manifests, drafts, damaged, presses: Mutex::default() })
    }

    /// Whether storing so much leaves room for others: a store of records beside the chunks has to be able to record that
    /// what does not fit is rolled back, or that something is deleted. Where it cannot be told, there is.
    fn check_room(&self, what: &Subject, bytes: usize) -> Result<(), ChunkError> {
        let Some(stat) = statvfs(&self.root).ok().filter(|stat| stat.f_blocks > 0) else { return Ok(()) };
        let bytes_of = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        if has_room(bytes_of(stat.f_blocks), bytes_of(stat.f_bavail), bytes as u64) {
            return Ok(());
        }
        let full =
            io::Error::new(io::ErrorKind::StorageFull, "what is left is kept for what has to be recorded");
        Err(ChunkError::of_io("store", what.clone(), Some(self.root.clone()), full))
    }

    fn fan_out(&self, name: &ChunkName) -> PathBuf {
        let first = name.digest.as_bytes().first().copied().unwrap_or_default();
        self.chunks.join(format!("{first:02x}"))
    }

    fn chunk_path(&self, name: &ChunkName) -> PathBuf {
        self.fan_out(name).join(name.to_string())
    }

    /// Where the chunk is when it was taken out of use.
    fn damaged_path(&self, name: &ChunkName) -> PathBuf {
        self.damaged.join(name.to_string())
    }

    /// Gives a whole chunk that was taken out of use its place again, unless there is another in it.
    fn put_back(&self, moved: &Path, path: &Path, what: &Subject) -> Result<(), ChunkError> {
        // A second name, and not another one: renaming would take the place of a file that is there.
        match fs::hard_link(moved, path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists) => {}
            // Somebody else has put it back, or nobody wants it any more.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            linked => linked.map_err(failed("put back", what, path))?,
        }
        sync_folder(folder_of(path), what)?;
        remove_file(moved, what).map(drop)
    }

    fn manifest_path(&self, snapshot: &SnapshotId) -> PathBuf {
        self.manifests.join(snapshot.as_str())
    }

    fn draft_folder(&self, snapshot: &SnapshotId) -> PathBuf {
        self.drafts.join(snapshot.as_str())
    }

    /// Where the drafts are while they are being removed.
    fn gone_folder(&self, snapshot: &SnapshotId) -> PathBuf {
        self.drafts.join(format!(".{snapshot}.gone"))
    }

    fn draft_path(&self, snapshot: &SnapshotId, run: &RunName) -> PathBuf {
        self.draft_folder(snapshot).join(run.as_str())
    }

    /// Lends a press: one that was used before, if there is one.
    fn with_press<T>(&self, work: impl FnOnce(&mut Press) -> T) -> T {
        let lock = || self.presses.lock().unwrap_or_else(PoisonError::into_inner);
        let mut press = lock().pop().unwrap_or_default();
        let done = work(&mut press);
        let mut presses = lock();
        if presses.len() < PRESSES_MAX {
            presses.push(press);
        }
        done
    }

    /// Makes the names in the folders of these chunks durable, each folder once.
    fn sync_fan_outs(&self, names: &[ChunkName]) -> Result<(), ChunkError> {
        let folders: BTreeSet<PathBuf> = names.iter().map(|name| self.fan_out(name)).collect();
        let folders: Vec<PathBuf> = folders.into_iter().collect();
        let sync = |folder: &PathBuf| sync_folder(folder, &Subject::Store);
        match in_parallel(&folders, SYNCS_AT_A_TIME, &AtomicBool::new(false), sync) {
            Ok(_) => Ok(()),
            Err(Broken::Failed(error)) => Err(error),
            Err(Broken::Stopped | Broken::Panicked(_)) => {
                let broken = io::Error::other("it ended early");
                Err(ChunkError::of_io("sync", Subject::Store, None, broken))
            }
        }
    }

    /// Removes all drafts of a snapshot. Durable on return.
    ///
    /// The folder is renamed first: at one blow no run has a draft to seal.
    fn retire_drafts(&self, snapshot: &SnapshotId) -> Result<(), ChunkError> {
        let what = Subject::Draft(snapshot.clone());
        let gone = self.gone_folder(snapshot);
        move_away(&self.draft_folder(snapshot), &gone, &what)?;
        remove_folder(&gone, &what)?;
        sync_folder(&self.drafts, &what)
    }
}

/// Whether a file system of so many bytes, of which so many are available, has room for so many more.
fn has_room(total: u64, available: u64, bytes: u64) -> bool {
    available >= RESERVE_BYTES.min(total / 4).saturating_add(bytes)
}

impl ChunkStore for ChunkFolder {
    fn claim(&self, owner: &Owner, epoch: u64) -> Result<(), ChunkError> {
        // Given back when it is closed. Where a file system has no locks, a first mark still never takes the place of
        // another, and only a claim of an older epoch at this very moment may lower the mark.
        let folder = File::open(&self.root).map_err(failed("open", &Subject::Store, &self.root))?;
        _ = folder.lock();
        let ours = Mark { owner: owner.clone(), epoch };
        if self.mark()?.is_none() && self.is_empty()? {
            self.mark_first(&ours)?;
        }
        // Read after it was found not to be empty: whoever has put something into it has marked it before.
        match self.mark()? {
            None => return Err(ChunkError::Unmarked { ours: owner.clone() }),
            Some(found) if found.owner != *owner => {
                return Err(ChunkError::Foreign { owner: found.owner, ours: owner.clone() });
            }
            Some(Mark { epoch: marked, .. }) if marked > epoch => {
                return Err(ChunkError::Outdated { owner: owner.clone(), marked, epoch });
            }
            Some(found) if found.epoch < epoch => self.replace_mark(&ours)?,
            Some(_) => {}
        }
        sync_folder(&self.root, &Subject::Store)
    }

    fn put(&self, name: &ChunkName, plain: &[u8]) -> Result<u64, ChunkError> {
        if plain.is_empty() || plain.len() > CHUNK_LEN {
            return Err(ChunkError::Length { name: name.clone(), length: plain.len() });
        }
        let (path, what) = (self.chunk_path(name), Subject::Chunk(name.clone()));
        self.with_press(|press| {
            let frame = press.seal(plain, &name.digest);
            self.check_room(&what, frame.payload.len())?;
            let written = replace_file(&path, &name.to_string(), &what, |mut file| {
                file.write_all(&frame.header)
                    .and_then(|()| file.write_all(frame.payload))
                    .map_err(failed("write", &what, &path))
            });
            match written {
                // A sweep may remove a temporary file once somebody else's chunk is in its place.
                Err(ChunkError::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && self.find(name)?.is_some() => {}
                written => written?,
            }
            Ok(frame.stored_bytes())
        })
    }

    fn find(&self, name: &ChunkName) -> Result<Option<u64>, ChunkError> {
        let (path, what) = (self.chunk_path(name), Subject::Chunk(name.clone()));
        let Some(mut file) = open_file(&path, &what)? else { return Ok(None) };
        let length = file.metadata().map_err(failed("look up", &what, &path))?.len();
        let mut header = [0; HEADER_LEN];
        match file.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(failed("read", &what, &path)(error)),
        }
        let whole = |header: &Header| header.digest == name.digest && header.stored_bytes() == length;
        Ok(Header::read(&header).ok().filter(whole).map(|header| header.stored_bytes()))
    }

    fn get(&self, name: &ChunkName) -> Result<Vec<u8>, ChunkError> {
        let (path, moved) = (self.chunk_path(name), self.damaged_path(name));
        // Taken out of use, but it says what is wrong with it, and may have been repaired. Or it is just being put back.
        for path in [&path, &moved, &path] {
            if let Some(plain) = read_chunk(path, name)? {
                return Ok(plain);
            }
        }
        Err(ChunkError::Missing { name: name.clone() })
    }

    fn sync(&self, names: &[ChunkName]) -> Result<(), ChunkError> {
        self.sync_fan_outs(names)
    }

    fn remove(&self, names: &[ChunkName]) -> Result<(), ChunkError> {
        for name in names {
            let what = Subject::Chunk(name.clone());
            remove_file(&self.chunk_path(name), &what)?;
            remove_file(&self.damaged_path(name), &what)?;
        }
        // Also for those that are not there: who removed them may have crashed before this.
        self.sync_fan_outs(names)?;
        if self.damaged.exists() { sync_folder(&self.damaged, &Subject::Store) } else { Ok(()) }
    }

    fn quarantine(&self, name: &ChunkName) -> Result<(), ChunkError> {
        let (path, moved) = (self.chunk_path(name), self.damaged_path(name));
        let what = Subject::Chunk(name.clone());
        create_folder(&self.damaged, &what)?;
        sync_folder(&self.root, &what)?;
        match fs::rename(&path, &moved) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done.map_err(failed("take out of use", &what, &path))?,
        }
        // It may be another file than the one that was found damaged: somebody has put the chunk anew meanwhile.
        if let Ok(Some(_)) = read_chunk(&moved, name) {
            self.put_back(&moved, &path, &what)?;
        }
        sync_folder(&self.damaged, &what)?;
        self.sync_fan_outs(std::slice::from_ref(name))
    }

    fn sweep(&self, is_live: &mut IsLive<'_>) -> Result<Swept, SweepError> {
        let mut swept = Swept::default();
        self.sweep_claims(&mut swept);
        for fan_out in Entries::of(&self.chunks)? {
            match fan_out {
                Ok((name, folder)) if name.len() == 2 && folder.is_dir() => {
                    self.sweep_folder(&folder, is_live, &mut swept)?;
                }
                Ok(_) => swept.strange += 1,
                Err(error) => swept.pass_over(&error),
            }
        }
        if self.damaged.exists() {
            self.sweep_folder(&self.damaged, is_live, &mut swept)?;
        }
        Ok(swept)
    }

    fn begin_draft(&self, snapshot: &SnapshotId, run: &RunName) -> Result<Box<dyn Draft>, ChunkError> {
        let what = Subject::Draft(snapshot.clone());
        let folder = self.draft_folder(snapshot);
        let path = self.draft_path(snapshot, run);
        create_folder(&folder, &what)?;
        sync_folder(&self.drafts, &what)?;
        remove_file(&path, &what)?;
        let file = create_private(&path).map_err(failed("create", &what, &path))?;
        sync_folder(&folder, &what)?;
        Ok(Box::new(DraftFile { snapshot: snapshot.clone(), run: run.clone(), file, path }))
    }

    fn read_draft(&self, snapshot: &SnapshotId, run: &RunName) -> Result<Option<ByteStream>, ChunkError> {
        let file = open_file(&self.draft_path(snapshot, run), &Subject::Draft(snapshot.clone()))?;
        Ok(file.map(|file| Box::new(file) as ByteStream))
    }

    fn seal(&self, snapshot: &SnapshotId, run: &RunName) -> Result<(), ChunkError> {
        let (draft, manifest) = (self.draft_path(snapshot, run), self.manifest_path(snapshot));
        let what = Subject::Manifest(snapshot.clone());
        let no_draft = || ChunkError::NoDraft { snapshot: snapshot.clone(), run: run.clone() };
        let seal = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => no_draft(),
            _ => failed("write", &what, &manifest)(error),
        };
        let sealed = fs::symlink_metadata(&draft).map_err(seal)?;
        fs::rename(&draft, &manifest).map_err(seal)?;
        sync_folder(&self.manifests, &what)?;
        self.retire_drafts(snapshot)?;
        // Up to now a run that is not the last but does not know could seal its own. From now on none can.
        let found = fs::symlink_metadata(&manifest).map_err(seal)?;
        if (found.dev(), found.ino()) == (sealed.dev(), sealed.ino()) { Ok(()) } else { Err(no_draft()) }
    }

    fn read_manifest(&self, snapshot: &SnapshotId) -> Result<Option<ByteStream>, ChunkError> {
        let file = open_file(&self.manifest_path(snapshot), &Subject::Manifest(snapshot.clone()))?;
        Ok(file.map(|file| Box::new(file) as ByteStream))
    }

    fn discard_drafts(&self, snapshot: &SnapshotId) -> Result<bool, ChunkError> {
        let what = Subject::Draft(snapshot.clone());
        let there = |path: PathBuf| match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            found => found.map(|_| true).map_err(failed("look up", &what, &path)),
        };
        let any = there(self.draft_folder(snapshot))? || there(self.gone_folder(snapshot))?;
        if any {
            self.retire_drafts(snapshot)?;
        }
        Ok(any)
    }

    fn discard(&self, snapshot: &SnapshotId) -> Result<(), ChunkError> {
        let what = Subject::Manifest(snapshot.clone());
        // The drafts first: afterwards nobody can make a manifest of one.
        self.retire_drafts(snapshot)?;
        remove_file(&self.manifest_path(snapshot), &what)?;
        sync_folder(&self.manifests, &what)
    }

    fn snapshots(
        &self,
        see: &mut dyn FnMut(&[SnapshotId]) -> Result<(), BoxError>,
    ) -> Result<(), SweepError> {
        let manifests = snapshots_in(&self.manifests, see);
        if let Err(SweepError::Ended(error)) = manifests {
            return Err(SweepError::Ended(error));
        }
        let drafts = snapshots_in(&self.drafts, see);
        manifests.and(drafts)
    }
}

/// What is in the file that says whose the store is: the owner, and the newest epoch of it that has claimed the store. An
/// operator may leave the epoch out, which is then 0.
#[derive(Debug)]
struct Mark {
    owner: Owner,
    epoch: u64,
}

impl Mark {
    fn line(&self) -> String {
        format!("{} {}\n", self.owner, self.epoch)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let owner = words.next()?.parse().ok()?;
        let epoch = words.next().map_or(Some(0), |word| word.parse().ok())?;
        words.next().is_none().then_some(Self { owner, epoch })
    }
}

/// Shows the snapshots that a folder has something of.
fn snapshots_in(
    folder: &Path,
    see: &mut dyn FnMut(&[SnapshotId]) -> Result<(), BoxError>,
) -> Result<(), SweepError> {
    let mut some = Vec::with_capacity(SWEEP_NAMES);
    let mut failed = None;
    for entry in Entries::of(folder)? {
        match entry {
            Ok((name, _)) => some.extend(snapshot_of(&name)),
            Err(error) => failed = Some(error),
        }
        if some.len() == SWEEP_NAMES {
            see(&some).map_err(SweepError::Ended)?;
            some.clear();
        }
    }
    if !some.is_empty() {
        see(&some).map_err(SweepError::Ended)?;
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

impl ChunkFolder {
    /// Whose the store is, if it says so. A mark that nobody can have made is as good as none.
    fn mark(&self) -> Result<Option<Mark>, ChunkError> {
        let path = self.root.join(OWNER);
        let Some(file) = open_file(&path, &Subject::Store)? else { return Ok(None) };
        let mut text = String::new();
        match file.take(MARK_BYTES_MAX).read_to_string(&mut text) {
            Err(error) if error.kind() != io::ErrorKind::InvalidData => {
                Err(failed("read", &Subject::Store, &path)(error))
            }
            _ => Ok(Mark::parse(&text)),
        }
    }

    /// Marks a store that is empty and nobody's.
    fn mark_first(&self, mark: &Mark) -> Result<(), ChunkError> {
        let path = self.root.join(OWNER);
        if path.exists() {
            // What a mark cannot be, such as the empty file that a full disk leaves.
            return self.replace_mark(mark);
        }
        write_new_file(&path, OWNER, &Subject::Store, mark.line().as_bytes())
    }

    fn replace_mark(&self, mark: &Mark) -> Result<(), ChunkError> {
        let path = self.root.join(OWNER);
        replace_file(&path, OWNER, &Subject::Store, |mut file| {
            file.write_all(mark.line().as_bytes()).map_err(failed("write", &Subject::Store, &path))
        })
    }

    /// Whether there is nothing of anybody in it.
    fn is_empty(&self) -> Result<bool, ChunkError> {
        let mut folders = vec![self.manifests.clone(), self.drafts.clone()];
        for fan_out in Entries::of(&self.chunks)? {
            folders.push(fan_out?.1);
        }
        if self.damaged.exists() {
            folders.push(self.damaged.clone());
        }
        for folder in folders {
            if Entries::of(&folder)?.next().is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes what those left who crashed as they claimed the store. It has an owner by now, so nobody needs it.
    fn sweep_claims(&self, swept: &mut Swept) {
        let entries = match Entries::of(&self.root) {
            Ok(entries) => entries,
            Err(error) => return swept.pass_over(&error),
        };
        for (name, path) in entries.flatten() {
            if stem_of_temporary(&name) == Some(OWNER) {
                swept.remove_temporary(&path, &Subject::Store);
            }
        }
    }

    /// Sweeps one of the folders that chunks are in.
    fn sweep_folder(
        &self,
        folder: &Path,
        is_live: &mut IsLive<'_>,
        swept: &mut Swept,
    ) -> Result<(), SweepError> {
        let entries = match Entries::of(folder) {
            Ok(entries) => entries,
            Err(error) => {
                swept.pass_over(&error);
                return Ok(());
            }
        };
        let before = swept.removed + swept.temporaries;
        let mut files = Vec::with_capacity(SWEEP_NAMES);
        for entry in entries {
            match entry.map(|(name, path)| (Found::parse(&name), path)) {
                Ok((Some((chunk, _)), path)) if folder == self.damaged => {
                    files.push((chunk, Found::Damaged, path));
                }
                Ok((Some((chunk, found)), path)) => files.push((chunk, found, path)),
                Ok((None, _)) => swept.strange += 1,
                Err(error) => swept.pass_over(&error),
            }
            if files.len() == SWEEP_NAMES {
                self.sweep_some(&mut files, is_live, swept)?;
            }
        }
        self.sweep_some(&mut files, is_live, swept)?;
        if swept.removed + swept.temporaries > before
            && let Err(error) = sync_folder(folder, &Subject::Store)
        {
            swept.pass_over(&error);
        }
        Ok(())
    }

    /// Asks about these files and removes those to be removed.
    fn sweep_some(
        &self,
        files: &mut Vec<(ChunkName, Found, PathBuf)>,
        is_live: &mut IsLive<'_>,
        swept: &mut Swept,
    ) -> Result<(), SweepError> {
        if files.is_empty() {
            return Ok(());
        }
        let names: Vec<ChunkName> = files.iter().map(|(name, ..)| name.clone()).collect();
        let answers = is_live(&names).map_err(SweepError::Ended)?;
        // Of files without an answer nothing is known.
        for ((name, found, path), live) in files.drain(..).zip(answers) {
            let what = Subject::Chunk(name.clone());
            match found {
                Found::Chunk if live => swept.kept += 1,
                // For people to look at, for as long as somebody refers to it. A second name is left from being put back.
                Found::Damaged if live && !same_file(&path, &self.chunk_path(&name)) => {}
                Found::Damaged if live => swept.remove_temporary(&path, &what),
                Found::Chunk | Found::Damaged => swept.remove_chunk(&path, &what),
                Found::Temporary if live => match self.find(&name) {
                    // It may be being written just now.
                    Ok(None) => {}
                    Ok(Some(_)) => swept.remove_temporary(&path, &what),
                    Err(error) => swept.pass_over(&error),
                },
                Found::Temporary => swept.remove_temporary(&path, &what),
            }
        }
        Ok(())
    }
}

impl Swept {
    /// Counts what could not be done, and tells the operator: one bad file must not keep all others from being swept.
    fn pass_over(&mut self, error: &ChunkError) {
        tracing::warn!(%error, cause = ?error, "a part of the chunk store could not be swept");
        self.failed += 1;
    }

    fn remove_chunk(&mut self, path: &Path, what: &Subject) {
        let bytes = length_of(path);
        match remove_file(path, what) {
            Ok(true) => (self.removed, self.removed_bytes) = (self.removed + 1, self.removed_bytes + bytes),
            Ok(false) => {}
            Err(error) => self.pass_over(&error),
        }
    }

    fn remove_temporary(&mut self, path: &Path, what: &Subject) {
        let bytes = length_of(path);
        match remove_file(path, what) {
            Ok(true) => {
                (self.temporaries, self.temporary_bytes) =
                    (self.temporaries + 1, self.temporary_bytes + bytes);
            }
            Ok(false) => {}
            Err(error) => self.pass_over(&error),
        }
    }
}

fn length_of(path: &Path) -> u64 {
    path.symlink_metadata().map_or(0, |found| found.len())
}

/// Whether two names are of one file.
fn same_file(one: &Path, other: &Path) -> bool {
    match (one.symlink_metadata(), other.symlink_metadata()) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// The bytes of a chunk in a file. `None`: there is no file.
fn read_chunk(path: &Path, name: &ChunkName) -> Result<Option<Vec<u8>>, ChunkError> {
    let what = Subject::Chunk(name.clone());
    let Some(file) = open_file(path, &what)? else { return Ok(None) };
    let read = failed("read", &what, path);
    let length = match file.metadata() {
        Ok(found) => usize::try_from(found.len()).unwrap_or(usize::MAX).min(FRAME_LEN_MAX),
        Err(error) => return Err(read(error)),
    };
    let mut frame = Vec::with_capacity(length + 1);
    // A longer file than there can be is cut, and fails its check.
    file.take(FRAME_LEN_MAX as u64 + 1).read_to_end(&mut frame).map_err(read)?;
    let damaged = |why| ChunkError::Damaged { name: name.clone(), why };
    let (plain, digest) = frame::open(frame).map_err(damaged)?;
    if digest == name.digest { Ok(Some(plain)) } else { Err(damaged("it is another chunk")) }
}

/// What a sweep found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Chunk,
    Temporary,
    /// One that was taken out of use.
    Damaged,
}

impl Found {
    fn parse(file_name: &str) -> Option<(ChunkName, Self)> {
        match stem_of_temporary(file_name) {
            Some(stem) => Some((stem.parse().ok()?, Self::Temporary)),
            None => Some((file_name.parse().ok()?, Self::Chunk)),
        }
    }
}

/// Whose manifest, or folder of drafts in place or being removed, this is.
fn snapshot_of(name: &str) -> Option<SnapshotId> {
    let being_removed = name.strip_prefix('.').and_then(|name| name.strip_suffix(".gone"));
    being_removed.unwrap_or(name).parse().ok()
}

/// The names in a folder with their paths, read little by little.
struct Entries<'a> {
    folder: &'a Path,
    entries: ReadDir,
}

impl<'a> Entries<'a> {
    fn of(folder: &'a Path) -> Result<Self, ChunkError> {
        let entries = fs::read_dir(folder).map_err(failed("list", &Subject::Store, folder))?;
        Ok(Self { folder, entries })
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<(String, PathBuf), ChunkError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?.map_err(failed("list", &Subject::Store, self.folder));
        Some(entry.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())))
    }
}

/// Gives a folder, if it is there, a name that nobody looks for, in place of what a crash left under that name.
fn move_away(folder: &Path, gone: &Path, what: &Subject) -> Result<(), ChunkError> {
    let mut tries = 0;
    loop {
        tries += 1;
        remove_folder(gone, what)?;
        match fs::rename(folder, gone) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // Somebody else does the same at the same time.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && tries < REMOVE_TRIES => {}
            Err(error) => return Err(failed("remove", what, folder)(error)),
        }
    }
}

/// Removes a folder and the files in it, if it is there.
fn remove_folder(folder: &Path, what: &Subject) -> Result<(), ChunkError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match fs::remove_dir_all(folder) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && tries < REMOVE_TRIES => {}
            Err(error) => return Err(failed("remove", what, folder)(error)),
        }
    }
}

/// An open draft.
#[derive(Debug)]
struct DraftFile {
    snapshot: SnapshotId,
    run: RunName,
    file: File,
    path: PathBuf,
}

impl DraftFile {
    fn what(&self) -> Subject {
        Subject::Draft(self.snapshot.clone())
    }
}

impl Draft for DraftFile {
    fn append(&mut self, bytes: &[u8]) -> Result<(), ChunkError> {
        self.file.write_all(bytes).map_err(failed("write", &self.what(), &self.path))
    }

    fn sync(&mut self) -> Result<(), ChunkError> {
        self.file.sync_data().map_err(failed("sync", &self.what(), &self.path))?;
        let found = self.file.metadata().map_err(failed("look up", &self.what(), &self.path))?;
        if found.nlink() == 0 {
            return Err(ChunkError::NoDraft { snapshot: self.snapshot.clone(), run: self.run.clone() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_leave_room_for_what_has_to_be_recorded() {
        let (large, small) = (100 * RESERVE_BYTES, RESERVE_BYTES);
        assert!(has_room(large, RESERVE_BYTES + 5, 5) && !has_room(large, RESERVE_BYTES + 4, 5));
        assert!(has_room(small, small / 4 + 5, 5) && !has_room(small, small / 4 + 4, 5));
        assert!(!has_room(large, u64::MAX - 1, u64::MAX));
    }
}
