//! What the nodes do: operations of a few steps, each with an effect in the world, that succeed, fail or are cancelled.

use std::sync::Arc;
use std::time::Duration;

use longrun::{
    Backoff, Code, FencingToken, IdPrefix, Kind, PlanBuilder, Planned, Resource, ResourceId, Step,
    StepContext, StepError, StepPolicy, StepResult, UndoContext, UndoError, UndoResult, Undoable,
    async_trait,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::world::{Told, World};

/// The parent of all things.
pub(super) const PARENT: &str = "ground";

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    /// The name of what is made.
    pub(super) name: String,
    pub(super) steps: u16,
    /// The step that fails for good, after it had its effect.
    pub(super) fails_at: Option<u16>,
    /// How long each step takes.
    pub(super) millis: u64,
}

/// What is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Thing {
    pub(super) name: String,
}

impl Resource for Thing {
    const KIND: &'static str = "chaos.thing";
    const TYPE_URL: &'static str = "type.googleapis.com/longrun.chaos.Thing";
}

/// Makes a thing.
#[derive(Debug)]
pub(super) struct Make;

#[async_trait]
impl Kind for Make {
    const NAME: &'static str = "chaos.make";
    type Request = Request;
    type Metadata = ResourceId;
    type Response = Thing;

    async fn plan(&self, request: &Request, plan: &mut PlanBuilder) -> Planned<Self> {
        let work = plan.value(request);
        let mut before = plan.value(&0u16);
        for _ in 0..request.steps {
            before = plan.step::<Touch>((&work, &before));
        }
        let thing = plan.step::<Shape>((&work, &before));
        let (id, parent) = (plan.new_id(IdPrefix::new("thg")?), ResourceId::new(PARENT)?);
        plan.create(&id, &parent, request.name.clone(), &Thing { name: request.name.clone() }, &thing)?;
        Ok((id, thing))
    }
}

/// Has an effect; hands on how many there are.
#[derive(Debug)]
pub(super) struct Touch(pub(super) Arc<Reach>);

/// Gives the thing its form.
#[derive(Debug)]
pub(super) struct Shape;

fn policy() -> StepPolicy {
    let short = Backoff { first: Duration::from_millis(20), longest: Duration::from_millis(500) };
    StepPolicy { runs_max: 1000, backoff: short, undo_backoff: short, ..StepPolicy::default() }
}

/// The world, as a node reaches it: past the proxy that cuts its connections to the store.
#[derive(Debug)]
pub(super) struct Reach {
    address: String,
    world: Mutex<Option<Arc<World>>>,
}

impl Reach {
    pub(super) fn new(address: String) -> Self {
        Self { address, world: Mutex::new(None) }
    }

    /// True when it was late: somebody else works on it.
    async fn set(
        &self,
        operation: &str,
        step: u16,
        token: FencingToken,
        there: bool,
    ) -> anyhow::Result<bool> {
        let world = {
            let mut world = self.world.lock().await;
            match &*world {
                Some(reached) if !reached.is_gone() => Arc::clone(reached),
                _ => Arc::clone(world.insert(Arc::new(World::reach(&self.address).await?))),
            }
        };
        Ok(world.set(operation, step.into(), token, there).await? == Told::Late)
    }
}

#[async_trait]
impl Step for Touch {
    const NAME: &'static str = "touch";
    type Input = (Request, u16);
    type Output = u16;
    type Checkpoint = ();

    fn policy() -> StepPolicy {
        policy()
    }

    async fn run(&self, cx: &StepContext<()>, (request, step): Self::Input) -> StepResult<u16> {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(request.millis)) => {}
            _ = cx.stopped() => return Err(StepError::not_applied(Code::Aborted, "told to stop")),
        }
        let operation = cx.operation_id();
        match self.0.set(operation.as_str(), step, cx.fencing_token(), true).await {
            Ok(false) if request.fails_at == Some(step) => {
                Err(StepError::unknown(Code::FailedPrecondition, "it was to fail"))
            }
            Ok(false) => Ok(step + 1),
            Ok(true) => Err(StepError::unknown(Code::Aborted, "somebody else was there").retryable()),
            Err(error) => Err(StepError::unknown(Code::Unavailable, format!("{error:#}")).retryable()),
        }
    }

    async fn undo(&self, cx: &UndoContext, (_, step): Self::Input, _: Undoable<u16, ()>) -> UndoResult {
        let operation = cx.operation_id();
        match self.0.set(operation.as_str(), step, cx.fencing_token(), false).await {
            Ok(false) => Ok(()),
            Ok(true) => Err(UndoError::new(Code::Aborted, "somebody else was there")),
            Err(error) => Err(UndoError::new(Code::Unavailable, format!("{error:#}"))),
        }
    }
}

#[async_trait]
impl Step for Shape {
    const NAME: &'static str = "shape";
    type Input = (Request, u16);
    type Output = Thing;
    type Checkpoint = ();

    fn policy() -> StepPolicy {
        policy()
    }

    async fn run(&self, _: &StepContext<()>, (request, _): Self::Input) -> StepResult<Thing> {
        Ok(Thing { name: request.name })
    }

    async fn undo(&self, _: &UndoContext, _: Self::Input, _: Undoable<Thing, ()>) -> UndoResult {
        Ok(())
    }
}
