//! Every index entry, computed anew from the records and compared with what is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use longrun_core::{Execution, Incarnation, Intent, OperationId, Orphan, Phase, ResourceKey, ResourceStatus};

use crate::kv::{Direction, Entry, KeyRange, Kv, KvError, Table};
use crate::layout;
use crate::prepare::index_entries;
use crate::record::{self, Head};
use crate::store::LedgerEntry;

const SCAN_ENTRIES: usize = 1000;

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Operations that are not done.
    pub unfinished: usize,
    /// Operations that are done.
    pub finished: usize,
    /// Journal entries.
    pub entries: usize,
    /// Resource rows.
    pub rows: usize,
    /// Idempotency keys.
    pub keys: usize,
    /// References to items.
    pub references: usize,
    /// Items that have references.
    pub items: usize,
    /// Orphans that are not yet forgotten.
    pub orphans: usize,
}

/// Reads the whole of a store that stands still, and compares every index with the records it was made from, in both
/// directions. Gives what the store holds, or all that does not fit, in words.
///
/// For a backend under a [`KvStore`](crate::KvStore), in tests of crashes and damage (C7, C20, S12).
pub fn verify_indexes(kv: &dyn Kv) -> Result<Counts, Vec<String>> {
    let mut verifier = Verifier::default();
    if let Err(error) = verifier.run(kv) {
        verifier.problems.push(format!("the store cannot be read: {error}"));
    }
    if verifier.problems.is_empty() { Ok(verifier.counts) } else { Err(verifier.problems) }
}

/// What a resource shows while an operation holds it.
fn shows(intent: &Intent, phase: Phase) -> ResourceStatus {
    match intent {
        Intent::Create { .. } if phase == Phase::Pending => ResourceStatus::Creating,
        Intent::Create { .. } | Intent::Delete { .. } => ResourceStatus::Deleting,
        Intent::Update { before, .. } => before.status,
    }
}

#[derive(Default)]
struct Verifier {
    counts: Counts,
    problems: Vec<String>,
    expected: BTreeMap<Table, BTreeSet<Vec<u8>>>,
    operations: BTreeMap<OperationId, Execution>,
    rows: BTreeMap<Vec<u8>, longrun_core::Row>,
    ledger: BTreeMap<[u8; 32], LedgerEntry>,
}

fn table(kv: &dyn Kv, table: Table) -> Result<Vec<Entry>, KvError> {
    let mut range = KeyRange::prefix(b"");
    let mut all = Vec::new();
    loop {
        let page = kv.scan(table, &range, Direction::Forward, SCAN_ENTRIES)?;
        let Some((last, _)) = page.last() else { return Ok(all) };
        range.from = Bound::Excluded(last.clone());
        all.extend(page);
    }
}

impl Verifier {
    fn run(&mut self, kv: &dyn Kv) -> Result<(), KvError> {
        self.meta(kv)?;
        self.operations(kv)?;
        self.rows(kv)?;
        self.ledger(kv)?;
        self.hold();
        self.items(kv)?;
        for index in [
            Table::Due,
            Table::Finished,
            Table::ByResource,
            Table::ByParent,
            Table::ByName,
            Table::ByCreation,
            Table::IdempotencyExpiry,
        ] {
            self.compare(index, table(kv, index)?);
        }
        Ok(())
    }

    fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    fn expect(&mut self, table: Table, key: Vec<u8>) {
        if !self.expected.entry(table).or_default().insert(key.clone()) {
            self.problem(format!("{} is needed twice: {}", table.name(), key.escape_ascii()));
        }
    }

    fn meta(&mut self, kv: &dyn Kv) -> Result<(), KvError> {
        let all = table(kv, Table::Meta)?;
        let known: &[&[u8]] = &[layout::META_EPOCH, layout::META_FORMAT, layout::META_PAGE_SECRET];
        if !all.is_empty() && !all.iter().map(|(key, _)| key.as_slice()).eq(known.iter().copied()) {
            self.problem("the first records are not complete".to_owned());
        }
        for (key, value) in all {
            let result = if key == layout::META_PAGE_SECRET {
                record::decode_secret(&value).map(drop)
            } else {
                record::decode_number(&value).map(drop)
            };
            if let Err(error) = result {
                self.problem(format!("meta {}: {error}", key.escape_ascii()));
            }
        }
        Ok(())
    }

    fn operations(&mut self, kv: &dyn Kv) -> Result<(), KvError> {
        let mut journal: BTreeMap<Vec<u8>, Vec<longrun_core::Entry>> = BTreeMap::new();
        for (key, value) in table(kv, Table::Journal)? {
            self.counts.entries += 1;
            let id = key.get(..20).unwrap_or_default().to_vec();
            match record::decode_entry(&value.into()) {
                Ok(entry) if key.get(20..) == Some(&entry.first.0.to_be_bytes()) => {
                    journal.entry(id).or_default().push(entry);
                }
                Ok(_) => self.problem(format!("journal {} lies under another key", key.escape_ascii())),
                Err(error) => self.problem(format!("journal {}: {error}", key.escape_ascii())),
            }
        }
        for (key, value) in table(kv, Table::Operations)? {
            let entries = journal.remove(&key).unwrap_or_default();
            let restored = Head::decode(&value.into()).map_err(|error| error.to_string()).and_then(|head| {
                if head.header().id.as_bytes().as_slice() != key {
                    return Err("lies under another key".to_owned());
                }
                head.restore(entries).map_err(|error| error.to_string())
            });
            match restored {
                Ok(execution) => self.operation(execution),
                Err(error) => self.problem(format!("operation {}: {error}", key.escape_ascii())),
            }
        }
        for id in journal.into_keys() {
            self.problem(format!("operation {} has a journal and no head", id.escape_ascii()));
        }
        Ok(())
    }

    fn operation(&mut self, execution: Execution) {
        let id = execution.id();
        if execution.is_done() {
            self.counts.finished += 1;
            self.expect(Table::Finished, layout::timed(execution.modified_at(), id));
        } else {
            self.counts.unfinished += 1;
            match execution.due_at() {
                Some(at) => self.expect(Table::Due, layout::timed(at, id)),
                None => self.problem(format!("operation {id} is not done and never due")),
            }
        }
        for key in &execution.header().resources {
            self.expect(Table::ByResource, layout::by_resource(key, id));
        }
        self.operations.insert(id, execution);
    }

    fn rows(&mut self, kv: &dyn Kv) -> Result<(), KvError> {
        for (key, value) in table(kv, Table::Resources)? {
            self.counts.rows += 1;
            match record::decode_row(&value.into()) {
                Ok(row) if layout::resource(&row.key) == key => {
                    for (table, entry) in index_entries(&row) {
                        self.expect(table, entry);
                    }
                    self.rows.insert(key, row);
                }
                Ok(_) => self.problem(format!("row {} lies under another key", key.escape_ascii())),
                Err(error) => self.problem(format!("row {}: {error}", key.escape_ascii())),
            }
        }
        Ok(())
    }

    fn ledger(&mut self, kv: &dyn Kv) -> Result<(), KvError> {
        for (key, value) in table(kv, Table::Idempotency)? {
            self.counts.keys += 1;
            let Ok(digest) = <[u8; 32]>::try_from(key.as_slice()) else {
                self.problem(format!("idempotency {} is no digest", key.escape_ascii()));
                continue;
            };
            match record::decode_ledger(&value) {
                Ok(entry) => {
                    if let Some(at) = entry.expires_at {
                        self.expect(Table::IdempotencyExpiry, layout::expiry(at, &digest));
                    }
                    self.ledger.insert(digest, entry);
                }
                Err(error) => self.problem(format!("idempotency {}: {error}", key.escape_ascii())),
            }
        }
        Ok(())
    }

    /// Items have as many references as they say, all to the life they are in, and only resources have references.
    fn items(&mut self, kv: &dyn Kv) -> Result<(), KvError> {
        let mut counted: BTreeMap<Vec<u8>, (Incarnation, u64)> = BTreeMap::new();
        for (key, value) in table(kv, Table::References)? {
            self.counts.references += 1;
            // The holder's kind and id end at the second separator.
            let end = key.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(place, _)| place).nth(1);
            let (holder, item) = key.split_at(end.unwrap_or(key.len()));
            if !self.rows.contains_key(holder) {
                self.problem(format!("reference {} belongs to no row", key.escape_ascii()));
            }
            match record::decode_reference(&key, &value) {
                Ok(incarnation) => {
                    let item = item.get(1..).unwrap_or_default().to_vec();
                    let (first, count) = counted.entry(item).or_insert((incarnation, 0));
                    *count += 1;
                    if *first != incarnation {
                        self.problem(format!("reference {} is to another life", key.escape_ascii()));
                    }
                }
                Err(error) => self.problem(format!("reference {}: {error}", key.escape_ascii())),
            }
        }
        for (key, value) in table(kv, Table::Items)? {
            self.counts.items += 1;
            match record::decode_item(&value) {
                Ok(item) if counted.remove(&key) == Some((item.incarnation, item.references)) => {}
                Ok(item) => self.problem(format!("item {} is not {item:?}", key.escape_ascii())),
                Err(error) => self.problem(format!("item {}: {error}", key.escape_ascii())),
            }
        }
        for key in counted.into_keys() {
            self.problem(format!("there are references to item {}, which is not there", key.escape_ascii()));
        }
        for (key, value) in table(kv, Table::Orphans)? {
            self.counts.orphans += 1;
            let lives = |orphan: &Orphan| {
                let item = kv.get(Table::Items, &layout::item(&orphan.item)).ok().flatten();
                item.and_then(|bytes| record::decode_item(&bytes).ok())
                    .is_some_and(|item| item.incarnation == orphan.incarnation)
            };
            match record::decode_reference(&key, &value).and_then(|_| layout::parse_orphan(&key)) {
                Ok(orphan) if !lives(&orphan) => {}
                other => self.problem(format!("orphan {}: {other:?}", key.escape_ascii())),
            }
        }
        Ok(())
    }

    /// Rows and keys belong to the operations that say so, and the other way round.
    fn hold(&mut self) {
        let mut problems = Vec::new();
        let mut held: BTreeMap<ResourceKey, OperationId> = BTreeMap::new();
        for (id, execution) in &self.operations {
            let claims = execution.plan().map(|plan| plan.claims()).unwrap_or_default();
            for claim in claims {
                if let Some(other) = held.insert(claim.key.clone(), *id) {
                    problems.push(format!("{} is held by {id} and by {other}", claim.key));
                }
                match self.rows.get(&layout::resource(&claim.key)) {
                    Some(row) if row.operation == Some(*id) => {
                        let expected = shows(&claim.intent, execution.phase());
                        if row.status != expected {
                            let status = row.status;
                            problems.push(format!("{} shows {status}, {id} calls for {expected}", claim.key));
                        }
                    }
                    Some(row) => {
                        problems
                            .push(format!("{} should be held by {id}, not {:?}", claim.key, row.operation));
                    }
                    None => problems.push(format!("{}, which {id} holds, is not there", claim.key)),
                }
            }
            if let Some(digest) = execution.header().idempotency {
                match self.ledger.get(&digest) {
                    Some(entry) if entry.operation == *id && entry.expires_at.is_none() => {}
                    other => problems.push(format!("the key of {id} is not its own: {other:?}")),
                }
            }
        }
        for row in self.rows.values() {
            if let Some(id) = row.operation
                && held.get(&row.key) != Some(&id)
            {
                problems.push(format!("{} says that {id} holds it", row.key));
            }
        }
        for (digest, entry) in &self.ledger {
            let known = self.operations.get(&entry.operation);
            let known = known.is_some_and(|execution| execution.header().idempotency == Some(*digest));
            if known == entry.expires_at.is_some() {
                problems.push(format!(
                    "the key of operation {} expires at {:?}",
                    entry.operation, entry.expires_at
                ));
            }
        }
        self.problems.extend(problems);
    }

    fn compare(&mut self, table: Table, found: Vec<Entry>) {
        let mut missing = self.expected.remove(&table).unwrap_or_default();
        for (key, value) in found {
            if !missing.remove(&key) {
                self.problem(format!("{} has {} for nothing", table.name(), key.escape_ascii()));
            }
            if !value.is_empty() {
                self.problem(format!("{} {} has a value", table.name(), key.escape_ascii()));
            }
        }
        for key in missing {
            self.problem(format!("{} lacks {}", table.name(), key.escape_ascii()));
        }
    }
}
