//! The simulated driver: the rules of the engine's driver, as steps of a loop that may stop between any two.

use longrun_core::{Command, Event, Execution, Revision, Timestamp, Turn};

use crate::sim::coverage::Fault;
use crate::sim::shrink::STEPS_MAX;

/// Something that happened, and whom to tell when it is durable.
#[derive(Debug)]
pub(super) struct Happened {
    pub(super) command: Command,
    pub(super) reply: Reply,
    pub(super) accepted: bool,
}

/// Whom to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Nobody,
    /// A client that cancelled.
    Cancel,
    /// An operator.
    Operator,
    /// A result that came after its run was given up.
    Late,
}

impl Happened {
    pub(super) const fn quiet(command: Command) -> Self {
        Self { command, reply: Reply::Nobody, accepted: true }
    }
}

/// Why the driver is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To make a new operation durable, and drive it.
    First,
    /// To drive it.
    Drive,
    /// To put one command to an operation that nothing runs.
    Rest,
}

/// A turn, and what happened in it: the entry may repeat what earlier ones said.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) turn: Turn,
    pub(super) events: Vec<Event>,
    /// What the clock showed.
    pub(super) now: Timestamp,
}

/// A commit under way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) ticket: u32,
    pub(super) turns: Vec<Told>,
    pub(super) happened: Vec<Happened>,
    pub(super) expected: Revision,
    pub(super) landed: bool,
    pub(super) failed: bool,
    pub(super) failures: u32,
    /// Rows that go to disk on their own: a planted fault.
    pub(super) without_rows: bool,
}

/// A run that is on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) attempt: u32,
    pub(super) told: bool,
    /// It stops before its effect.
    pub(super) barred: bool,
    /// Its report waits for its turn.
    pub(super) returned: bool,
    pub(super) ends_at: u64,
    /// What goes wrong in it, unless it ends before that.
    pub(super) faults: [Option<Fault>; 2],
}

/// An undo that is on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Undo {
    pub(super) failures: u32,
    pub(super) serial: u32,
    /// Where it is really done: elsewhere than where it should, if a fault is planted.
    pub(super) place: usize,
    /// Its report waits for its turn.
    pub(super) returned: bool,
    /// What goes wrong in it, unless it ends before that.
    pub(super) fault: Option<Fault>,
}

/// What a driver holds in memory.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) execution: Execution,
    pub(super) purpose: Purpose,
    pub(super) inbox: Vec<Happened>,
    pub(super) flight: Option<Flight>,
    pub(super) runs: [Option<Run>; STEPS_MAX],
    pub(super) undos: [Option<Undo>; STEPS_MAX],
    /// The wake-up that counts; older ones are stale.
    pub(super) wake: u32,
    /// It was taken up after a crash and has not got to its first commit.
    pub(super) recovering: bool,
    /// Turns that are held back: a planted fault.
    pub(super) held: Vec<Told>,
    /// A cancel that is in memory only: a planted fault.
    pub(super) cancel_in_memory: bool,
    /// A step that is done and is run again: a planted fault.
    pub(super) rerun: bool,
}

impl Driver {
    pub(super) fn new(execution: Execution, purpose: Purpose) -> Self {
        Self {
            execution,
            purpose,
            inbox: Vec::new(),
            flight: None,
            runs: [None; STEPS_MAX],
            undos: [None; STEPS_MAX],
            wake: 0,
            recovering: false,
            held: Vec::new(),
            cancel_in_memory: false,
            rerun: false,
        }
    }

    pub(super) fn performing(&self) -> bool {
        self.runs.iter().any(Option::is_some) || self.undos.iter().any(Option::is_some)
    }
}

impl Flight {
    pub(super) fn events(&self) -> impl Iterator<Item = &Event> {
        self.turns.iter().flat_map(|told| &told.events)
    }

    pub(super) fn decides(&self) -> bool {
        self.events().any(|event| matches!(event, Event::RollbackDecided { .. }))
    }

    pub(super) fn ends(&self) -> bool {
        self.turns.last().is_some_and(|told| told.turn.due_at.is_none())
    }
}
