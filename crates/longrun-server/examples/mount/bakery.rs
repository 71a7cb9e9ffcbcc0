//! The embedder's own service: a cake is ordered, and baked in one step.

use std::time::Duration;

use longrun::{
    Call, Caller, Code, Engine, Kind, KvStore, Operation, PlanBuilder, Planned, Status, Step, StepContext,
    StepError, StepResult, UndoContext, UndoResult, Undoable, async_trait,
};
use serde::{Deserialize, Serialize};

/// What is ordered, and what is learned of it at once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cake {
    pub(crate) sort: String,
    pub(crate) layers: u8,
}

struct Bake;

#[async_trait]
impl Step for Bake {
    const NAME: &'static str = "bake";
    type Input = Cake;
    type Output = Cake;
    type Checkpoint = ();

    async fn run(&self, cx: &StepContext<()>, cake: Cake) -> StepResult<Cake> {
        let baked = tokio::time::sleep(Duration::from_millis(50) * u32::from(cake.layers));
        tokio::select! {
            () = baked => Ok(cake),
            _ = cx.stopped() => Err(StepError::unknown(Code::Cancelled, "taken out of the oven")),
        }
    }

    async fn undo(&self, _: &UndoContext, _: Cake, _: Undoable<Cake, ()>) -> UndoResult {
        Ok(()) // It is eaten.
    }
}

struct BakeCake;

// No types of metadata and response are named: both go out as google.protobuf.Struct, to clients that know nothing of cakes.
#[async_trait]
impl Kind for BakeCake {
    const NAME: &'static str = "bakery.bake";
    type Request = Cake;
    type Metadata = Cake;
    type Response = Cake;

    async fn plan(&self, cake: &Cake, plan: &mut PlanBuilder) -> Planned<Self> {
        plan.describe("Bake a cake");
        Ok((cake.clone(), plan.step::<Bake>(cake.clone())))
    }
}

/// The engine, in memory.
pub(crate) async fn open() -> Result<Engine, Box<dyn std::error::Error>> {
    Ok(Engine::builder(KvStore::memory()?).kind(BakeCake).step(Bake).start().await?)
}

/// Orders a cake.
pub(crate) async fn order(engine: &Engine, guest: Caller, cake: &Cake) -> Result<Operation, Status> {
    engine.submit::<BakeCake>(cake, Call::by(guest)).await.map_err(|error| error.status())
}
