//! The embedder's own service: a cake is ordered, and baked in one step.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use longrun::{
    Call, Caller, Code, EffectKey, Engine, EngineBuilder, Kind, KvStore, Operation, PlanBuilder, Planned,
    Status, Step, StepContext, StepError, StepResult, UndoContext, UndoResult, Undoable, async_trait,
};
use serde::{Deserialize, Serialize};

/// What is ordered, and what is learned of it at once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cake {
    pub(crate) sort: String,
    pub(crate) layers: u8,
}

/// The cakes that are there. Each is known by the key of its effect, so that baking it again makes no second one.
#[derive(Clone, Default)]
pub(crate) struct Shelf(Arc<Mutex<BTreeMap<EffectKey, Cake>>>);

impl Shelf {
    pub(crate) fn cakes(&self) -> MutexGuard<'_, BTreeMap<EffectKey, Cake>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Bake(Shelf);

#[async_trait]
impl Step for Bake {
    const NAME: &'static str = "bake";
    type Input = Cake;
    type Output = Cake;
    type Checkpoint = ();

    async fn run(&self, cx: &StepContext<()>, cake: Cake) -> StepResult<Cake> {
        let baked = tokio::time::sleep(Duration::from_millis(50) * u32::from(cake.layers));
        tokio::select! {
            () = baked => {}
            _ = cx.stopped() => return Err(StepError::unknown(Code::Cancelled, "taken out of the oven")),
        }
        self.0.cakes().insert(cx.effect_key(), cake.clone());
        Ok(cake)
    }

    async fn undo(&self, cx: &UndoContext, _: Cake, _: Undoable<Cake, ()>) -> UndoResult {
        self.0.cakes().remove(&cx.effect_key()); // It is eaten, if there is one.
        Ok(())
    }
}

pub(crate) struct BakeCake;

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

/// What an engine has to know.
pub(crate) fn register(builder: EngineBuilder, shelf: &Shelf) -> EngineBuilder {
    builder.kind(BakeCake).step(Bake(shelf.clone()))
}

/// The engine, in memory.
pub(crate) async fn open() -> Result<Engine, Box<dyn std::error::Error>> {
    Ok(register(Engine::builder(KvStore::memory()?), &Shelf::default()).start().await?)
}

/// Orders a cake.
pub(crate) async fn order(engine: &Engine, guest: Caller, cake: &Cake) -> Result<Operation, Status> {
    engine.submit::<BakeCake>(cake, Call::by(guest)).await.map_err(|error| error.status())
}
