//! The service that is tried: one kind, whose request says what its steps do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longrun::{
    Attempt, Code, Kind, Out, PlanBuilder, Planned, Status, Step, StepContext, StepError, StepResult,
    UndoContext, UndoError, UndoResult, Undoable, async_trait,
};
use longrun_testkit::strategies::PlanShape;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::sleep;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    #[default]
    Succeeds,
    FailsWithoutEffect,
    FailsWithEffect,
    SucceedsAtTheSecondTry,
    UndoneAtTheSecondTry,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub shape: PlanShape,
    /// By step; those without one succeed.
    pub fates: Vec<Fate>,
    pub body: Value,
}

impl Request {
    fn fate(&self, place: u16) -> Fate {
        let fate = self.fates.get(usize::from(place)).copied().unwrap_or_default();
        match fate {
            // From there on a step is run until it is done.
            Fate::FailsWithoutEffect | Fate::FailsWithEffect
                if self.shape.point_of_no_return.is_some_and(|step| place >= step) =>
            {
                Fate::Succeeds
            }
            fate => fate,
        }
    }
}

/// What is outside: effects by operation and step, and which undos were tried.
#[derive(Debug, Default)]
pub struct Outside {
    pub effects: Mutex<BTreeMap<String, String>>,
    tried: Mutex<BTreeSet<String>>,
}

impl Outside {
    async fn run(&self, cx: &StepContext<()>, what: What) -> StepResult<u16> {
        sleep(Duration::from_millis(20)).await;
        let failure = || StepError::unknown(Code::Unavailable, "planned");
        match what.fate {
            Fate::FailsWithoutEffect => {
                return Err(StepError::not_applied(Code::FailedPrecondition, "planned").permanent());
            }
            Fate::SucceedsAtTheSecondTry if cx.attempt() == Attempt(1) => return Err(failure().retryable()),
            _ => {}
        }
        let (operation, key) = (cx.operation_id().to_string(), cx.effect_key().to_string());
        self.effects.lock().unwrap().insert(key, operation);
        // The effect is there, and nobody knows yet.
        sleep(Duration::from_millis(10)).await;
        if what.fate == Fate::FailsWithEffect { Err(failure().permanent()) } else { Ok(what.place) }
    }

    async fn undo(&self, cx: &UndoContext, what: What) -> UndoResult {
        sleep(Duration::from_millis(10)).await;
        let key = cx.effect_key().to_string();
        let first = self.tried.lock().unwrap().insert(key.clone());
        if what.fate == Fate::UndoneAtTheSecondTry && first {
            return Err(UndoError::new(Code::Unavailable, "planned"));
        }
        self.effects.lock().unwrap().remove(&key);
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct What {
    place: u16,
    fate: Fate,
}

/// A step that feeds on none.
pub struct First(pub Arc<Outside>);

#[async_trait]
impl Step for First {
    const NAME: &'static str = "first";
    type Input = What;
    type Output = u16;
    type Checkpoint = ();

    async fn run(&self, cx: &StepContext<()>, what: What) -> StepResult<u16> {
        self.0.run(cx, what).await
    }

    async fn undo(&self, cx: &UndoContext, what: What, _: Undoable<u16, ()>) -> UndoResult {
        self.0.undo(cx, what).await
    }
}

/// A step that feeds on another.
pub struct Then(pub Arc<Outside>);

#[async_trait]
impl Step for Then {
    const NAME: &'static str = "then";
    type Input = (What, u16);
    type Output = u16;
    type Checkpoint = ();

    async fn run(&self, cx: &StepContext<()>, (what, fed): (What, u16)) -> StepResult<u16> {
        assert!(fed < what.place, "fed by a step before it");
        self.0.run(cx, what).await
    }

    async fn undo(&self, cx: &UndoContext, (what, _): (What, u16), _: Undoable<u16, ()>) -> UndoResult {
        self.0.undo(cx, what).await
    }
}

pub struct Make;

#[async_trait]
impl Kind for Make {
    const NAME: &'static str = "properties.make";
    type Request = Request;
    type Metadata = Value;
    type Response = u16;

    async fn plan(&self, request: &Request, plan: &mut PlanBuilder) -> Planned<Self> {
        let mut outs: Vec<Out<u16>> = Vec::new();
        for (place, step) in (0..).zip(&request.shape.steps) {
            let what = What { place, fate: request.fate(place) };
            let fed_by = step.feeds_on.and_then(|on| outs.get(usize::from(on))).cloned();
            outs.push(match fed_by {
                None => plan.step::<First>(what),
                Some(fed_by) => {
                    let what = plan.value(&what);
                    plan.step::<Then>((&what, &fed_by))
                }
            });
        }
        request.shape.apply_to(plan, &outs);
        let last = outs.pop().ok_or_else(|| Status::new(Code::InvalidArgument, "no steps"))?;
        Ok((request.body.clone(), last))
    }
}
