//! The stores by name: how each is opened, and which of its files to damage.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use longrun::fjall::{FjallKv, FjallOptions};
use longrun::redb::{RedbKv, RedbOptions};
use longrun::sled::{SledKv, SledOptions};
use longrun_folder::{FolderOptions, OpenError};
use longrun_store::{Durability, Kv};

use super::cli::StoreChoice;

/// Small, so that what is looked at comes from the files.
const CACHE_BYTES: u32 = 64 << 20;

/// Opens the backend of that name in `dir`.
pub(crate) fn open(store: StoreChoice, dir: &Path, durability: Durability) -> Result<Arc<dyn Kv>, OpenError> {
    let folder = FolderOptions::default().durability(durability);
    Ok(match store {
        StoreChoice::Sled => {
            let options = SledOptions::default().folder(folder).cache_bytes(CACHE_BYTES.into());
            Arc::new(SledKv::open(dir, options)?)
        }
        StoreChoice::Fjall => {
            // Little memory, so that there are tables on the disk and compactions too.
            let options = FjallOptions::default().folder(folder).memtable_bytes(1 << 20);
            Arc::new(FjallKv::open(dir, options)?)
        }
        StoreChoice::Redb => {
            let options = RedbOptions::default().folder(folder);
            Arc::new(RedbKv::open(dir, options)?)
        }
    })
}

/// The files of a store, below its folder.
#[derive(Debug)]
pub(crate) struct Files {
    /// What the newest batches were written to. No part of it may be missing.
    pub(crate) log: PathBuf,
    /// Others that must be there.
    pub(crate) needed: Vec<PathBuf>,
    /// All of them.
    pub(crate) all: Vec<PathBuf>,
    /// The file that tells the format, and how it begins.
    pub(crate) format: (&'static str, &'static [u8]),
}

impl Files {
    pub(crate) fn of(store: StoreChoice, dir: &Path) -> std::io::Result<Self> {
        let mut all = Vec::new();
        list(dir, Path::new(""), &mut all)?;
        all.sort();
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect();
        let tail = ("longrun.tail", &b"longrun\n"[..]);
        Ok(match store {
            StoreChoice::Sled => Self {
                log: "db".into(),
                needed: paths(&["completeness"]),
                all,
                format: ("completeness", b"lr-sled\n"),
            },
            StoreChoice::Fjall => {
                let journals = all.iter().filter(|path| path.extension() == Some(OsStr::new("jnl")));
                let log = journals.max_by_key(|path| (path.as_os_str().len(), (*path).clone()));
                let log = log.cloned().unwrap_or_else(|| "longrun.fjall".into());
                let needed = paths(&["longrun.fjall/version", "longrun.fjall/keyspaces/0/current"]);
                Self { log, needed, all, format: tail }
            }
            StoreChoice::Redb => Self { log: "longrun.redb".into(), needed: Vec::new(), all, format: tail },
        })
    }
}

fn list(dir: &Path, below: &Path, all: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(dir, &path, all)?;
        } else {
            all.push(path);
        }
    }
    Ok(())
}
