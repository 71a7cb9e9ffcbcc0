//! Every form of every stored record, as it was first written. These files never change: what is on somebody's disk does
//! not either. A new form is a new file.
//!
//! `LONGRUN_WRITE_GOLDEN=1 cargo test -p longrun-store --test golden` writes files that are missing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/scenario.rs"]
mod scenario;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::Bench;
use longrun_core::{
    Attempt, Backoff, Caller, Code, Entry, Event, Finished, Header, Incarnation, Input, Intent, Intervention,
    KindName, Outcome, Plan, PlanParts, Progress, ProgressUnit, ResourceStatus, Revision, Row, Source,
    Status, StepIndex, StepName, StepPolicy, StepSpec, Timestamp, Verb,
};
use longrun_store::conformance::records::{Form, Record};
use longrun_store::conformance::sample::{
    creates, deletes, json, operation_id, payload, resource_key, row, updates,
};
use longrun_store::{Direction, KeyRange, Kv, LedgerEntry, Table};
use scenario::Scenario;

fn at(micros: i64) -> Timestamp {
    Timestamp::from_unix_micros(1_700_000_000_000_000 + micros).unwrap()
}

fn status() -> Status {
    Status::new(Code::DataLoss, "lost, für immer").with_detail(payload("why"))
}

fn header() -> Header {
    Header {
        id: operation_id(42),
        kind: KindName::new("golden.kind").unwrap(),
        kind_version: 70_000,
        description: "a golden operation, žluťoučký".to_owned(),
        created_at: at(1),
        created_by: Caller::new("golden caller").unwrap(),
        request: payload("request"),
        metadata: payload("metadata"),
        response_type: "types.sample/Thing".into(),
        resources: vec![resource_key("a"), resource_key("b"), resource_key("c")],
        deadline: Some(at(9_000_000)),
        idempotency: Some([0xAB; 32]),
    }
}

fn small_header() -> Header {
    Header {
        description: String::new(),
        resources: Vec::new(),
        deadline: None,
        idempotency: None,
        ..header()
    }
}

fn step(name: &str, input: Input, after: &[u16], policy: Option<StepPolicy>) -> StepSpec {
    let after = after.iter().copied().map(StepIndex).collect();
    StepSpec { name: StepName::new(name).unwrap(), version: 300, input, after, policy }
}

fn plan() -> Plan {
    let policy = StepPolicy {
        timeout: Duration::from_millis(1001),
        grace: Duration::from_millis(1002),
        runs_max: 1003,
        backoff: Backoff { first: Duration::from_millis(1004), longest: Duration::from_millis(1005) },
        undo_backoff: Backoff { first: Duration::from_millis(1006), longest: Duration::from_millis(1007) },
        blocked_after: 1008,
    };
    let before = Row { operation: None, ..row("b", "folder", 250) };
    let mut update = updates(before);
    if let Intent::Update { status, becomes, .. } = &mut update.intent {
        (*status, *becomes) = (ResourceStatus::Error, Source::Output(StepIndex(1)));
    }
    Plan::new(PlanParts {
        steps: vec![
            step("first", Input::One(Source::Literal(json("literal"))), &[], Some(policy)),
            step("second", Input::One(Source::Output(StepIndex(0))), &[], None),
            step(
                "third",
                Input::Tuple(vec![Source::Output(StepIndex(1)), Source::Literal(json("x"))]),
                &[0, 1],
                None,
            ),
        ],
        output: Source::Output(StepIndex(2)),
        point_of_no_return: Some(StepIndex(2)),
        parallel: 64,
        claims: vec![
            creates("a", "folder"),
            update,
            deletes(Row { status: ResourceStatus::Error, ..row("c", "p", 1) }),
        ],
    })
    .unwrap()
}

fn small_plan() -> Plan {
    Plan::new(PlanParts {
        steps: vec![step("only", Input::Tuple(Vec::new()), &[], None)],
        output: Source::Literal(json("literal")),
        point_of_no_return: None,
        parallel: 1,
        claims: Vec::new(),
    })
    .unwrap()
}

fn entry(first: u64, revision: u64, events: Vec<Event>) -> Entry {
    Entry {
        first: Revision(first),
        revision: Revision(revision),
        at: at(i64::try_from(revision).unwrap()),
        events,
    }
}

fn intervened(verb: Verb) -> Intervention {
    Intervention { at: at(77), by: Caller::new("operator").unwrap(), verb, reason: "it was time".to_owned() }
}

fn events() -> Vec<(&'static str, Event)> {
    let (step, again_at) = (StepIndex(515), at(5_000_000));
    let progress = |unit| Some(Progress { done: 1, total: 70_000, unit });
    vec![
        ("step_started", Event::StepStarted { step, attempt: Attempt(2) }),
        ("step_done", Event::StepDone { step, output: json("output") }),
        (
            "step_failed_for_now",
            Event::StepFailedForNow {
                step,
                attempt: Attempt(3),
                failures: 2,
                may_have_run: true,
                error: status(),
                again_at,
            },
        ),
        ("step_failed", Event::StepFailed { step, may_have_run: false, error: status() }),
        (
            "step_interrupted",
            Event::StepInterrupted { step, attempt: Attempt(4), interruptions: 3, again_at },
        ),
        (
            "checkpoint_bytes",
            Event::Checkpoint { step, checkpoint: json("at"), progress: progress(ProgressUnit::Bytes) },
        ),
        (
            "checkpoint_items",
            Event::Checkpoint { step, checkpoint: json("at"), progress: progress(ProgressUnit::Items) },
        ),
        ("checkpoint_alone", Event::Checkpoint { step, checkpoint: json("at"), progress: None }),
        ("rollback_of_step", Event::RollbackDecided { cause: status(), step: Some(step) }),
        ("rollback", Event::RollbackDecided { cause: Status::new(Code::Cancelled, ""), step: None }),
        ("undone", Event::Undone { step }),
        ("undo_failed", Event::UndoFailed { step, failures: 9, error: status(), again_at }),
        ("undo_interrupted", Event::UndoInterrupted { step, interruptions: 8, again_at: Some(again_at) }),
        ("undo_interrupted_again_at_once", Event::UndoInterrupted { step, interruptions: 8, again_at: None }),
        ("undo_wait_over", Event::UndoWaitOver { step }),
        ("retry_now", Event::Intervened(intervened(Verb::RetryNow))),
        ("mark_undone", Event::Intervened(intervened(Verb::MarkUndone(step)))),
        ("skip_undo", Event::Intervened(intervened(Verb::SkipUndo(step)))),
        ("abandon", Event::Intervened(intervened(Verb::Abandon))),
        ("succeeded", Event::Succeeded { response: payload("response") }),
        ("rolled_back", Event::RolledBack),
    ]
}

fn finished(outcome: Outcome, failed: bool) -> Record {
    let interventions =
        [Verb::RetryNow, Verb::SkipUndo(StepIndex(1)), Verb::Abandon].map(intervened).to_vec();
    Record::Finished {
        header: Arc::new(if failed { header() } else { small_header() }),
        revision: Revision(1 << 40),
        modified_at: at(123_456),
        finished: Arc::new(Finished {
            outcome,
            failed_step: failed.then(|| StepName::new("third").unwrap()),
            attempts: vec![1, 0, 70_000],
            interventions: if failed { interventions } else { Vec::new() },
        }),
    }
}

/// Every form there is.
fn records() -> Vec<(String, Record)> {
    let started = |step| Event::StepStarted { step: StepIndex(step), attempt: Attempt(1) };
    let ledger = |expires_at| LedgerEntry { operation: operation_id(7), fingerprint: [0xCD; 32], expires_at };
    let mut records = vec![
        (
            "head_active".to_owned(),
            Record::Active {
                header: Arc::new(header()),
                plan: Arc::new(plan()),
                first: entry(1, 1, vec![started(0)]),
            },
        ),
        (
            "head_active_small".to_owned(),
            Record::Active {
                header: Arc::new(small_header()),
                plan: Arc::new(small_plan()),
                first: entry(1, 1, Vec::new()),
            },
        ),
        ("head_response".to_owned(), finished(Outcome::Response(payload("response")), false)),
        ("head_error".to_owned(), finished(Outcome::Error(status()), true)),
        ("head_abandoned".to_owned(), finished(Outcome::Abandoned(status()), true)),
        (
            "entry_of_several".to_owned(),
            Record::Entry(entry(3, 70_000, vec![started(0), started(300), Event::RolledBack])),
        ),
        ("ledger_of_operation".to_owned(), Record::Ledger(ledger(None))),
        ("ledger_expiring".to_owned(), Record::Ledger(ledger(Some(at(1))))),
        ("number_small".to_owned(), Record::Number(7)),
        ("number_large".to_owned(), Record::Number(u64::MAX)),
        (
            "item".to_owned(),
            Record::Item {
                incarnation: Incarnation(0x0123_4567_89AB_CDEF << 64),
                references: 70_000,
                confirmed: true,
            },
        ),
        ("reference".to_owned(), Record::Reference(Incarnation(u128::MAX - 1))),
        ("secret".to_owned(), Record::Secret(std::array::from_fn(|place| u8::try_from(place).unwrap()))),
    ];
    for (name, event) in events() {
        records.push((format!("entry_{name}"), Record::Entry(entry(2, 2, vec![event]))));
    }
    for status in ResourceStatus::ALL {
        let free = Row {
            status,
            name: "jméno".to_owned(),
            created_at: Timestamp::MIN,
            modified_at: Timestamp::MAX,
            ..row("r", "folder", 3)
        };
        let held = Row { operation: Some(operation_id(1)), ..free.clone() };
        let name = status.name().to_lowercase();
        records.push((format!("row_{name}"), Record::Row(free)));
        records.push((format!("row_{name}_held"), Record::Row(held)));
    }
    records
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn hex(bytes: &[u8]) -> String {
    bytes.chunks(32).fold(String::new(), |mut text, line| {
        for byte in line {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn write_missing() -> bool {
    std::env::var_os("LONGRUN_WRITE_GOLDEN").is_some()
}

#[test]
fn every_record_is_written_as_it_ever_was() {
    for (name, record) in records() {
        let path = folder().join(format!("{name}.hex"));
        let bytes = record.encode().unwrap();
        if write_missing() && !path.exists() {
            fs::write(&path, hex(&bytes)).unwrap();
        }
        let golden = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(hex(&bytes), golden, "{name}");
    }
}

#[test]
fn every_record_that_was_ever_written_is_read() {
    for (name, record) in records() {
        let Ok(golden) = fs::read_to_string(folder().join(format!("{name}.hex"))) else {
            assert!(write_missing(), "{name}");
            continue;
        };
        assert_eq!(record.form().decode(&unhex(&golden)), Ok(record), "{name}");
    }
}

#[test]
fn no_golden_file_was_forgotten() {
    let known: BTreeSet<String> = records().into_iter().map(|(name, _)| format!("{name}.hex")).collect();
    assert_eq!(known.len(), records().len(), "two records of one name");
    let found = fs::read_dir(folder()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let found: BTreeSet<String> = found.filter(|name| name.ends_with(".hex")).collect();
    assert_eq!(found, known);
    // Nothing reads as something else.
    for (name, record) in records() {
        for form in Form::ALL.into_iter().filter(|form| *form != record.form()) {
            assert!(form.decode(&record.encode().unwrap()).is_err(), "{name} read as {form:?}");
        }
    }
}

/// The layout of keys, from a store that has every kind of them. It has no other golden file: a key has no version.
#[test]
fn keys_are_laid_out_as_they_ever_were() {
    let bench = Bench::inline();
    Scenario::new(&bench.store, &bench.faults, bench.fence).run();
    let mut keys = BTreeSet::new();
    // Over the whole history, so that what is removed in the end is seen too.
    for batch in bench.faults.history() {
        for write in batch.writes {
            keys.insert(format!("{} {}\n", write.table.name(), write.key.escape_ascii()));
        }
    }
    let tables = |table: &Table| keys.iter().any(|key| key.starts_with(&format!("{} ", table.name())));
    assert!(Table::ALL.iter().all(tables));
    let found: String = keys.into_iter().collect();
    let path = folder().join("keys.txt");
    if write_missing() && !path.exists() {
        fs::write(&path, &found).unwrap();
    }
    assert_eq!(found, fs::read_to_string(path).unwrap());
    let left = bench.kv.scan(Table::Meta, &KeyRange::prefix(b""), Direction::Forward, 10).unwrap();
    assert_eq!(left.len(), 3);
}
