//! The operations that the writer asks for: three steps, each with an effect, and an end that is known beforehand.

use std::time::Duration;

use longrun::{
    Backoff, Code, IdPrefix, IdempotencyKey, Invalid, Kind, PlanBuilder, Planned, Resource, ResourceId,
    ResourceStatus, Status, Step, StepContext, StepError, StepPolicy, StepResult, UndoContext, UndoError,
    UndoResult, Undoable, async_trait,
};
use serde::{Deserialize, Serialize};

use super::dice::Dice;
use super::effects::Effects;

/// Steps of each operation.
pub(crate) const STEPS: u16 = 3;
/// The parent of all things.
pub(crate) const PARENT: &str = "ground";
/// Who asks.
pub(crate) const CALLER: &str = "writer";

/// What becomes of the resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Act {
    Make,
    Change(ResourceId),
    Delete(ResourceId),
}

/// How the operation is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    /// It succeeds.
    Well,
    /// Its third step fails after it had its effect, for good.
    Badly,
    /// The writer cancels it while it runs, and comes in time or does not.
    Cancelled,
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Unique in the store; the idempotency key is made of it.
    pub number: u64,
    pub act: Act,
    pub end: End,
    /// How long each step takes.
    pub micros: u64,
    /// The first run of the second step, and the first undo of it, fail for now.
    pub hiccup: bool,
}

impl Request {
    pub(crate) fn draw(number: u64, act: Act, dice: &mut Dice) -> Self {
        let end = match dice.within(0..10) {
            0..6 => End::Well,
            6..8 => End::Badly,
            _ => End::Cancelled,
        };
        let micros = if dice.one_in(4) { dice.within(1000..20_000) } else { 0 };
        Self { number, act, end, micros, hiccup: dice.one_in(8) }
    }

    pub(crate) fn key(&self) -> Result<IdempotencyKey, Invalid> {
        IdempotencyKey::new(key_text(self.number))
    }
}

pub(crate) fn key_text(number: u64) -> String {
    format!("key-{number}")
}

/// The resource, and what steps hand on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Thing {
    /// The request that wrote it last.
    pub by: u64,
    /// Steps that it went through.
    pub steps: u16,
}

impl Resource for Thing {
    const KIND: &'static str = "crash.thing";
    const TYPE_URL: &'static str = "type.googleapis.com/longrun.crash.Thing";
}

/// The kind of all these operations.
#[derive(Debug)]
pub(crate) struct Script;

#[async_trait]
impl Kind for Script {
    const NAME: &'static str = "crash.script";
    type Request = Request;
    /// The thing that is made, changed or deleted.
    type Metadata = ResourceId;
    type Response = Thing;

    async fn plan(&self, request: &Request, plan: &mut PlanBuilder) -> Planned<Self> {
        let work = plan.value(request);
        let mut thing = plan.value(&Thing { by: request.number, steps: 0 });
        for _ in 0..STEPS {
            thing = plan.step::<Touch>((&work, &thing));
        }
        let id = match &request.act {
            Act::Make => {
                let (id, parent) = (plan.new_id(IdPrefix::new("thg")?), ResourceId::new(PARENT)?);
                let draft = Thing { by: request.number, steps: 0 };
                plan.create(&id, &parent, key_text(request.number), &draft, &thing)?;
                id
            }
            Act::Change(id) | Act::Delete(id) => {
                let none = || Status::new(Code::NotFound, format!("thing {id} not found"));
                let found = plan.find::<Thing>(id).await?.ok_or_else(none)?;
                match request.act {
                    Act::Delete(_) => plan.delete(&found),
                    _ => plan.update(&found, key_text(request.number), ResourceStatus::Ready, &thing),
                }
                id.clone()
            }
        };
        Ok((id, thing))
    }
}

/// The step: leaves an effect, and takes its time.
#[derive(Debug)]
pub(crate) struct Touch(pub(crate) Effects);

#[async_trait]
impl Step for Touch {
    const NAME: &'static str = "crash.touch";
    type Input = (Request, Thing);
    type Output = Thing;
    type Checkpoint = u64;

    fn policy() -> StepPolicy {
        let backoff = Backoff { first: Duration::from_millis(4), longest: Duration::from_millis(100) };
        // An operation is not to fail because the process died under it many times.
        StepPolicy { runs_max: 1000, backoff, undo_backoff: backoff, ..StepPolicy::default() }
    }

    async fn run(&self, cx: &StepContext<u64>, (request, thing): (Request, Thing)) -> StepResult<Thing> {
        if request.hiccup && thing.steps == 1 && cx.attempt().0 == 1 {
            return Err(StepError::not_applied(Code::Unavailable, "not now"));
        }
        self.0.make(cx.effect_key())?;
        if request.micros > 0 {
            cx.save(&request.number).await?;
            tokio::select! {
                _ = cx.stopped() => {}
                () = tokio::time::sleep(Duration::from_micros(request.micros)) => {}
            }
        }
        let thing = Thing { steps: thing.steps + 1, ..thing };
        if request.end == End::Badly && thing.steps == STEPS {
            return Err(StepError::unknown(Code::FailedPrecondition, "as it was asked for").permanent());
        }
        Ok(thing)
    }

    async fn undo(
        &self,
        cx: &UndoContext,
        (request, thing): (Request, Thing),
        outcome: Undoable<Thing, u64>,
    ) -> UndoResult {
        if request.hiccup && thing.steps == 1 && cx.fencing_token().attempt == 1 {
            return Err(UndoError::new(Code::Unavailable, "not now"));
        }
        match outcome {
            Undoable::Done(made) if made.by != request.number || made.steps != thing.steps + 1 => {
                return Err(UndoError::new(Code::DataLoss, "the output is not that of the run"));
            }
            Undoable::MayHaveRun(Some(saved)) if saved != request.number => {
                return Err(UndoError::new(Code::DataLoss, "the checkpoint is not that of the run"));
            }
            _ => {}
        }
        Ok(self.0.take_back(cx.effect_key())?)
    }
}
