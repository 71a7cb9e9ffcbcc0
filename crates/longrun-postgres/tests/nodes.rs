//! Several nodes on one database: each thing happens once, and nobody waits for what is not his.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::pin::pin;
use std::time::{Duration, Instant};

use common::{Place, place, revision};
use futures_util::future::join_all;
use longrun_core::{Condition, Fence, OperationId, Row, Timestamp};
use longrun_postgres::PostgresStore;
use longrun_store::conformance::sample::{
    Draft, Live, creates, deletes, operation_id, parent, resource_key, resource_kind, updates,
};
use longrun_store::{
    Asked, Cluster, Commit, CommitError, Conflict, ResourceQuery, Store, StoreError, Wanted,
};

mod common;

struct Node {
    store: PostgresStore,
    fence: Fence,
}

impl Node {
    async fn accept(&self, draft: Draft) -> Live {
        let (live, commit) = draft.accept(self.fence);
        self.store.commit(commit).await.unwrap();
        live
    }

    /// A resource that nobody holds.
    async fn resource(&self, n: u64, id: &str, of: &str) -> Row {
        let mut live = self.accept(Draft::chain(n, 1).with(creates(id, of))).await;
        self.store.commit(live.done(self.fence, 0)).await.unwrap();
        self.store.resource(&resource_key(id)).await.unwrap().unwrap()
    }

    async fn claim(&self) -> Vec<OperationId> {
        let wanted = Wanted { until: Timestamp::MAX, limit: 10_000, kinds: None, except: Vec::new() };
        let claimed = self.store.claim(self.fence, &wanted).await.unwrap();
        claimed.iter().map(|claimed| claimed.due.id).collect()
    }
}

/// Two nodes of one database.
struct Two {
    place: Place,
    one: Node,
    other: Node,
}

async fn two() -> Option<Two> {
    let place = place()?;
    let node = async || {
        let store = place.open().await;
        let fence = store.take_over().await.unwrap();
        Node { store, fence }
    };
    let (one, other) = (node().await, node().await);
    Some(Two { place, one, other })
}

impl Two {
    /// Each commits its own at the same time. What each is told.
    async fn race(&self, commits: [Commit; 2]) -> [Result<(), CommitError>; 2] {
        let [first, second] = commits;
        tokio::join!(self.one.store.commit(first), self.other.store.commit(second)).into()
    }

    fn fences(&self) -> [Fence; 2] {
        [self.one.fence, self.other.fence]
    }
}

/// The one that was refused; the other was not.
#[track_caller]
fn loser(results: [Result<(), CommitError>; 2]) -> Conflict {
    match results {
        [Ok(()), Err(CommitError::Conflict(conflict))] | [Err(CommitError::Conflict(conflict)), Ok(())] => {
            conflict
        }
        results => panic!("one was to be refused: {results:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c15_a_key_that_two_nodes_claim_belongs_to_one() {
    let Some(two) = two().await else { return };
    for round in 0..40 {
        let key = u8::try_from(round).unwrap();
        let [first, second] = two.fences();
        let commits = [
            Draft::chain(1000 + round * 2, 1).with_key(key).accept(first).1,
            Draft::chain(1001 + round * 2, 1).with_key(key).accept(second).1,
        ];
        let ids = commits.each_ref().map(Commit::operation_id);
        let Conflict::Idempotency(entry) = loser(two.race(commits).await) else { panic!("not for its key") };
        for id in ids {
            assert_eq!(revision(&two.one.store, id).await > 0, entry.operation == id);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c17_a_row_and_an_id_that_two_nodes_create_are_of_one() {
    let Some(two) = two().await else { return };
    for round in 0..40 {
        let id = format!("r{round}");
        let made = |n: u64, fence| Draft::chain(n, 1).with(creates(&id, "folder")).accept(fence).1;
        let [first, second] = two.fences();
        let rows = [made(1000 + round * 2, first), made(1001 + round * 2, second)];
        assert!(matches!(loser(two.race(rows).await), Conflict::Resource { exists: true, .. }));
        let ids = [first, second].map(|fence| Draft::chain(5000 + round, 1).accept(fence).1);
        assert!(matches!(loser(two.race(ids).await), Conflict::Operation { .. }));
    }
    assert_eq!(two.place.count("SELECT count(*) FROM longrun.operations").await, 80);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c17_children_that_two_nodes_count_are_those_that_are_there() {
    let Some(two) = two().await else { return };
    for round in 0..40 {
        let of = format!("p{round}");
        let none = Condition::Children { kind: resource_kind(), parent: parent(&of), children: Vec::new() };
        let commit = |n: u64, fence| {
            let draft = Draft::chain(1000 + round * 2 + n, 1).with(creates(&format!("c{round}-{n}"), &of));
            draft.accept(fence).1.with_conditions(vec![none.clone()])
        };
        let [first, second] = two.fences();
        let conflict = loser(two.race([commit(0, first), commit(1, second)]).await);
        assert_eq!(conflict, Conflict::Condition(none));
    }
    assert_eq!(
        two.place
            .count("SELECT max(c) FROM (SELECT count(*) c FROM longrun.resources GROUP BY parent) x")
            .await,
        1
    );
}

/// With a condition on one side only, and then a plain row on the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c17_no_child_comes_while_its_parent_goes() {
    let Some(two) = two().await else { return };
    for round in 0..30 {
        let (n, id) = (1000 + round * 10, format!("p{round}"));
        let row = two.one.resource(n, &id, "root").await;
        let [first, second] = two.fences();
        let child = Draft::chain(n + 1, 1).with(creates(&format!("c{round}"), &id)).accept(first).1;
        let child = child.with_conditions(vec![Condition::Ready(resource_key(&id))]);
        let end = Draft::chain(n + 2, 1).with(deletes(row)).accept(second).1;
        let childless = Condition::Childless { kind: resource_kind(), parent: parent(&id) };
        let end = end.with_conditions(vec![childless]);
        assert!(matches!(loser(two.race([child, end]).await), Conflict::Condition(_)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c17_rows_in_any_order_never_end_in_a_deadlock() {
    let Some(two) = two().await else { return };
    let mut rows = Vec::new();
    for n in 0..6 {
        rows.push(two.one.resource(10 + n, &format!("r{n}"), "folder").await);
    }
    let before = Instant::now();
    for round in 0..40_u64 {
        // Each takes all of them, one from the front and one from the back, in operations whose ids are in the other order.
        let draft = |n: u64, place: usize| Draft::chain(n, 1).with(updates(rows[place].clone()));
        let [first, second] = two.fences();
        let mut lives: Vec<(Live, &Node)> = Vec::new();
        let mut all = Vec::new();
        for place in 0..6 {
            let (n, step) = (1000 + round * 100, place as u64);
            for (node, fence, n) in [(&two.one, first, n + step), (&two.other, second, n + 50 - step)] {
                let (live, commit) = draft(n, place).with(creates(&format!("x{n}"), "other")).accept(fence);
                lives.push((live, node));
                all.push(node.store.commit(commit));
            }
        }
        let results = join_all(all).await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 6, "{results:?}");
        for ((mut live, node), result) in lives.into_iter().zip(results) {
            match result {
                Ok(()) => node.store.commit(live.done(node.fence, 0)).await.unwrap(),
                Err(CommitError::Conflict(Conflict::Resource { .. })) => {}
                other => panic!("{other:?}"),
            }
        }
        for row in &mut rows {
            *row = two.one.store.resource(&row.key).await.unwrap().unwrap();
        }
    }
    assert!(before.elapsed() < Duration::from_secs(60));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c17_conflicts_take_nothing_from_good_neighbours() {
    let Some(two) = two().await else { return };
    let mut stale = two.one.accept(Draft::chain(1, 2)).await;
    let mut live = stale.clone();
    two.one.store.commit(live.done(two.one.fence, 0)).await.unwrap();
    two.one.resource(2, "taken", "folder").await;
    let mut good = Vec::new();
    let mut bad = Vec::new();
    for n in 0..200 {
        for (node, n) in [(&two.one, 1000 + n), (&two.other, 2000 + n)] {
            let draft = Draft::chain(n, 1).with(creates(&format!("r{n}"), "folder"));
            good.push(node.store.commit(draft.accept(node.fence).1));
            let commit = match n % 3 {
                0 => stale.clone().checkpoint(two.one.fence, 0, n),
                1 => Draft::chain(n + 5000, 1).with(creates("taken", "folder")).accept(node.fence).1,
                _ => Draft::chain(n + 5000, 1).accept(Fence(u64::MAX / 4)).1,
            };
            bad.push(node.store.commit(commit));
        }
    }
    let (good, bad) = tokio::join!(join_all(good), join_all(bad));
    good.into_iter().for_each(Result::unwrap);
    for result in bad {
        assert!(matches!(result, Err(CommitError::Conflict(_) | CommitError::Fenced { .. })), "{result:?}");
    }
    _ = stale.done(two.one.fence, 0);
}

/// Somebody forgets his transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c22_a_row_that_somebody_locks_costs_only_those_who_want_it() {
    let Some(two) = two().await else { return };
    let mut live = two.one.accept(Draft::chain(1, 1).with(creates("a", "folder"))).await;
    let mut other = two.place.client().await;
    let lock = other.transaction().await.unwrap();
    lock.execute(&two.place.sql("SELECT FROM longrun.resources FOR UPDATE"), &[]).await.unwrap();
    for round in 0..3 {
        let began = Instant::now();
        let mut again = live.clone();
        let wanted = two.one.store.commit(again.done(two.one.fence, 0));
        let neighbours = (0..300).map(|n| {
            let draft =
                Draft::chain(1000 * (round + 1) + n, 1).with(creates(&format!("r{round}-{n}"), "folder"));
            two.one.store.commit(draft.accept(two.one.fence).1)
        });
        let (wanted, neighbours) = tokio::join!(wanted, join_all(neighbours));
        neighbours.into_iter().for_each(Result::unwrap);
        assert!(matches!(wanted, Err(CommitError::Unavailable(_))), "{wanted:?}");
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    }
    lock.rollback().await.unwrap();
    two.one.store.commit(live.done(two.one.fence, 0)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c15_a_key_of_an_open_transaction_costs_only_those_who_want_it() {
    let Some(two) = two().await else { return };
    let mut other = two.place.client().await;
    let mut open = other.transaction().await.unwrap();
    let first = Draft { start: false, ..Draft::chain(1, 1) }.with_key(1).accept(two.one.fence).1;
    two.one.store.submit_in(&mut open, first).await.unwrap();
    let draft = |n| Draft::chain(n, 1).with_key(1).accept(two.other.fence).1;
    let wanted = two.other.store.commit(draft(2));
    let neighbours = (100..200).map(|n| two.other.store.commit(Draft::chain(n, 1).accept(two.other.fence).1));
    let (wanted, neighbours) = tokio::join!(wanted, join_all(neighbours));
    neighbours.into_iter().for_each(Result::unwrap);
    assert!(matches!(wanted, Err(CommitError::Unavailable(_))), "{wanted:?}");
    open.commit().await.unwrap();
    let conflict = two.other.store.commit(draft(3)).await;
    assert!(matches!(conflict, Err(CommitError::Conflict(Conflict::Idempotency(_)))), "{conflict:?}");
}

/// A lock on what a dead node left keeps neither the leases of others nor what else it left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s32_a_lock_of_somebody_costs_no_node_its_lease() {
    let Some(two) = two().await else { return };
    for n in 1..=3 {
        two.other.accept(Draft::chain(n, 1)).await;
    }
    let mut own = two.one.accept(Draft::chain(9, 1)).await;
    two.other.store.commit(own.cancel(two.other.fence).by_visitor()).await.unwrap();
    let mut other = two.place.client().await;
    let lock = other.transaction().await.unwrap();
    let text = "SELECT FROM longrun.operations WHERE id = ANY ($1) FOR UPDATE";
    let locked = [operation_id(2), operation_id(9)];
    let locked = locked.each_ref().map(|id| id.as_str());
    assert_eq!(lock.execute(&two.place.sql(text), &[&locked.as_slice()]).await.unwrap(), 2);
    two.place.expire_others(two.one.fence).await;
    two.one.store.assume_long_contact();
    let asked = Asked { awaited: Vec::new(), holds: Some(Vec::new()) };
    let began = Instant::now();
    let told = two.one.store.renew(two.one.fence, &asked).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!((told.freed, told.changed.len()), (2, 0));
    assert_eq!(two.one.claim().await, [operation_id(1), operation_id(3)]);
    lock.rollback().await.unwrap();
    let told = two.one.store.renew(two.one.fence, &Asked::default()).await.unwrap();
    assert_eq!((told.freed, told.changed), (1, vec![operation_id(9)]));
    assert_eq!(two.one.claim().await, [operation_id(2)]);
    assert_eq!(two.place.count("SELECT count(*) FROM longrun.nodes").await, 1);
}

/// Somebody's long lists may take every connection for readings, and none of those that keep a node alive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s32_lists_that_take_every_connection_cost_no_node_its_lease() {
    let Some(two) = two().await else { return };
    let draft = Draft { start: false, ..Draft::chain(1, 1) };
    two.other.store.commit(draft.accept(two.other.fence).1.by_visitor()).await.unwrap();
    let mut other = two.place.client().await;
    let lock = other.transaction().await.unwrap();
    lock.batch_execute(&two.place.sql("LOCK longrun.resources")).await.unwrap();
    let query = ResourceQuery::new(resource_kind(), parent("folder"));
    // Twice as many as there are connections.
    let mut lists = pin!(join_all((0..4).map(|_| two.one.store.list_resources(&query, None, 10))));
    let kept_alive = async {
        two.place.blocked(2).await;
        let told = two.one.store.renew(two.one.fence, &Asked::default()).await.unwrap();
        assert!(!told.lapsed);
        assert_eq!(two.one.claim().await, [operation_id(1)]);
    };
    tokio::select! {
        biased;
        lists = lists.as_mut() => panic!("they were to wait: {lists:?}"),
        () = kept_alive => {}
    }
    lock.rollback().await.unwrap();
    lists.await.into_iter().for_each(|list| assert_eq!(list.unwrap().items.len(), 0));
}

/// Where rows that somebody holds are not passed over, a node waits for them, but never until its next renewal is due.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s32_without_skip_locked_a_lock_of_somebody_costs_no_node_its_lease() {
    let Some(place) = place() else { return };
    let lease = Duration::from_secs(20);
    let store = PostgresStore::open(place.options().skip_locked(false).lease(lease)).await.unwrap();
    let fence = store.take_over().await.unwrap();
    let node = Node { store, fence };
    let free = Draft { start: false, ..Draft::chain(1, 1) };
    node.store.commit(free.accept(fence).1.by_visitor()).await.unwrap();
    let mut own = node.accept(Draft::chain(2, 1)).await;
    node.store.commit(own.cancel(fence).by_visitor()).await.unwrap();
    let mut other = place.client().await;
    let lock = other.transaction().await.unwrap();
    lock.execute(&place.sql("SELECT FROM longrun.operations FOR UPDATE"), &[]).await.unwrap();
    let wanted = Wanted { until: Timestamp::MAX, limit: 10, kinds: None, except: Vec::new() };
    let began = Instant::now();
    let claimed = node.store.claim(fence, &wanted).await;
    assert!(matches!(claimed, Err(StoreError::Unavailable(_))), "{claimed:?}");
    assert!(began.elapsed() < lease / 3, "{:?}", began.elapsed());
    // What others did cannot be told, and the lease is extended all the same.
    place.execute("UPDATE longrun.nodes SET expires_at = clock_timestamp()").await;
    let began = Instant::now();
    let told = node.store.renew(fence, &Asked::default()).await;
    assert!(matches!(told, Err(StoreError::Unavailable(_))), "{told:?}");
    assert!(began.elapsed() < lease / 3, "{:?}", began.elapsed());
    let alive = "SELECT count(*) FROM longrun.nodes WHERE expires_at > clock_timestamp()";
    assert_eq!(place.count(alive).await, 1);
    lock.rollback().await.unwrap();
    let told = node.store.renew(fence, &Asked::default()).await.unwrap();
    assert_eq!(told.changed, [operation_id(2)]);
    assert_eq!(node.claim().await, [operation_id(1)]);
}

/// What a node took while it was buried would belong to nobody who is known, for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c17_a_node_that_is_being_buried_takes_nothing() {
    let Some(two) = two().await else { return };
    let draft = Draft { start: false, ..Draft::chain(1, 1) };
    two.one.store.commit(draft.accept(two.one.fence).1.by_visitor()).await.unwrap();
    let mut other = two.place.client().await;
    let grave = other.transaction().await.unwrap();
    let text = format!("DELETE FROM longrun.nodes WHERE epoch = {}", two.other.fence.0);
    assert_eq!(grave.execute(&two.place.sql(&text), &[]).await.unwrap(), 1);
    let buried = async {
        two.place.blocked(1).await;
        grave.commit().await.unwrap();
    };
    let (claimed, ()) = tokio::join!(two.other.claim(), buried);
    assert_eq!(claimed, []);
    assert_eq!(two.one.claim().await, [operation_id(1)]);
}
