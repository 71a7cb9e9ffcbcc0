//! The step that leaves time to think.

use std::time::Duration;

use longrun::{Step, StepContext, StepPolicy, StepResult, UndoContext, UndoResult, Undoable, async_trait};

use super::stopped;

/// Waits. It changes nothing, so an operation that is cancelled meanwhile leaves everything as it was.
pub(crate) struct Grace;

#[async_trait]
impl Step for Grace {
    const NAME: &'static str = "compute.grace";
    type Input = Duration;
    type Output = ();
    type Checkpoint = ();

    fn policy() -> StepPolicy {
        StepPolicy { timeout: Duration::from_secs(365 * 24 * 60 * 60), ..StepPolicy::default() }
    }

    async fn run(&self, cx: &StepContext<()>, grace: Duration) -> StepResult<()> {
        tokio::select! {
            reason = cx.stopped() => Err(stopped(reason)),
            () = tokio::time::sleep(grace) => Ok(()),
        }
    }

    async fn undo(&self, _: &UndoContext, _: Duration, _: Undoable<(), ()>) -> UndoResult {
        Ok(())
    }
}
