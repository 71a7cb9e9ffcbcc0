//! The store in memory that engines share: its clock, and its lines.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use longrun_core::{Fence, Timestamp};
use longrun_store::conformance::sample::{Draft, operation_id};
use longrun_store::conformance::{begin, wait};
use longrun_store::shared::{Line, SharedStore};
use longrun_store::{Asked, Cluster, CommitError, Store, StoreError, Wanted};

const LEASE: Duration = Duration::from_secs(3);

/// A store, two handles on it with a node each, and its clock.
fn two() -> ([SharedStore; 2], [Fence; 2], Arc<AtomicU64>) {
    let clock = Arc::new(AtomicU64::new(0));
    let one = {
        let clock = Arc::clone(&clock);
        SharedStore::new(LEASE, move || Duration::from_millis(clock.load(Ordering::SeqCst))).unwrap()
    };
    let stores = [one.another(), one];
    let nodes = stores.each_ref().map(|store| wait(store.take_over()).unwrap());
    (stores, nodes, clock)
}

fn renew(store: &SharedStore, node: Fence) -> longrun_store::Tidings {
    wait(store.renew(node, &Asked::default())).unwrap()
}

#[test]
fn s30_a_lease_runs_out_when_its_node_is_not_heard_of_while_others_are() {
    let ([one, other], nodes, clock) = two();
    wait(one.commit(Draft::chain(1, 1).accept(nodes[0]).1)).unwrap();
    for millis in [1000, 2000] {
        clock.store(millis, Ordering::SeqCst);
        assert_eq!(renew(&other, nodes[1]).freed, 0);
    }
    clock.store(2999, Ordering::SeqCst);
    assert_eq!(renew(&other, nodes[1]).freed, 0);
    clock.store(3000, Ordering::SeqCst);
    assert_eq!(renew(&other, nodes[1]).freed, 1);
    assert_eq!(one.owner(operation_id(1)), Some((None, nodes[0])));
    assert!(renew(&one, nodes[0]).lapsed);
    assert_eq!((one.seen().freed, one.seen().lapsed), (1, 1));
}

#[test]
fn s30_after_an_outage_that_all_saw_each_has_a_whole_lease_to_come_back() {
    let ([one, other], nodes, clock) = two();
    wait(one.commit(Draft::chain(1, 1).accept(nodes[0]).1)).unwrap();
    clock.store(60_000, Ordering::SeqCst);
    assert_eq!(renew(&other, nodes[1]).freed, 0, "nobody could renew");
    for millis in [61_000, 62_000, 62_999] {
        clock.store(millis, Ordering::SeqCst);
        assert_eq!(renew(&other, nodes[1]).freed, 0);
    }
    assert!(!renew(&one, nodes[0]).lapsed);
}

#[test]
fn s33_a_line_that_is_cut_does_nothing_and_a_mute_one_does_it_untold() {
    let ([one, other], nodes, _) = two();
    let first = |n: u64| Draft::chain(n, 1).accept(nodes[0]).1;
    one.set_line(Line::Cut);
    assert!(matches!(wait(one.commit(first(1))), Err(CommitError::Unavailable(_))));
    assert!(matches!(wait(one.load(operation_id(1))), Err(StoreError::Unavailable(_))));
    assert!(wait(other.load(operation_id(1))).unwrap().is_none());
    one.set_line(Line::Mute);
    assert!(matches!(wait(one.commit(first(2))), Err(CommitError::Unknown(_))));
    assert!(wait(other.load(operation_id(2))).unwrap().is_some());
    let wanted = Wanted { until: Timestamp::MAX, limit: 9, kinds: None, except: Vec::new() };
    wait(one.leave(nodes[0])).unwrap_err();
    assert_eq!(wait(other.claim(nodes[1], &wanted)).unwrap().len(), 1, "it has left, and does not know");
    one.set_line(Line::Whole);
    one.lose_answers(1);
    assert!(matches!(wait(other.commit(Draft::chain(3, 1).accept(nodes[1]).1)), Ok(())));
    assert!(matches!(wait(one.commit(first(4))), Err(CommitError::Unknown(_))));
    assert!(matches!(wait(one.commit(first(5))), Err(CommitError::Fenced { .. })));
    let seen = one.seen();
    assert_eq!((seen.cut_off, seen.unanswered, seen.late), (2, 3, 2));
}

#[test]
fn a_handle_is_told_that_another_has_written_and_not_that_it_did_itself() {
    let ([one, other], nodes, _) = two();
    let commit = Draft::chain(1, 1).accept(nodes[0]).1.by_visitor();
    wait(one.commit(commit)).unwrap();
    assert_eq!(begin(&mut one.changed()), None);
    assert_eq!(begin(&mut other.changed()), Some(()));
    assert_eq!(begin(&mut other.changed()), None);
}

#[test]
fn a_witness_sees_what_each_commit_leaves_also_one_that_is_not_answered() {
    let ([one, other], nodes, _) = two();
    let (witness, seen) = std::sync::mpsc::channel();
    one.set_witness(move |stored| witness.send((stored.id(), stored.revision().0)).unwrap());
    let (mut live, commit) = Draft::chain(1, 2).accept(nodes[1]);
    wait(other.commit(commit)).unwrap();
    other.lose_answers(1);
    wait(other.commit(live.done(nodes[1], 0))).unwrap_err();
    // Refused, so it leaves nothing.
    wait(one.commit(live.done(nodes[0], 1))).unwrap_err();
    assert_eq!(seen.try_iter().collect::<Vec<_>>(), [(operation_id(1), 1), (operation_id(1), 2)]);
}
