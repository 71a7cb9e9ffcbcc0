//! The steps: each one effect on the data plane, and how to reverse it.

mod copy;
mod grace;
mod remove;
mod verify;

pub(crate) use copy::{Copied, CopyDisk, CopyInput};
pub(crate) use grace::Grace;
pub(crate) use remove::RemoveSnapshot;
pub(crate) use verify::VerifyCopy;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use longrun::{Code, StepError, Stop};

/// Tells work on the blocking pool to end when the run that began it is dropped.
pub(crate) struct StopOnDrop(pub(crate) Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn stopped(reason: Stop) -> StepError {
    StepError::unknown(Code::Aborted, format!("the step was told to stop: {reason:?}"))
}
