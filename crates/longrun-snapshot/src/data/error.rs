//! What goes wrong in the chunk store.

use std::{fmt, io, path::PathBuf};

use thiserror::Error;

use super::{ChunkName, Owner, RunName, SnapshotId};

/// What a [`ChunkError`] is about, by name. Never a path: users see it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subject {
    /// A chunk.
    Chunk(ChunkName),
    /// The manifest of a snapshot.
    Manifest(SnapshotId),
    /// The drafts of a snapshot, or one of them.
    Draft(SnapshotId),
    /// The store as a whole.
    Store,
    /// The file that a disk is given back to.
    Target,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chunk(name) => write!(f, "chunk {name}"),
            Self::Manifest(snapshot) => write!(f, "the manifest of snapshot {snapshot}"),
            Self::Draft(snapshot) => write!(f, "the draft of snapshot {snapshot}"),
            Self::Store => f.write_str("the chunk store"),
            Self::Target => f.write_str("the restored file"),
        }
    }
}

/// What went wrong in the chunk store.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// The file system refused.
    #[error("cannot {action} {what}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        what: Subject,
        /// Where it lies, if it lies in a file: for the operator's logs, and not in the text.
        path: Option<PathBuf>,
        /// The cause.
        source: io::Error,
    },
    /// The file system or the quota is full. Trying again helps once there is space.
    #[error("no space left to {action} {what}")]
    NoSpace {
        /// What was being done.
        action: &'static str,
        /// To what.
        what: Subject,
        /// Where it lies, if it lies in a file: for the operator's logs, and not in the text.
        path: Option<PathBuf>,
        /// The cause.
        source: io::Error,
    },
    /// A chunk is not what was stored.
    #[error("chunk {name} is damaged: {why}")]
    Damaged {
        /// The chunk.
        name: ChunkName,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A chunk is not there.
    #[error("chunk {name} is missing")]
    Missing {
        /// The chunk.
        name: ChunkName,
    },
    /// What was to be stored is empty or longer than a chunk.
    #[error("chunk {name} cannot have {length} bytes")]
    Length {
        /// The chunk.
        name: ChunkName,
        /// The length asked for.
        length: usize,
    },
    /// A manifest is not what was written.
    #[error("the manifest of snapshot {snapshot} is damaged: {why}")]
    DamagedManifest {
        /// The snapshot.
        snapshot: SnapshotId,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A manifest is not there: the snapshot is not complete, or does not exist.
    #[error("snapshot {snapshot} has no manifest")]
    NoManifest {
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// The chunk store is another's.
    #[error("the chunk store belongs to {owner}, not to {ours}")]
    Foreign {
        /// Whose it is.
        owner: Owner,
        /// Who wanted to use it.
        ours: Owner,
    },
    /// The chunk store has something in it and does not say whose it is. It may be that of somebody whose mark was lost, so
    /// nobody takes it for his own by himself.
    #[error("the chunk store is not empty and does not say whose it is; it is not taken for that of {ours}")]
    Unmarked {
        /// Who wanted to use it.
        ours: Owner,
    },
    /// The chunk store was used by its owner in a later epoch: the owner is an older state of itself, or another copy. Chunks
    /// that it does not know of may be in use.
    #[error(
        "the chunk store was used by {owner} in epoch {marked}, later than {epoch}: the store of references was restored from \
         an older backup, or is a copy of another in use. Restore the one that fits, or, if what it does not know of may go, \
         write {owner} alone into the file that says whose the chunk store is"
    )]
    Outdated {
        /// Whose it is.
        owner: Owner,
        /// The newest epoch in which it was used.
        marked: u64,
        /// The epoch of who wanted to use it.
        epoch: u64,
    },
    /// The draft that was being written is gone: the snapshot was removed, or another run has completed it.
    #[error("run {run} has no draft of snapshot {snapshot} any more")]
    NoDraft {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The run.
        run: RunName,
    },
}

impl ChunkError {
    /// The error for what an [`io::Error`] says: [`Self::NoSpace`] or [`Self::Io`].
    pub fn of_io(action: &'static str, what: Subject, path: Option<PathBuf>, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { action, what, path, source }
            }
            _ => Self::Io { action, what, path, source },
        }
    }

    /// Whether the data of a complete snapshot is lost, in whole or in part. Trying again does not help.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Missing { .. } => true,
            Self::DamagedManifest { .. } | Self::NoManifest { .. } => true,
            Self::Io { .. } | Self::NoSpace { .. } | Self::Length { .. } | Self::NoDraft { .. } => false,
            Self::Foreign { .. } | Self::Unmarked { .. } | Self::Outdated { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_full_disk_has_its_own_name_and_no_path_is_in_the_text() {
        let error = |errno: Errno| {
            ChunkError::of_io("write", Subject::Store, Some("/secret/place".into()), errno.into())
        };
        assert!(matches!(error(Errno::NOSPC), ChunkError::NoSpace { action: "write", .. }));
        assert!(matches!(error(Errno::DQUOT), ChunkError::NoSpace { .. }));
        assert!(matches!(error(Errno::IO), ChunkError::Io { .. }));
        for errno in [Errno::NOSPC, Errno::IO] {
            let error = error(errno);
            let cause = std::error::Error::source(&error).unwrap();
            assert!(!format!("{error}: {cause}").contains("secret"));
            assert!(format!("{error:?}").contains("/secret/place"));
        }
    }
}
