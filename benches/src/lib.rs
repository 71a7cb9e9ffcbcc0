//! What the benchmarks run: the *happy* workload, an operation of three steps that do nothing, each outcome recorded durably.

use longrun::{
    Call, Caller, Engine, Kind, PlanBuilder, Planned, Step, StepContext, StepResult, Store, UndoContext,
    UndoResult, Undoable, async_trait,
};

struct Nothing;

#[async_trait]
impl Step for Nothing {
    const NAME: &'static str = "nothing";
    type Input = u64;
    type Output = u64;
    type Checkpoint = ();

    async fn run(&self, _: &StepContext<()>, input: u64) -> StepResult<u64> {
        Ok(input + 1)
    }

    async fn undo(&self, _: &UndoContext, _: u64, _: Undoable<u64, ()>) -> UndoResult {
        Ok(())
    }
}

/// Three steps in a row.
#[derive(Debug)]
pub struct Happy;

#[async_trait]
impl Kind for Happy {
    const NAME: &'static str = "bench.happy";
    type Request = u64;
    type Metadata = u64;
    type Response = u64;

    async fn plan(&self, request: &u64, plan: &mut PlanBuilder) -> Planned<Self> {
        let first = plan.step::<Nothing>(*request);
        let second = plan.step::<Nothing>(&first);
        Ok((*request, plan.step::<Nothing>(&second)))
    }
}

/// An engine for the workload.
pub async fn engine(store: impl Store) -> Result<Engine, longrun::BuildError> {
    Engine::builder(store).kind(Happy).step(Nothing).start().await
}

/// Runs `count` operations, `concurrency` of them at a time, each from submit to done.
pub async fn happy(
    engine: &Engine,
    count: u64,
    concurrency: u64,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let caller = Caller::new("bench")?;
    let mut tasks = Vec::new();
    for task in 0..concurrency {
        let (engine, caller) = (engine.clone(), caller.clone());
        let share = count / concurrency + u64::from(task < count % concurrency);
        tasks.push(tokio::spawn(async move {
            for number in 0..share {
                let accepted = engine.submit::<Happy>(&number, Call::by(caller.clone())).await?;
                engine.wait_done(accepted.id()).await?;
            }
            Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}
