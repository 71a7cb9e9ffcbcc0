//! One batch of commits: one statement, and so one transaction, however many there are.
//!
//! The statement is conditional: every operation must have the revision that its turn follows and the fence of its owner, every
//! row must be as the turn expects it. It counts what it found so, and divides by zero when that is less than was given: then
//! nothing of it happened, and [`crate::conflicts`] looks whose fault it was. That is rare, so a batch that fits costs one round
//! trip. What must not be there yet is inserted, and the primary keys refuse it.

use std::collections::BTreeSet;

use longrun_core::{Condition, Event, Fence, Outcome, ResourceKey, Revision, Row};
use longrun_store::Author;
use longrun_store::records::{FORMAT_VERSION, Records, sort_name};
use tokio_postgres::types::ToSql;

use crate::values::{At, Shown, Uuid, shown_text};

/// A parameter of a statement.
pub(crate) type Param<'a> = &'a (dyn ToSql + Sync);

/// What of the statement a batch needs: one bit for each part. Most batches need few, and what is not there is not planned, not sent
/// and not begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Parts(u16);

impl Parts {
    const COMMITTED: Self = Self(1);
    const MEMBERS: Self = Self(1 << 1);
    const MADE: Self = Self(1 << 2);
    const MOVED: Self = Self(1 << 3);
    const ENDED: Self = Self(1 << 4);
    const WRITTEN: Self = Self(1 << 5);
    const LINKED: Self = Self(1 << 6);
    const ROWS_MADE: Self = Self(1 << 7);
    const ROWS_CHANGED: Self = Self(1 << 8);
    const ROWS_REMOVED: Self = Self(1 << 9);
    const KEYED: Self = Self(1 << 10);
    const READY: Self = Self(1 << 11);
    const CHILDREN: Self = Self(1 << 12);

    const fn has(self, part: Self) -> bool {
        self.0 & part.0 != 0
    }

    fn add(&mut self, part: Self, needed: bool) {
        self.0 |= if needed { part.0 } else { 0 };
    }
}

/// A statement that is being put together.
#[derive(Default)]
struct Text {
    parameters: usize,
    /// By name.
    parts: Vec<(&'static str, String)>,
    /// The names of those whose rows are counted.
    counted: Vec<&'static str>,
}

impl Text {
    /// The next parameter.
    fn one(&mut self, of: &str) -> String {
        self.parameters += 1;
        format!("${}::{of}", self.parameters)
    }

    /// The next parameters, each an array, as the rows of a table.
    fn table(&mut self, types: &[&str]) -> String {
        let arrays: Vec<_> = types.iter().map(|of| self.one(&format!("{of}[]"))).collect();
        format!("unnest({})", arrays.join(", "))
    }

    fn part(&mut self, name: &'static str, text: String) {
        self.parts.push((name, text));
    }

    /// A part that must find all that it is given.
    fn counted(&mut self, name: &'static str, text: String) {
        self.part(name, text);
        self.counted.push(name);
    }

    fn finish(mut self) -> String {
        let total = self.one("bigint");
        let parts: Vec<_> = self.parts.iter().map(|(name, text)| format!("{name} AS ({text})")).collect();
        let counts: Vec<_> =
            self.counted.iter().map(|name| format!("(SELECT count(*) FROM {name})")).collect();
        let with = if parts.is_empty() { String::new() } else { format!("WITH {} ", parts.join(", ")) };
        let counts = if counts.is_empty() { "0".to_owned() } else { counts.join(" + ") };
        format!("{with}SELECT 1 / (CASE WHEN {counts} = {total} THEN 1 ELSE 0 END)")
    }
}

/// The columns of a row.
const ROW: &str =
    "kind, id, parent, name, sort_name, status, revision, operation, created_at, modified_at, body, record";
const ROW_TYPES: [&str; 12] = [
    "text",
    "text",
    "text",
    "text",
    "text",
    "text",
    "bigint",
    "text",
    "timestamptz",
    "timestamptz",
    "jsonb",
    "bytea",
];

/// The children of a family and their revisions, as [`family`] writes them.
pub(crate) const CHILDREN: &str =
    "SELECT coalesce(string_agg(r.id || ':' || r.revision, ',' ORDER BY r.id), '')
    FROM longrun.resources r WHERE r.kind = u.kind AND r.parent = u.parent";

/// What a condition says of the children of a parent: the family, and who they are.
pub(crate) fn family(condition: &Condition) -> Option<(&str, &str, String)> {
    match condition {
        Condition::Childless { kind, parent } => Some((kind.as_str(), parent.as_str(), String::new())),
        Condition::Children { kind, parent, children } => {
            let each: Vec<_> = children.iter().map(|(id, revision)| format!("{id}:{revision}")).collect();
            Some((kind.as_str(), parent.as_str(), each.join(",")))
        }
        _ => None,
    }
}

/// The statement with these parts. Its parameters are in the order of [`Batch::params`].
///
/// That an operation is not done is asked as `due_at IS NOT NULL`: by `done_at IS NULL` the planner would take the index of those
/// that are due for the way to them, and look through all of it for each.
pub(crate) fn statement(parts: Parts) -> String {
    let mut text = Text::default();
    if parts.has(Parts::COMMITTED) {
        let (id, next, previous) = (text.one("uuid"), text.one("bigint"), text.one("bigint"));
        let moved_on = format!(
            "UPDATE longrun.committers SET batch = {next}, used_at = now() WHERE id = {id} AND batch = {previous} RETURNING 1"
        );
        text.counted("committed", moved_on);
    }
    if parts.has(Parts::MEMBERS) {
        let nodes = text.one("bigint[]");
        text.counted(
            "members",
            format!("SELECT 1 FROM longrun.nodes WHERE epoch = ANY ({nodes}) FOR KEY SHARE"),
        );
    }
    if parts.has(Parts::MADE) {
        statement_of_the_new(&mut text);
    }
    if parts.has(Parts::MOVED) {
        let moved = text.table(&[
            "text",
            "bigint",
            "bigint",
            "bigint",
            "timestamptz",
            "text",
            "text",
            "text",
            "timestamptz",
            "timestamptz",
        ]);
        let format = text.one("integer");
        text.counted("moved", format!(
            "UPDATE longrun.operations o
            SET revision = u.revision, modified_at = u.at, phase = coalesce(u.phase, o.phase),
                error_code = coalesce(u.error_code, o.error_code),
                error_message = coalesce(u.error_message, o.error_message), due_at = u.due_at, done_at = u.done_at,
                node = CASE WHEN u.done_at IS NULL OR u.fence IS NULL THEN o.node END,
                visited = u.fence IS NULL AND o.node IS NOT NULL, format = greatest(o.format, {format})
            FROM {moved} AS u (id, expect, revision, fence, at, phase, error_code, error_message, due_at, done_at)
            WHERE o.id = u.id AND o.revision = u.expect AND o.due_at IS NOT NULL
                AND (u.fence IS NULL OR (o.fence = u.fence AND o.node IS NOT NULL))
            RETURNING 1"
        ));
    }
    if parts.has(Parts::ENDED) {
        let ended = text.table(&["text", "bytea", "jsonb"]);
        text.counted(
            "ended",
            format!(
                "UPDATE longrun.operation_records r SET head = u.head, response = u.response
            FROM {ended} AS u (id, head, response) WHERE r.operation = u.id RETURNING r.operation"
            ),
        );
        text.part(
            "cleared",
            "DELETE FROM longrun.operation_journal j USING ended WHERE j.operation = ended.operation"
                .to_owned(),
        );
    }
    if parts.has(Parts::WRITTEN) {
        let journal = text.table(&["text", "bigint", "bigint", "timestamptz", "bigint", "bytea", "jsonb"]);
        text.part("written", format!(
            "INSERT INTO longrun.operation_journal AS j (operation, first, revision, at, fence, record, events)
            SELECT * FROM {journal}
            ON CONFLICT (operation, first) DO UPDATE
            SET revision = excluded.revision, at = excluded.at, fence = excluded.fence, record = excluded.record,
                events = excluded.events"
        ));
    }
    if parts.has(Parts::LINKED) {
        let links = text.table(&["text", "text", "text"]);
        let insert = "INSERT INTO longrun.operation_resources (kind, id, operation) SELECT * FROM";
        text.part("linked", format!("{insert} {links}"));
    }
    statement_of_rows(&mut text, parts);
    if parts.has(Parts::KEYED) {
        let keys = text.table(&["bytea", "text", "bytea"]);
        let insert = "INSERT INTO longrun.idempotency (digest, operation, fingerprint) SELECT * FROM";
        text.part("keyed", format!("{insert} {keys}"));
    }
    if parts.has(Parts::READY) {
        let ready = text.table(&["text", "text"]);
        text.counted(
            "ready",
            format!(
            "SELECT 1 FROM longrun.resources r JOIN {ready} AS u (kind, id) ON r.kind = u.kind AND r.id = u.id
            WHERE r.status = 'READY' FOR SHARE OF r"
        ),
        );
    }
    if parts.has(Parts::CHILDREN) {
        let families = text.table(&["text", "text", "text"]);
        text.counted(
            "families",
            format!("SELECT 1 FROM {families} AS u (kind, parent, children) WHERE ({CHILDREN}) = u.children"),
        );
    }
    text.finish()
}

fn statement_of_the_new(text: &mut Text) {
    let made = text.table(&[
        "text",
        "text",
        "bigint",
        "text",
        "timestamptz",
        "text",
        "timestamptz",
        "text",
        "text",
        "text",
        "bigint",
        "timestamptz",
        "timestamptz",
        "bigint",
        "bigint",
    ]);
    let format = text.one("integer");
    text.part("made", format!(
        "INSERT INTO longrun.operations (id, kind, kind_version, description, created_at, created_by, modified_at, phase,
            error_code, error_message, revision, due_at, done_at, node, fence, format)
        SELECT *, {format} FROM {made}"
    ));
    let heads = text.table(&["text", "bytea", "jsonb", "jsonb", "jsonb", "text", "jsonb"]);
    text.part(
        "heads",
        format!(
        "INSERT INTO longrun.operation_records (operation, head, request, metadata, response, steps, events)
        SELECT operation, head, request, metadata, response, string_to_array(steps, chr(10)), events
        FROM {heads} AS u (operation, head, request, metadata, response, steps, events)"
    ),
    );
}

fn statement_of_rows(text: &mut Text, parts: Parts) {
    if parts.has(Parts::ROWS_MADE) {
        let rows = text.table(&ROW_TYPES);
        text.part("rows_made", format!("INSERT INTO longrun.resources ({ROW}) SELECT * FROM {rows}"));
    }
    let as_expected = "r.kind = u.kind AND r.id = u.id AND r.revision = u.expect
        AND r.operation IS NOT DISTINCT FROM u.holder";
    if parts.has(Parts::ROWS_CHANGED) {
        let rows = text.table(&[&ROW_TYPES[..], &["bigint", "text"]].concat());
        text.counted("rows_changed", format!(
            "UPDATE longrun.resources r
            SET parent = u.parent, name = u.name, sort_name = u.sort_name, status = u.status, revision = u.revision,
                operation = u.operation, modified_at = u.modified_at, body = u.body, record = u.record
            FROM {rows} AS u ({ROW}, expect, holder) WHERE {as_expected} RETURNING 1"
        ));
    }
    if parts.has(Parts::ROWS_REMOVED) {
        let rows = text.table(&["text", "text", "bigint", "text"]);
        text.counted(
            "rows_removed",
            format!(
                "DELETE FROM longrun.resources r USING {rows} AS u (kind, id, expect, holder)
            WHERE {as_expected} RETURNING 1"
            ),
        );
    }
}

/// The place of a batch among those of its committer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) committer: Uuid,
    pub(crate) previous: i64,
    pub(crate) next: i64,
}

/// The columns of the statement's parameters.
#[derive(Default)]
pub(crate) struct Batch<'a> {
    committer: Option<Uuid>,
    next: i64,
    previous: i64,
    nodes: Vec<i64>,
    made: Made<'a>,
    format: i32,
    heads: Heads<'a>,
    moved: Moved<'a>,
    ended: (Vec<&'a str>, Vec<&'a [u8]>, Vec<Option<Shown>>),
    journal: Journal<'a>,
    links: (Vec<&'a str>, Vec<&'a str>, Vec<&'a str>),
    rows_made: Rows<'a>,
    rows_changed: Rows<'a>,
    rows_removed: Removed<'a>,
    keys: (Vec<&'a [u8]>, Vec<&'a str>, Vec<&'a [u8]>),
    ready: (Vec<&'a str>, Vec<&'a str>),
    families: (Vec<&'a str>, Vec<&'a str>, Vec<String>),
    total: i64,
}

#[derive(Default)]
struct Made<'a> {
    id: Vec<&'a str>,
    kind: Vec<&'a str>,
    version: Vec<i64>,
    description: Vec<String>,
    created_at: Vec<At>,
    created_by: Vec<String>,
    modified_at: Vec<At>,
    state: States,
    revision: Vec<i64>,
    due_at: Vec<Option<At>>,
    done_at: Vec<Option<At>>,
    node: Vec<Option<i64>>,
    fence: Vec<i64>,
}

/// What people see of where an operation stands.
#[derive(Default)]
struct States {
    phase: Vec<Option<&'static str>>,
    error_code: Vec<Option<&'static str>>,
    error_message: Vec<Option<String>>,
}

#[derive(Default)]
struct Heads<'a> {
    operation: Vec<&'a str>,
    head: Vec<&'a [u8]>,
    request: Vec<Shown>,
    metadata: Vec<Shown>,
    response: Vec<Option<Shown>>,
    steps: Vec<String>,
    events: Vec<Shown>,
}

#[derive(Default)]
struct Moved<'a> {
    id: Vec<&'a str>,
    expect: Vec<i64>,
    revision: Vec<i64>,
    fence: Vec<Option<i64>>,
    at: Vec<At>,
    state: States,
    due_at: Vec<Option<At>>,
    done_at: Vec<Option<At>>,
}

#[derive(Default)]
struct Journal<'a> {
    operation: Vec<&'a str>,
    first: Vec<i64>,
    revision: Vec<i64>,
    at: Vec<At>,
    fence: Vec<Option<i64>>,
    record: Vec<&'a [u8]>,
    events: Vec<Shown>,
}

#[derive(Default)]
struct Rows<'a> {
    kind: Vec<&'a str>,
    id: Vec<&'a str>,
    parent: Vec<&'a str>,
    name: Vec<&'a str>,
    sort_name: Vec<&'a str>,
    status: Vec<String>,
    revision: Vec<i64>,
    operation: Vec<Option<&'a str>>,
    created_at: Vec<At>,
    modified_at: Vec<At>,
    body: Vec<Shown>,
    record: Vec<&'a [u8]>,
    expect: Vec<i64>,
    holder: Vec<Option<&'a str>>,
}

#[derive(Default)]
struct Removed<'a> {
    kind: Vec<&'a str>,
    id: Vec<&'a str>,
    expect: Vec<i64>,
    holder: Vec<Option<&'a str>>,
}

/// A fence as it comes from PostgreSQL.
pub(crate) fn fence(number: i64) -> Fence {
    Fence(number.try_into().unwrap_or(0))
}

/// A number of ours as PostgreSQL's. One that does not fit is one that nothing stored has.
pub(crate) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl<'a> Batch<'a> {
    /// Of commits of which no two touch the same thing.
    pub(crate) fn of(group: &[&'a Records], place: Option<Place>) -> Self {
        let mut batch = Self { format: i32::try_from(FORMAT_VERSION).unwrap_or(i32::MAX), ..Self::default() };
        if let Some(place) = place {
            (batch.committer, batch.previous, batch.next) =
                (Some(place.committer), place.previous, place.next);
            batch.total += 1;
        }
        let mut nodes = BTreeSet::new();
        for records in sorted(group) {
            batch.add(records, &mut nodes);
        }
        batch.add_rows(group);
        batch.nodes = nodes.into_iter().collect();
        batch.total += count(batch.nodes.len());
        batch
    }

    fn add(&mut self, records: &'a Records, nodes: &mut BTreeSet<i64>) {
        let header = &*records.header;
        let id = header.id.as_str();
        let revision = number(records.entry.revision.0);
        let is_owner = records.author == Author::Owner;
        let fence = number(records.fence.0);
        let at = At(records.entry.at);
        let due_at = records.due_at.map(At);
        let done_at = due_at.is_none().then_some(at);
        let response = records.finished.as_ref().and_then(|end| end.outcome.response());
        let response = response.map(|response| Shown::of(response.json()));
        match records.expect {
            None => {
                let works = is_owner && due_at.is_some();
                if is_owner {
                    nodes.insert(fence);
                }
                let made = &mut self.made;
                made.id.push(id);
                made.kind.push(header.kind.as_str());
                made.version.push(i64::from(header.kind_version));
                made.description.push(shown_text(&header.description));
                made.created_at.push(At(header.created_at));
                made.created_by.push(shown_text(header.created_by.as_str()));
                made.modified_at.push(at);
                made.state.push(records);
                made.revision.push(revision);
                made.due_at.push(due_at);
                made.done_at.push(done_at);
                made.node.push(works.then_some(fence));
                made.fence.push(fence);
                let heads = &mut self.heads;
                heads.operation.push(id);
                heads.head.push(records.head.as_deref().unwrap_or_default());
                heads.request.push(Shown::of(header.request.json()));
                heads.metadata.push(Shown::of(header.metadata.json()));
                heads.response.push(response);
                let names = records.plan.iter().flat_map(|plan| plan.steps()).map(|step| step.name.as_str());
                heads.steps.push(names.collect::<Vec<_>>().join("\n"));
                heads.events.push(Shown::events(&records.entry.events));
                for key in &header.resources {
                    self.links.0.push(key.kind.as_str());
                    self.links.1.push(key.id.as_str());
                    self.links.2.push(id);
                }
            }
            Some(expect) => {
                let moved = &mut self.moved;
                moved.id.push(id);
                moved.expect.push(number(expect.0));
                moved.revision.push(revision);
                moved.fence.push(is_owner.then_some(fence));
                moved.at.push(at);
                moved.state.push(records);
                moved.due_at.push(due_at);
                moved.done_at.push(done_at);
                self.total += 1;
                if let Some(head) = &records.head {
                    self.ended.0.push(id);
                    self.ended.1.push(head);
                    self.ended.2.push(response);
                    self.total += 1;
                }
            }
        }
        if let Some(record) = &records.journal {
            let journal = &mut self.journal;
            journal.operation.push(id);
            journal.first.push(number(records.entry.first.0));
            journal.revision.push(revision);
            journal.at.push(at);
            journal.fence.push(is_owner.then_some(fence));
            journal.record.push(record);
            journal.events.push(Shown::events(&records.entry.events));
        }
        if let Some(claim) = &records.ledger {
            self.keys.0.push(&claim.digest);
            self.keys.1.push(id);
            self.keys.2.push(&claim.fingerprint);
        }
    }

    /// The rows of all, in one order for everybody, so that no two batches wait for each other.
    fn add_rows(&mut self, group: &[&'a Records]) {
        let mut rows: Vec<_> = group.iter().flat_map(|records| &records.rows).collect();
        rows.sort_unstable_by(|a, b| order(&a.write.key).cmp(&order(&b.write.key)));
        for row in rows {
            let (write, key) = (&row.write, &row.write.key);
            let expect = write.expect.map(|revision: Revision| number(revision.0));
            let holder = write.holder.as_ref().map(|id| id.as_str());
            match (&write.put, &row.record, expect) {
                (Some(put), Some(record), None) => self.rows_made.push(put, record),
                (Some(put), Some(record), Some(expect)) => {
                    self.rows_changed.push(put, record);
                    self.rows_changed.expect.push(expect);
                    self.rows_changed.holder.push(holder);
                    self.total += 1;
                }
                (_, _, expect) => {
                    self.rows_removed.kind.push(key.kind.as_str());
                    self.rows_removed.id.push(key.id.as_str());
                    self.rows_removed.expect.push(expect.unwrap_or(-1));
                    self.rows_removed.holder.push(holder);
                    self.total += 1;
                }
            }
        }
        let mut ready = BTreeSet::new();
        for condition in group.iter().flat_map(|records| &records.conditions) {
            if let Condition::Ready(key) = condition {
                ready.insert(order(key));
            } else if let Some((kind, parent, children)) = family(condition) {
                self.families.0.push(kind);
                self.families.1.push(parent);
                self.families.2.push(children);
                self.total += 1;
            } else {
                // One that this program does not know is never true.
                self.total += 1;
            }
        }
        self.total += count(ready.len());
        self.ready = ready.into_iter().unzip();
    }

    /// What of the statement it needs.
    pub(crate) fn parts(&self) -> Parts {
        let mut parts = Parts::default();
        for (part, needed) in [
            (Parts::COMMITTED, self.committer.is_some()),
            (Parts::MEMBERS, !self.nodes.is_empty()),
            (Parts::MADE, !self.made.id.is_empty()),
            (Parts::MOVED, !self.moved.id.is_empty()),
            (Parts::ENDED, !self.ended.0.is_empty()),
            (Parts::WRITTEN, !self.journal.operation.is_empty()),
            (Parts::LINKED, !self.links.0.is_empty()),
            (Parts::ROWS_MADE, !self.rows_made.id.is_empty()),
            (Parts::ROWS_CHANGED, !self.rows_changed.id.is_empty()),
            (Parts::ROWS_REMOVED, !self.rows_removed.id.is_empty()),
            (Parts::KEYED, !self.keys.0.is_empty()),
            (Parts::READY, !self.ready.0.is_empty()),
            (Parts::CHILDREN, !self.families.0.is_empty()),
        ] {
            parts.add(part, needed);
        }
        parts
    }

    /// In the order of the statement.
    pub(crate) fn params(&self) -> Vec<Param<'_>> {
        let Self { made, heads, moved, ended, journal, links, rows_removed, keys, ready, families, .. } =
            self;
        let parts = self.parts();
        let mut params: Vec<Param<'_>> = Vec::new();
        if parts.has(Parts::COMMITTED) {
            params.extend::<[Param<'_>; 3]>([&self.committer, &self.next, &self.previous]);
        }
        if parts.has(Parts::MEMBERS) {
            params.push(&self.nodes);
        }
        if parts.has(Parts::MADE) {
            params.extend::<[Param<'_>; 7]>([
                &made.id,
                &made.kind,
                &made.version,
                &made.description,
                &made.created_at,
                &made.created_by,
                &made.modified_at,
            ]);
            params.extend(made.state.params());
            params.extend::<[Param<'_>; 5]>([
                &made.revision,
                &made.due_at,
                &made.done_at,
                &made.node,
                &made.fence,
            ]);
            params.push(&self.format);
            params.extend::<[Param<'_>; 7]>([
                &heads.operation,
                &heads.head,
                &heads.request,
                &heads.metadata,
                &heads.response,
                &heads.steps,
                &heads.events,
            ]);
        }
        if parts.has(Parts::MOVED) {
            params.extend::<[Param<'_>; 5]>([
                &moved.id,
                &moved.expect,
                &moved.revision,
                &moved.fence,
                &moved.at,
            ]);
            params.extend(moved.state.params());
            params.extend::<[Param<'_>; 3]>([&moved.due_at, &moved.done_at, &self.format]);
        }
        if parts.has(Parts::ENDED) {
            params.extend::<[Param<'_>; 3]>([&ended.0, &ended.1, &ended.2]);
        }
        if parts.has(Parts::WRITTEN) {
            params.extend::<[Param<'_>; 7]>([
                &journal.operation,
                &journal.first,
                &journal.revision,
                &journal.at,
                &journal.fence,
                &journal.record,
                &journal.events,
            ]);
        }
        if parts.has(Parts::LINKED) {
            params.extend::<[Param<'_>; 3]>([&links.0, &links.1, &links.2]);
        }
        if parts.has(Parts::ROWS_MADE) {
            params.extend(self.rows_made.params());
        }
        if parts.has(Parts::ROWS_CHANGED) {
            params.extend(self.rows_changed.params());
            params.extend::<[Param<'_>; 2]>([&self.rows_changed.expect, &self.rows_changed.holder]);
        }
        if parts.has(Parts::ROWS_REMOVED) {
            params.extend::<[Param<'_>; 4]>([
                &rows_removed.kind,
                &rows_removed.id,
                &rows_removed.expect,
                &rows_removed.holder,
            ]);
        }
        if parts.has(Parts::KEYED) {
            params.extend::<[Param<'_>; 3]>([&keys.0, &keys.1, &keys.2]);
        }
        if parts.has(Parts::READY) {
            params.extend::<[Param<'_>; 2]>([&ready.0, &ready.1]);
        }
        if parts.has(Parts::CHILDREN) {
            params.extend::<[Param<'_>; 3]>([&families.0, &families.1, &families.2]);
        }
        params.push(&self.total);
        params
    }
}

impl States {
    fn push(&mut self, records: &Records) {
        let decided = records.entry.events.iter().find_map(|event| match event {
            Event::RollbackDecided { cause, .. } => Some(cause),
            _ => None,
        });
        let (phase, error) = match records.finished.as_ref().map(|end| &end.outcome) {
            Some(Outcome::Response(_)) => (Some("succeeded"), None),
            Some(Outcome::Error(error)) => (Some("rolled back"), Some(error)),
            Some(Outcome::Abandoned(error)) => (Some("abandoned"), Some(error)),
            None if decided.is_some() => (Some("rolling back"), decided),
            None if records.expect.is_none() => (Some("pending"), None),
            // As it is.
            None => (None, None),
        };
        self.phase.push(phase);
        self.error_code.push(error.map(|error| error.code().name()));
        self.error_message.push(error.map(|error| shown_text(error.message())));
    }

    fn params(&self) -> [Param<'_>; 3] {
        [&self.phase, &self.error_code, &self.error_message]
    }
}

impl<'a> Rows<'a> {
    fn push(&mut self, row: &'a Row, record: &'a [u8]) {
        self.kind.push(row.key.kind.as_str());
        self.id.push(row.key.id.as_str());
        self.parent.push(row.parent.as_str());
        self.name.push(&row.name);
        self.sort_name.push(sort_name(row));
        self.status.push(row.status.to_string());
        self.revision.push(number(row.revision.0));
        self.operation.push(row.operation.as_ref().map(|id| id.as_str()));
        self.created_at.push(At(row.created_at));
        self.modified_at.push(At(row.modified_at));
        self.body.push(Shown::of(row.body.json()));
        self.record.push(record);
    }

    fn params(&self) -> [Param<'_>; 12] {
        [
            &self.kind,
            &self.id,
            &self.parent,
            &self.name,
            &self.sort_name,
            &self.status,
            &self.revision,
            &self.operation,
            &self.created_at,
            &self.modified_at,
            &self.body,
            &self.record,
        ]
    }
}

/// In one order for everybody, so that no two batches wait for each other.
fn sorted<'a>(group: &[&'a Records]) -> Vec<&'a Records> {
    let mut sorted = group.to_vec();
    sorted.sort_unstable_by_key(|records| records.header.id);
    sorted
}

fn order(key: &ResourceKey) -> (&str, &str) {
    (key.kind.as_str(), key.id.as_str())
}

pub(crate) fn count(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every part alone, and all of them.
    #[test]
    fn a_statement_has_the_parameters_of_its_parts() {
        let highest = |text: &str| {
            let numbers =
                text.split('$').skip(1).map(|rest| rest.split(':').next().unwrap().parse::<usize>().unwrap());
            numbers.max().unwrap()
        };
        let alone: usize = (0..13).map(|bit| highest(&statement(Parts(1 << bit))) - 1).sum();
        assert_eq!(highest(&statement(Parts((1 << 13) - 1))), alone + 1);
        assert_eq!(Batch::of(&[], None).params().len(), highest(&statement(Parts::default())));
    }
}
