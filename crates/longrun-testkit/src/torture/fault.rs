//! Faults, and where they strike.

use std::fmt;

use longrun::StepIndex;

/// What goes wrong, once, at one [`Point`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Fault {
    /// A run fails for good without an effect; past the point of no return it is run again. An undo fails once without an effect, and
    /// is tried again.
    Error,
    /// A run has its effect and fails for good, and nobody knows of the effect; past the point of no return it is run again. An undo
    /// has its effect, fails all the same, and is tried again.
    Unknown,
    /// It has its effect and panics.
    Panic,
    /// It has its effect and never returns.
    Timeout,
    /// The process dies before it: its start is on record.
    CrashBefore,
    /// The process dies after it: its end is not on record. The next life runs it again, whatever its policy.
    CrashAfter,
    /// It has its effect, its answer is lost, and it is run again, in the same life of the process. Where its policy allows one run
    /// only, it is called twice in this one. An undo is called twice.
    Repeat,
    /// The operation is cancelled when it begins.
    CancelBefore,
    /// The operation is cancelled when it has had its effect and has not returned.
    CancelAfter,
}

impl Fault {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Error,
        Self::Unknown,
        Self::Panic,
        Self::Timeout,
        Self::CrashBefore,
        Self::CrashAfter,
        Self::Repeat,
        Self::CancelBefore,
        Self::CancelAfter,
    ];

    /// A short name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Unknown => "unknown",
            Self::Panic => "panic",
            Self::Timeout => "timeout",
            Self::CrashBefore => "crash<",
            Self::CrashAfter => "crash>",
            Self::Repeat => "repeat",
            Self::CancelBefore => "cancel<",
            Self::CancelAfter => "cancel>",
        }
    }
}

/// What is done with a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// It runs.
    Run,
    /// It is undone after it was done: the undo has its output.
    Undo,
    /// It is undone after it may have run: the undo has no output.
    UndoMayHaveRun,
}

impl Act {
    /// A short name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Undo => "undo",
            Self::UndoMayHaveRun => "undo?",
        }
    }
}

/// A place in an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// Run or undo.
    pub act: Act,
    /// Of which step.
    pub step: StepIndex,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.act.name(), self.step)
    }
}

/// A fault at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strike {
    /// Where.
    pub point: Point,
    /// What.
    pub fault: Fault,
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.fault.name(), self.point)
    }
}
