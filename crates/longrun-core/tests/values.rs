//! What goes into the core and comes out of it: ids, payloads, plans and operations as values, and what is refused of them.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::*;
use longrun_core::execution::AcceptError;
use longrun_core::limits::{
    CLAIM_BYTES_MAX, CLAIMS_MAX, DESCRIPTION_CHARS_MAX, ENTRY_BYTES_TARGET, PARALLEL_STEPS_MAX,
    PAYLOAD_BYTES_MAX, PLAN_BYTES_MAX, RECORD_BYTES_MAX, ROW_NAME_CHARS_MAX, STATUS_DETAILS_BYTES_MAX,
    STATUS_MESSAGE_BYTES_MAX,
};
use longrun_core::{
    Acceptance, Applied, Backoff, Caller, Claim, Code, Condition, Execution, Fence, Header, IdPrefix,
    Incarnation, Input, Intent, Invalid, ItemId, ItemKey, Json, KindName, OperationId, Payload, Phase, Plan,
    PlanError, ResourceId, ResourceKind, ResourceStatus, Source, Status, StepPolicy, Timestamp,
};
use serde_json::{Value, json as value};

fn shown(bench: &Bench) -> Value {
    serde_json::to_value(bench.live.operation()).unwrap()
}

#[test]
fn an_operation_tells_what_it_was_made_of() {
    let bench = Draft::chain(1).three_claims().accept();
    let (operation, header) = (bench.live.operation(), &bench.header);
    assert_eq!((operation.id(), operation.kind()), (header.id, &header.kind));
    assert_eq!((operation.description(), operation.created_by()), ("a test", &caller("alice")));
    assert_eq!((operation.request(), operation.metadata()), (&payload("request"), &payload("metadata")));
    assert_eq!(operation.resources(), ["new", "upd", "del"].map(key));
    assert_eq!((operation.created_at(), operation.modified_at()), (t(0), t(0)));
    assert_eq!(operation.with_progress(progress(5)).progress(), Some(progress(5)));
    assert_eq!(bench.live.plan().unwrap().steps().len(), 1);
}

#[test]
fn c02_an_operation_in_json_has_one_of_error_and_response_at_its_end() {
    let mut bench = Draft::chain(2).accept();
    let pending = value!({
        "id": bench.header.id.as_str(), "description": "a test", "createdBy": "alice", "done": false,
        "createdAt": t(0).to_string(), "modifiedAt": t(0).to_string(),
        "metadata": { "@type": "type.test/Thing", "value": "metadata" },
    });
    assert_eq!(shown(&bench), pending);
    bench.later(5).done(0);
    let mut back = bench.clone();
    bench.done(1);
    let mut done = pending;
    done["done"] = value!(true);
    done["modifiedAt"] = value!(t(5).to_string());
    done["response"] = value!({ "@type": "type.test/Thing", "value": "out-1" });
    assert_eq!(shown(&bench), done);

    back.fails(1, Applied::No, false);
    let mut failed = done.clone();
    failed.as_object_mut().unwrap().remove("response");
    failed["error"] = serde_json::to_value(error("boom")).unwrap();
    failed["done"] = value!(false);
    assert_eq!(shown(&back), failed, "it shows as soon as it rolls back");
    back.undone(0);
    failed["done"] = value!(true);
    assert_eq!(shown(&back), failed);
}

#[test]
fn a_reading_is_told_the_same_as_who_works_on_it() {
    let mut bench = Draft::chain(1).accept();
    assert_eq!(bench.live.clone().into_operation(), bench.live.operation());
    bench.cancel();
    assert_eq!(bench.live.clone().into_operation(), bench.live.operation());
    bench.fails(0, Applied::Unknown, false).undo_fails(0).tell(verb(longrun_core::Verb::Abandon));
    let operation = bench.live.operation();
    assert!(operation.was_abandoned() && operation.interventions().len() == 1);
    assert_eq!(bench.live.clone().into_operation(), operation);
    // From what the store keeps of one that is done.
    let finished = bench.live.finished().unwrap();
    let (header, revision) = (bench.live.header(), bench.live.revision());
    let read =
        || Execution::restore_finished(header.clone(), revision, bench.live.modified_at(), finished.clone());
    assert!(read().is_done() && read().plan().is_none());
    assert_eq!((read().operation(), read().into_operation()), (operation.clone(), operation));
    assert_eq!((read().phase(), read().next(t(9)).wake_at, read().due_at()), (Phase::Done, None, None));
}

#[track_caller]
fn refused_header(change: impl FnOnce(&mut Header)) -> Invalid {
    let draft = Draft::chain(1);
    let mut header = draft.header();
    change(&mut header);
    let plan = Plan::new(draft.parts).unwrap();
    match Execution::accept(Acceptance { header, plan, start: true }) {
        Err(AcceptError::Invalid(invalid)) => invalid,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_header_beyond_its_limits_is_not_accepted() {
    let long = "é".repeat(DESCRIPTION_CHARS_MAX + 1);
    assert_eq!(refused_header(|header| header.description = long).field, "description");
    // Parts that fit make an array that does not, which is never to be stored.
    let half = Json::encode("part", &"x".repeat(PAYLOAD_BYTES_MAX / 2)).unwrap();
    let large = Payload::new("type.test/Thing", Json::array(vec![&half, &half])).unwrap();
    assert_eq!(refused_header(|header| header.request = large.clone()).field, "request");
    assert_eq!(refused_header(|header| header.metadata = large).field, "metadata");
    assert_eq!(refused_header(|header| header.resources = vec![key("a")]).field, "resources");

    let mut header = Draft::chain(1).header();
    header.description = "é".repeat(DESCRIPTION_CHARS_MAX);
    let largest = Json::encode("request", &"x".repeat(PAYLOAD_BYTES_MAX - 2)).unwrap();
    assert_eq!(largest.bytes().len(), PAYLOAD_BYTES_MAX);
    header.request = Payload::new("type.test/Thing", largest.clone()).unwrap();
    header.metadata = Payload::new("type.test/Thing", largest).unwrap();
    let plan = Plan::new(Draft::chain(1).parts).unwrap();
    assert!(Execution::accept(Acceptance { header, plan, start: true }).is_ok(), "at its limit");
}

fn named(claim: Claim, with: &str) -> Claim {
    let mut claim = claim;
    if let Intent::Create { name, .. } | Intent::Update { name, .. } = &mut claim.intent {
        with.clone_into(name);
    }
    claim
}

#[test]
fn a_plan_beyond_its_limits_is_refused() {
    let refused = |change: &dyn Fn(&mut Draft)| {
        let mut draft = Draft::chain(1);
        change(&mut draft);
        Plan::new(draft.parts).err()
    };
    let literal = || Source::Literal(json("made"));
    for parallel in [0, PARALLEL_STEPS_MAX + 1] {
        let error = refused(&|draft| draft.parts.parallel = parallel);
        assert!(matches!(error, Some(PlanError::Policy(invalid)) if invalid.field == "parallel"));
    }
    for parallel in [1, PARALLEL_STEPS_MAX] {
        assert_eq!(refused(&|draft| draft.parts.parallel = parallel), None);
    }
    let many = |count: usize| (0..count).map(|n| creates(&format!("r{n}"), literal())).collect::<Vec<_>>();
    assert_eq!(refused(&|draft| draft.parts.claims = many(CLAIMS_MAX)), None);
    let error = refused(&|draft| draft.parts.claims = many(CLAIMS_MAX + 1));
    assert_eq!(error, Some(PlanError::TooManyClaims { claims: CLAIMS_MAX + 1 }));

    // The largest that fits, to the byte, and one more.
    let sized = |more: usize| {
        let (mut claims, mut left) = (Vec::new(), CLAIM_BYTES_MAX + more);
        for n in 0..4 {
            let bare = creates(&format!("r{n}"), Source::Literal(Json::encode("", &"").unwrap()));
            let bytes = (left / (4 - n)).saturating_sub(bare.byte_len());
            let body = Source::Literal(Json::encode("", &"x".repeat(bytes)).unwrap());
            claims.push(creates(&format!("r{n}"), body));
            left -= claims[n].byte_len();
        }
        assert_eq!(left, 0);
        claims
    };
    assert_eq!(refused(&|draft| draft.parts.claims = sized(0)), None);
    let error = refused(&|draft| draft.parts.claims = sized(1));
    assert_eq!(error, Some(PlanError::ClaimsTooLarge { bytes: CLAIM_BYTES_MAX + 1 }));

    let twice = vec![creates("a", literal()), deletes(row("a", 1, ResourceStatus::Ready))];
    let error = refused(&|draft| draft.parts.claims = twice.clone());
    assert_eq!(error, Some(PlanError::RepeatedClaim(key("a"))));
}

#[test]
fn a_plan_is_as_large_as_its_names_inputs_and_edges() {
    // Of a step: its name and 8 bytes, 4 and the text of a literal input, 3 for each edge, 40 for a policy of its own.
    let sized = |bytes: usize| {
        let mut draft = Draft::of(&[&[], &[], &[], &[]]);
        draft.parts.steps[3].after = vec![s(0), s(2)];
        draft.parts.steps[1].policy = None;
        draft.parts.output = Source::Literal(json("ten bytes"));
        let mut left = bytes - (4 + 11) - 4 * (6 + 8 + 4 + 2) - 3 * 40 - 1 - 2 * 3;
        for step in &mut draft.parts.steps {
            let text = left.min(PAYLOAD_BYTES_MAX - 2);
            step.input = Input::One(Source::Literal(Json::encode("input", &"x".repeat(text)).unwrap()));
            left -= text;
        }
        Plan::new(draft.parts).err()
    };
    assert_eq!(sized(PLAN_BYTES_MAX), None);
    assert_eq!(sized(PLAN_BYTES_MAX + 1), Some(PlanError::TooLarge { bytes: PLAN_BYTES_MAX + 1 }));
    assert_eq!(sized(PLAN_BYTES_MAX + 9), Some(PlanError::TooLarge { bytes: PLAN_BYTES_MAX + 9 }));
}

#[test]
fn a_claim_is_as_large_as_the_rows_that_it_keeps() {
    // Kind, id, parent and name; a type URL and the text of the body; 64 for the rest.
    let before = row("a", 1, ResourceStatus::Ready);
    let row_bytes = 10 + 1 + 6 + 5 + (15 + 8) + 64;
    assert_eq!(before.byte_len(), row_bytes);
    assert_eq!(deletes(before.clone()).byte_len(), 64 + 1 + row_bytes);
    let becomes = Source::Literal(json("after"));
    assert_eq!((becomes.byte_len(), Source::Output(s(0)).byte_len()), (4 + 7, 3));
    assert_eq!(updates(before, becomes.clone()).byte_len(), 64 + 1 + 7 + 11 + row_bytes);
    assert_eq!(creates("a", becomes).byte_len(), 64 + 1 + 6 + 5 + (15 + 12) + 11);
}

#[test]
fn a_claim_names_a_row_of_its_own_resource_and_a_name_that_fits() {
    let refused = |claim: Claim| match Plan::new(Draft::chain(1).claims(vec![claim]).parts) {
        Err(PlanError::Claim(invalid)) => Some(invalid.field),
        Ok(_) => None,
        other => panic!("{other:?}"),
    };
    let literal = || Source::Literal(json("made"));
    let of_a = || row("a", 1, ResourceStatus::Ready);
    for claim in [creates("a", literal()), updates(of_a(), literal())] {
        assert_eq!(refused(named(claim.clone(), &"é".repeat(ROW_NAME_CHARS_MAX))), None);
        assert_eq!(refused(named(claim.clone(), "")), None);
        assert_eq!(refused(named(claim.clone(), &"é".repeat(ROW_NAME_CHARS_MAX + 1))), Some("name"));
        assert_eq!(refused(named(claim, "two\nlines")), Some("name"));
    }
    for claim in [updates(of_a(), literal()), deletes(of_a())] {
        assert_eq!(refused(Claim { key: key("b"), ..claim }), Some("before"));
    }
}

#[test]
fn a_policy_out_of_its_range_is_named() {
    let policy = StepPolicy::default();
    let field = |policy: StepPolicy| policy.check().err().map(|invalid| invalid.field);
    let year = Duration::from_secs(366 * 24 * 3600);
    let (tick, zero) = (Duration::from_millis(1), Duration::ZERO);
    let wait = |first, longest| Backoff { first, longest };
    assert_eq!(field(StepPolicy { timeout: year, grace: year, ..policy }), None);
    assert_eq!(field(StepPolicy { timeout: tick, grace: zero, ..policy }), None);
    assert_eq!(field(StepPolicy { timeout: year + tick, ..policy }), Some("timeout"));
    assert_eq!(field(StepPolicy { timeout: zero, ..policy }), Some("timeout"));
    assert_eq!(field(StepPolicy { grace: year + tick, ..policy }), Some("grace"));
    for (first, longest, fits) in [
        (tick, year, true),
        (tick, tick, true),
        (zero, tick, false),
        (tick, year + tick, false),
        (2 * tick, tick, false),
    ] {
        let backoff = wait(first, longest);
        assert_eq!(field(StepPolicy { backoff, ..policy }), (!fits).then_some("backoff"));
        let undo_backoff = wait(first, longest);
        assert_eq!(field(StepPolicy { undo_backoff, ..policy }), (!fits).then_some("undo_backoff"));
    }
    assert_eq!(field(StepPolicy { runs_max: 1, blocked_after: 1, ..policy }), None);
    assert_eq!(field(StepPolicy { blocked_after: 0, ..policy }), Some("blocked_after"));
}

#[test]
fn waits_double_to_their_bound() {
    let backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(100) };
    for (failures, full) in [(0, 1), (1, 1), (2, 2), (3, 4), (7, 64), (8, 100), (9, 100), (u32::MAX, 100)] {
        let waits: Vec<_> = (0..200).map(|seed| backoff.delay(failures, seed)).collect();
        let full = Duration::from_secs(full);
        assert!(waits.iter().all(|wait| *wait >= full / 2 && *wait <= full), "{failures}");
        // Spread over the whole of it, and the same for the same seed.
        assert!(waits.iter().any(|wait| *wait < full * 6 / 10), "{failures}");
        assert!(waits.iter().any(|wait| *wait > full * 9 / 10), "{failures}");
        assert_eq!(backoff.delay(failures, 7), waits[7]);
    }
}

#[test]
fn a_time_is_counted_in_microseconds_and_shown_as_a_date() {
    let time = Timestamp::from_unix_millis(-1).unwrap();
    assert_eq!((time.unix_micros(), time.unix_millis()), (-1000, -1));
    assert_eq!(Timestamp::from_unix_micros(-1001).unwrap().unix_millis(), -2, "rounded down");
    assert_eq!(format!("{time} {time:?}"), "1969-12-31T23:59:59.999Z 1969-12-31T23:59:59.999Z");
}

#[test]
fn a_status_is_as_large_as_its_code_its_message_and_its_details() {
    let status = Status::new(Code::Internal, "abc");
    assert_eq!(status.byte_len(), 1 + 3);
    let detail = payload("x");
    assert_eq!(
        status.with_detail(detail.clone()).with_detail(detail.clone()).byte_len(),
        4 + 2 * detail.byte_len()
    );
}

/// Those that stored records and callers rely on.
#[test]
fn limits_of_bytes_are_those_that_are_documented() {
    let kib = |bytes: usize| (bytes / 1024, bytes % 1024);
    for (limit, is) in [
        (PAYLOAD_BYTES_MAX, 32),
        (STATUS_MESSAGE_BYTES_MAX, 2),
        (STATUS_DETAILS_BYTES_MAX, 8),
        (PLAN_BYTES_MAX, 64),
        (CLAIM_BYTES_MAX, 80),
        (RECORD_BYTES_MAX, 256),
        (ENTRY_BYTES_TARGET, 128),
    ] {
        assert_eq!(kib(limit), (is, 0));
    }
}

#[test]
fn ids_go_through_text_and_json_and_are_checked_on_the_way() {
    let prefix = IdPrefix::new("opr").unwrap();
    assert_eq!(format!("{prefix:?}"), "opr");
    let id = OperationId::generate(prefix, t(0), 7);
    assert_eq!(prefix.new_resource_id(t(0), 7).as_str(), id.as_str());
    assert_eq!((format!("{id:?}"), format!("{id:>22}")), (id.to_string(), format!("  {id}")));
    assert_eq!(id.as_str().parse(), Ok(id));
    let text = serde_json::to_string(&id).unwrap();
    assert_eq!(
        (text.as_str(), serde_json::from_str::<OperationId>(&text).unwrap()),
        (&*format!("\"{id}\""), id)
    );
    assert!(serde_json::from_str::<OperationId>("\"opr\"").is_err());

    let name = KindName::new("test.make").unwrap();
    assert_eq!(KindName::from_shared("test.make".into()), Ok(name.clone()));
    assert!(KindName::from_shared("Test".into()).is_err());
    assert_eq!("test.make".parse(), Ok(name.clone()));
    assert!("Test".parse::<KindName>().is_err());
    assert_eq!(
        (format!("{name:?}"), format!("{name:>10}")),
        ("\"test.make\"".to_owned(), " test.make".to_owned())
    );
    assert_eq!(serde_json::to_string(&name).unwrap(), "\"test.make\"");
    assert_eq!(serde_json::from_str::<KindName>("\"test.make\"").unwrap(), name);
    assert!(serde_json::from_str::<KindName>("\"Test\"").is_err());
}

#[test]
fn names_callers_and_ids_hold_their_alphabets() {
    for (text, fits) in [
        ("a", true),
        ("a.b-c_9", true),
        (&*"a".repeat(64), true),
        (&*"a".repeat(65), false),
        ("", false),
        ("9a", false),
        (".a", false),
        ("aB", false),
        ("a b", false),
        ("aé", false),
    ] {
        assert_eq!(ResourceKind::new(text).is_ok(), fits, "{text}");
    }
    for (text, fits) in [
        ("aZ0-_", true),
        (&*"x".repeat(50), true),
        (&*"x".repeat(51), false),
        ("", false),
        ("a.b", false),
        ("é", false),
    ] {
        assert_eq!(ResourceId::new(text).is_ok(), fits, "{text}");
    }
    for (text, fits) in [
        (" ~", true),
        (&*"x".repeat(128), true),
        (&*"x".repeat(129), false),
        ("", false),
        ("\u{1f}", false),
        ("\u{7f}", false),
    ] {
        assert_eq!(Caller::new(text).is_ok(), fits, "{text:?}");
    }
    for (text, fits) in
        [("opr", true), ("o9z", true), ("9pr", false), ("oPr", false), ("op", false), ("oprs", false)]
    {
        assert_eq!(IdPrefix::new(text).is_ok(), fits, "{text}");
    }
}

#[test]
fn items_and_their_lives_go_through_text() {
    let item = ItemKey { kind: ResourceKind::new("test.chunk").unwrap(), id: ItemId::new([0, 255]).unwrap() };
    assert_eq!(
        (item.to_string(), format!("{:?}", item.id)),
        ("test.chunk 00ff".to_owned(), "00ff".to_owned())
    );
    assert_eq!(item.id.as_bytes(), [0, 255]);
    let life = Incarnation(42);
    let text = format!("{life:?}");
    assert_eq!((text.as_str(), text.len()), (&*life.to_string(), 32));
    let stored = serde_json::to_string(&life).unwrap();
    assert_eq!(
        (&stored, serde_json::from_str::<Incarnation>(&stored).unwrap()),
        (&format!("\"{text}\""), life)
    );
    assert!(serde_json::from_str::<Incarnation>("\"42\"").is_err());
}

#[test]
fn payloads_are_written_as_the_protocol_writes_them() {
    let of = |json: Value| serde_json::to_value(Payload::encode("m", "t/M", &json).unwrap()).unwrap();
    assert_eq!(of(value!({ "a": 1 })), value!({ "@type": "t/M", "a": 1 }));
    assert_eq!(of(value!([1])), value!({ "@type": "t/M", "value": [1] }));
    assert_eq!(of(Value::Null), value!({ "@type": "t/M" }));
    for bad in [r#"{"a":1}"#, r#"{"@type":1}"#, r#"{"@type":"no slash"}"#, "1"] {
        assert!(serde_json::from_str::<Payload>(bad).is_err(), "{bad}");
    }
    let payload = payload("x");
    assert_eq!((payload.decode::<String>().unwrap(), payload.byte_len()), ("x".to_owned(), 15 + 3));
    for (type_url, fits) in [
        ("t/M", true),
        ("/M", true),
        ("M", false),
        ("t/", false),
        ("t /M", false),
        ("", false),
        (&*format!("t/{}", "M".repeat(198)), true),
        (&*format!("t/{}", "M".repeat(199)), false),
    ] {
        assert_eq!(Payload::new(type_url, json("x")).is_ok(), fits, "{type_url}");
    }
}

#[test]
fn json_is_taken_as_it_is_and_looked_at_when_it_is_decoded() {
    let stored = Json::from_stored(Bytes::from_static(b"not json")).unwrap();
    assert!(stored.decode::<Value>().is_err() && serde_json::to_string(&stored).is_err());
    let largest = Json::from_stored(vec![b' '; PAYLOAD_BYTES_MAX].into());
    assert!(largest.is_ok());
    assert_eq!(Json::from_stored(vec![b' '; PAYLOAD_BYTES_MAX + 1].into()).unwrap_err().field, "payload");
    let json: Json = serde_json::from_str(r#"{ "a" : [1] }"#).unwrap();
    assert_eq!((&**json.bytes(), &*format!("{json:?}")), (br#"{"a":[1]}"#.as_slice(), r#"{"a":[1]}"#));
    assert_eq!(serde_json::to_string(&json).unwrap(), r#"{"a":[1]}"#);
    let large = format!("\"{}\"", "x".repeat(PAYLOAD_BYTES_MAX));
    assert!(serde_json::from_str::<Json>(&large).is_err());
    assert_eq!(&**Json::array(vec![]).bytes(), b"[]");
}

#[test]
fn what_people_read_says_what_it_is_about() {
    assert_eq!(error("boom").to_string(), "UNAVAILABLE: boom");
    assert_eq!(Fence(7).to_string(), "7");
    let status = Status::from(Invalid::new("field", "must be there"));
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "field: must be there"));
    assert_eq!(Condition::Ready(key("a")).to_string(), "test.thing a must be READY");
    let (kind, parent) = (ResourceKind::new("test.thing").unwrap(), ResourceId::new("net").unwrap());
    let childless = Condition::Childless { kind: kind.clone(), parent: parent.clone() };
    assert_eq!(childless.to_string(), "no test.thing may belong to net");
    let children = Condition::Children { kind, parent, children: Vec::new() };
    assert_eq!(children.to_string(), "every test.thing that belongs to net must be as it was");
}
