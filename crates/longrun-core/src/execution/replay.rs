//! Replaying: events from a disk, each checked before it is applied.
//!
//! Stored bytes may be damaged in ways that no checksum sees, or come from a program with a bug. An event that
//! cannot follow makes the record [`Inconsistent`]: the operation is held, nothing panics, nothing is guessed.

use super::merge::is_mergeable;
use super::{Attempt, Entry, Event, Execution, State, Verb, Work};
use crate::error::Inconsistent;
use crate::id::{Revision, StepIndex};

/// Far beyond any real one, and far from where counting on would overflow.
const REVISION_MAX: Revision = Revision(1 << 62);
/// The same for runs of a step, whose numbers an entry may skip.
const ATTEMPT_MAX: Attempt = Attempt(1 << 31);

impl Execution {
    /// Adds a stored entry.
    pub(super) fn replay(&mut self, entry: Entry) -> Result<(), Inconsistent> {
        if entry.first != self.revision.next() || entry.revision < entry.first {
            let what =
                format!("entry {} to {} follows revision {}", entry.first, entry.revision, self.revision);
            return Err(Inconsistent::new(what));
        }
        // Only certain entries are ever put together, and nothing is written this often.
        let merged = entry.revision > entry.first;
        if merged && !is_mergeable(&entry.events) || entry.revision > REVISION_MAX {
            let what = format!("no entry can stand for {} to {}", entry.first, entry.revision);
            return Err(Inconsistent::new(what));
        }
        if entry.at < self.modified_at {
            return Err(Inconsistent::new(format!(
                "revision {} is older than the one before",
                entry.revision
            )));
        }
        for event in &entry.events {
            self.check_event(event, merged)?;
            self.apply(event);
        }
        self.revision = entry.revision;
        self.modified_at = entry.at;
        match &mut self.state {
            State::Active(work) => {
                work.sealed(entry.first, &entry.events);
            }
            State::Done(_, work) => *work = None,
        }
        Ok(())
    }

    /// The table of what may follow what (S4).
    fn check_event(&self, event: &Event, merged: bool) -> Result<(), Inconsistent> {
        let follows = self.work().is_some_and(|work| work.can_follow(event, merged));
        if follows { Ok(()) } else { Err(Inconsistent::new(format!("{} cannot follow", name(event)))) }
    }
}

impl Work {
    fn can_follow(&self, event: &Event, merged: bool) -> bool {
        let back = self.rollback.is_some();
        let is_running = |step: &StepIndex| self.sets.running.contains(step);
        let is_undoing = |step: &StepIndex| self.sets.undoing.contains(step);
        match event {
            Event::StepStarted { step, attempt: Attempt(attempt) } => {
                let startable = self.sets.ready.contains(step) || self.sets.waiting_again.contains(step);
                !back && startable && self.steps[step.place()].attempt.0.checked_add(1) == Some(*attempt)
            }
            Event::StepDone { step, .. }
            | Event::StepFailed { step, .. }
            | Event::Checkpoint { step, .. } => is_running(step),
            Event::StepFailedForNow { step, attempt, .. } | Event::StepInterrupted { step, attempt, .. } => {
                // Earlier runs may have been left out where entries were put together.
                let ends = |on: Attempt| *attempt == on || merged && *attempt > on && *attempt < ATTEMPT_MAX;
                !back && is_running(step) && ends(self.steps[step.place()].attempt)
            }
            Event::RollbackDecided { .. } => !back && !self.is_past_no_return(),
            Event::Undone { step }
            | Event::UndoFailed { step, .. }
            | Event::UndoInterrupted { step, .. }
            | Event::UndoWaitOver { step } => back && is_undoing(step),
            Event::Intervened(intervention) => match intervention.verb {
                Verb::RetryNow => true,
                Verb::MarkUndone(step) | Verb::SkipUndo(step) => back && is_undoing(&step),
                Verb::Abandon => back || self.is_past_no_return(),
            },
            Event::Succeeded { .. } => !back && self.sets.remaining == 0,
            Event::RolledBack => back && self.sets.remaining == 0,
        }
    }
}

const fn name(event: &Event) -> &'static str {
    match event {
        Event::StepStarted { .. } => "the start of a step",
        Event::StepDone { .. } => "the output of a step",
        Event::StepFailedForNow { .. } | Event::StepFailed { .. } => "the failure of a step",
        Event::StepInterrupted { .. } => "the interruption of a step",
        Event::Checkpoint { .. } => "a checkpoint",
        Event::RollbackDecided { .. } => "the decision to roll back",
        Event::Undone { .. } => "the undo of a step",
        Event::UndoFailed { .. } | Event::UndoInterrupted { .. } => "the failure of an undo",
        Event::UndoWaitOver { .. } => "the end of a wait",
        Event::Intervened(_) => "an operator's act",
        Event::Succeeded { .. } => "success",
        Event::RolledBack => "the end of the rollback",
    }
}
