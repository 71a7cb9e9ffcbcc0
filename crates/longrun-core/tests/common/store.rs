//! A store of one operation that refuses what a real one would refuse.

use std::collections::BTreeMap;

use longrun_core::{
    Claim, Entry, Event, Intent, Operation, Plan, ResourceKey, ResourceStatus, Revision, Row, RowWrite,
    Timestamp, Turn,
};

/// Bytes that entries are put together up to.
pub const MERGED_BYTES_MAX: usize = 64 * 1024;

/// Events of the sorts that come again and again, and say how things are now.
pub const fn repeats(event: &Event) -> bool {
    matches!(
        event,
        Event::StepStarted { .. }
            | Event::StepFailedForNow { .. }
            | Event::StepInterrupted { .. }
            | Event::Checkpoint { .. }
            | Event::UndoFailed { .. }
            | Event::UndoInterrupted { .. }
            | Event::UndoWaitOver { .. }
    )
}

/// Bytes of what users own in an entry, and some for each event.
pub fn entry_bytes(entry: &Entry) -> usize {
    let owned = |event: &Event| match event {
        Event::StepDone { output: json, .. } | Event::Checkpoint { checkpoint: json, .. } => {
            json.bytes().len()
        }
        Event::StepFailedForNow { error, .. }
        | Event::StepFailed { error, .. }
        | Event::UndoFailed { error, .. }
        | Event::RollbackDecided { cause: error, .. } => error.byte_len(),
        Event::Intervened(act) => act.reason.len() + act.by.as_str().len(),
        Event::Succeeded { response } => response.byte_len(),
        _ => 0,
    };
    entry.events.iter().map(|event| 32 + owned(event)).sum()
}

#[derive(Clone, Debug, Default)]
pub struct Store {
    /// By the first revision that each entry stands for.
    pub journal: BTreeMap<Revision, Entry>,
    pub rows: BTreeMap<ResourceKey, Row>,
    pub due_at: Option<Timestamp>,
    pub revision: u64,
    pub modified_at: Option<Timestamp>,
}

impl Store {
    /// Bytes of the journal, nearly.
    pub fn journal_bytes(&self) -> usize {
        self.journal.values().map(entry_bytes).sum()
    }

    /// With the rows that the plan found.
    pub fn new(plan: &Plan) -> Self {
        let found = plan.claims().iter().filter_map(Claim::before);
        let rows = found.map(|row| (row.key.clone(), row.clone())).collect();
        Self { rows, ..Self::default() }
    }

    /// Takes all of a turn.
    pub fn commit(&mut self, turn: &Turn) {
        let entry = &turn.entry;
        assert_eq!(entry.revision.0, self.revision + 1, "S5: the revision rises by one");
        assert!(Some(entry.at) >= self.modified_at, "C16: modified_at went back");
        assert_eq!(turn.was_due_at, self.due_at, "the turns do not agree on when it was due");
        self.revision = entry.revision.0;
        self.modified_at = Some(entry.at);
        self.due_at = turn.due_at;
        if turn.due_at.is_none() {
            let stored: Vec<Revision> = self.journal.keys().copied().skip(1).collect();
            assert_eq!(turn.obsolete, stored, "all entries but the head's own go when it is done");
        } else {
            assert!(turn.obsolete.is_empty());
        }
        let mut replaced = self.journal.range(entry.first..);
        match (replaced.next(), entry.first < entry.revision) {
            (None, false) => {}
            (Some((first, old)), true) => {
                assert_eq!(*first, entry.first);
                assert_eq!(old.revision.0 + 1, entry.revision.0, "it replaces what is not the newest");
                assert!(replaced.next().is_none(), "it replaces more than one");
            }
            (replaced, _) => panic!("{entry:?} takes the place of {replaced:?}"),
        }
        self.journal.insert(entry.first, entry.clone());
        for write in &turn.rows {
            self.write(write);
        }
    }

    fn write(&mut self, write: &RowWrite) {
        let stored = self.rows.get(&write.key);
        assert_eq!(stored.map(|row| row.revision), write.expect, "{}: another revision is stored", write.key);
        assert_eq!(stored.and_then(|row| row.operation), write.holder, "{}: another holds it", write.key);
        assert_eq!(stored, write.replaces.as_ref().map(|row| like(row, stored)).as_ref(), "replaces");
        let (from, to) = (stored.map(|row| row.status), write.put.as_ref().map(|row| row.status));
        let via = match (from, to) {
            // Cancelled before anything ran: CREATING, DELETING and gone in one commit.
            (Some(ResourceStatus::Creating), None) => Some(ResourceStatus::Deleting),
            _ => from,
        };
        assert!(from == via || ResourceStatus::check_move(from, via).is_ok(), "C21: {from:?} to {via:?}");
        assert_eq!(ResourceStatus::check_move(via, to), Ok(()), "C21");
        match &write.put {
            Some(row) => {
                assert_eq!(row.key, write.key);
                assert_eq!(
                    row.revision.0,
                    write.expect.map_or(1, |revision| revision.0 + 1),
                    "counts writes"
                );
                self.rows.insert(write.key.clone(), row.clone());
            }
            None => _ = self.rows.remove(&write.key),
        }
    }

    /// At done nothing is held, and each row is what its claim promises.
    pub fn check_done(&self, plan: &Plan, operation: &Operation) {
        let ended = match (operation.response().is_some(), operation.was_abandoned()) {
            (true, _) => End::Succeeded,
            (false, false) => End::RolledBack,
            (false, true) => End::Abandoned,
        };
        for claim in plan.claims() {
            let row = self.rows.get(&claim.key);
            assert!(
                row.is_none_or(|row| row.operation.is_none()),
                "{} is held by nobody that lives",
                claim.key
            );
            let status = row.map(|row| row.status);
            match (&claim.intent, ended) {
                (Intent::Create { .. }, End::Succeeded) => assert_eq!(status, Some(ResourceStatus::Ready)),
                (Intent::Create { .. }, End::RolledBack) | (Intent::Delete { .. }, End::Succeeded) => {
                    assert_eq!(status, None);
                }
                (Intent::Update { status: new, .. }, End::Succeeded) => assert_eq!(status, Some(*new)),
                (Intent::Update { before, .. } | Intent::Delete { before }, End::RolledBack) => {
                    assert_eq!(row, Some(&like(before, row)), "C4: not back at its before-image");
                }
                (_, End::Abandoned) => assert_eq!(status, Some(ResourceStatus::Error)),
            }
        }
    }
}

#[derive(Clone, Copy)]
enum End {
    Succeeded,
    RolledBack,
    Abandoned,
}

/// The row with the revision and the time of the stored one: those say how often and when, not what.
fn like(row: &Row, stored: Option<&Row>) -> Row {
    match stored {
        Some(stored) => Row { revision: stored.revision, modified_at: stored.modified_at, ..row.clone() },
        None => row.clone(),
    }
}
