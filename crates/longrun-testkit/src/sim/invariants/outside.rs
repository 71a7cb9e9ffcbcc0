//! The ledger of effects: what was really done, kept outside of the engine, surviving every crash of it.

use std::collections::BTreeMap;

use longrun::{EffectKey, FencingToken};
use longrun_core::execution::Undoable;
use longrun_core::{Execution, Fence, Json, OperationId, Phase, StepIndex};
use serde::Serialize;

use super::durable::{End, Story};
use super::{Verdict, Violation, demand};

/// One step, as the outside world sees it.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The effect is there.
    pub effect: bool,
    /// The number of the run that is on.
    pub live: Option<u32>,
    /// An undo is on.
    pub undoing: bool,
    /// The number of the last run that began.
    pub last_run: u32,
    /// Who began each run, by its number.
    pub begun: BTreeMap<u32, Fence>,
    /// Undos that began.
    pub undos: u32,
    /// The newest fencing token that was shown to it.
    pub met: Option<FencingToken>,
    /// The effect key that its calls carry.
    pub key: Option<String>,
}

/// A run that begins.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Its number.
    pub attempt: u32,
    /// What it gets.
    pub input: &'a [u8],
    /// The checkpoint that it gets.
    pub checkpoint: Option<&'a Json>,
}

/// The world is changed, or refuses to be.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// At which step.
    pub step: usize,
    /// It refuses.
    pub refused: bool,
    /// Whoever changes it works on the operation.
    pub owns: bool,
    /// The end of the operation was durable before.
    pub ended: bool,
}

/// The outside world, as far as one operation changes it.
#[derive(Clone, Debug)]
pub struct Outside {
    /// By step.
    pub places: Vec<Place>,
    /// The fences with which it was worked on.
    pub fences: Vec<Fence>,
    /// How many runs of each step were on record when rolling back was first seen to be decided.
    pub runs_at_decision: Option<Vec<u32>>,
    /// Judge when things are done, too. Without it, only what is left at the end counts.
    pub strict: bool,
}

impl Outside {
    /// Before anything is done.
    pub fn new(steps: usize, strict: bool) -> Self {
        Self { places: vec![Place::default(); steps], fences: Vec::new(), runs_at_decision: None, strict }
    }

    /// Undos that are on.
    pub fn undoing(&self) -> usize {
        self.places.iter().filter(|place| place.undoing).count()
    }

    /// Steps of which an undo ever began.
    pub fn steps_undone(&self) -> usize {
        self.places.iter().filter(|place| place.undos > 0).count()
    }

    /// The process is gone, and with it whatever it was doing.
    pub fn process_died(&mut self) {
        for place in &mut self.places {
            (place.live, place.undoing) = (None, false);
        }
    }

    /// Whether anything of a step is there, or is being done.
    pub fn is_left(&self, step: usize) -> bool {
        let place = &self.places[step];
        place.effect || place.live.is_some() || place.undoing
    }

    /// Whoever works on the operation from now on has this fence, which is above all before it (S30). What those were doing is late.
    pub fn worked_on_with(&mut self, fence: Fence) -> Verdict {
        if self.fences.last() == Some(&fence) {
            return Ok(());
        }
        self.process_died();
        self.fences.push(fence);
        demand(self.fences.is_sorted(), "S30", || format!("the fences do not rise: {:?}", self.fences))
    }

    /// Whether somebody else has worked on it before.
    pub fn is_adopted(&self) -> bool {
        self.fences.len() > 1
    }

    /// Whoever begins a run, also if he has lost the operation and does not know: a run is begun by one owner, and
    /// when that is lost its successor begins another (S30).
    pub fn begun_by(&mut self, step: usize, token: FencingToken) -> Verdict {
        let FencingToken { epoch, attempt } = token;
        let by = *self.places[step].begun.entry(attempt).or_insert(epoch);
        demand(by == epoch || !self.strict, "S30", || {
            format!("run {attempt} of step {step} is begun with the fences {by} and {epoch}")
        })
    }

    /// Who works on the operation begins a run or an undo, and shows a token that is newer than all before it (S31).
    pub fn meets(&mut self, step: usize, token: FencingToken) -> Verdict {
        let newest = self.places[step].met.replace(token);
        demand(newest < Some(token), "S31", || format!("{token:?} of step {step} follows {newest:?}"))
    }

    /// Every call for a step carries the same key, by which an outside system knows it again, and no other step carries that (S27).
    pub fn carries_key(&mut self, step: usize, key: &EffectKey) -> Verdict {
        let key = key.to_string();
        let known = self.places[step].key.get_or_insert_with(|| key.clone());
        demand(*known == key, "S27", || format!("step {step} calls with the key {key}, and was {known}"))?;
        let carriers = self.places.iter().filter(|place| place.key.as_ref() == Some(&key)).count();
        demand(carriers == 1, "S27", || format!("step {step} calls with the key {key}, as another does"))
    }

    /// To be called with what each commit leaves. After the commit that decides to roll back, none may put a run on record (S23). A run that
    /// was on record before may still begin, at a node that has not heard.
    pub fn sees_decision(&mut self, stored: &Execution) -> Verdict {
        if stored.phase() != Phase::RollingBack || !self.strict {
            return Ok(());
        }
        let steps = (0..).map(StepIndex).take(self.places.len());
        let runs: Vec<u32> = steps.map(|step| stored.attempt(step).0).collect();
        let known = self.runs_at_decision.get_or_insert_with(|| runs.clone());
        demand(*known == runs, "S23", || format!("runs after the decision to roll back: {known:?}, {runs:?}"))
    }

    /// Whether the world refuses a token: it has met a newer one.
    pub fn refuses(&self, step: usize, token: FencingToken) -> bool {
        self.places[step].met > Some(token)
    }

    /// A run begins.
    pub fn run_begins(&mut self, story: &Story, step: usize, run: &Run<'_>) -> Verdict {
        let Run { attempt, input, checkpoint } = *run;
        let place = &mut self.places[step];
        let (last, overlaps) = (place.last_run, place.live.is_some());
        place.last_run = attempt.max(last);
        place.live = Some(attempt);
        if !self.strict {
            return Ok(());
        }
        let line = &story.lines[step];
        demand(!overlaps, "S17", || format!("run {attempt} of step {step} begins while another is on"))?;
        demand(story.cause.is_none(), "S23", || format!("step {step} runs after the decision to roll back"))?;
        demand(story.end.is_none(), "C5", || format!("step {step} runs after the end"))?;
        demand(line.output.is_none(), "S17", || {
            format!("step {step} runs although its output is on record")
        })?;
        demand(story.needs_done(step), "S18", || {
            format!("step {step} runs before what it needs is on record")
        })?;
        let on_record = line.running && line.attempt == attempt;
        demand(on_record, "S19", || format!("run {attempt} of step {step} is not on record"))?;
        demand(attempt > last, "S31", || format!("run {attempt} of step {step} begins a second time"))?;
        demand(story.input(step).as_deref() == Some(input), "S17", || {
            format!("step {step} gets an input that is not on record")
        })?;
        demand(line.checkpoint.as_ref() == checkpoint, "C8", || {
            format!("run {attempt} of step {step} gets another checkpoint")
        })
    }

    /// A run has its effect.
    pub fn effect(&mut self, step: usize) {
        self.places[step].effect = true;
    }

    /// A run returned, or was dropped.
    pub fn run_ends(&mut self, step: usize, attempt: u32) {
        let place = &mut self.places[step];
        place.live = place.live.filter(|live| *live != attempt);
    }

    /// An undo begins.
    pub fn undo_begins(&mut self, story: &Story, step: usize, gets: Option<&Undoable>) -> Verdict {
        let place = &mut self.places[step];
        place.undoing = true;
        place.undos += 1;
        if !self.strict {
            return Ok(());
        }
        let line = &story.lines[step];
        demand(story.cause.is_some(), "S22", || {
            format!("step {step} is undone before the decision to roll back is durable")
        })?;
        demand(story.end.is_none(), "C5", || format!("step {step} is undone after the end"))?;
        demand(line.attempt > 0 && line.effect, "S20", || {
            format!("step {step} is undone and cannot have run")
        })?;
        demand(!line.running && place.live.is_none(), "S20", || {
            format!("step {step} is undone while it runs")
        })?;
        demand(story.users_clear(step), "S21", || format!("step {step} is undone before what used it"))?;
        let expected = match &line.output {
            Some(output) => Undoable::Done(output.clone()),
            None => Undoable::MayHaveRun(line.checkpoint.clone()),
        };
        demand(gets == Some(&expected), "C8", || {
            format!("the undo of step {step} gets {gets:?}, on record is {expected:?}")
        })
    }

    /// An undo reverses the effect, or an operator does.
    pub fn reverse(&mut self, step: usize) {
        self.places[step].effect = false;
    }

    /// An undo returned, or was dropped.
    pub fn undo_ends(&mut self, step: usize) {
        self.places[step].undoing = false;
    }

    /// The end is durable: what is left of it (S25)?
    pub fn check_end(&self, story: &Story) -> Verdict {
        for (step, (place, line)) in self.places.iter().zip(&story.lines).enumerate() {
            match story.end {
                Some(End::Succeeded) => demand(place.effect, "S25", || {
                    format!("done with a response, and the effect of step {step} is missing")
                })?,
                Some(End::RolledBack) => demand(!place.effect || line.skipped, "S25", || {
                    format!("done with an error, and the effect of step {step} is left")
                })?,
                Some(End::Abandoned) | None => {}
            }
        }
        Ok(())
    }
}

/// The story of an operation of which a step begins: it is stored (S19).
pub fn on_record(id: OperationId, story: Option<Story>) -> Result<Story, Violation> {
    story.ok_or_else(|| Violation::new("S19", format!("{id} is worked on and is not stored")))
}

/// Nothing changes the world after the end (S25), and who works on the operation is not refused (S31).
pub fn check_change(change: &Change) -> Verdict {
    let Change { step, refused, owns, ended } = *change;
    demand(refused || !ended, "S25", || format!("step {step} changes the world after the end"))?;
    demand(!refused || !owns, "S31", || format!("the owner's token is old at {step}"))
}

/// What an undo gets, as it is stored.
pub(crate) fn stored<T: Serialize>(gets: &longrun::Undoable<T, u32>) -> Option<Undoable> {
    match gets {
        longrun::Undoable::Done(output) => Json::encode("output", output).ok().map(Undoable::Done),
        longrun::Undoable::MayHaveRun(checkpoint) => {
            let number = checkpoint.and_then(|number| Json::encode("checkpoint", &number).ok());
            Some(Undoable::MayHaveRun(number))
        }
    }
}
