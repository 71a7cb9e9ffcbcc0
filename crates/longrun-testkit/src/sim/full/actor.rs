//! What the steps do: whatever code of strangers does, at times of its own choosing, under the eyes of the oracle.

use std::sync::Arc;
use std::time::Duration;

use longrun::{
    Code, EffectKey, FencingToken, StepContext, StepError, StepResult, Stop, UndoContext, UndoError,
    UndoResult, Undoable,
};
use longrun_core::{Json, OperationId, Phase};
use serde::Serialize;

use super::kind::{Spec, Thing};
use super::world::Shared;
use crate::panics::lock;
use crate::sim::coverage::{CrashPoint, Fault, Situation};
use crate::sim::invariants::commits::{check_late_undo, check_owner};
use crate::sim::invariants::durable::Story;
use crate::sim::invariants::outside::{Change, Outside, Run, check_change, on_record, stored};
use crate::sim::plant::Plant;

/// Dead code walking: what a crashed process would have done next never happens.
async fn never<T>() -> T {
    std::future::pending().await
}

/// Plays one step of one life, on one node.
#[derive(Clone, Debug)]
pub(super) struct Actor {
    pub(super) shared: Arc<Shared>,
    pub(super) life: u32,
    pub(super) node: u32,
}

/// Notes that a run or an undo is over, also when it is dropped.
struct Over<'a> {
    actor: &'a Actor,
    id: OperationId,
    step: usize,
    /// The number of the run; `None` of an undo.
    run: Option<u32>,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.actor.shared.state);
        if !state.owns(self.actor.life, self.actor.node) {
            return;
        }
        if let Some(op) = state.ops.get_mut(&self.id) {
            match self.run {
                Some(attempt) => op.outside.run_ends(self.step, attempt),
                None => op.outside.undo_ends(self.step),
            }
        }
    }
}

/// How a run goes.
struct Script {
    effect_at: Option<Duration>,
    ends_at: Duration,
    how: How,
    save: bool,
    on_stop: u64,
    /// What goes wrong in it, unless it is stopped before that.
    faults: [Option<Fault>; 2],
}

/// How an undo goes.
struct UndoScript {
    /// `None`: it fails before that.
    reverses_at: Option<Duration>,
    ends_at: Duration,
    fault: Option<Fault>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Done,
    Fails { applied: bool, again: bool },
    Panics,
    Hangs,
}

impl Actor {
    /// Crashes here, perhaps. Pending for ever if the process is dead.
    async fn crash_point(&self, point: CrashPoint) {
        let dead = {
            let mut state = lock(&self.shared.state);
            !state.alive(self.life) || state.crash_point(point)
        };
        if dead {
            self.shared.check_dead();
            never::<()>().await;
        }
    }

    fn owns(&self) -> bool {
        lock(&self.shared.state).owns(self.life, self.node)
    }

    /// Something was stored that was asked for when this node owned the store, or did not.
    fn stored_by(&self, owned: bool, what: &str) {
        let mut state = lock(&self.shared.state);
        if state.alive(self.life) {
            state.judge(check_owner(owned, what));
        }
    }

    fn outside<T>(&self, id: OperationId, change: impl FnOnce(&mut Outside) -> T) -> Option<T> {
        let mut state = lock(&self.shared.state);
        if !state.alive(self.life) {
            return None;
        }
        state.ops.get_mut(&id).map(|op| change(&mut op.outside))
    }

    /// Changes the world outside, which remembers the newest fencing token that it met at a step and refuses all before
    /// it (S31).
    fn change(&self, id: OperationId, step: usize, token: FencingToken, change: impl FnOnce(&mut Outside)) {
        let ended = self.shared.stored(id).is_some_and(|stored| stored.phase() == Phase::Done);
        let mut state = lock(&self.shared.state);
        if !state.alive(self.life) {
            return;
        }
        let owns = state.owner == self.node;
        let Some(op) = state.ops.get_mut(&id) else { return };
        let refused = op.outside.refuses(step, token) && self.shared.setting.plant != Some(Plant::S31);
        if !refused {
            change(&mut op.outside);
        }
        let verdict = check_change(&Change { step, refused, owns, ended });
        state.judge(verdict);
        match (owns, refused) {
            (false, true) => state.coverage.met(Situation::LateEffectRefused),
            (false, false) => state.coverage.met(Situation::LateEffectFirst),
            _ => {}
        }
    }

    fn effect(&self, id: OperationId, step: usize, token: FencingToken) {
        self.change(id, step, token, |outside| outside.effect(step));
    }

    fn reverse(&self, id: OperationId, step: usize, token: FencingToken) {
        self.change(id, step, token, |outside| outside.reverse(step));
    }

    /// The story of an operation as far as it is durable now, for a look at one step.
    fn story(&self, id: OperationId, step: usize) -> Option<Story> {
        let stored = self.shared.stored(id);
        self.shared.meet(id, stored.as_ref());
        let state = lock(&self.shared.state);
        let op = state.ops.get(&id)?;
        Some(Story::observed(&op.plan, &stored?, Some(step), |step| op.outside.is_left(step)))
    }

    /// Counts what goes wrong now.
    fn go_wrong(&self, faults: &[Option<Fault>]) {
        let mut state = lock(&self.shared.state);
        if state.alive(self.life) {
            faults.iter().flatten().for_each(|fault| state.coverage.fault(*fault));
        }
    }

    fn script(&self, attempt: u32) -> Script {
        let mut state = lock(&self.shared.state);
        let swarm = state.swarm.clone();
        let quick = state.rng.pick(&[500, 5_000, 100_000, 1_000_000]);
        let ends = 1 + state.rng.below(quick);
        let effect = Duration::from_micros(state.rng.below(ends));
        let save = state.rng.chance(swarm.saves);
        let on_stop = state.rng.below(4);
        let mut script = Script {
            effect_at: Some(effect),
            ends_at: Duration::from_micros(ends),
            how: How::Done,
            save,
            on_stop,
            faults: [None; 2],
        };
        if state.calm || attempt >= swarm.good_from {
            return script;
        }
        if state.rng.chance(swarm.step_slow) {
            let hangs = state.rng.chance(400);
            script.faults[0] = Some(if hangs { Fault::StepHangs } else { Fault::StepTimesOut });
            script.effect_at = (!hangs).then(|| Duration::from_micros(state.rng.below(6_000_000)));
            script.how = How::Hangs;
        } else if state.rng.chance(swarm.step_panics) {
            script.faults[0] = Some(Fault::StepPanics);
            script.effect_at = script.effect_at.filter(|_| effect.as_micros().is_multiple_of(2));
            script.how = How::Panics;
        } else if state.rng.chance(swarm.step_fails) {
            let again = !state.rng.chance(swarm.step_final);
            let after = state.rng.chance(swarm.step_after);
            let fault = if after { Fault::StepFailsAfter } else { Fault::StepFailsBefore };
            script.faults = [Some(fault), (!again).then_some(Fault::StepFailsForGood)];
            if !after {
                script.effect_at = None;
            }
            script.how = How::Fails { applied: after || state.rng.chance(500), again };
        }
        script
    }

    /// The step's number comes from its input, not from the effect key: the key is what is judged.
    pub(super) async fn run<I: Serialize>(
        &self,
        cx: &StepContext<u32>,
        spec: Spec,
        input: &I,
    ) -> StepResult<Thing> {
        let (id, step, attempt) = (cx.effect_key().operation, usize::from(spec.place), cx.attempt().0);
        if !lock(&self.shared.state).alive(self.life) {
            return never().await;
        }
        self.begins(id, step, attempt, cx, input);
        let over = Over { actor: self, id, step, run: Some(attempt) };
        let script = self.script(attempt);
        self.crash_point(CrashPoint::BeforeEffect).await;
        let begun = tokio::time::Instant::now();
        let work = async {
            if let Some(at) = script.effect_at {
                tokio::time::sleep_until(begun + at).await;
                self.effect(id, step, cx.fencing_token());
                self.crash_point(CrashPoint::AfterEffect).await;
            }
            if script.save {
                let number = u32::try_from(lock(&self.shared.state).rng.below(1 << 20)).unwrap_or(0);
                let owned = self.owns();
                if cx.save(&number).await.is_err() {
                    // Given up: whoever goes on is dropped soon.
                    return never().await;
                }
                self.stored_by(owned, "a checkpoint");
            }
            if script.how == How::Hangs {
                return never().await;
            }
            tokio::time::sleep_until(begun + script.ends_at).await;
        };
        let stopped = tokio::select! {
            biased;
            () = work => None,
            why = cx.stopped() => Some(why),
        };
        if let Some(why) = stopped {
            let fault = script.faults[0];
            if fault == Some(Fault::StepHangs) || fault == Some(Fault::StepTimesOut) && why == Stop::TimedOut
            {
                self.go_wrong(&[fault]);
            }
            self.stops(id, step, cx.fencing_token(), script.on_stop).await?;
        }
        self.crash_point(CrashPoint::BeforeReport).await;
        drop(over);
        if stopped.is_some() {
            // What went on although it was told to stop has had its effect.
            return self.returns(step, attempt, How::Done);
        }
        self.go_wrong(&script.faults);
        self.returns(step, attempt, script.how)
    }

    /// Told to stop: it does so, says what it knows, or goes on until it is dropped.
    async fn stops(
        &self,
        id: OperationId,
        step: usize,
        token: FencingToken,
        on_stop: u64,
    ) -> Result<(), StepError> {
        let clean = self.outside(id, |outside| !outside.places[step].effect) == Some(true);
        match on_stop {
            0 if clean => Err(StepError::not_applied(Code::Aborted, "stopped before its effect")),
            0 | 1 => Err(StepError::unknown(Code::Aborted, "stopped")),
            2 => never().await,
            _ => {
                self.effect(id, step, token);
                Ok(())
            }
        }
    }

    fn returns(&self, step: usize, attempt: u32, how: How) -> StepResult<Thing> {
        match how {
            How::Done | How::Hangs => Ok(Thing(step as u64 * 1_000_000 + u64::from(attempt))),
            // Without a message on the terminal.
            How::Panics => std::panic::resume_unwind(Box::new("injected panic")),
            How::Fails { applied, again } => {
                let error = if applied {
                    StepError::unknown(Code::Unavailable, "it failed")
                } else {
                    StepError::not_applied(Code::Unavailable, "it failed")
                };
                Err(if again { error } else { error.permanent() })
            }
        }
    }

    fn begins<I: Serialize>(
        &self,
        id: OperationId,
        place: usize,
        attempt: u32,
        cx: &StepContext<u32>,
        input: &I,
    ) {
        let story = self.story(id, place);
        let gets = cx.checkpoint().ok().flatten().and_then(|number| Json::encode("checkpoint", &number).ok());
        let input = serde_json::to_vec(input).unwrap_or_default();
        let mut state = lock(&self.shared.state);
        state.note(&format!("run {id} step {place} attempt {attempt}"));
        let begun = state.ops.get_mut(&id).map(|op| {
            let known = op.outside.carries_key(place, &cx.effect_key());
            known.and(op.outside.begun_by(place, cx.fencing_token()))
        });
        state.judge(begun.unwrap_or(Ok(())));
        if state.owner != self.node {
            // It has lost the store and does not know yet. What its start was stored for, the new owner takes up.
            return;
        }
        let story = match on_record(id, story) {
            Ok(story) => story,
            Err(violation) => return state.judge(Err(violation)),
        };
        if gets.is_some() && gets == story.lines[place].checkpoint {
            state.coverage.met(Situation::CheckpointReturned);
        }
        let Some(op) = state.ops.get_mut(&id) else { return };
        let run = Run { attempt, input: &input, checkpoint: gets.as_ref() };
        let met = op.outside.meets(place, cx.fencing_token());
        let verdict = op.outside.run_begins(&story, place, &run);
        state.judge(met.and(verdict));
    }

    pub(super) async fn undo(
        &self,
        cx: &UndoContext,
        spec: Spec,
        outcome: Undoable<Thing, u32>,
    ) -> UndoResult {
        let key = cx.effect_key();
        let (id, step) = (key.operation, usize::from(spec.place));
        if !lock(&self.shared.state).alive(self.life) {
            return never().await;
        }
        let undos = self.undo_begins(step, &key, cx.fencing_token(), &outcome);
        let over = Over { actor: self, id, step, run: None };
        let UndoScript { reverses_at, ends_at, fault } = self.undo_script(undos);
        self.crash_point(CrashPoint::BeforeUndo).await;
        let begun = tokio::time::Instant::now();
        if let Some(at) = reverses_at {
            tokio::time::sleep_until(begun + at).await;
            self.reverse(id, step, cx.fencing_token());
            self.crash_point(CrashPoint::AfterUndo).await;
        }
        if fault == Some(Fault::UndoTimesOut) {
            if cx.stopped().await == Stop::TimedOut {
                self.go_wrong(&[fault]);
            }
            return never().await;
        }
        tokio::time::sleep_until(begun + ends_at).await;
        self.crash_point(CrashPoint::BeforeReport).await;
        drop(over);
        self.go_wrong(&[fault]);
        match fault {
            None => Ok(()),
            Some(Fault::UndoPanics) => std::panic::resume_unwind(Box::new("injected panic")),
            Some(_) => Err(UndoError::new(Code::Unavailable, "cannot be undone")),
        }
    }

    fn undo_script(&self, undos: u32) -> UndoScript {
        let mut state = lock(&self.shared.state);
        let swarm = state.swarm.clone();
        let quick = state.rng.pick(&[500, 5_000, 100_000, 1_000_000]);
        let ends = 1 + state.rng.below(quick);
        let at = state.rng.below(ends);
        let good = state.calm || undos > swarm.undo_good_from;
        let fault = if good {
            None
        } else if state.rng.chance(swarm.undo_slow) {
            Some(Fault::UndoTimesOut)
        } else if state.rng.chance(swarm.undo_panics) {
            Some(Fault::UndoPanics)
        } else {
            state.rng.chance(swarm.undo_fails).then_some(Fault::UndoFails)
        };
        let reverses = fault.is_none() || state.rng.chance(400);
        let fault =
            if reverses && fault == Some(Fault::UndoFails) { Some(Fault::UndoFailsAfter) } else { fault };
        let reverses_at = reverses.then_some(Duration::from_micros(at));
        UndoScript { reverses_at, ends_at: Duration::from_micros(ends), fault }
    }

    fn undo_begins(
        &self,
        place: usize,
        key: &EffectKey,
        token: FencingToken,
        outcome: &Undoable<Thing, u32>,
    ) -> u32 {
        let (id, gets) = (key.operation, stored(outcome));
        let story = self.story(id, place);
        let mut state = lock(&self.shared.state);
        state.note(&format!("undo {id} step {place}"));
        if state.owner != self.node {
            // Late, and nobody knows it yet; but not what the next owner has decided.
            let verdict = check_late_undo(state.decided_before(self.node, id));
            state.judge(verdict);
            return 0;
        }
        let done = matches!(outcome, Undoable::Done(_));
        state.coverage.met(if done { Situation::UndoOfDone } else { Situation::UndoOfUnknown });
        let Some(story) = story else { return 0 };
        let Some(op) = state.ops.get_mut(&id) else { return 0 };
        let met = op.outside.meets(place, token).and(op.outside.carries_key(place, key));
        let verdict = op.outside.undo_begins(&story, place, gets.as_ref());
        let undos = op.outside.places[place].undos;
        let at_once = op.outside.undoing() > 1;
        state.judge(met.and(verdict));
        if at_once {
            state.coverage.met(Situation::TwoUndosAtOnce);
        }
        undos
    }
}
