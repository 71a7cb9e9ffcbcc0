//! Resource rows: they change with their operation, along the table, and are as before after a rollback.

use std::collections::{BTreeMap, BTreeSet};

use longrun_core::{Claim, Event, Intent, OperationId, ResourceKey, ResourceStatus, Row, RowWrite};

use super::durable::{End, Story};
use super::{Verdict, demand};

/// All rows, by key.
pub type Rows = BTreeMap<ResourceKey, Row>;

/// One write of one row moves it along the table (S41), one revision at a time.
pub fn check_write(old: Option<&Row>, write: &RowWrite, events: &[Event]) -> Verdict {
    let status = |row: Option<&Row>| row.map(|row| row.status);
    let (from, to) = (status(old), status(write.put.as_ref()));
    // What is decided and undone in one commit is never seen DELETING.
    let at_once = events.iter().any(|event| matches!(event, Event::RollbackDecided { .. }))
        && events.iter().any(|event| matches!(event, Event::RolledBack));
    let passes = from == Some(ResourceStatus::Creating) && to.is_none() && at_once;
    demand(passes || ResourceStatus::check_move(from, to).is_ok(), "S41", || {
        format!("{} went from {from:?} to {to:?}", write.key)
    })?;
    match (&write.put, old) {
        (Some(new), Some(old)) => demand(new.revision == old.revision.next(), "S5", || {
            format!("{} went from revision {} to {}", write.key, old.revision, new.revision)
        }),
        _ => Ok(()),
    }
}

/// The rows of an operation are those of its stage (C7, S42). `outputs` are in the story.
pub fn check_claims(id: OperationId, claims: &[Claim], story: &Story, rows: &Rows, at_end: bool) -> Verdict {
    for claim in claims {
        let row = rows.get(&claim.key);
        match story.end {
            None => check_held(id, claim, story, row)?,
            // Later operations may have changed it since.
            Some(end) if at_end => check_ended(claim, end, story, row)?,
            Some(_) => {}
        }
    }
    Ok(())
}

fn check_held(id: OperationId, claim: &Claim, story: &Story, row: Option<&Row>) -> Verdict {
    let expected = match &claim.intent {
        Intent::Create { .. } if story.cause.is_some() => ResourceStatus::Deleting,
        Intent::Create { .. } => ResourceStatus::Creating,
        Intent::Update { before, .. } => before.status,
        Intent::Delete { .. } => ResourceStatus::Deleting,
    };
    let Some(row) = row else {
        return demand(false, "C7", || {
            format!("{} is not there while its operation is unfinished", claim.key)
        });
    };
    demand(row.operation == Some(id), "C7", || format!("{} is not held by its operation", claim.key))?;
    demand(row.status == expected, "C7", || format!("{} shows {}, not {expected}", claim.key, row.status))
}

/// The rows of an operation that may have ended long ago (C7, S42). `alone` tells whether nobody else ever claimed a resource.
pub fn check_stored(
    id: OperationId,
    claims: &[Claim],
    story: &Story,
    rows: &Rows,
    alone: impl Fn(&ResourceKey) -> bool,
) -> Verdict {
    check_claims(id, claims, story, rows, false)?;
    let Some(end) = story.end else { return Ok(()) };
    for claim in claims {
        let row = rows.get(&claim.key);
        let held = row.is_some_and(|row| row.operation == Some(id));
        demand(!held, "C7", || format!("{} is held after the end", claim.key))?;
        if !alone(&claim.key) {
            continue;
        }
        let (expected, found) = (status_at_end(claim, end), row.map(|row| row.status));
        demand(expected == found, "S42", || format!("{} shows {found:?} after {end:?}", claim.key))?;
        // What it has become is in the outputs of its steps, which are gone by now.
        if end != End::Succeeded {
            check_ended(claim, end, story, row)?;
        }
    }
    Ok(())
}

/// What a row shows after the end, as long as nobody else changes it: the status, or that there is no row.
fn status_at_end(claim: &Claim, end: End) -> Option<ResourceStatus> {
    let before = claim.before().map(|row| row.status);
    match (&claim.intent, end) {
        (_, End::Abandoned) => Some(ResourceStatus::Error),
        (Intent::Create { .. }, End::Succeeded) => Some(ResourceStatus::Ready),
        (Intent::Update { status, .. }, End::Succeeded) => Some(*status),
        (Intent::Delete { .. }, End::Succeeded) | (Intent::Create { .. }, End::RolledBack) => None,
        (Intent::Update { .. } | Intent::Delete { .. }, End::RolledBack) => before,
    }
}

/// The children of a parent, whose names differ whoever made them (C17).
pub fn check_names<'a>(names: impl Iterator<Item = &'a str>) -> Verdict {
    let mut seen = BTreeSet::new();
    for name in names {
        demand(seen.insert(name), "C17", || format!("two children have the name {name}"))?;
    }
    Ok(())
}

fn check_ended(claim: &Claim, end: End, story: &Story, row: Option<&Row>) -> Verdict {
    let gone = matches!(
        (&claim.intent, end),
        (Intent::Create { .. }, End::RolledBack) | (Intent::Delete { .. }, End::Succeeded)
    );
    if gone {
        return demand(row.is_none(), "C4", || format!("{} is there after the end", claim.key));
    }
    let Some(row) = row else {
        return demand(false, "C4", || format!("{} is gone after the end", claim.key));
    };
    demand(row.operation.is_none(), "C7", || format!("{} is held after the end", claim.key))?;
    let value = |source: &longrun_core::Source| match source {
        longrun_core::Source::Literal(json) => Some(json.clone()),
        longrun_core::Source::Output(step) => story.lines[step.place()].output.clone(),
    };
    match (&claim.intent, end) {
        (_, End::Abandoned) => demand(row.status == ResourceStatus::Error, "C4", || {
            format!("{} shows {} after it was abandoned", claim.key, row.status)
        }),
        (Intent::Create { becomes, .. }, End::Succeeded) => {
            demand(row.status == ResourceStatus::Ready, "S42", || format!("{} is not READY", claim.key))?;
            demand(value(becomes).as_ref() == Some(row.body.json()), "C4", || {
                format!("{} has not become what its operation made", claim.key)
            })
        }
        (Intent::Update { becomes, status, name, .. }, End::Succeeded) => {
            let same = row.status == *status && row.name == *name;
            demand(same && value(becomes).as_ref() == Some(row.body.json()), "C4", || {
                format!("{} has not become what its operation made", claim.key)
            })
        }
        _ => {
            let before = claim.before();
            let same = before.is_some_and(|before| {
                (before.status, &before.name, &before.parent, &before.body, before.created_at)
                    == (row.status, &row.name, &row.parent, &row.body, row.created_at)
            });
            demand(same, "C4", || format!("{} is not as it was before", claim.key))
        }
    }
}
