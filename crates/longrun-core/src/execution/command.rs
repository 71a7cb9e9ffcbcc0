//! What may be asked of an operation.

use serde::{Deserialize, Serialize};

use super::Attempt;
use crate::id::{Caller, StepIndex};
use crate::payload::{Json, Progress};
use crate::status::Status;

/// Something that happened outside, or that somebody wants.
#[derive(Clone, Debug)]
pub enum Command {
    /// A driver takes the operation up without knowing what became of its runs: after a crash, or for the
    /// first time. A step that had started has an unknown outcome (C8).
    Adopt,
    /// A driver that knows all its runs looks at the clock: start what can start, see whether the deadline passed.
    Resume,
    /// A driver leaves because the engine stops, with every run and undo ended or dropped. What they did is unknown, but
    /// that they stopped is no fault of theirs: it counts neither as a failure nor as an interruption.
    Leave,
    /// A run ended.
    Report {
        /// The step.
        step: StepIndex,
        /// Which run of it.
        attempt: Attempt,
        /// How it ended.
        report: StepReport,
    },
    /// A run saved how far it is.
    Checkpoint {
        /// The step.
        step: StepIndex,
        /// Which run of it.
        attempt: Attempt,
        /// What to give to the next run, or to the undo.
        checkpoint: Json,
        /// How far it has come.
        progress: Option<Progress>,
    },
    /// An undo ended.
    UndoReport {
        /// The step.
        step: StepIndex,
        /// How many undos of it had failed when this one began.
        failures: u32,
        /// Whether it is undone.
        result: Result<(), Status>,
    },
    /// A caller wants it undone (C13).
    Cancel {
        /// Who.
        by: Caller,
    },
    /// An operator takes a hand.
    Intervene {
        /// Who.
        by: Caller,
        /// What to do.
        verb: Verb,
        /// Why.
        reason: String,
    },
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepReport {
    /// It did its work.
    Done(Json),
    /// It failed.
    Failed {
        /// Why.
        error: Status,
        /// What is known of its effect.
        applied: Applied,
        /// Whether running it again may help.
        retryable: bool,
    },
}

/// What is known of the effect of a run that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// Certainly no effect: nothing to undo.
    No,
    /// There may be an effect: it will be undone.
    Unknown,
}

/// What an operator can do about an operation whose undo keeps failing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Do not wait: try everything that waits again now. Fits any operation that is not done.
    RetryNow,
    /// The operator reversed the effect of the step by hand.
    MarkUndone(StepIndex),
    /// The effect of the step stays; go on with the others.
    SkipUndo(StepIndex),
    /// Give up the rollback. The operation is done with its error, its resources show ERROR.
    Abandon,
}
