//! Records of any content come back as they were; bytes of any content are an error, never a panic.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use longrun_core::{
    Attempt, Backoff, Caller, Claim, Code, Entry, Event, Finished, Header, Incarnation, Input, Intent,
    Intervention, Json, KindName, OperationId, Outcome, Payload, Plan, PlanParts, Progress, ProgressUnit,
    ResourceId, ResourceKey, ResourceKind, ResourceStatus, Revision, Row, Source, Status, StepIndex,
    StepName, StepPolicy, StepSpec, Timestamp, Verb,
};
use longrun_store::LedgerEntry;
use longrun_store::codec::CodecError;
use longrun_store::conformance::records::{Form, Record, reseal};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn time() -> impl Strategy<Value = Timestamp> {
    (Timestamp::MIN.unix_micros()..=Timestamp::MAX.unix_micros())
        .prop_map(|micros| Timestamp::from_unix_micros(micros).unwrap())
}

fn operation_id() -> impl Strategy<Value = OperationId> {
    "[a-z][a-z0-9]{2}[0-9a-v]{17}".prop_map(|text| OperationId::parse(&text).unwrap())
}

fn resource_id() -> impl Strategy<Value = ResourceId> {
    "[A-Za-z0-9_-]{1,50}".prop_map(|text| ResourceId::new(text).unwrap())
}

fn resource_key() -> impl Strategy<Value = ResourceKey> {
    ("[a-z][a-z0-9._-]{0,63}", resource_id())
        .prop_map(|(kind, id)| ResourceKey { kind: ResourceKind::new(kind).unwrap(), id })
}

fn caller() -> impl Strategy<Value = Caller> {
    "[ -~]{1,128}".prop_map(|text| Caller::new(text).unwrap())
}

fn json() -> impl Strategy<Value = Json> {
    // The store does not look into it: any bytes.
    vec(any::<u8>(), 0..200).prop_map(|bytes| Json::from_stored(bytes.into()).unwrap())
}

fn payload() -> impl Strategy<Value = Payload> {
    ("[!-~]{0,50}/[!-.0-~]{1,50}", json()).prop_map(|(url, json)| Payload::new(url, json).unwrap())
}

fn code() -> impl Strategy<Value = Code> {
    (1_u8..=16).prop_map(|number| Code::from_number(number).unwrap())
}

fn status() -> impl Strategy<Value = Status> {
    (code(), ".{0,100}", vec(payload(), 0..3)).prop_map(|(code, message, details)| {
        details.into_iter().fold(Status::new(code, message), Status::with_detail)
    })
}

fn resource_status() -> impl Strategy<Value = ResourceStatus> {
    proptest::sample::select(ResourceStatus::ALL.to_vec())
}

fn row() -> impl Strategy<Value = Row> {
    let key = (resource_key(), resource_id(), ".{0,100}", resource_status(), any::<u64>());
    (key, time(), time(), option::of(operation_id()), payload()).prop_map(
        |((key, parent, name, status, revision), created_at, modified_at, operation, body)| Row {
            key,
            parent,
            name,
            status,
            revision: Revision(revision),
            created_at,
            modified_at,
            operation,
            body,
        },
    )
}

fn header() -> impl Strategy<Value = Header> {
    let names = (operation_id(), "[a-z][a-z0-9._-]{0,63}", any::<u32>(), ".{0,256}", caller());
    let times = (time(), option::of(time()));
    let payloads = (payload(), payload(), "[!-~]{0,50}/[!-.0-~]{1,50}");
    (names, times, payloads, vec(resource_key(), 0..8), option::of(any::<[u8; 32]>())).prop_map(
        |(
            (id, kind, kind_version, description, created_by),
            (created_at, deadline),
            (request, metadata, response_type),
            resources,
            idempotency,
        )| Header {
            id,
            kind: KindName::new(kind).unwrap(),
            kind_version,
            description,
            created_at,
            created_by,
            request,
            metadata,
            response_type: response_type.into(),
            resources,
            deadline,
            idempotency,
        },
    )
}

fn policy() -> impl Strategy<Value = StepPolicy> {
    let wait = || 1_u64..31_622_400_000;
    let backoff = || {
        (wait(), wait()).prop_map(|(a, b)| Backoff {
            first: Duration::from_millis(a.min(b)),
            longest: Duration::from_millis(a.max(b)),
        })
    };
    (wait(), wait(), 1_u32.., backoff(), backoff(), 1_u32..).prop_map(
        |(timeout, grace, runs_max, backoff, undo_backoff, blocked_after)| StepPolicy {
            timeout: Duration::from_millis(timeout),
            grace: Duration::from_millis(grace),
            runs_max,
            backoff,
            undo_backoff,
            blocked_after,
        },
    )
}

/// A value that may use the outputs of the steps before `step`.
fn source(step: u16) -> BoxedStrategy<Source> {
    let literal = json().prop_map(Source::Literal);
    if step == 0 {
        return literal.boxed();
    }
    prop_oneof![literal, (0..step).prop_map(|on| Source::Output(StepIndex(on)))].boxed()
}

fn step_spec(step: u16) -> impl Strategy<Value = StepSpec> {
    let input =
        prop_oneof![source(step).prop_map(Input::One), vec(source(step), 0..4).prop_map(Input::Tuple),];
    let after = if step == 0 { Just(Vec::new()).boxed() } else { vec(0..step, 0..3).boxed() };
    ("[a-z][a-z0-9._-]{0,63}", any::<u32>(), input, after, option::of(policy())).prop_map(
        |(name, version, input, after, policy)| StepSpec {
            name: StepName::new(name).unwrap(),
            version,
            input,
            after: after.into_iter().map(StepIndex).collect(),
            policy,
        },
    )
}

fn claim(steps: u16) -> impl Strategy<Value = Claim> {
    let before = |key: ResourceKey, row: Row| Row { key, status: ResourceStatus::Ready, ..row };
    let create = (resource_key(), resource_id(), ".{0,100}", payload(), source(steps)).prop_map(
        |(key, parent, name, body, becomes)| Claim {
            key,
            intent: Intent::Create { parent, name, body, becomes },
        },
    );
    let update = (resource_key(), row(), ".{0,100}", any::<bool>(), source(steps)).prop_map(
        move |(key, row, name, damaged, becomes)| {
            let before = Box::new(before(key.clone(), row));
            let status = if damaged { ResourceStatus::Error } else { ResourceStatus::Ready };
            Claim { key, intent: Intent::Update { before, name, status, becomes } }
        },
    );
    let delete = (resource_key(), row()).prop_map(move |(key, row)| {
        let before = Box::new(before(key.clone(), row));
        Claim { key, intent: Intent::Delete { before } }
    });
    prop_oneof![create, update, delete]
}

fn plan() -> impl Strategy<Value = Plan> {
    (1_u16..6).prop_flat_map(|steps| {
        let specs: Vec<_> = (0..steps).map(step_spec).collect();
        let no_return = option::of((0..steps).prop_map(StepIndex));
        (specs, source(steps), no_return, 1_u16..=64, vec(claim(steps), 0..3)).prop_filter_map(
            "two claims of one resource",
            |(steps, output, point_of_no_return, parallel, claims)| {
                Plan::new(PlanParts { steps, output, point_of_no_return, parallel, claims }).ok()
            },
        )
    })
}

fn step() -> impl Strategy<Value = StepIndex> {
    any::<u16>().prop_map(StepIndex)
}

fn verb() -> impl Strategy<Value = Verb> {
    prop_oneof![
        Just(Verb::RetryNow),
        step().prop_map(Verb::MarkUndone),
        step().prop_map(Verb::SkipUndo),
        Just(Verb::Abandon),
    ]
}

fn intervention() -> impl Strategy<Value = Intervention> {
    (time(), caller(), verb(), ".{0,100}").prop_map(|(at, by, verb, reason)| Intervention {
        at,
        by,
        verb,
        reason,
    })
}

fn progress() -> impl Strategy<Value = Progress> {
    (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(done, total, bytes)| Progress {
        done,
        total,
        unit: if bytes { ProgressUnit::Bytes } else { ProgressUnit::Items },
    })
}

fn event() -> impl Strategy<Value = Event> {
    let count = any::<u32>;
    let attempt = || any::<u32>().prop_map(Attempt);
    prop_oneof![
        (step(), attempt()).prop_map(|(step, attempt)| Event::StepStarted { step, attempt }),
        (step(), json()).prop_map(|(step, output)| Event::StepDone { step, output }),
        (step(), attempt(), count(), any::<bool>(), status(), time()).prop_map(
            |(step, attempt, failures, may_have_run, error, again_at)| Event::StepFailedForNow {
                step,
                attempt,
                failures,
                may_have_run,
                error,
                again_at
            }
        ),
        (step(), any::<bool>(), status()).prop_map(|(step, may_have_run, error)| Event::StepFailed {
            step,
            may_have_run,
            error
        }),
        (step(), attempt(), count(), time()).prop_map(|(step, attempt, interruptions, again_at)| {
            Event::StepInterrupted { step, attempt, interruptions, again_at }
        }),
        (step(), json(), option::of(progress())).prop_map(|(step, checkpoint, progress)| Event::Checkpoint {
            step,
            checkpoint,
            progress
        }),
        (status(), option::of(step())).prop_map(|(cause, step)| Event::RollbackDecided { cause, step }),
        step().prop_map(|step| Event::Undone { step }),
        (step(), count(), status(), time()).prop_map(|(step, failures, error, again_at)| Event::UndoFailed {
            step,
            failures,
            error,
            again_at
        }),
        (step(), count(), option::of(time())).prop_map(|(step, interruptions, again_at)| {
            Event::UndoInterrupted { step, interruptions, again_at }
        }),
        step().prop_map(|step| Event::UndoWaitOver { step }),
        intervention().prop_map(Event::Intervened),
        payload().prop_map(|response| Event::Succeeded { response }),
        Just(Event::RolledBack),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    (any::<u64>(), any::<u64>(), time(), vec(event(), 0..6)).prop_map(|(first, revision, at, events)| Entry {
        first: Revision(first),
        revision: Revision(revision),
        at,
        events,
    })
}

fn finished() -> impl Strategy<Value = Finished> {
    let outcome = prop_oneof![
        payload().prop_map(Outcome::Response),
        status().prop_map(Outcome::Error),
        status().prop_map(Outcome::Abandoned),
    ];
    let failed = option::of("[a-z][a-z0-9._-]{0,63}".prop_map(|name| StepName::new(name).unwrap()));
    (outcome, failed, vec(any::<u32>(), 0..50), vec(intervention(), 0..4)).prop_map(
        |(outcome, failed_step, attempts, interventions)| Finished {
            outcome,
            failed_step,
            attempts,
            interventions,
        },
    )
}

fn record() -> impl Strategy<Value = Record> {
    prop_oneof![
        (header(), plan(), entry()).prop_map(|(header, plan, first)| Record::Active {
            header: Arc::new(header),
            plan: Arc::new(plan),
            first
        }),
        (header(), any::<u64>(), time(), finished()).prop_map(|(header, revision, modified_at, finished)| {
            Record::Finished {
                header: Arc::new(header),
                revision: Revision(revision),
                modified_at,
                finished: Arc::new(finished),
            }
        }),
        entry().prop_map(Record::Entry),
        row().prop_map(Record::Row),
        (operation_id(), any::<[u8; 32]>(), option::of(time())).prop_map(
            |(operation, fingerprint, expires_at)| Record::Ledger(LedgerEntry {
                operation,
                fingerprint,
                expires_at
            })
        ),
        any::<u64>().prop_map(Record::Number),
        any::<[u8; 32]>().prop_map(Record::Secret),
        (any::<u128>(), 1..u64::MAX, any::<bool>()).prop_map(|(life, references, confirmed)| Record::Item {
            incarnation: Incarnation(life),
            references,
            confirmed,
        }),
        any::<u128>().prop_map(|life| Record::Reference(Incarnation(life))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_record_comes_back_as_it_was(record in record()) {
        let bytes = record.encode().unwrap();
        prop_assert_eq!(record.form().decode(&bytes), Ok(record));
    }

    #[test]
    fn a_record_of_one_form_is_none_of_another(record in record()) {
        let bytes = record.encode().unwrap();
        for form in Form::ALL {
            prop_assert_eq!(form.decode(&bytes).is_ok(), form == record.form());
        }
    }

    #[test]
    fn random_bytes_are_an_error(bytes in vec(any::<u8>(), 0..300)) {
        for form in Form::ALL {
            prop_assert!(form.decode(&bytes).is_err());
        }
    }

    #[test]
    fn random_bytes_in_a_good_envelope_never_panic(mut bytes in vec(any::<u8>(), 12..600)) {
        for form in Form::ALL {
            bytes[..4].copy_from_slice(&[0x4C, form.record_type() as u8, 0, 1]);
            reseal(&mut bytes);
            if let Ok(record) = form.decode(&bytes) {
                // What was read is a record: it comes back. Not always in the same bytes, a number may be written longer
                // than it has to be.
                prop_assert_eq!(form.decode(&record.encode().unwrap()), Ok(record));
            }
        }
    }

    #[test]
    fn changed_bytes_are_found(record in record(), place: prop::sample::Index, change in 1_u8..) {
        let mut bytes = record.encode().unwrap();
        *place.get_mut(&mut bytes) ^= change;
        prop_assert!(record.form().decode(&bytes).is_err());
    }

    #[test]
    fn cut_and_lengthened_bytes_are_found(record in record(), place: prop::sample::Index, more in vec(any::<u8>(), 1..20)) {
        let bytes = record.encode().unwrap();
        let cut = &bytes[..place.index(bytes.len())];
        prop_assert!(record.form().decode(cut).is_err());
        prop_assert_eq!(record.form().decode(&[bytes.clone(), more].concat()), Err(CodecError::Length));
    }

    #[test]
    fn changes_in_a_good_envelope_never_panic(
        record in record(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in option::of(any::<prop::sample::Index>()),
        more in vec(any::<u8>(), 0..20),
    ) {
        let mut bytes = record.encode().unwrap();
        for (place, value) in changes {
            let place = 12 + place.index(bytes.len() - 12);
            bytes[place] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(12 + cut.index(bytes.len() - 12));
        }
        bytes.extend(more);
        reseal(&mut bytes);
        if let Ok(found) = record.form().decode(&bytes) {
            prop_assert_eq!(found.form(), record.form());
        }
    }
}
