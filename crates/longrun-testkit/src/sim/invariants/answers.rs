//! What clients were told: every answer is kept, and compared with every later one and with the disk after each crash.

use std::fmt::{Debug, Display};

use longrun_core::{Code, Execution, Operation, OperationId, Phase, Plan, Revision};

use super::durable::Story;
use super::outside::Outside;
use super::{Verdict, Violation, demand};

/// The newest answer about one operation.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    newest: Option<Operation>,
}

impl Answers {
    /// The newest answer.
    pub const fn newest(&self) -> Option<&Operation> {
        self.newest.as_ref()
    }

    /// A client was told this at once; `durable` is the revision on disk, if that is known to be the newest.
    pub fn told(&mut self, answer: Operation, durable: Option<Revision>) -> Verdict {
        let floor = self.newest.as_ref().map(Operation::revision);
        self.told_after(floor, answer, durable)
    }

    /// The same for an answer that took its time: it must not be older than what anybody knew when the question was
    /// asked, `floor`. Others may have heard something newer since.
    pub fn told_after(
        &mut self,
        floor: Option<Revision>,
        answer: Operation,
        durable: Option<Revision>,
    ) -> Verdict {
        shape(&answer)?;
        if let Some(durable) = durable {
            demand(answer.revision() <= durable, "S11", || {
                format!("revision {} was shown and {durable} is durable", answer.revision())
            })?;
        }
        if let Some(floor) = floor {
            demand(answer.revision() >= floor, "S11", || {
                format!("revision {floor} was shown, and later {}", answer.revision())
            })?;
        }
        match &self.newest {
            Some(newest) if newest.revision() > answer.revision() => follows(&answer, newest),
            Some(newest) => {
                follows(newest, &answer)?;
                self.newest = Some(answer);
                Ok(())
            }
            None => {
                self.newest = Some(answer);
                Ok(())
            }
        }
    }

    /// After a crash: what is on disk must bear out what clients were told.
    pub fn check_stored(&self, stored: Option<&Operation>) -> Verdict {
        let Some(told) = &self.newest else { return Ok(()) };
        check_there(told.id(), stored.is_some())?;
        let Some(stored) = stored else { return Ok(()) };
        shape(stored)?;
        follows(told, stored)
    }
}

/// An operation that was acknowledged is there (S9).
pub fn check_there(id: OperationId, there: bool) -> Verdict {
    demand(there, "S9", || format!("operation {id} was acknowledged and is not there"))
}

/// A cancel that is acknowledged was decided: it wins, or comes too late (C13).
pub fn check_cancel(answer: &Operation, past_no_return: bool) -> Verdict {
    demand(answer.done() || answer.error().is_some() || past_no_return, "C13", || {
        format!("a cancel of {} was acknowledged and did nothing", answer.id())
    })
}

/// One key, one operation (S35).
pub fn check_key(first: OperationId, later: OperationId) -> Verdict {
    demand(first == later, "S35", || format!("one key gave {first}, and later {later}"))
}

/// A key that was answered once is not refused for good later (S35).
pub fn check_key_refused(answered: Option<OperationId>, for_good: bool, error: &impl Display) -> Verdict {
    demand(answered.is_none() || !for_good, "S35", || format!("a key that was answered is refused: {error}"))
}

/// Whatever the store does, an engine that has no answer says so, and by these codes (C22).
pub fn check_refusal(what: &str, code: Code, may: &[Code], error: &impl Debug) -> Verdict {
    demand(may.contains(&code), "C22", || format!("{what} is refused: {error:?}"))
}

/// Without faults everything is answered (C22).
pub fn answered<T, E: Display>(answer: Result<T, E>) -> Result<T, Violation> {
    answer.map_err(|error| Violation::new("C22", format!("without a fault it is refused: {error}")))
}

/// A list shows nothing twice, over all its pages (C19).
pub fn check_once(listed: &[OperationId]) -> Verdict {
    let twice = listed.iter().enumerate().find(|(place, id)| listed[..*place].contains(id));
    twice.map_or(Ok(()), |(_, id)| demand(false, "C19", || format!("{id} is listed twice")))
}

/// A list shows everything that is there throughout (C19).
pub fn check_complete(there: &[OperationId], listed: &[OperationId]) -> Verdict {
    let missing = there.iter().find(|id| !listed.contains(id));
    missing.map_or(Ok(()), |id| demand(false, "C19", || format!("{id} is not in the list")))
}

/// An undo that has failed `blocked_after` times shows as blocked, with its count (S26).
pub fn check_blocked(story: &Story, answer: &Operation) -> Verdict {
    // It shows another moment than the story.
    if answer.revision() != story.revision {
        return Ok(());
    }
    let blocked = answer.blocked();
    let hidden = story.failing_undos().into_iter().find(|(step, failures)| {
        !blocked.iter().any(|one| one.undo && one.step.place() == *step && one.failures == *failures)
    });
    hidden.map_or(Ok(()), |(step, failures)| {
        demand(false, "S26", || {
            format!("the undo of step {step} has failed {failures} times, shown is {blocked:?}")
        })
    })
}

/// The same, by what is stored and what is left outside (S26). Only what rolls back has undos.
pub(crate) fn check_blocked_as_stored(
    plan: &Plan,
    stored: &Execution,
    outside: &Outside,
    answer: &Operation,
) -> Verdict {
    if stored.phase() != Phase::RollingBack {
        return Ok(());
    }
    check_blocked(&Story::observed(plan, stored, None, |step| outside.is_left(step)), answer)
}

/// One operation at one moment makes sense.
fn shape(operation: &Operation) -> Verdict {
    check_ends(operation.phase(), operation.error().is_some(), operation.response().is_some())?;
    demand(operation.created_at() <= operation.modified_at(), "C16", || "modified before created".to_owned())
}

/// What is done has one of error and response, what is not has no response, and an error only while it rolls back (C2).
pub fn check_ends(phase: Phase, error: bool, response: bool) -> Verdict {
    let fits = match phase {
        Phase::Pending => !error && !response,
        Phase::RollingBack => error && !response,
        Phase::Done => error != response,
    };
    demand(fits, "C2", || format!("{phase:?} with error {error} and response {response}"))
}

/// A later sight of an operation does not take back an earlier one.
fn follows(before: &Operation, after: &Operation) -> Verdict {
    demand(before.revision() <= after.revision(), "S11", || {
        format!("revision {} was shown, and later {}", before.revision(), after.revision())
    })?;
    demand(before.phase() <= after.phase(), "S11", || {
        format!("{:?} was shown, and later {:?}", before.phase(), after.phase())
    })?;
    demand(before.modified_at() <= after.modified_at(), "C16", || "modified_at went back".to_owned())?;
    demand(before.error().is_none() || before.error() == after.error(), "C3", || {
        format!("error {:?} became {:?}", before.error(), after.error())
    })?;
    demand(before.id() == after.id() && before.created_at() == after.created_at(), "S6", || {
        "id or time of creation changed".to_owned()
    })?;
    if before.done() {
        demand(before == after, "C5", || "something changed after the end".to_owned())?;
    } else if before.revision() == after.revision() {
        let same = before.phase() == after.phase() && before.modified_at() == after.modified_at();
        demand(same, "S11", || format!("revision {} was shown in two ways", before.revision()))?;
    }
    Ok(())
}
