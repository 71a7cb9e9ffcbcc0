//! The steps of the simulated service, registered with the real engine. What they do is in [`actor`](super::actor).

use longrun::{Step, StepContext, StepResult, UndoContext, UndoResult, Undoable, async_trait};

use super::actor::Actor;
use super::kind::{Spec, Thing};

/// A step that uses no output of another.
#[derive(Debug)]
pub(super) struct Lone(pub(super) Actor);

#[async_trait]
impl Step for Lone {
    const NAME: &'static str = "lone";
    type Input = Spec;
    type Output = Thing;
    type Checkpoint = u32;

    async fn run(&self, cx: &StepContext<u32>, input: Spec) -> StepResult<Thing> {
        self.0.run(cx, input, &input).await
    }

    async fn undo(&self, cx: &UndoContext, input: Spec, outcome: Undoable<Thing, u32>) -> UndoResult {
        self.0.undo(cx, input, outcome).await
    }
}

/// A step that uses the output of another.
#[derive(Debug)]
pub(super) struct Fed(pub(super) Actor);

#[async_trait]
impl Step for Fed {
    const NAME: &'static str = "fed";
    type Input = (Spec, Thing);
    type Output = Thing;
    type Checkpoint = u32;

    async fn run(&self, cx: &StepContext<u32>, input: (Spec, Thing)) -> StepResult<Thing> {
        self.0.run(cx, input.0, &input).await
    }

    async fn undo(
        &self,
        cx: &UndoContext,
        input: (Spec, Thing),
        outcome: Undoable<Thing, u32>,
    ) -> UndoResult {
        self.0.undo(cx, input.0, outcome).await
    }
}
