//! What is stored of an operation: facts, in the order in which they became true.

use serde::Serialize;

use super::{Attempt, Verb};
use crate::id::{Caller, StepIndex};
use crate::payload::{Json, Payload, Progress};
use crate::status::Status;
use crate::time::Timestamp;

/// One fact. A journal entry holds those of one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A run of a step may begin. Durable before it does (C8).
    StepStarted {
        /// The step.
        step: StepIndex,
        /// The number of the run.
        attempt: Attempt,
    },
    /// A run did its work. Recorded once (C9).
    StepDone {
        /// The step.
        step: StepIndex,
        /// What the steps after it use.
        output: Json,
    },
    /// A run failed and there will be another.
    StepFailedForNow {
        /// The step.
        step: StepIndex,
        /// The number of the run.
        attempt: Attempt,
        /// How many runs have failed so far, this one included.
        failures: u32,
        /// This run or an earlier one may have had an effect.
        may_have_run: bool,
        /// Why it failed.
        error: Status,
        /// When the next run may start.
        again_at: Timestamp,
    },
    /// A run failed and there will be no other.
    StepFailed {
        /// The step.
        step: StepIndex,
        /// It may have had an effect.
        may_have_run: bool,
        /// Why it failed.
        error: Status,
    },
    /// The process ended, or the engine stopped, during a run. What it did is unknown.
    StepInterrupted {
        /// The step.
        step: StepIndex,
        /// The number of the run.
        attempt: Attempt,
        /// How many runs in a row were interrupted, this one included unless the engine stopped gently.
        interruptions: u32,
        /// When the next run may start.
        again_at: Timestamp,
    },
    /// A run saved how far it is.
    Checkpoint {
        /// The step.
        step: StepIndex,
        /// What the next run, or the undo, gets.
        checkpoint: Json,
        /// How far it has come.
        progress: Option<Progress>,
    },
    /// The operation failed and everything will be undone. Durable before the first undo (C11).
    RollbackDecided {
        /// What clients see as `error`, from now on and for ever (C3).
        cause: Status,
        /// The step that failed, if it was one.
        step: Option<StepIndex>,
    },
    /// A step is undone.
    Undone {
        /// The step.
        step: StepIndex,
    },
    /// An undo failed. It will be tried again, without limit (C12).
    UndoFailed {
        /// The step.
        step: StepIndex,
        /// How many undos in a row have failed, this one included.
        failures: u32,
        /// Why it failed.
        error: Status,
        /// When the next one may start.
        again_at: Timestamp,
    },
    /// The process ended, or the engine stopped, perhaps during the undo of this step.
    UndoInterrupted {
        /// The step.
        step: StepIndex,
        /// How many undos in a row may have been interrupted, this one included unless the engine stopped gently.
        interruptions: u32,
        /// When the next one may start; `None` is at once.
        again_at: Option<Timestamp>,
    },
    /// The wait for another undo is over. From now on a crash may interrupt it.
    UndoWaitOver {
        /// The step.
        step: StepIndex,
    },
    /// An operator took a hand.
    Intervened(Intervention),
    /// Every step is done. The operation is done.
    Succeeded {
        /// What clients see as `response`.
        response: Payload,
    },
    /// Every step that ran or may have run is undone. The operation is done, with its error.
    RolledBack,
}

/// An operator's act, on record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Intervention {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: Caller,
    /// What.
    pub verb: Verb,
    /// Why.
    pub reason: String,
}
