//! The simulated disk: journals and rows, changed by whole commits whose conditions hold.

use std::sync::Arc;

use longrun_core::{Execution, Finished, Header, Plan, Revision, Row, RowWrite, Timestamp, Turn};

use super::driver::Told;
use super::turns::WAIT_MAX;
use crate::sim::invariants::Violation;
use crate::sim::invariants::commits::{check_due, check_follows, restored};
use crate::sim::invariants::rows::{Rows, check_write};

/// What is stored of one operation.
#[derive(Debug)]
pub(super) struct Record {
    header: Arc<Header>,
    plan: Arc<Plan>,
    journal: Vec<longrun_core::Entry>,
    finished: Option<Arc<Finished>>,
    revision: Revision,
    modified_at: Timestamp,
    /// Its place in the order of due work; `None` when it is done.
    pub(super) due_at: Option<Timestamp>,
}

/// Everything that is durable.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) records: Vec<Option<Record>>,
    pub(super) rows: Rows,
}

/// Why a commit did not happen.
#[derive(Debug)]
pub(super) enum Refused {
    /// A row is not as expected.
    Row,
    /// A rule is broken.
    Broken(Violation),
}

impl Record {
    /// The operation, as a restart would find it.
    pub(super) fn restore(&self) -> Result<Execution, Violation> {
        if let Some(finished) = &self.finished {
            let header = Arc::clone(&self.header);
            let finished = Arc::clone(finished);
            return Ok(Execution::restore_finished(header, self.revision, self.modified_at, finished));
        }
        restored(&self.header, &self.plan, &self.journal)
    }

    pub(super) const fn is_done(&self) -> bool {
        self.finished.is_some()
    }

    /// Microseconds until it is due, at most [`WAIT_MAX`]; `None` when it is done. What waits for nothing is due whatever the clock
    /// shows.
    pub(super) fn wait_micros(&self, now: Timestamp) -> Option<u64> {
        let due_at = self.due_at?;
        let at = if due_at == self.header.created_at { now } else { due_at };
        Some(u64::try_from(at.since(now).as_micros()).map_or(WAIT_MAX, |wait| wait.min(WAIT_MAX)))
    }
}

impl Disk {
    /// Whether the rows are as the turns expect.
    pub(super) fn rows_fit(&self, turn: &Turn) -> bool {
        turn.rows.iter().all(|write| {
            let row = self.rows.get(&write.key);
            row.map(|row| row.revision) == write.expect && row.and_then(|row| row.operation) == write.holder
        })
    }

    /// Applies one turn of an operation. Its conditions are checked first.
    pub(super) fn apply(
        &mut self,
        op: usize,
        execution: &Execution,
        plan: &Arc<Plan>,
        told: &Told,
        rows: bool,
    ) -> Result<(), Refused> {
        let turn = &told.turn;
        let entry = &turn.entry;
        let stored = self.records[op].as_ref().map(|record| record.revision);
        check_follows(stored, entry.revision).map_err(Refused::Broken)?;
        if rows && !self.rows_fit(turn) {
            return Err(Refused::Row);
        }
        if rows {
            self.write_rows(&turn.rows, &told.events).map_err(Refused::Broken)?;
        }
        let record = self.records[op].get_or_insert_with(|| Record {
            header: Arc::clone(execution.header()),
            plan: Arc::clone(plan),
            journal: Vec::new(),
            finished: None,
            revision: Revision(0),
            modified_at: entry.at,
            due_at: None,
        });
        check_due(record.due_at, turn.was_due_at).map_err(Refused::Broken)?;
        (record.revision, record.modified_at, record.due_at) = (entry.revision, entry.at, turn.due_at);
        if turn.due_at.is_none() {
            // The turn that ended it is the newest: the execution is as that left it.
            record.finished = execution.finished().cloned();
            record.journal.clear();
        } else if record.journal.last().is_some_and(|last| last.first == entry.first) {
            record.journal.pop();
            record.journal.push(entry.clone());
        } else {
            record.journal.push(entry.clone());
        }
        Ok(())
    }

    /// Writes rows without asking whether they are as expected.
    pub(super) fn write_rows(
        &mut self,
        writes: &[RowWrite],
        events: &[longrun_core::Event],
    ) -> Result<(), Violation> {
        for write in writes {
            check_write(self.rows.get(&write.key), write, events)?;
            match &write.put {
                Some(row) => _ = self.rows.insert(write.key.clone(), Row::clone(row)),
                None => _ = self.rows.remove(&write.key),
            }
        }
        Ok(())
    }
}
