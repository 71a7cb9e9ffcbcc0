//! What is stored, and from whom.

use std::sync::Arc;

use longrun_core::{Entry, Execution, Header, Plan, Revision, Timestamp};
use longrun_store::Kv;
use longrun_store::conformance::verify_indexes;

use super::{Verdict, Violation, demand};

/// A commit that is taken is the next one after what is stored (S33).
pub fn check_follows(stored: Option<Revision>, revision: Revision) -> Verdict {
    let expected = (revision != Revision::FIRST).then(|| Revision(revision.0 - 1));
    demand(stored == expected, "S33", || format!("a commit follows {expected:?}, stored is {stored:?}"))
}

/// Whoever goes on from a commit finds it stored, also when its outcome was unknown (S33).
pub fn check_settled(stored: Revision, goes_on_from: Revision) -> Verdict {
    demand(stored == goes_on_from, "S33", || format!("it goes on from {goes_on_from}, stored is {stored}"))
}

/// A commit replaces the place in the order of due work that is stored (S12).
pub fn check_due(stored: Option<Timestamp>, replaced: Option<Timestamp>) -> Verdict {
    demand(stored == replaced, "S12", || "the place in the order of due work is off".to_owned())
}

/// Indexes go with what they point to (S12).
pub fn check_indexes(kv: &dyn Kv) -> Verdict {
    verify_indexes(kv).map(drop).map_err(|problems| Violation::new("S12", problems.join("; ")))
}

/// What is stored can be taken up (S14).
pub fn restored(header: &Arc<Header>, plan: &Arc<Plan>, journal: &[Entry]) -> Result<Execution, Violation> {
    Execution::restore(Arc::clone(header), Arc::clone(plan), journal.iter().cloned())
        .map_err(|error| Violation::new("S14", format!("what is stored cannot be restored: {error}")))
}

/// What is restored is what lived, and is due when the order of due work says (S14).
pub fn check_restored(stored: &Execution, live: &Execution, due_at: Option<Timestamp>) -> Verdict {
    demand(stored == live && stored.due_at() == due_at, "S14", || {
        "what is restored differs from what lived".to_owned()
    })
}

/// The result of a run that was given up is not accepted (S29).
pub fn check_late(accepted: bool) -> Verdict {
    demand(!accepted, "S29", || "the result of a run that was given up was accepted".to_owned())
}

/// Something is stored that was asked for by who works on it (S30).
pub fn check_owner(owned: bool, what: &str) -> Verdict {
    demand(owned, "S30", || format!("{what} of a node that does not work on it is stored"))
}

/// Who has lost an operation undoes nothing of it but what was decided before (S30).
pub fn check_late_undo(decided_before: bool) -> Verdict {
    demand(decided_before, "S30", || "an undo begins that the next owner has decided".to_owned())
}

/// A row is not as a commit expects. Only one that claims it may meet that: afterwards nobody else changes it (S30).
pub fn check_conflict(claims: bool) -> Verdict {
    demand(claims, "S30", || "the only driver meets a conflict".to_owned())
}
