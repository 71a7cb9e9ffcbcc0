//! Operations that are accepted in a transaction of the service's own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use common::{Place, place, revision};
use longrun_core::{Condition, Fence, Timestamp};
use longrun_postgres::PostgresStore;
use longrun_postgres::tokio_postgres::{Client, IsolationLevel};
use longrun_store::conformance::sample::{
    Draft, creates, digest, operation_id, parent, resource_key, resource_kind, updates,
};
use longrun_store::{Cluster, CommitError, Conflict, Store, Wanted};

mod common;

struct Service {
    place: Place,
    store: PostgresStore,
    fence: Fence,
    client: Client,
}

async fn service() -> Option<Service> {
    let place = place()?;
    let store = place.open().await;
    let fence = store.take_over().await.unwrap();
    let client = place.client().await;
    client.batch_execute(&place.sql("CREATE TABLE longrun.orders (number bigint)")).await.unwrap();
    Some(Service { place, store, fence, client })
}

fn draft(n: u64) -> Draft {
    Draft { start: false, ..Draft::chain(n, 1) }
}

fn ready(id: &str) -> Vec<Condition> {
    vec![Condition::Ready(resource_key(id))]
}

fn childless(of: &str) -> Vec<Condition> {
    vec![Condition::Childless { kind: resource_kind(), parent: parent(of) }]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c7_an_operation_is_there_if_and_only_if_the_transaction_commits() {
    let Some(mut service) = service().await else { return };
    for (n, commits) in [(1, false), (2, true)] {
        let mut transaction = service.client.transaction().await.unwrap();
        let order = service.place.sql(&format!("INSERT INTO longrun.orders VALUES ({n})"));
        transaction.batch_execute(&order).await.unwrap();
        let id = format!("r{n}");
        let key = u8::try_from(n).unwrap();
        let commit = draft(n).with(creates(&id, "folder")).with_key(key).accept(service.fence).1;
        service.store.submit_in(&mut transaction, commit).await.unwrap();
        assert_eq!(revision(&service.store, operation_id(n)).await, 0, "nobody sees it before the commit");
        let wanted = Wanted { until: Timestamp::MAX, limit: 10, kinds: None, except: Vec::new() };
        assert_eq!(service.store.claim(service.fence, &wanted).await.unwrap(), []);
        if commits {
            transaction.commit().await.unwrap();
        } else {
            transaction.rollback().await.unwrap();
        }
        assert_eq!(revision(&service.store, operation_id(n)).await, u64::from(commits));
        assert_eq!(service.store.resource(&resource_key(&id)).await.unwrap().is_some(), commits);
        assert_eq!(service.store.ledger(&digest(key)).await.unwrap().is_some(), commits);
        let claimed = service.store.claim(service.fence, &wanted).await.unwrap();
        assert_eq!(claimed.len(), usize::from(commits));
    }
    assert_eq!(service.place.count("SELECT count(*) FROM longrun.orders").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c7_a_refusal_leaves_the_transaction_as_it_was() {
    let Some(mut service) = service().await else { return };
    let (mut live, commit) =
        Draft::chain(1, 1).with(creates("a", "folder")).with_key(1).accept(service.fence);
    service.store.commit(commit).await.unwrap();
    service.store.commit(live.done(service.fence, 0)).await.unwrap();
    let row = service.store.resource(&resource_key("a")).await.unwrap().unwrap();
    let holder = Draft::chain(2, 1).with(updates(row.clone())).accept(service.fence).1;
    service.store.commit(holder).await.unwrap();
    let accept = |draft: Draft| draft.accept(service.fence).1;
    let refused = [
        (accept(draft(10).with_key(1)), "key"),
        (accept(draft(11).with(updates(row))), "row"),
        (accept(draft(12).with(creates("a", "folder"))), "row"),
        (accept(draft(13)).with_conditions(ready("none")), "condition"),
        (accept(draft(14)).with_conditions(childless("folder")), "condition"),
        (accept(draft(1)), "operation"),
    ];
    let mut transaction = service.client.transaction().await.unwrap();
    transaction.batch_execute(&service.place.sql("INSERT INTO longrun.orders VALUES (1)")).await.unwrap();
    service.store.submit_in(&mut transaction, draft(20).accept(service.fence).1).await.unwrap();
    for (commit, why) in refused {
        let id = commit.operation_id();
        let found = match service.store.submit_in(&mut transaction, commit).await {
            Err(CommitError::Conflict(Conflict::Idempotency(_))) => "key",
            Err(CommitError::Conflict(Conflict::Resource { .. })) => "row",
            Err(CommitError::Conflict(Conflict::Condition(_))) => "condition",
            Err(CommitError::Conflict(Conflict::Operation { .. })) => "operation",
            other => panic!("{other:?}"),
        };
        assert_eq!(found, why, "{id}");
    }
    let (mut later, _) = Draft::chain(30, 2).accept(service.fence);
    let not_first = service.store.submit_in(&mut transaction, later.done(service.fence, 0)).await;
    assert!(matches!(not_first, Err(CommitError::Unavailable(_))), "{not_first:?}");
    service.store.submit_in(&mut transaction, draft(21).accept(service.fence).1).await.unwrap();
    transaction.commit().await.unwrap();
    for n in 10..15 {
        assert_eq!(revision(&service.store, operation_id(n)).await, 0);
    }
    assert_eq!(revision(&service.store, operation_id(20)).await, 1);
    assert_eq!(revision(&service.store, operation_id(21)).await, 1);
    assert_eq!(service.place.count("SELECT count(*) FROM longrun.orders").await, 1);
}

/// An old snapshot does not show the children that others have made meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c17_children_are_not_counted_in_an_old_snapshot() {
    let Some(mut service) = service().await else { return };
    let transaction = service.client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
    let mut transaction = transaction.start().await.unwrap();
    transaction.batch_execute("SELECT now()").await.unwrap();
    let child = Draft::chain(1, 1).with(creates("c", "p")).accept(service.fence).1;
    service.store.commit(child).await.unwrap();
    let commit = draft(2).accept(service.fence).1.with_conditions(childless("p"));
    let refused = service.store.submit_in(&mut transaction, commit).await;
    assert!(matches!(refused, Err(CommitError::Unavailable(_))), "{refused:?}");
    // What does not count on anybody's absence goes on.
    service.store.submit_in(&mut transaction, draft(3).accept(service.fence).1).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(revision(&service.store, operation_id(2)).await, 0);
    assert_eq!(revision(&service.store, operation_id(3)).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c7_nobody_is_woken_before_the_commit() {
    let Some(mut service) = service().await else { return };
    // The ear of the store takes a moment to be there: it is when it hears.
    let other = service.place.client().await;
    let hint = format!("NOTIFY {}_changed", service.place.schema);
    loop {
        let heard = tokio::time::timeout(Duration::from_millis(50), service.store.changed());
        let (heard, told) = tokio::join!(heard, other.batch_execute(&hint));
        told.unwrap();
        if heard.is_ok() {
            break;
        }
    }
    let mut transaction = service.client.transaction().await.unwrap();
    service.store.submit_in(&mut transaction, draft(1).accept(service.fence).1).await.unwrap();
    let changed = service.store.changed();
    tokio::pin!(changed);
    // What would come has the time to.
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut changed).await.is_err());
    transaction.commit().await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), changed).await.expect("it is told of the commit");
}
