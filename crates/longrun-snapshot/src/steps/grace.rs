//! The step that leaves time to think.

use std::time::Duration;

use longrun::{
    Step, StepContext, StepPolicy, StepResult, Timestamp, UndoContext, UndoResult, Undoable, async_trait,
};

use super::stopped;

/// Waits until a time. It changes nothing, so an operation that is cancelled meanwhile leaves everything as it was.
pub(crate) struct Grace;

#[async_trait]
impl Step for Grace {
    const NAME: &'static str = "compute.grace";
    type Input = Timestamp;
    type Output = ();
    type Checkpoint = ();

    fn policy() -> StepPolicy {
        StepPolicy { timeout: Duration::from_secs(365 * 24 * 60 * 60), ..StepPolicy::default() }
    }

    async fn run(&self, cx: &StepContext<()>, until: Timestamp) -> StepResult<()> {
        tokio::select! {
            reason = cx.stopped() => Err(stopped(reason)),
            () = tokio::time::sleep(until.since(cx.began_at())) => Ok(()),
        }
    }

    async fn undo(&self, _: &UndoContext, _: Timestamp, _: Undoable<(), ()>) -> UndoResult {
        Ok(())
    }
}
