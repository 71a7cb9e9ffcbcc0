//! The oracle: what must hold for a census, given the facts and the effects. Names are those of the project's INVARIANTS.md.

use std::collections::{BTreeMap, BTreeSet};

use longrun::{Code, OperationId, Phase, ResourceId, ResourceStatus, Row};

use super::census::{Census, Entry};
use super::facts::{Facts, outcome};
use super::script::{Act, End, Request, STEPS, Thing, key_text};

/// Everything that is wrong.
pub(crate) fn violations(
    census: &Census,
    facts: &Facts,
    effects: &BTreeMap<OperationId, BTreeSet<u16>>,
) -> Vec<String> {
    let mut wrong = facts.contradictions.clone();
    kept_promises(census, facts, &mut wrong);
    for entry in census.operations.values() {
        ends_as_asked(entry, facts.cancelled.contains(&entry.operation.id()), &mut wrong);
        let left = effects.get(&entry.operation.id()).cloned().unwrap_or_default();
        right_effects(entry, &left, &mut wrong);
    }
    for id in effects.keys().filter(|id| !census.operations.contains_key(*id)) {
        wrong.push(format!("S19: there are effects of {id}, which is not in the store"));
    }
    rows_agree(census, &mut wrong);
    wrong
}

/// What was acknowledged is there, and nothing that was shown has gone back.
fn kept_promises(census: &Census, facts: &Facts, wrong: &mut Vec<String>) {
    let find = |id| census.operations.get(id);
    for (id, key) in &facts.accepted {
        match find(id) {
            None => wrong.push(format!("S9: {id} was accepted and is lost")),
            Some(entry) if key != "?" && *key != key_text(entry.request.number) => {
                wrong.push(format!("S35: {id} was accepted with {key}, not with {}", entry.request.number));
            }
            Some(_) => {}
        }
    }
    for (id, (revision, phase)) in &facts.seen {
        match find(id).map(|entry| (entry.operation.revision().0, entry.operation.phase())) {
            None => wrong.push(format!("S11: {id} was shown and is lost")),
            Some((found, at)) if found < *revision || at < *phase => wrong.push(format!(
                "S11: {id} was shown {phase:?} at revision {revision}, and is {at:?} at {found}"
            )),
            Some(_) => {}
        }
    }
    for (id, promised) in &facts.done {
        let found = find(id).and_then(|entry| outcome(&entry.operation));
        if found.as_ref() != Some(promised) {
            wrong.push(format!("S11: {id} was done {promised}, and is {found:?}"));
        }
    }
    for id in &facts.cancelled {
        let rolls_back = find(id).is_some_and(|entry| entry.operation.error().is_some());
        if !rolls_back {
            wrong.push(format!("S10: the cancel of {id} was acknowledged and is forgotten"));
        }
    }
}

/// The script says how it ends.
fn ends_as_asked(entry: &Entry, cancelled: bool, wrong: &mut Vec<String>) {
    let (operation, request) = (&entry.operation, &entry.request);
    let id = operation.id();
    match (operation.error().map(longrun::Status::code), request.end) {
        (None, End::Badly) if operation.done() => wrong.push(format!("S25: {id} had to fail, and is ok")),
        (None, _) if cancelled => wrong.push(format!("S10: {id} was cancelled and goes on")),
        (Some(Code::FailedPrecondition), End::Badly)
        | (Some(Code::Cancelled), End::Cancelled)
        | (None, _) => {}
        (Some(code), end) => wrong.push(format!("S8: {id} was to end {end:?}, and failed with {code}")),
    }
    if operation.phase() == Phase::Done && operation.error().is_none() {
        let response = operation.response().and_then(|response| response.decode::<Thing>().ok());
        if response != Some(Thing { by: request.number, steps: STEPS }) {
            wrong.push(format!("S17: the response of {id} is {response:?}"));
        }
    }
}

/// Done means that all effects are there, or none.
fn right_effects(entry: &Entry, left: &BTreeSet<u16>, wrong: &mut Vec<String>) {
    let operation = &entry.operation;
    let promised: BTreeSet<u16> = match (operation.done(), operation.error()) {
        (false, _) => return,
        (true, None) => (0..STEPS).collect(),
        (true, Some(_)) => BTreeSet::new(),
    };
    if *left != promised {
        wrong.push(format!(
            "S25: {} is done {:?} and has left the effects {left:?}",
            operation.id(),
            outcome(operation)
        ));
    }
}

/// Each row is what the operations on it made of it (S41, S42).
fn rows_agree(census: &Census, wrong: &mut Vec<String>) {
    let mut by_thing: BTreeMap<&ResourceId, Vec<&Entry>> = BTreeMap::new();
    for entry in census.operations.values() {
        by_thing.entry(&entry.thing).or_default().push(entry);
    }
    for id in census.rows.keys().filter(|id| !by_thing.contains_key(id)) {
        wrong.push(format!("S42: thing {id} was made by no operation"));
    }
    for (thing, mut entries) in by_thing {
        entries.sort_by_key(|entry| begun(entry));
        let mut body = None;
        let mut holder = None;
        for entry in entries {
            if let Some(first) = holder.map(|first: &Entry| first.operation.id()) {
                wrong.push(format!("S41: {} began on {thing} while {first} was on it", entry.operation.id()));
            }
            match (entry.operation.done(), entry.operation.error(), &entry.request.act) {
                (false, ..) => holder = Some(entry),
                (true, None, Act::Make | Act::Change(_)) => body = Some(entry.request.number),
                (true, None, Act::Delete(_)) => body = None,
                (true, Some(_), _) => {}
            }
        }
        if let Some(why) = row_differs(census.rows.get(thing), holder, body) {
            wrong.push(format!("S42: thing {thing}: {why}"));
        }
    }
}

/// The order in which operations on a thing began. Some begin in the same millisecond, and ids are drawn at random: but a
/// thing is made first and deleted last, and what is unfinished lets no other begin.
fn begun(entry: &Entry) -> (longrun::core::Timestamp, bool, u8, u64) {
    let place = match entry.request.act {
        Act::Make => 0,
        Act::Change(_) => 1,
        Act::Delete(_) => 2,
    };
    (entry.operation.created_at(), !entry.operation.done(), place, entry.request.number)
}

/// What is wrong about a row, given who holds it and who wrote it last.
fn row_differs(row: Option<&Row>, holder: Option<&Entry>, body: Option<u64>) -> Option<String> {
    let Some(row) = row else {
        return match (holder, body) {
            (None, None) => None,
            _ => Some("its row is missing".to_owned()),
        };
    };
    let held_by = holder.map(|entry| entry.operation.id());
    if row.operation != held_by {
        return Some(format!("it is held by {:?}, and {held_by:?} works on it", row.operation));
    }
    let by = row.body.decode::<Thing>().ok().map(|thing| thing.by);
    let (status, by_expected) = match holder.map(|entry| &entry.request) {
        None if body.is_none() => return Some("it is there, and no operation made it".to_owned()),
        None => (vec![ResourceStatus::Ready], body),
        Some(Request { act: Act::Make, number, .. }) => {
            (vec![ResourceStatus::Creating, ResourceStatus::Deleting], Some(*number))
        }
        Some(Request { act: Act::Change(_), .. }) => (vec![ResourceStatus::Ready], body),
        Some(Request { act: Act::Delete(_), .. }) => {
            (vec![ResourceStatus::Deleting, ResourceStatus::Ready], body)
        }
    };
    if !status.contains(&row.status) || by != by_expected {
        return Some(format!("it is {} by {by:?}, expected {status:?} by {by_expected:?}", row.status));
    }
    None
}

#[cfg(test)]
mod tests {
    use longrun::core::{
        Acceptance, Execution, Header, Input, KindName, Payload, Plan, PlanParts, ResourceKey, ResourceKind,
        Revision, Source, StepName, StepSpec, Timestamp,
    };
    use longrun::{Caller, IdPrefix, Kind, Resource};

    use super::super::script::{CALLER, PARENT, Script};
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_unix_millis(millis).unwrap()
    }

    /// An operation on the thing, accepted at that time: done, or with a step that runs.
    fn entry(number: u64, act: Act, accepted_at: i64, done: bool) -> Entry {
        let value = Payload::encode("thing", Thing::TYPE_URL, &Thing { by: number, steps: STEPS }).unwrap();
        let step = |name| StepSpec {
            name: StepName::new(name).unwrap(),
            version: 1,
            input: Input::One(Source::Literal(value.json().clone())),
            after: Vec::new(),
            policy: None,
        };
        let plan = Plan::new(PlanParts {
            steps: if done { Vec::new() } else { vec![step("touch")] },
            output: Source::Literal(value.json().clone()),
            point_of_no_return: None,
            parallel: 1,
            claims: Vec::new(),
        });
        let request = Request { number, act, end: End::Well, micros: 0, hiccup: false };
        let header = Header {
            id: OperationId::generate(IdPrefix::new("opr").unwrap(), at(accepted_at), number),
            kind: KindName::new(Script::NAME).unwrap(),
            kind_version: 1,
            description: String::new(),
            created_at: at(accepted_at),
            created_by: Caller::new(CALLER).unwrap(),
            request: value.clone(),
            metadata: value.clone(),
            response_type: Thing::TYPE_URL.into(),
            resources: Vec::new(),
            deadline: None,
            idempotency: None,
        };
        let acceptance = Acceptance { header, plan: plan.unwrap(), start: true };
        let (execution, _) = Execution::accept(acceptance).unwrap();
        assert_eq!(execution.is_done(), done);
        Entry { operation: execution.operation(), request, thing: thing() }
    }

    fn thing() -> ResourceId {
        ResourceId::new("thing").unwrap()
    }

    fn row(by: u64, operation: Option<OperationId>) -> Row {
        Row {
            key: ResourceKey { kind: ResourceKind::new(Thing::KIND).unwrap(), id: thing() },
            parent: ResourceId::new(PARENT).unwrap(),
            name: String::new(),
            status: ResourceStatus::Ready,
            revision: Revision(1),
            created_at: at(0),
            modified_at: at(0),
            operation,
            body: Payload::encode("thing", Thing::TYPE_URL, &Thing { by, steps: STEPS }).unwrap(),
        }
    }

    fn disagree(entries: &[Entry], row: Option<Row>) -> Vec<String> {
        let by_id = entries.iter().map(|entry| (entry.operation.id(), entry.clone()));
        let rows = row.into_iter().map(|row| (thing(), row));
        let mut wrong = Vec::new();
        rows_agree(&Census { operations: by_id.collect(), rows: rows.collect() }, &mut wrong);
        wrong
    }

    /// Numbers are given out before operations are accepted, and ids are drawn: neither says which of one millisecond
    /// was first. What they do to the thing does.
    #[test]
    fn of_one_millisecond_a_thing_is_made_first_and_deleted_last() {
        let made = entry(9, Act::Make, 5, true);
        let changed = entry(7, Act::Change(thing()), 5, true);
        let deleted = entry(3, Act::Delete(thing()), 5, true);
        for entries in [[&made, &changed], [&changed, &made]].map(|pair| pair.map(Clone::clone)) {
            assert_eq!(disagree(&entries, Some(row(7, None))), [""; 0]);
            assert!(disagree(&entries, Some(row(9, None)))[0].starts_with("S42"), "the change was the last");
        }
        let all = [deleted, changed, made];
        assert_eq!(disagree(&all, None), [""; 0]);
        assert!(disagree(&all, Some(row(7, None)))[0].starts_with("S42"), "it was deleted");
    }

    #[test]
    fn of_one_millisecond_what_is_unfinished_is_last() {
        let made = entry(9, Act::Make, 5, true);
        let on = entry(1, Act::Change(thing()), 5, false);
        let holder = Some(on.operation.id());
        assert_eq!(disagree(&[made.clone(), on.clone()], Some(row(9, holder))), [""; 0]);
        // And what is done after it began was let in beside it.
        let beside = entry(2, Act::Change(thing()), 6, true);
        let wrong = disagree(&[made, on, beside], Some(row(2, holder)));
        assert!(wrong.iter().any(|text| text.starts_with("S41")), "{wrong:?}");
    }

    #[test]
    fn changes_of_one_millisecond_are_in_the_order_of_their_numbers_and_time_goes_first() {
        let made = entry(1, Act::Make, 4, true);
        let [fourth, fifth] = [4, 5].map(|number| entry(number, Act::Change(thing()), 5, true));
        assert_eq!(disagree(&[made.clone(), fifth.clone(), fourth.clone()], Some(row(5, None))), [""; 0]);
        let later = entry(2, Act::Change(thing()), 6, true);
        assert_eq!(disagree(&[made, fifth, fourth, later], Some(row(2, None))), [""; 0]);
    }

    #[test]
    fn a_lost_operation_is_found() {
        let id = OperationId::parse("opr00000000000000000").unwrap();
        let mut facts = Facts::default();
        facts.accepted.insert(id, "key-1".to_owned());
        facts.cancelled.insert(id);
        facts.done.insert(id, "ok".to_owned());
        facts.seen.insert(id, (2, Phase::Pending));
        let effects = BTreeMap::from([(id, BTreeSet::from([0]))]);
        let wrong = violations(&Census::default(), &facts, &effects);
        for name in ["S9", "S10", "S11", "S19"] {
            assert!(wrong.iter().any(|text| text.starts_with(name)), "{name} in {wrong:?}");
        }
    }
}
