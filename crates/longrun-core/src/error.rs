//! What the core says no to, and why; and how an error is told in one line.

use std::error::Error;

use crate::execution::Attempt;
use crate::id::{OperationId, StepIndex};
use crate::resource::{ResourceKey, ResourceStatus};

/// A value that breaks a rule of its field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct Invalid {
    /// The field, as the caller wrote it.
    pub field: &'static str,
    /// The rule it breaks. Never contains the value: values come from strangers.
    pub rule: String,
}

impl Invalid {
    /// `field` breaks `rule`.
    pub fn new(field: &'static str, rule: impl Into<String>) -> Self {
        Self { field, rule: rule.into() }
    }
}

/// A plan that cannot be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Too many steps.
    #[error("plan: has {steps} steps, the limit is {}", crate::limits::STEPS_MAX)]
    TooManySteps {
        /// How many there are.
        steps: usize,
    },
    /// Names, literals and edges together are too large.
    #[error("plan: takes {bytes} bytes, the limit is {}", crate::limits::PLAN_BYTES_MAX)]
    TooLarge {
        /// How many bytes it takes.
        bytes: usize,
    },
    /// A step refers to itself, to a later step or to one that is not there.
    #[error("plan: step {step} depends on step {on}, which does not come before it")]
    BadReference {
        /// The step that refers.
        step: usize,
        /// What it refers to.
        on: usize,
    },
    /// A limit or policy of the plan is out of range.
    #[error("plan: {0}")]
    Policy(Invalid),
    /// Too many resources.
    #[error("plan: names {claims} resources, the limit is {}", crate::limits::CLAIMS_MAX)]
    TooManyClaims {
        /// How many there are.
        claims: usize,
    },
    /// The rows kept with the operation are too large.
    #[error("plan: its resources take {bytes} bytes, the limit is {}", crate::limits::CLAIM_BYTES_MAX)]
    ClaimsTooLarge {
        /// How many bytes they take.
        bytes: usize,
    },
    /// The same resource twice.
    #[error("plan: names {0} twice")]
    RepeatedClaim(ResourceKey),
    /// A resource that the plan creates exists, or one that it changes does not.
    #[error("plan: {0}")]
    Claim(Invalid),
    /// The move of a resource's status is not in the table.
    #[error(transparent)]
    Status(#[from] IllegalStatusMove),
}

/// A move of a resource's status that is not in the table of `ResourceStatus::check_move` (C21).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a resource cannot go from {} to {}", name(*.from), name(*.to))]
pub struct IllegalStatusMove {
    /// Where it is; `None` is "does not exist".
    pub from: Option<ResourceStatus>,
    /// Where it was to go.
    pub to: Option<ResourceStatus>,
}

fn name(status: Option<ResourceStatus>) -> &'static str {
    status.map_or("nothing", ResourceStatus::name)
}

/// Why an operation did not take a command. The operation is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A report about a run that is over: the step has moved on, or never started.
    #[error("the report about step {step}, attempt {attempt}, came too late")]
    Stale {
        /// The step.
        step: StepIndex,
        /// The attempt that the report is about.
        attempt: Attempt,
    },
    /// No such step in the plan.
    #[error("step {0} is not in the plan")]
    NoSuchStep(StepIndex),
    /// The operation is done, and done is final.
    #[error("operation {0} is done")]
    Done(OperationId),
    /// The verb is for an operation whose undo keeps failing; nothing of this one has failed to be undone.
    #[error("operation {0} has no failing undo to take over")]
    NotBlocked(OperationId),
    /// The operator's words break a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// Stored facts that contradict each other. The operation is held, not guessed at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record of the operation is inconsistent: {what}")]
pub struct Inconsistent {
    /// What does not fit.
    pub what: String,
}

impl Inconsistent {
    /// `what` does not fit.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }
}

/// An error and what caused it, on one line, each said once: many an error already says what its cause says.
pub fn with_causes(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !said.contains(&text) {
            said.push_str(": ");
            said.push_str(&text);
        }
        next = cause.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Told {
        text: &'static str,
        source: Option<Box<Told>>,
    }

    fn told(texts: &[&'static str]) -> Option<Box<Told>> {
        let (text, causes) = texts.split_first()?;
        Some(Box::new(Told { text, source: told(causes) }))
    }

    #[test]
    fn an_error_is_told_with_its_causes_each_once() {
        let line = |texts: &[&'static str]| with_causes(&*told(texts).unwrap());
        assert_eq!(line(&["cannot open"]), "cannot open");
        assert_eq!(line(&["cannot open", "denied", "no right"]), "cannot open: denied: no right");
        assert_eq!(line(&["cannot open: denied", "denied", "no right"]), "cannot open: denied: no right");
    }
}
