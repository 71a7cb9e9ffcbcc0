//! The kind and the step of the simulated service, and what the step does under the eyes of the oracle.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use longrun::{
    Backoff, Code, EffectKey, Fence, FencingToken, Kind, OperationId, Out, PlanBuilder, Planned, Resource,
    ResourceId, Status, Step, StepContext, StepError, StepPolicy, StepResult, UndoContext, UndoError,
    UndoResult, Undoable, async_trait,
};
use longrun_core::Json;
use serde::{Deserialize, Serialize};

use super::LEASE;
use super::machine::Life;
use super::world::Shared;
use crate::panics::lock;
use crate::sim::coverage::{Fault, Situation};
use crate::sim::invariants::Verdict;
use crate::sim::invariants::commits::check_owner;
use crate::sim::invariants::durable::Story;
use crate::sim::invariants::outside::{Change, Outside, Run, check_change, on_record, stored};
use crate::sim::plant::Plant;

/// What clients ask for: of each step those that it waits for, as bits; and a name to take, if any.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) steps: Vec<u16>,
    pub(super) parallel: u16,
    pub(super) name: Option<u8>,
}

/// A resource, and what every step gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Thing(u64);

impl Resource for Thing {
    const KIND: &'static str = "t.thing";
    const TYPE_URL: &'static str = "t/Thing";
}

/// The only kind there is.
pub(super) struct Make;

#[async_trait]
impl Kind for Make {
    const NAME: &'static str = "t.make";
    type Request = Request;
    type Metadata = u32;
    type Response = Thing;

    async fn plan(&self, request: &Request, plan: &mut PlanBuilder) -> Planned<Self> {
        let mut outs: Vec<Out<Thing>> = Vec::new();
        for (step, after) in (0..).zip(&request.steps) {
            let out = plan.step::<Play>(step);
            for (place, earlier) in outs.iter().enumerate() {
                if after & 1 << place != 0 {
                    plan.after(&out, earlier);
                }
            }
            outs.push(out);
        }
        plan.parallel(request.parallel);
        let Some(last) = outs.pop() else { return Err(Status::new(Code::InvalidArgument, "no steps")) };
        if let Some(name) = request.name {
            // Names differ among the children: a rule that holds at all nodes together.
            let (parent, name) = (ResourceId::new("p")?, format!("n{name}"));
            let children = plan.children::<Thing>(&parent).await?;
            if children.iter().any(|child| child.row.name == name) {
                return Err(Status::new(Code::AlreadyExists, "the name is taken"));
            }
            let id = plan.new_id(longrun::IdPrefix::new("thg")?);
            plan.create(&id, &parent, name, &Thing(0), &last)?;
        }
        Ok((7, last))
    }
}

/// Plays the steps of one process.
#[derive(Clone)]
pub(super) struct Actor {
    pub(super) shared: Arc<Shared>,
    pub(super) life: Arc<Life>,
    /// The epoch of the node.
    pub(super) node: Arc<OnceLock<Fence>>,
}

/// The only step there is.
pub(super) struct Play(pub(super) Actor);

#[async_trait]
impl Step for Play {
    const NAME: &'static str = "play";
    type Input = u32;
    type Output = Thing;
    type Checkpoint = u32;

    fn policy() -> StepPolicy {
        let millis = Duration::from_millis;
        StepPolicy {
            timeout: millis(60_000),
            grace: millis(500),
            runs_max: 3,
            backoff: Backoff { first: millis(100), longest: millis(3000) },
            undo_backoff: Backoff { first: millis(100), longest: millis(8000) },
            blocked_after: 2,
        }
    }

    async fn run(&self, cx: &StepContext<u32>, input: u32) -> StepResult<Thing> {
        self.0.run(cx, input).await
    }

    async fn undo(&self, cx: &UndoContext, input: u32, outcome: Undoable<Thing, u32>) -> UndoResult {
        self.0.undo(cx, input, &outcome).await
    }
}

/// Notes that a run or an undo is over, also when it is dropped.
struct Over<'a> {
    actor: &'a Actor,
    id: OperationId,
    step: usize,
    token: FencingToken,
    undoes: bool,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.actor.shared.state);
        let Some(known) = state.operations.get_mut(&self.id) else { return };
        // Once somebody else works on it, what it did is over anyway.
        if known.outside.fences.last() == Some(&self.token.epoch) {
            match self.undoes {
                true => known.outside.undo_ends(self.step),
                false => known.outside.run_ends(self.step, self.token.attempt),
            }
        }
    }
}

impl Actor {
    /// Counts what has taken so many microseconds, if that was longer than a lease.
    fn note_length(&self, lasts: u64) {
        if Duration::from_micros(lasts) > LEASE {
            lock(&self.shared.state).coverage.fault(Fault::StepLong);
        }
    }

    fn owns(&self, id: OperationId, token: FencingToken) -> bool {
        self.node.get().is_some_and(|node| self.shared.owns(*node, id, token.epoch))
    }

    /// A run or an undo begins: what is stored has to allow it, if its node works on the operation still.
    async fn begins(
        &self,
        step: usize,
        key: &EffectKey,
        token: FencingToken,
        what: &str,
        judge: impl FnOnce(&mut Outside, Story) -> Verdict + Send,
    ) {
        let id = key.operation;
        self.life.goes().await;
        let stored = self.shared.stored(id).await;
        let owns = self.owns(id, token);
        let mut state = lock(&self.shared.state);
        state.note(&format!("{what} {id} step {step} {token:?} owns {owns}"));
        // It may have lost the operation and not know yet. What it shows the world is refused, if another was there before.
        let Some(known) = state.operations.get_mut(&id).filter(|_| owns) else { return };
        let outside = &mut known.outside;
        let owned = outside.worked_on_with(token.epoch);
        let left = |step: usize| outside.is_left(step);
        let story = stored.map(|stored| Story::observed(&known.plan, &stored, Some(step), left));
        let met = outside.meets(step, token).and(outside.carries_key(step, key));
        let verdict = owned.and(met).and_then(|()| {
            let story = on_record(id, story)?;
            judge(outside, story)
        });
        state.judge(verdict);
    }

    /// A run has begun, also if its node has lost the operation and does not know yet.
    fn begun(&self, id: OperationId, step: usize, token: FencingToken) {
        let mut state = lock(&self.shared.state);
        let known = state.operations.get_mut(&id);
        let verdict = known.map_or(Ok(()), |known| known.outside.begun_by(step, token));
        state.judge(verdict);
    }

    /// Changes the world outside, which remembers the newest token that it met at a step and refuses all before it (S31).
    fn change(&self, id: OperationId, step: usize, token: FencingToken, there: bool) {
        let (owns, plant) = (self.owns(id, token), self.shared.setting.plant);
        let mut state = lock(&self.shared.state);
        state.note(&format!("{id} step {step} {token:?} is {there}, owns {owns}"));
        let Some(known) = state.operations.get_mut(&id) else { return };
        let refused = known.outside.refuses(step, token) && plant != Some(Plant::S31);
        let lost = plant == Some(Plant::S25) && !there && known.outside.is_adopted();
        if !refused && !lost {
            known.outside.places[step].effect = there;
        }
        let verdict = check_change(&Change { step, refused, owns, ended: known.is_over });
        state.judge(verdict);
        match (owns, refused) {
            (false, true) => state.coverage.met(Situation::LateEffectRefused),
            (false, false) => state.coverage.met(Situation::LateEffectFirst),
            _ => {}
        }
    }

    /// Saves a checkpoint, which only a node that works on the operation may.
    async fn save(&self, cx: &StepContext<u32>, number: u64) -> Result<(), StepError> {
        let owned = self.owns(cx.effect_key().operation, cx.fencing_token());
        cx.save(&u32::try_from(number).unwrap_or(0)).await?;
        lock(&self.shared.state).judge(check_owner(owned, "a checkpoint"));
        Ok(())
    }

    async fn run(&self, cx: &StepContext<u32>, input: u32) -> StepResult<Thing> {
        let (key, token) = (cx.effect_key(), cx.fencing_token());
        // The step's number comes from its input, not from the effect key: the key is what is judged.
        let (id, step) = (key.operation, input as usize);
        let saved = cx.checkpoint()?;
        let checkpoint = saved.and_then(|number| Json::encode("checkpoint", &number).ok());
        let input = serde_json::to_vec(&input).unwrap_or_default();
        let run = Run { attempt: token.attempt, input: &input, checkpoint: checkpoint.as_ref() };
        self.begins(step, &key, token, "run", |outside, mut story| {
            // It was told to begin before a decision that another node has stored, or that was stored while it stood still. That no run
            // came on record since the decision was seen is judged already.
            story.cause = None;
            outside.run_begins(&story, step, &run)
        })
        .await;
        self.begun(id, step, token);
        let _over = Over { actor: self, id, step, token, undoes: false };
        if saved.is_some() {
            lock(&self.shared.state).coverage.met(Situation::CheckpointReturned);
        }
        let (lasts, effect, saves, fails, ends) = {
            let mut state = lock(&self.shared.state);
            let swarm = state.swarm.clone();
            let long = state.goes_wrong(swarm.step_long);
            let lasts = state.rng.below(if long { 9_000_000 } else { 500_000 });
            let effect = state.rng.below(lasts + 1);
            let saves = if state.rng.chance(swarm.saves) { state.rng.between(1, 4) } else { 0 };
            (lasts, effect, saves, state.goes_wrong(swarm.step_fails), state.goes_wrong(swarm.step_final))
        };
        let work = async {
            tokio::time::sleep(Duration::from_micros(effect)).await;
            self.life.goes().await;
            self.change(id, step, token, true);
            for number in 0..saves {
                self.save(cx, number).await?;
                tokio::time::sleep(Duration::from_micros((lasts - effect) / (saves + 1))).await;
            }
            tokio::time::sleep(Duration::from_micros((lasts - effect) / (saves + 1))).await;
            self.life.goes().await;
            Ok::<_, StepError>(())
        };
        tokio::select! {
            biased;
            result = work => result?,
            _ = cx.stopped() => return Err(StepError::unknown(Code::Aborted, "stopped")),
        }
        self.note_length(lasts);
        if fails {
            let fault = if ends { Fault::StepFailsForGood } else { Fault::StepFailsAfter };
            lock(&self.shared.state).coverage.fault(fault);
            let error = StepError::unknown(Code::Unavailable, "it failed");
            return Err(if ends { error.permanent() } else { error });
        }
        Ok(Thing(u64::from(token.attempt)))
    }

    async fn undo(&self, cx: &UndoContext, input: u32, outcome: &Undoable<Thing, u32>) -> UndoResult {
        let (key, token) = (cx.effect_key(), cx.fencing_token());
        let (id, step) = (key.operation, input as usize);
        let gets = stored(outcome);
        self.begins(step, &key, token, "undo", |outside, story| {
            outside.undo_begins(&story, step, gets.as_ref())
        })
        .await;
        let _over = Over { actor: self, id, step, token, undoes: true };
        let (lasts, fails) = {
            let mut state = lock(&self.shared.state);
            let swarm = state.swarm.clone();
            let most = if state.goes_wrong(swarm.step_long) { 6_000_000 } else { 300_000 };
            (state.rng.below(most), state.goes_wrong(swarm.undo_fails))
        };
        tokio::time::sleep(Duration::from_micros(lasts)).await;
        self.life.goes().await;
        self.note_length(lasts);
        if fails {
            lock(&self.shared.state).coverage.fault(Fault::UndoFails);
            return Err(UndoError::new(Code::Unavailable, "cannot be undone"));
        }
        self.change(id, step, token, false);
        Ok(())
    }
}
