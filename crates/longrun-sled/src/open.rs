//! The open path: everything that has to be repaired, synced or checked before the first read.

use std::collections::HashSet;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use longrun_folder::{OpenError, Tail, Verify, contain};
use longrun_store::Table;
use sled::{Db, Tree};

use crate::completeness::{self, Content, Record};
use crate::creation;
use crate::error::{cannot_open, open_error, opening};
use crate::options::SledOptions;
use crate::value::{self, PARTS_TREE, Stored};

/// sled's unit of space. It writes a page larger than a quarter of this to a file of its own in `blobs`, which
/// it never syncs and whose absence it forgives at recovery: that can tear a batch and no sync of ours can
/// mend it. A leaf is split by its number of entries (more than 16), not by bytes, so the quarter has to hold
/// a whole leaf of the largest entries: see the assertions in `limits`. Fixed for ever: it is in sled's `conf`.
pub(crate) const SEGMENT_BYTES: usize = 8 << 20;

/// The tree of the completeness record. Not a [`Table`], so it can meet no key of a user.
const PROOF_TREE: &str = "longrun-completeness";
pub(crate) const PROOF_KEY: &[u8] = b"last";

/// How long to wait for sled's own lock once we hold ours: jobs of a closed handle may still run in sled's
/// thread pool and hold the file.
const LOCK_TRIES: u32 = 500;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Everything of an open database that a reopen replaces.
pub(crate) struct Engine {
    pub(crate) db: Db,
    /// By [`Table::index`].
    pub(crate) tables: Vec<Tree>,
    /// What does not fit into one entry. See [`value`].
    pub(crate) parts: Tree,
    pub(crate) proof: Tree,
    /// Our own descriptor of sled's `db`, to sync what sled only hands to the kernel.
    pub(crate) file: File,
    pub(crate) tail: Tail,
    /// The record as it was when opened.
    pub(crate) record: Record,
}

/// Opens the database in `folder`, whose lock the caller holds.
pub(crate) fn open(folder: &Path, options: &SledOptions) -> Result<Engine, OpenError> {
    // First of all, so that a future format is left alone.
    let file_record = match completeness::read_file(folder) {
        Err(OpenError::Corrupt { what, .. }) if options.folder.accepts_loss() => {
            tracing::warn!(what, "ignoring the damaged completeness file, as asked");
            None
        }
        other => other?,
    };
    let db_path = folder.join("db");
    let db_is_missing = fs::metadata(&db_path).map_or(true, |meta| meta.len() == 0);
    if let (Some(record), true, false) = (&file_record, db_is_missing, options.folder.accepts_loss()) {
        // sled would put a new, empty database here.
        return Err(OpenError::truncated(folder, record.count, 0));
    }
    creation::begin(folder)?;
    remove_partial_snapshots(folder)?;

    let (db, tables, parts, proof) = open_sled(folder, options)?;
    let file =
        File::options().read(true).write(true).open(&db_path).map_err(OpenError::io("open", &db_path))?;
    let stored = opening(&db_path, || proof.get(PROOF_KEY))?;
    let stored = stored.map(|bytes| Record::decode(&bytes).map_err(|error| error.at(&db_path))).transpose();
    let stored = match stored {
        Err(OpenError::Corrupt { .. }) if options.folder.accepts_loss() => None,
        other => other?,
    };

    let record = match (stored, options.folder.accepts_loss()) {
        (Some(record), false) => {
            compare(folder, &record, file_record.as_ref())?;
            if options.verify == Verify::Full && content(&tables, &parts, &db_path)? != record.content {
                return Err(OpenError::corrupt(&db_path, "its entries are not those that were committed"));
            }
            record
        }
        (Some(record), true) => {
            let count = record.count.max(salvage(&tables, &parts, &db_path)?);
            Record { count, content: content(&tables, &parts, &db_path)?, ..record }
        }
        (None, accept_loss) => {
            if let (Some(record), false) = (&file_record, accept_loss) {
                return Err(OpenError::truncated(folder, record.count, 0));
            }
            let count = if accept_loss { salvage(&tables, &parts, &db_path)? } else { 0 };
            let content = content(&tables, &parts, &db_path)?;
            if content != Content::default() && !accept_loss {
                return Err(OpenError::corrupt(&db_path, "it holds entries, but no completeness record"));
            }
            Record { count, content, ..Record::genesis() }
        }
    };
    if stored != Some(record) {
        opening(&db_path, || proof.insert(PROOF_KEY, record.encode()))?;
    }
    opening(&db_path, || db.flush())?;
    restrict_modes(folder);
    sync_all(folder, &file)?;

    // Only now, when all that it will vouch for is on the medium.
    if file_record != Some(record) {
        completeness::write_file(folder, &record)?;
    }
    creation::end(folder)?;
    let tail = completeness::open_tail(folder)?;
    tail.write(&record.encode()).map_err(OpenError::io("write the tail of", folder))?;
    Ok(Engine { db, tables, parts, proof, file, tail, record })
}

/// A kill while sled wrote its snapshot leaves a partial file that sled takes for the newest snapshot at every
/// later open, and fails. The complete one before it is still there.
fn remove_partial_snapshots(folder: &Path) -> Result<(), OpenError> {
    for path in list(folder)? {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            tracing::warn!(path = %path.display(), "removing a snapshot that sled did not finish");
            fs::remove_file(&path).map_err(OpenError::io("remove", &path))?;
        }
    }
    Ok(())
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let entries = fs::read_dir(folder).map_err(OpenError::io("list", folder))?;
    entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()
        .map_err(OpenError::io("list", folder))
}

fn open_sled(folder: &Path, options: &SledOptions) -> Result<(Db, Vec<Tree>, Tree, Tree), OpenError> {
    let open = || {
        let db = sled::Config::new()
            .path(folder)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(options.cache_bytes)
            // No flusher thread: it would write at moments of its own, and its errors reach nobody.
            .flush_every_ms(None)
            .open()?;
        let tables = Table::ALL.iter().map(|table| db.open_tree(table.name())).collect::<Result<_, _>>()?;
        let (parts, proof) = (db.open_tree(PARTS_TREE)?, db.open_tree(PROOF_TREE)?);
        Ok((db, tables, parts, proof))
    };
    for _ in 0..LOCK_TRIES {
        match contain(open) {
            Ok(Ok(opened)) => return Ok(opened),
            Ok(Err(error)) if is_sled_lock(&error) => thread::sleep(LOCK_PAUSE),
            Ok(Err(error)) => return Err(open_error(folder, error)),
            Err(panic) => return Err(cannot_open(folder, panic)),
        }
    }
    Err(OpenError::Locked { path: folder.to_path_buf() })
}

/// sled gives this error no kind of its own.
fn is_sled_lock(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(io) if io.to_string().contains("could not acquire lock"))
}

/// Compares the record inside of sled with the copies outside.
fn compare(folder: &Path, stored: &Record, file: Option<&Record>) -> Result<(), OpenError> {
    let path = folder.join(completeness::FILE);
    let Some(file) = file else {
        // The file is made before the first batch, so only a crash during creation leaves none.
        let what = "it is gone, although the database was in use";
        return if stored.count == 0 { Ok(()) } else { Err(OpenError::corrupt(&path, what)) };
    };
    if file.store != stored.store {
        return Err(OpenError::corrupt(&path, "it belongs to another database"));
    }
    let tail = completeness::read_tail(folder).filter(|tail| tail.store == stored.store);
    for copy in tail.iter().chain([file]) {
        if copy.count > stored.count {
            return Err(OpenError::truncated(folder, copy.count, stored.count));
        }
        if copy.count == stored.count && copy != stored {
            return Err(OpenError::corrupt(&path, "it tells of other batches than the database holds"));
        }
    }
    Ok(())
}

/// Reads every entry.
fn content(tables: &[Tree], parts: &Tree, db_path: &Path) -> Result<Content, OpenError> {
    let read = || {
        let mut content = Content::default();
        let names = Table::ALL.into_iter().map(Table::name).chain([PARTS_TREE]);
        for (name, tree) in names.zip(tables.iter().chain([parts])) {
            for entry in tree {
                let (key, value) = entry?;
                content.add(name, &key, &value);
            }
        }
        Ok(content)
    };
    opening(db_path, read)
}

/// After a loss: removes values that are no longer whole, and parts that belong to no value. Returns the newest
/// batch that wrote a value in parts, so that no later one takes the names of its parts.
fn salvage(tables: &[Tree], parts: &Tree, db_path: &Path) -> Result<u64, OpenError> {
    let work = || {
        let (mut newest, mut used, mut removed) = (0, HashSet::new(), 0);
        for tree in tables {
            for entry in tree {
                let (key, stored) = entry?;
                match value::decode(&stored) {
                    Some(Stored::Whole(_)) => {}
                    Some(Stored::Parts(stub)) if stub.read(parts)?.is_ok() => {
                        newest = newest.max(stub.batch);
                        used.extend(stub.keys());
                    }
                    Some(Stored::Parts(_)) | None => {
                        removed += 1;
                        tree.remove(key)?;
                    }
                }
            }
        }
        for entry in parts {
            let (key, _) = entry?;
            if !used.contains(&key[..]) {
                parts.remove(key)?;
            }
        }
        if removed > 0 {
            tracing::warn!(removed, "removed values of which parts were lost");
        }
        Ok(newest)
    };
    opening(db_path, work)
}

/// sled makes its files with the mode the process likes; nobody else has business with them. Best effort:
/// some file systems have no modes, and the folder is closed already if we made it.
fn restrict_modes(folder: &Path) {
    for path in list(folder).unwrap_or_default() {
        if path.is_file() {
            let _ = fs::set_permissions(&path, Permissions::from_mode(0o600));
        }
    }
}

/// Puts on the medium all that sled made or changed while it opened: the log with its length, `conf`, the new
/// snapshot's name, the folders. What a read shows from here on survives.
fn sync_all(folder: &Path, db: &File) -> Result<(), OpenError> {
    db.sync_all().map_err(OpenError::io("sync", folder))?;
    let blobs = folder.join("blobs");
    let stray = list(&blobs)?;
    if !stray.is_empty() {
        tracing::warn!(
            count = stray.len(),
            "sled has put pages in blobs, which the size limits should prevent"
        );
    }
    let conf = folder.join("conf");
    let parent = folder.parent().map(Path::to_path_buf);
    for path in stray.into_iter().chain([blobs, conf, folder.to_path_buf()]).chain(parent) {
        File::open(&path).and_then(|file| file.sync_all()).map_err(OpenError::io("sync", &path))?;
    }
    Ok(())
}
