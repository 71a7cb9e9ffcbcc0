//! The tables: how they come to be, what people see in them, and what must never fail a commit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use common::{Place, place, server};
use futures_util::future::join_all;
use longrun_core::{Code, Fence, Json, Payload, Status, Timestamp};
use longrun_postgres::tokio_postgres::SimpleQueryMessage;
use longrun_postgres::{OpenError, PostgresOptions, PostgresStore};
use longrun_store::conformance::sample::{Draft, assert_same, creates, operation_id, parent, resource_key};
use longrun_store::{Cluster, Store, Wanted};

mod common;

/// The version of the tables.
const NEWEST: i64 = 3;

async fn opened() -> Option<(Place, PostgresStore, Fence)> {
    let place = place()?;
    let store = place.open().await;
    let fence = store.take_over().await.unwrap();
    Some((place, store, fence))
}

/// The first columns of all rows, as text.
async fn table(place: &Place, text: &str) -> Vec<Vec<String>> {
    let rows = place.client().await.simple_query(&place.sql(text)).await.unwrap();
    let mut found = Vec::new();
    for row in rows {
        if let SimpleQueryMessage::Row(row) = row {
            found.push((0..row.len()).map(|n| row.get(n).unwrap_or("NULL").to_owned()).collect());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_nodes_open_an_empty_database_at_once() {
    let Some(place) = place() else { return };
    let stores = join_all((0..16).map(|_| PostgresStore::open(place.options()))).await;
    let stores: Vec<_> = stores.into_iter().map(Result::unwrap).collect();
    assert!(stores.iter().all(|store| store.id() == stores[0].id()));
    assert_eq!(place.count("SELECT max(version)::bigint FROM longrun.migrations").await, NEWEST);
    assert_eq!(place.count("SELECT count(*) FROM longrun.migrations").await, NEWEST);
    let fences: std::collections::BTreeSet<_> =
        join_all(stores.iter().map(Store::take_over)).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(fences.len(), stores.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_may_have_the_name_of_a_word_of_sql() {
    let Some(server) = server() else { return };
    for schema in ["order", "user", "longrun", "mylongrun", "_1"] {
        let place = Place { address: server.address(), schema: schema.to_owned() };
        let store = place.open().await;
        let fence = store.take_over().await.unwrap();
        store.commit(Draft::chain(1, 1).accept(fence).1).await.unwrap();
        assert!(store.load(operation_id(1)).await.unwrap().is_some());
        drop(place.open().await);
    }
}

/// Who may not make a schema uses the one that was made for him.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_schema_may_be_there_already() {
    let Some(place) = place() else { return };
    let role = format!("role_{}", place.schema);
    let text = format!("CREATE ROLE {role} LOGIN; CREATE SCHEMA {} AUTHORIZATION {role}", place.schema);
    place.execute(&text).await;
    let address = place.address.replace("user=longrun", &format!("user={role}"));
    for _ in 0..2 {
        let store = PostgresStore::open(common::options(&address, &place.schema)).await.unwrap();
        let fence = store.take_over().await.unwrap();
        store.commit(Draft::chain(fence.0, 1).accept(fence).1).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newer_tables_are_used_by_those_who_may() {
    let Some((place, store, _)) = opened().await else { return };
    drop(store);
    place.execute("INSERT INTO longrun.migrations (version, oldest_program) VALUES (7, 1)").await;
    drop(place.open().await);
    place.execute("INSERT INTO longrun.migrations (version, oldest_program) VALUES (8, 4)").await;
    let refused = PostgresStore::open(place.options()).await.unwrap_err();
    assert!(matches!(refused, OpenError::FutureSchema { found: 8, oldest: 4, known: 3 }), "{refused:?}");
    place.execute("DELETE FROM longrun.migrations WHERE version > 3; DELETE FROM longrun.meta").await;
    let refused = PostgresStore::open(place.options()).await.unwrap_err();
    assert!(matches!(refused, OpenError::Incomplete), "{refused:?}");
}

/// A node of the older program works on while newer ones make its tables new, and afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c18_older_tables_are_made_new_while_operations_are_in_flight() {
    let Some(place) = place() else { return };
    let older = || place.options().knows_tables_until(1);
    let old = PostgresStore::open(older()).await.unwrap();
    assert_eq!(place.count("SELECT max(version)::bigint FROM longrun.migrations").await, 1);
    let fence = old.take_over().await.unwrap();
    let (mut worked_on, commit) = Draft::chain(1, 200).accept(fence);
    old.commit(commit).await.unwrap();
    for n in 2..10 {
        old.commit(Draft::chain(n, 1).accept(fence).1.by_visitor()).await.unwrap();
    }

    let work = async {
        for step in 0..100 {
            old.commit(worked_on.done(fence, step)).await.unwrap();
        }
    };
    let ((), stores) = tokio::join!(work, join_all((0..4).map(|_| PostgresStore::open(place.options()))));
    let stores: Vec<_> = stores.into_iter().map(Result::unwrap).collect();
    assert_eq!(place.count("SELECT count(*) FROM longrun.migrations").await, NEWEST);
    for step in 100..150 {
        old.commit(worked_on.done(fence, step)).await.unwrap();
    }

    let node = stores[0].take_over().await.unwrap();
    let wanted = Wanted { until: Timestamp::MAX, limit: 100, kinds: None, except: Vec::new() };
    let claimed = stores[0].claim(node, &wanted).await.unwrap();
    assert_eq!(claimed.len(), 8, "what nobody works on, and nothing else");
    assert_eq!(stores[1].due(Timestamp::MAX, None, 100).await.unwrap().len(), 9);
    // The older program leaves newer tables as they are, and is at home in them.
    let again = PostgresStore::open(older()).await.unwrap();
    assert_eq!(place.count("SELECT max(version)::bigint FROM longrun.migrations").await, NEWEST);
    let mut last = claimed.last().map(|claimed| claimed.due).unwrap();
    last.at = Timestamp::MIN;
    assert!(again.claim(again.take_over().await.unwrap(), &wanted).await.unwrap().is_empty());
    assert_eq!(again.due(Timestamp::MAX, Some(last), 100).await.unwrap().len(), 9);
    assert_same(&stores[2].load(operation_id(1)).await.unwrap().unwrap(), &worked_on.execution);
}

/// As one that has accepted something in a transaction of a service's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_made_new_when_who_writes_to_them_has_ended() {
    let Some(place) = place() else { return };
    let old = PostgresStore::open(place.options().knows_tables_until(1)).await.unwrap();
    let mut client = place.client().await;
    let writer = client.transaction().await.unwrap();
    let text = place.sql("LOCK TABLE longrun.operations IN ROW EXCLUSIVE MODE");
    writer.batch_execute(&text).await.unwrap();
    let opens = tokio::spawn(PostgresStore::open(place.options()));
    place.blocked(1).await;
    assert!(old.load(operation_id(1)).await.unwrap().is_none(), "readers do not wait behind it");
    let fence = old.take_over().await.unwrap();
    old.commit(Draft::chain(1, 1).accept(fence).1).await.unwrap();
    writer.commit().await.unwrap();
    assert!(opens.await.unwrap().unwrap().load(operation_id(1)).await.unwrap().is_some());
    assert_eq!(place.count("SELECT max(version)::bigint FROM longrun.migrations").await, NEWEST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_does_not_hold_every_text_is_refused() {
    let Some(server) = server() else { return };
    let client = common::connect(&server.address()).await;
    client.batch_execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0").await.unwrap();
    let address = server.address().replace("dbname=postgres", "dbname=latin");
    let refused = PostgresStore::open(common::options(&address, "longrun")).await.unwrap_err();
    assert!(matches!(&refused, OpenError::Encoding(found) if found == "LATIN1"), "{refused:?}");
}

/// B3: the field is named.
#[tokio::test]
async fn b3_bad_options_are_told_by_name() {
    let options = || PostgresOptions::new("host=/nowhere user=longrun");
    let second = Duration::from_secs(1);
    let open = async |options| PostgresStore::open(options).await.unwrap_err();
    for schema in ["", "Upper", "with space", "a;b", "\"", "pg_mine", "1st", &"x".repeat(49), "ü", "a.b"] {
        let error = open(options().schema(schema)).await;
        assert!(matches!(error, OpenError::Schema(_)) && error.to_string().starts_with("schema:"), "{error}");
    }
    let long = Duration::from_secs(3601);
    for (options, field) in [
        (options().connections_max(1), "connections_max"),
        (options().connections_max(1001), "connections_max"),
        (options().statement_timeout(Duration::ZERO), "statement_timeout"),
        (options().statement_timeout(long), "statement_timeout"),
        (options().connect_timeout(Duration::from_nanos(1)), "connect_timeout"),
        (options().connect_timeout(Duration::MAX), "connect_timeout"),
        (options().lease(Duration::ZERO), "lease"),
        (options().lease(long), "lease"),
    ] {
        let error = open(options).await;
        assert!(matches!(error, OpenError::Limit { field: found, .. } if found == field), "{error:?}");
        assert!(error.to_string().starts_with(field), "{error}");
    }
    for address in ["nonsense", "postgres://[", "host=a port=x", "port=99999999"] {
        let error = open(PostgresOptions::new(address)).await;
        assert!(matches!(error, OpenError::Address(_)), "{error:?}");
    }
    let error = open(options().root_certificates("none")).await;
    assert!(matches!(error, OpenError::Certificates(_)), "{error:?}");
    for address in ["host=/nowhere user=longrun", "host=127.0.0.1 port=1 user=longrun", "user=longrun"] {
        let error = open(PostgresOptions::new(address).connect_timeout(second)).await;
        assert!(matches!(error, OpenError::Unreachable(_)), "{error:?}");
    }
    assert!(matches!(
        std::thread::spawn(|| longrun_store::conformance::wait(PostgresStore::open(PostgresOptions::new(
            "host=/nowhere"
        ))))
        .join()
        .unwrap()
        .unwrap_err(),
        OpenError::NoRuntime
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_see_how_an_operation_stands() {
    let Some((place, store, fence)) = opened().await else { return };
    let operations = "SELECT phase, error_code, error_message, done_at IS NOT NULL, node IS NOT NULL
        FROM longrun.operations ORDER BY id DESC LIMIT 1";
    let steps = "SELECT step, name, state FROM longrun.steps
        WHERE operation = (SELECT max(id) FROM longrun.operations) ORDER BY step";
    let resources = "SELECT id, parent, name, status, operation IS NOT NULL, body FROM longrun.resources ORDER BY id DESC LIMIT 1";

    // During a run, and after a success.
    let (mut live, commit) = Draft::chain(1, 2).with(creates("a", "folder")).accept(fence);
    store.commit(commit).await.unwrap();
    assert_eq!(table(&place, operations).await, [["pending", "NULL", "NULL", "f", "t"]]);
    assert_eq!(table(&place, steps).await, [["0", "step-0", "running"], ["1", "step-1", "waiting"]]);
    let body = "\"being made\"";
    assert_eq!(table(&place, resources).await, [["a", "folder", "name of a", "CREATING", "t", body]]);
    store.commit(live.done(fence, 0)).await.unwrap();
    assert_eq!(table(&place, steps).await, [["0", "step-0", "done"], ["1", "step-1", "running"]]);
    store.commit(live.fails(fence, 1, true)).await.unwrap();
    assert_eq!(table(&place, steps).await[1], ["1", "step-1", "waiting to run again"]);
    live = live.at(1000);
    store.commit(live.resume(fence)).await.unwrap();
    assert_eq!(table(&place, steps).await[1], ["1", "step-1", "running"]);
    store.commit(live.done(fence, 1)).await.unwrap();
    assert_eq!(table(&place, operations).await, [["succeeded", "NULL", "NULL", "t", "f"]]);
    assert_eq!(table(&place, steps).await, [["0", "step-0", "done"], ["1", "step-1", "done"]]);
    assert_eq!(table(&place, resources).await, [["a", "folder", "name of a", "READY", "f", "\"output 0\""]]);
    let payloads =
        "SELECT request #>> '{}', metadata #>> '{}', response #>> '{}', steps FROM longrun.operation_records";
    assert_eq!(table(&place, payloads).await, [["request", "metadata", "output 1", "{step-0,step-1}"]]);

    // During a rollback, and after it.
    let (mut live, commit) = Draft::chain(2, 2).with(creates("b", "folder")).accept(fence);
    store.commit(commit).await.unwrap();
    store.commit(live.done(fence, 0)).await.unwrap();
    store.commit(live.fails_without_effect(fence, 1)).await.unwrap();
    assert_eq!(
        table(&place, operations).await,
        [["rolling back", "UNAVAILABLE", "the run was refused", "f", "t"]]
    );
    assert_eq!(table(&place, steps).await[1], ["1", "step-1", "failed"]);
    assert_eq!(table(&place, resources).await[0][3], "DELETING");
    store.commit(live.undo_fails(fence, 0)).await.unwrap();
    assert_eq!(table(&place, steps).await[0], ["0", "step-0", "waiting to be undone again"]);
    store.commit(live.undone(fence, 0)).await.unwrap();
    assert_eq!(
        table(&place, operations).await,
        [["rolled back", "UNAVAILABLE", "the run was refused", "t", "f"]]
    );
    assert_eq!(table(&place, steps).await[0], ["0", "step-0", "undone, or never run"]);
    assert_eq!(table(&place, "SELECT id FROM longrun.resources").await, [["a"]]);
    assert_eq!(place.count("SELECT count(*) FROM longrun.operation_journal").await, 0);
}

/// Whatever a payload is, its commit goes through and it comes back as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b28_no_payload_fails_a_commit() {
    let Some((place, store, fence)) = opened().await else { return };
    let long = 30_000;
    let payloads = [
        r#""\u0000""#.to_owned(),
        r#"{"a\u0000b":[1]}"#.to_owned(),
        "1e400000".to_owned(),
        "-1E-400000".to_owned(),
        "1e999".to_owned(),
        "9".repeat(long),
        format!("0.{}", "1".repeat(long)),
        format!("1.{}e-999", "1".repeat(9_000)),
        format!("{}{}", "[".repeat(long / 2), "]".repeat(long / 2)),
        format!("{}{}", "[".repeat(255), "]".repeat(255)),
        format!("{}1{}", r#"{"a":"#.repeat(5_000), "}".repeat(5_000)),
        r#""\ud800""#.to_owned(),
        r#""\ud800\ud800""#.to_owned(),
        r#"["\udc00","\ud83d\ude00"]"#.to_owned(),
        format!("\"{}\"", "x".repeat(32 * 1024 - 2)),
        format!("\"{}\"", "\u{1f600}".repeat(8_000)),
        format!("\"{}\"", "\u{fdd0}\u{10ffff}\u{feff}\u{7f}".repeat(100)),
        r#"{"a":1,"a":2}"#.to_owned(),
        "\u{0}".to_owned(),
        "not JSON".to_owned(),
        String::new(),
        "NaN".to_owned(),
        "01".to_owned(),
    ];
    for (n, text) in (1..).zip(&payloads) {
        let json = Json::from_stored(text.clone().into()).unwrap();
        let payload = Payload::new("types.sample/Thing", json).unwrap();
        let mut draft = Draft::chain(n, 1).with(creates(&format!("r{n}"), "folder"));
        draft.header.request = payload.clone();
        draft.header.metadata = payload.clone();
        let (live, commit) = draft.accept(fence);
        store.commit(commit).await.unwrap_or_else(|error| panic!("{n}: {error:?} {text:.50}"));
        let found = store.load(live.id()).await.unwrap().unwrap();
        assert_eq!(found.header().request, payload);
    }
    // Neither text nor numbers that look strange make JSON into text.
    let types = "SELECT jsonb_typeof(request) FROM longrun.operation_records ORDER BY operation";
    let types: Vec<_> = table(&place, types).await.into_iter().flatten().collect();
    assert_eq!(types[4..6], ["number", "number"]);
    assert_eq!((types[9].as_str(), types[17].as_str()), ("array", "object"));
    let not_utf8 = Json::from_stored(vec![b'"', 0xFF, b'"'].into()).unwrap();
    let mut draft = Draft::chain(1000, 1);
    draft.header.request = Payload::new("types.sample/Thing", not_utf8).unwrap();
    store.commit(draft.accept(fence).1).await.unwrap();
}

/// The words of callers and of errors are theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b28_no_text_fails_a_commit() {
    let Some((place, store, fence)) = opened().await else { return };
    let texts = [
        "\0",
        "a\0b",
        "\u{7f}\u{80}",
        "'; DROP TABLE x; --",
        "\\N",
        "\u{10ffff}\u{fdd0}",
        "\r\n\t",
        "{\"a\"}",
        "NULL",
    ];
    for (n, text) in (1..).zip(texts) {
        let mut draft = Draft::chain(n, 1);
        draft.header.description = text.to_owned();
        let (mut live, commit) = draft.accept(fence);
        store.commit(commit).await.unwrap_or_else(|error| panic!("{n}: {error:?}"));
        let error = Status::new(Code::Internal, text);
        let command = longrun_core::Command::Report {
            step: longrun_core::StepIndex(0),
            attempt: live.execution.attempt(longrun_core::StepIndex(0)),
            report: longrun_core::StepReport::Failed {
                error,
                applied: longrun_core::Applied::No,
                retryable: false,
            },
        };
        store.commit(live.turn(fence, &[command])).await.unwrap_or_else(|error| panic!("{n}: {error:?}"));
        assert_same(&store.load(live.id()).await.unwrap().unwrap(), &live.execution);
        let seen = format!("SELECT description FROM longrun.operations WHERE id = '{}'", live.id());
        assert_eq!(table(&place, &seen).await, [[text.replace('\0', "\u{fffd}")]]);
    }
}

/// The names of rows are searched for as they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_with_a_character_0_is_no_name_of_anything() {
    let Some((_, store, _)) = opened().await else { return };
    let mut query = longrun_store::ResourceQuery::new(resource_key("a").kind, parent("folder"));
    query.name = Some("a\0b".to_owned());
    assert_eq!(store.list_resources(&query, None, 10).await.unwrap().items, []);
}
