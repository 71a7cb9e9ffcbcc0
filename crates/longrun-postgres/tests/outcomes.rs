//! What becomes of a commit whose answer is lost (S33, C22): it happened or it did not, that is found out, and stays so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::proxy::{BATCH, Fate, HINT, Proxy, QUESTION, is_error};
use common::{Place, place, revision, until};
use longrun_core::{Fence, OperationId};
use longrun_postgres::{PostgresOptions, PostgresStore};
use longrun_store::conformance::sample::{Draft, operation_id};
use longrun_store::{Asked, Cluster, CommitError, Store, StoreError};

mod common;

/// A store behind a network that can be told what to do.
struct Far {
    place: Place,
    proxy: Proxy,
    store: PostgresStore,
    fence: Fence,
}

async fn far() -> Option<Far> {
    far_with(|options| options).await
}

async fn far_with(with: impl FnOnce(PostgresOptions) -> PostgresOptions) -> Option<Far> {
    let place = place()?;
    let proxy = Proxy::start(common::server()?).await;
    let options = common::options(&proxy.address(), &place.schema);
    let store = PostgresStore::open(with(options)).await.unwrap();
    let fence = store.take_over().await.unwrap();
    Some(Far { place, proxy, store, fence })
}

impl Far {
    /// The first commit of operation `n`.
    async fn accept(&self, n: u64) -> Result<(), CommitError> {
        self.store.commit(Draft::chain(n, 2).accept(self.fence).1).await
    }

    async fn is_there(&self, n: u64) -> bool {
        revision(&self.store, operation_id(n)).await > 0
    }

    /// It is as good as ever.
    async fn goes_on(&self, from: u64) {
        for n in from..from + 3 {
            self.accept(n).await.unwrap();
            assert!(self.is_there(n).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s33_a_commit_that_the_server_never_saw_is_tried_again() {
    let Some(far) = far().await else { return };
    far.proxy.doom([(BATCH, Fate::Lost)]);
    far.accept(1).await.unwrap();
    assert!(far.proxy.is_fulfilled());
    assert!(far.is_there(1).await);
    far.goes_on(10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s33_a_commit_whose_answer_is_lost_happened_once() {
    let Some(far) = far().await else { return };
    let (mut live, commit) = Draft::chain(1, 2).accept(far.fence);
    far.proxy.doom([(BATCH, Fate::AnswerLost)]);
    far.store.commit(commit).await.unwrap();
    far.proxy.doom([(BATCH, Fate::AnswerLost)]);
    far.store.commit(live.done(far.fence, 0)).await.unwrap();
    assert!(far.proxy.is_fulfilled());
    assert_eq!(revision(&far.store, live.id()).await, 2);
    far.goes_on(10).await;
}

/// The question moves the committer's row, and must not take its own move for an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s33_the_answer_to_the_question_may_be_lost_too() {
    let Some(far) = far().await else { return };
    far.proxy.doom([(BATCH, Fate::AnswerLost), (QUESTION, Fate::AnswerLost), (QUESTION, Fate::AnswerLost)]);
    far.accept(1).await.unwrap();
    far.proxy.doom([(BATCH, Fate::Lost), (QUESTION, Fate::AnswerLost), (QUESTION, Fate::Lost)]);
    far.accept(2).await.unwrap();
    assert!(far.proxy.is_fulfilled());
    assert!(far.is_there(1).await && far.is_there(2).await);
    far.goes_on(10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s33_a_late_question_changes_nothing() {
    let Some(far) = far().await else { return };
    far.proxy.doom([(BATCH, Fate::Lost), (QUESTION, Fate::Late)]);
    far.accept(1).await.unwrap();
    far.proxy.doom([(BATCH, Fate::AnswerLost), (QUESTION, Fate::Late)]);
    far.accept(2).await.unwrap();
    assert!(far.proxy.is_fulfilled());
    far.goes_on(10).await;
    assert_eq!(far.proxy.deliver().await.len(), 2);
    far.goes_on(20).await;
    assert_eq!(far.place.count("SELECT count(*) FROM longrun.operations").await, 8);
}

/// What was settled as not stored must not be stored when the network gives it out at last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c22_a_late_commit_is_not_applied() {
    let Some(far) = far().await else { return };
    far.accept(1).await.unwrap();
    // All further tries are lost, so that it is refused, and said not to be there.
    far.proxy.doom(std::iter::once((BATCH, Fate::Late)).chain([(BATCH, Fate::Lost); 7]));
    let refused = far.accept(2).await;
    assert!(matches!(refused, Err(CommitError::Unavailable(_))), "{refused:?}");
    assert!(far.proxy.is_fulfilled());
    assert!(!far.is_there(2).await);
    let answers = far.proxy.deliver().await;
    assert!(answers.len() == 1 && is_error(&answers[0]));
    assert!(!far.is_there(2).await);
    far.goes_on(10).await;
    assert!(!far.is_there(2).await);
    far.accept(2).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c22_a_commit_that_is_under_way_while_it_is_asked_for_is_waited_for() {
    let Some(far) = far().await else { return };
    let (mut live, commit) = Draft::chain(1, 2).accept(far.fence);
    far.store.commit(commit).await.unwrap();
    let mut other = far.place.client().await;
    let blocker = other.transaction().await.unwrap();
    blocker.execute(&far.place.sql("SELECT FROM longrun.operations FOR UPDATE"), &[]).await.unwrap();
    far.proxy.doom([(BATCH, Fate::CutWhileUnderWay)]);
    let commit = live.done(far.fence, 0);
    let committed = far.store.commit(commit);
    let released = async {
        // The batch, and whoever asks for it.
        far.place.blocked(2).await;
        blocker.rollback().await.unwrap();
    };
    let (committed, ()) = tokio::join!(committed, released);
    committed.unwrap();
    assert_eq!(revision(&far.store, live.id()).await, 2);
    far.goes_on(10).await;
}

/// Nobody is told one thing before the other is ruled out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c22_while_an_outcome_is_unknown_readings_are_refused() {
    let Some(far) = far().await else { return };
    for (n, fate) in [(1, Fate::AnswerLost), (2, Fate::Lost)] {
        far.proxy.doom([(BATCH, fate)]);
        let committed = far.accept(n);
        let down = async {
            far.proxy.fulfilled().await;
            far.proxy.down(true);
        };
        // The question is lost too, should it be faster.
        far.proxy.doom([(QUESTION, Fate::Lost)]);
        let (committed, ()) = tokio::join!(committed, down);
        assert!(matches!(committed, Err(CommitError::Unknown(_))), "{committed:?}");
        let read = far.store.load(operation_id(n)).await;
        assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
        let again = far.accept(n + 100).await;
        assert!(matches!(again, Err(CommitError::Unavailable(_))), "{again:?}");
        far.proxy.down(false);
        until(async || far.store.load(operation_id(n)).await.is_ok()).await;
        assert_eq!(far.is_there(n).await, fate == Fate::AnswerLost);
        assert!(!far.is_there(n + 100).await);
        far.goes_on(n * 10).await;
        assert_eq!(far.is_there(n).await, fate == Fate::AnswerLost);
    }
}

/// A server that is connected and says nothing is given up too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s33_a_silent_server_keeps_nobody_for_ever() {
    let patience = Duration::from_millis(500);
    let Some(far) = far_with(|options| options.statement_timeout(patience)).await else { return };
    far.proxy.doom([(BATCH, Fate::Swallowed)]);
    far.accept(1).await.unwrap();
    far.proxy.doom([(BATCH, Fate::AnswerLost), (QUESTION, Fate::Swallowed)]);
    let told = far.accept(2).await;
    assert!(matches!(told, Ok(()) | Err(CommitError::Unknown(_))), "{told:?}");
    far.proxy.doom([("operation_records r WHERE r.operation", Fate::Swallowed)]);
    let began = Instant::now();
    let read = far.store.load(operation_id(1)).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(far.proxy.is_fulfilled());
    assert!(far.is_there(1).await && far.is_there(2).await);
    far.goes_on(10).await;
}

/// A hint that nobody answers is given up, and the next one goes over a new connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hint_that_is_not_answered_is_not_the_last() {
    let patience = Duration::from_millis(500);
    let Some(far) = far_with(|options| options.statement_timeout(patience)).await else { return };
    far.proxy.doom([(HINT, Fate::Swallowed), (HINT, Fate::AnswerLost)]);
    // Of what a visitor writes the other nodes are told.
    let visited = async |n| {
        let draft = Draft { start: false, ..Draft::chain(n, 1) };
        far.store.commit(draft.accept(far.fence).1.by_visitor()).await.unwrap();
    };
    visited(1).await;
    far.proxy.fulfilled_but(1).await;
    visited(2).await;
    far.proxy.fulfilled().await;
}

/// The row of a committer may be cleared away, and a database may be set back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s33_a_committer_without_its_row_begins_anew() {
    let Some(far) = far().await else { return };
    far.goes_on(10).await;
    for harm in ["DELETE FROM longrun.committers", "UPDATE longrun.committers SET batch = batch - 2"] {
        far.place.execute(harm).await;
        far.accept(1).await.unwrap();
        far.place.execute("DELETE FROM longrun.operations; DELETE FROM longrun.operation_records").await;
        far.place.execute(harm).await;
        far.proxy.doom([(BATCH, Fate::Lost)]);
        far.accept(1).await.unwrap();
        far.place.execute("DELETE FROM longrun.operations; DELETE FROM longrun.operation_records").await;
    }
}

/// What one client of the crash test knows of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    id: OperationId,
    revision: u64,
}

/// Loads until the store says.
async fn decided(store: &PostgresStore, id: OperationId) -> u64 {
    let began = Instant::now();
    loop {
        match store.load(id).await {
            Ok(found) => return found.map_or(0, |execution| execution.revision().0),
            Err(StoreError::Unavailable(_)) if began.elapsed() < Duration::from_secs(60) => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Commits one operation after the other, and notes what it was told of each.
async fn client(store: Arc<PostgresStore>, fence: Fence, number: u64, over: Arc<AtomicBool>) -> Vec<Known> {
    let mut known = Vec::new();
    for round in 0.. {
        if over.load(Ordering::SeqCst) {
            break;
        }
        let (mut live, first) = Draft::chain(number * 1_000_000 + round, 2).accept(fence);
        let (id, mut commit, mut stored) = (live.id(), first, 0);
        for step in 0..3 {
            let revision = commit.revision().0;
            match store.commit(commit).await {
                Ok(()) => stored = revision,
                Err(CommitError::Unavailable(_)) => break,
                Err(CommitError::Unknown(_)) => {
                    let found = decided(&store, id).await;
                    assert!(found == stored || found == revision, "{found} after {stored}");
                    stored = found;
                    if found != revision {
                        break;
                    }
                }
                Err(error) => panic!("{error:?}"),
            }
            if step == 2 {
                break;
            }
            commit = live.done(fence, step);
            // A reading never shows less than what was told.
            match store.load(id).await {
                Ok(found) => assert_eq!(found.map_or(0, |execution| execution.revision().0), stored),
                Err(StoreError::Unavailable(_)) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        known.push(Known { id, revision: stored });
    }
    known
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c22_a_server_that_crashes_loses_nothing_and_keeps_nothing_open() {
    let Some(mut server) = common::own_server(&["fsync=off", "full_page_writes=off"]) else { return };
    let place = Place { address: server.address(), schema: server.fresh_schema() };
    let store = Arc::new(place.open().await);
    let fence = store.take_over().await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (1..=8)
        .map(|number| tokio::spawn(client(Arc::clone(&store), fence, number, Arc::clone(&over))))
        .collect();
    for _ in 0..3 {
        let before = place.count("SELECT count(*) FROM longrun.operations").await;
        until(async || place.count("SELECT count(*) FROM longrun.operations").await > before + 100).await;
        server = tokio::task::spawn_blocking(move || {
            server.crash();
            server.begin().unwrap();
            server
        })
        .await
        .unwrap();
    }
    let before = place.count("SELECT count(*) FROM longrun.operations").await;
    until(async || place.count("SELECT count(*) FROM longrun.operations").await > before + 100).await;
    over.store(true, Ordering::SeqCst);
    let mut known = HashMap::new();
    for client in clients {
        known.extend(client.await.unwrap().into_iter().map(|known| (known.id, known.revision)));
    }
    // One that was begun and refused in between may be there or not; each is as it was told.
    for (id, revision) in &known {
        assert_eq!(decided(&store, *id).await, *revision, "{id}");
    }
    let there = known.values().filter(|revision| **revision > 0).count();
    let stored = place.count("SELECT count(*) FROM longrun.operations").await;
    assert_eq!(usize::try_from(stored).unwrap(), there, "there is one that nobody was told of");
}

/// What was the primary may be a standby now, although connections to it have lasted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c22_a_node_leaves_a_server_that_takes_no_writes_any_more() {
    let Some(server) = common::own_server(&["fsync=off", "full_page_writes=off"]) else { return };
    let place = Place { address: server.address(), schema: server.fresh_schema() };
    let store = place.open().await;
    let fence = store.take_over().await.unwrap();
    let accept = async |n| store.commit(Draft::chain(n, 2).accept(fence).1).await;
    accept(1).await.unwrap();
    // New connections take writes, as those to the new primary do, and those that are there take none from now on.
    for change in [
        "ALTER ROLE longrun SET default_transaction_read_only = off",
        "ALTER SYSTEM SET default_transaction_read_only = on",
        "SELECT pg_reload_conf()",
    ] {
        place.execute(change).await;
    }
    let (mut last, mut refused) = (1, None);
    until(async || {
        last += 1;
        refused = accept(last).await.err();
        refused.is_some()
    })
    .await;
    assert!(matches!(refused, Some(CommitError::Unavailable(_))), "{refused:?}");
    assert_eq!(revision(&store, operation_id(last)).await, 0);
    accept(last).await.unwrap();
    assert_eq!(revision(&store, operation_id(last)).await, 1);
    // Neither does the node's own connection keep it.
    until(async || store.renew(fence, &Asked::default()).await.is_ok()).await;
}
