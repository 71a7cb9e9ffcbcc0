//! What clients were told: every answer is kept, and compared with every later one and with the disk after each crash.

use longrun_core::{Operation, Phase, Revision};

use super::{Verdict, demand};

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
        let Some(stored) = stored else {
            return demand(false, "S9", || format!("operation {} was acknowledged and is gone", told.id()));
        };
        shape(stored)?;
        follows(told, stored)
    }
}

/// One operation at one moment makes sense.
fn shape(operation: &Operation) -> Verdict {
    let (error, response) = (operation.error().is_some(), operation.response().is_some());
    let fits = match operation.phase() {
        Phase::Pending => !error && !response,
        Phase::RollingBack => error && !response,
        Phase::Done => error != response,
    };
    demand(fits, "C2", || format!("{:?} with error {error} and response {response}", operation.phase()))?;
    demand(operation.created_at() <= operation.modified_at(), "C16", || "modified before created".to_owned())
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
