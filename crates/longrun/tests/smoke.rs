//! The shortest way through the engine: two steps, submit, wait.

use std::time::Duration;

use longrun::{
    Call, Caller, Engine, Kind, KvStore, PlanBuilder, Planned, Step, StepContext, StepResult, UndoContext,
    UndoResult, Undoable, async_trait,
};

struct Double;

#[async_trait]
impl Step for Double {
    const NAME: &'static str = "double";
    type Input = u32;
    type Output = u32;
    type Checkpoint = ();

    async fn run(&self, _cx: &StepContext<()>, input: u32) -> StepResult<u32> {
        Ok(input * 2)
    }

    async fn undo(&self, _cx: &UndoContext, _input: u32, _outcome: Undoable<u32, ()>) -> UndoResult {
        Ok(())
    }
}

struct Quadruple;

#[async_trait]
impl Kind for Quadruple {
    const NAME: &'static str = "test.quadruple";
    type Request = u32;
    type Metadata = u32;
    type Response = u32;

    async fn plan(&self, request: &u32, plan: &mut PlanBuilder) -> Planned<Self> {
        let twice = plan.step::<Double>(*request);
        Ok((*request, plan.step::<Double>(&twice)))
    }
}

#[tokio::test(start_paused = true)]
async fn two_steps_run_to_a_response() {
    let store = KvStore::memory().unwrap();
    let engine = Engine::builder(store).kind(Quadruple).step(Double).start().await.unwrap();
    let caller = Caller::new("tester").unwrap();
    for number in 0..100 {
        let accepted = engine.submit::<Quadruple>(&number, Call::by(caller.clone())).await.unwrap();
        assert!(!accepted.done());
        let done = engine.wait(accepted.id(), Duration::from_secs(5)).await.unwrap();
        assert_eq!(done.response().unwrap().decode::<u32>().unwrap(), number * 4);
        assert_eq!(done.revision().0, 3);
    }
    assert!(engine.shutdown(Duration::from_secs(1)).await);
}
