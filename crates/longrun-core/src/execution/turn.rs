//! Turns: everything that one commit has to store.

use super::merge::{is_mergeable, merged};
use super::{Event, Execution, State, Tail, Work};
use crate::error::Inconsistent;
use crate::id::Revision;
use crate::operation::Outcome;
use crate::plan::Source;
use crate::resource::{RowContext, RowWrite, Stage};
use crate::time::Timestamp;

/// The events of one commit, as the journal keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The first revision that the entry stands for, and its key in the journal. Less than `revision` when it
    /// takes the place of earlier entries.
    pub first: Revision,
    /// The revision that it makes.
    pub revision: Revision,
    /// When.
    pub at: Timestamp,
    /// What happened, in order.
    pub events: Vec<Event>,
}

/// What a turn changes. All of it goes into one commit, or none (C7).
#[derive(Clone, Debug)]
pub struct Turn {
    /// The journal entry.
    pub entry: Entry,
    /// The resource rows to write.
    pub rows: Vec<RowWrite>,
    /// When the engine was to look at the operation before the turn; `None` before it was accepted.
    pub was_due_at: Option<Timestamp>,
    /// When it is to look at it now; `None` when it is done.
    pub due_at: Option<Timestamp>,
    /// Journal entries, by their first revision, that are no longer needed because the operation is done.
    pub obsolete: Vec<Revision>,
}

impl Execution {
    /// Ends a turn: raises the revision and gives what has to be stored.
    ///
    /// `modified_at` becomes `now`, or stays when the clock has gone back (C16). Once the turn that ended the
    /// operation is sealed there is no other (C5).
    pub fn seal(&mut self, events: Vec<Event>, now: Timestamp) -> Result<Turn, Inconsistent> {
        if matches!(self.state, State::Done(_, None)) {
            return Err(Inconsistent::new("C5: a turn of an operation that is done"));
        }
        let revision = self.revision.next();
        let at = now.max(self.modified_at);
        let (first, events) = self.merge_entry(revision, events);
        let rows = self.rows(at)?;
        let was_due_at = self.sealed.due_at;
        self.revision = revision;
        self.modified_at = at;
        self.mark_stored();
        let ended = match &mut self.state {
            State::Done(_, work) => work.take(),
            State::Active(_) => None,
        };
        let obsolete = ended.map(|work| work.journal).unwrap_or_default();
        let due_at = self.sealed.due_at;
        Ok(Turn { entry: Entry { first, revision, at, events }, rows, was_due_at, due_at, obsolete })
    }

    /// The first revision that the entry stands for, and its events: those of the turn, or, where that is possible,
    /// those of the entry before together with them.
    fn merge_entry(&mut self, revision: Revision, events: Vec<Event>) -> (Revision, Vec<Event>) {
        let State::Active(work) = &mut self.state else { return (revision, events) };
        let earlier = work.tail.mergeable.as_deref().filter(|_| is_mergeable(&events));
        let (first, events) = match earlier.and_then(|earlier| merged(earlier, &events)) {
            Some(both) => (work.tail.first, both),
            None => (revision, events),
        };
        work.sealed(first, &events);
        (first, events)
    }

    /// The rows that change with the turn.
    fn rows(&self, now: Timestamp) -> Result<Vec<RowWrite>, Inconsistent> {
        let (State::Active(work) | State::Done(_, Some(work))) = &self.state else {
            return Ok(Vec::new());
        };
        let resolve = |source: &Source| work.resolve(source);
        let context = RowContext {
            operation: self.header.id,
            created_at: self.header.created_at,
            now,
            resolve: &resolve,
        };
        let (from, to) = (self.sealed.stage, self.stage());
        let claims = work.plan.claims().iter();
        claims.filter_map(|claim| claim.write(from, to, &context).transpose()).collect()
    }

    pub(super) fn stage(&self) -> Stage {
        match &self.state {
            State::Active(work) => work.stage(),
            State::Done(finished, _) => match finished.outcome {
                Outcome::Response(_) => Stage::Succeeded,
                Outcome::Error(_) => Stage::RolledBack,
                Outcome::Abandoned(_) => Stage::Abandoned,
            },
        }
    }
}

impl Work {
    /// Notes an entry that is stored from now on.
    pub(super) fn sealed(&mut self, first: Revision, events: &[Event]) {
        // The first entry is part of the head record, and stays.
        let in_journal = first > Revision::FIRST;
        if in_journal && first != self.tail.first {
            self.journal.push(first);
        }
        let mergeable = (in_journal && is_mergeable(events)).then(|| events.to_vec());
        self.tail = Tail { first, mergeable };
    }
}
