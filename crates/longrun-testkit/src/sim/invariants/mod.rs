//! The oracle: the rules of the contract, written a second time, away from the engine. In the full simulation and in that of a cluster
//! the story of an operation is what its stored record restores to; in the fast one it is told event by event, without the core's own
//! fold. The simulations gather facts, and every judgement on them is here: that one seed goes one way (L9) is for a
//! [`campaign`](super::campaign) to see.
//!
//! - [`durable`]: what is on disk tells a possible story (C2 to C5, C8 to C11, C16, S4, S5, S17, S18, S44, L4).
//! - [`outside`]: what is done to the world, when it may be, and by whom (C5, C8, S17 to S23, S25, S27, S30, S31).
//! - [`answers`]: what clients were told stays true (C2, C3, C5, C13, C16, C19, C22, S6, S9, S11, S26, S35).
//! - [`rows`]: resource rows go with their operation (C4, C7, C17, S5, S41, S42).
//! - [`commits`]: what is stored, and from whom (S12, S14, S29, S30, S33).
//! - [`calm`]: what comes to pass once the faults have stopped (C18, L1).

pub mod answers;
pub mod calm;
pub mod commits;
pub mod durable;
pub mod outside;
pub mod rows;

use std::fmt;
use std::panic::Location;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule, such as `S22`.
    pub rule: &'static str,
    /// What happened.
    pub what: String,
    /// Where it is demanded.
    pub at: &'static Location<'static>,
}

impl Violation {
    /// `what` broke `rule`.
    #[track_caller]
    pub fn new(rule: &'static str, what: impl Into<String>) -> Self {
        Self { rule, what: what.into(), at: Location::caller() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

impl std::error::Error for Violation {}

/// What a check says.
pub type Verdict = Result<(), Violation>;

/// Demands a condition.
#[track_caller]
pub(crate) fn demand(holds: bool, rule: &'static str, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(Violation::new(rule, what())) }
}
