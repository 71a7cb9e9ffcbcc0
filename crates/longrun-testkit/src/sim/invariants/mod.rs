//! The oracle: the rules of the contract, written a second time, away from the engine. In the full simulation the story of an operation
//! is what its stored record restores to; in the fast one it is told event by event, without the core's own fold.
//!
//! - [`durable`]: what is on disk tells a possible story (C3, C8, C9, C10, C11, S4, S5).
//! - [`outside`]: what is done to the world, and when it may be (C4, C8 to C11, S17 to S25, S29).
//! - [`answers`]: what clients were told stays true (C1, C2, C5, C13, C16, S10, S11).
//! - [`rows`]: resource rows go with their operation (C4, C7, C21, S41, S42).

pub mod answers;
pub mod durable;
pub mod outside;
pub mod rows;

use std::fmt;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule, such as `S22`.
    pub rule: &'static str,
    /// What happened.
    pub what: String,
}

impl Violation {
    /// `what` broke `rule`.
    pub fn new(rule: &'static str, what: impl Into<String>) -> Self {
        Self { rule, what: what.into() }
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
pub(crate) fn demand(holds: bool, rule: &'static str, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(Violation::new(rule, what())) }
}
