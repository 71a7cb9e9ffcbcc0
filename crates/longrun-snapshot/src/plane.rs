//! What the steps hold: the disks, the chunks, and how fast to copy.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

use longrun::{Code, StepError};

use crate::data::{ChunkError, ChunkFolder, CopyError, DiskError, DiskSource, ReadBackError};

/// The data plane that a service works on.
#[derive(Clone)]
pub struct DataPlane {
    pub(crate) disks: Arc<dyn DiskSource>,
    pub(crate) chunks: ChunkFolder,
    pub(crate) copy_rate: Option<NonZeroU64>,
}

impl fmt::Debug for DataPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataPlane").field("chunks", &self.chunks).finish_non_exhaustive()
    }
}

impl DataPlane {
    /// Disks to copy from, and a place to copy to.
    pub fn new(disks: impl DiskSource + 'static, chunks: ChunkFolder) -> Self {
        Self { disks: Arc::new(disks), chunks, copy_rate: None }
    }

    /// Limits each copy to so many bytes per second.
    #[must_use]
    pub const fn copy_rate(mut self, bytes_per_second: NonZeroU64) -> Self {
        self.copy_rate = Some(bytes_per_second);
        self
    }
}

/// The code of a disk's error. None of them goes away by reading again at once, but a folder may come back.
pub(crate) fn disk_code(error: &DiskError) -> Code {
    match error {
        DiskError::NotFound { .. } => Code::NotFound,
        DiskError::Changed { .. }
        | DiskError::Replaced { .. }
        | DiskError::Vanished { .. }
        | DiskError::NotAFile { .. }
        | DiskError::Sidecar { .. } => Code::FailedPrecondition,
        _ => Code::DataLoss,
    }
}

fn chunk_code(error: &ChunkError) -> Code {
    match error {
        ChunkError::NoSpace { .. } => Code::ResourceExhausted,
        error if error.is_damage() => Code::DataLoss,
        _ => Code::Unavailable,
    }
}

/// An error with all its causes, under a code.
pub(crate) fn step_error(code: Code, error: &dyn std::error::Error) -> StepError {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    StepError::unknown(code, text)
}

pub(crate) fn copy_error(error: &CopyError) -> StepError {
    let code = match error {
        CopyError::Disk(error) => disk_code(error),
        CopyError::Chunk(error) => chunk_code(error),
        CopyError::TooLarge { .. } => Code::OutOfRange,
        CopyError::Lost { .. } => Code::DataLoss,
        _ => Code::Internal,
    };
    step_error(code, error)
}

pub(crate) fn read_back_error(error: &ReadBackError) -> StepError {
    let code = match error {
        ReadBackError::Chunk(error) => chunk_code(error),
        _ => Code::Aborted,
    };
    step_error(code, error)
}
