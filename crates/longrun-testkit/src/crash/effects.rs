//! Effects: files outside of the store that steps leave and undos take away, as the world outside of a database does.
//!
//! `ID-STEP` is an effect, `ID.undone` says that an undo of the operation has begun. What must never happen while the
//! engine runs, such as a step that starts after an undo, leaves a file in `broken`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use longrun::{EffectKey, OperationId};

const BROKEN: &str = "broken";

/// The folder of all effects of one store.
#[derive(Clone, Debug)]
pub(crate) struct Effects {
    folder: PathBuf,
}

impl Effects {
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder.join(BROKEN))?;
        Ok(Self { folder: folder.to_path_buf() })
    }

    fn path(&self, operation: OperationId, step: u16) -> PathBuf {
        self.folder.join(format!("{operation}-{step}"))
    }

    fn undone(&self, operation: OperationId) -> PathBuf {
        self.folder.join(format!("{operation}.undone"))
    }

    /// A step has its effect. Again, after a crash, it is the same one.
    pub(crate) fn make(&self, key: EffectKey) -> io::Result<()> {
        let EffectKey { operation, step } = key;
        if self.undone(operation).exists() {
            self.broken(key, "S23: a step ran after an undo of its operation")?;
        }
        if step.0 > 0 && !self.path(operation, step.0 - 1).exists() {
            self.broken(key, "S18: a step ran before the one that it needs")?;
        }
        fs::write(self.path(operation, step.0), b"")
    }

    /// An undo takes the effect away.
    pub(crate) fn take_back(&self, key: EffectKey) -> io::Result<()> {
        let EffectKey { operation, step } = key;
        fs::write(self.undone(operation), b"")?;
        if self.path(operation, step.0 + 1).exists() {
            self.broken(key, "S21: an undo ran before the one of the next step")?;
        }
        match fs::remove_file(self.path(operation, step.0)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn broken(&self, key: EffectKey, what: &str) -> io::Result<()> {
        fs::write(self.folder.join(BROKEN).join(key.to_string()), what)
    }

    /// The steps that have an effect, by operation.
    pub(crate) fn all(&self) -> anyhow::Result<BTreeMap<OperationId, BTreeSet<u16>>> {
        let entries = fs::read_dir(&self.folder)?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        by_operation(&names.collect::<io::Result<Vec<_>>>()?)
    }

    /// What must never have happened, and did.
    pub(crate) fn all_broken(&self) -> anyhow::Result<Vec<String>> {
        let entries = fs::read_dir(self.folder.join(BROKEN))?;
        entries
            .map(|entry| {
                let path = entry?.path();
                let what = fs::read_to_string(&path)?;
                Ok(format!("{what} ({})", path.file_name().unwrap_or_default().to_string_lossy()))
            })
            .collect()
    }
}

/// The steps that have an effect, by operation, of the names of all files.
pub(crate) fn by_operation<'a>(
    names: impl IntoIterator<Item = &'a String>,
) -> anyhow::Result<BTreeMap<OperationId, BTreeSet<u16>>> {
    let mut all: BTreeMap<OperationId, BTreeSet<u16>> = BTreeMap::new();
    for name in names {
        if let Some((operation, step)) = name.split_once('-') {
            let operation = OperationId::parse(operation).context("an effect of nobody")?;
            all.entry(operation).or_default().insert(step.parse()?);
        }
    }
    Ok(all)
}
