//! How often an operation allocates on its way from submit to done: a count, which is the same on every machine, where a time
//! is not.

#![allow(clippy::unwrap_used)]

use allocation_counter::measure;
use longrun::{
    Call, Caller, Engine, Kind, KvStore, PlanBuilder, Planned, Step, StepContext, StepResult, UndoContext,
    UndoResult, Undoable, async_trait,
};

/// Some more than there are today, which is 193 over the memory store, where who commits does the committer's work.
const ALLOCATIONS_MAX: u64 = 210;
/// Operations that are counted together: what happens once in a while, such as a map that grows, is shared by all.
const OPERATIONS: u64 = 100;

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

struct Happy;

#[async_trait]
impl Kind for Happy {
    const NAME: &'static str = "happy";
    type Request = u64;
    type Metadata = u64;
    type Response = u64;

    async fn plan(&self, request: &u64, plan: &mut PlanBuilder) -> Planned<Self> {
        let first = plan.step::<Nothing>(*request);
        let second = plan.step::<Nothing>(&first);
        Ok((*request, plan.step::<Nothing>(&second)))
    }
}

#[test]
fn an_operation_of_three_steps_allocates_as_little_as_it_did() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let engine = runtime.block_on(async {
        Engine::builder(KvStore::memory().unwrap()).kind(Happy).step(Nothing).start().await.unwrap()
    });
    let call = Call::by(Caller::new("somebody").unwrap());
    let run = |count: u64| {
        for number in 0..count {
            runtime.block_on(async {
                let accepted = engine.submit::<Happy>(&number, call.clone()).await.unwrap();
                let done = engine.wait_done(accepted.id()).await.unwrap();
                assert!(done.response().is_some());
            });
        }
    };
    run(OPERATIONS);
    let counted = measure(|| run(OPERATIONS));
    let each = counted.count_total / OPERATIONS;
    assert!(each <= ALLOCATIONS_MAX, "{each} allocations of {} bytes", counted.bytes_total / OPERATIONS);
}
