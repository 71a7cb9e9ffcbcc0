//! References to items, and the orphans that the last of them leaves.

use std::collections::BTreeSet;
use std::thread;

use longrun_core::{Fence, Incarnation, ItemId, ItemKey, OperationId, Orphan, ResourceKey, ResourceKind};

use super::bench::Bench;
use super::sample::{Draft, Live, creates, deletes, operation_id, resource_key};
use super::{StoreFixture, wait};
use crate::error::{CommitError, Conflict};
use crate::items::{Dropped, Holder, Taken};

fn item(n: u8) -> ItemKey {
    // A zero in the id, which must not be taken for the end of a part of a key.
    ItemKey { kind: ResourceKind::new("sample.chunk").unwrap(), id: ItemId::new([0, n, 0]).unwrap() }
}

fn items(numbers: impl IntoIterator<Item = u8>) -> Vec<ItemKey> {
    numbers.into_iter().map(item).collect()
}

fn holder(bench: &Bench<'_>, operation: OperationId, resource: &str) -> Holder {
    Holder { fence: bench.fence, operation, resource: resource_key(resource) }
}

fn take(bench: &Bench<'_>, of: &Holder, numbers: &[u8], fresh: u128) -> Result<Vec<Taken>, CommitError> {
    let items = items(numbers.iter().copied());
    wait(bench.store().take_references(of.clone(), items, Incarnation(fresh)))
}

#[track_caller]
fn taken(bench: &Bench<'_>, of: &Holder, numbers: &[u8], fresh: u128) -> Vec<u128> {
    take(bench, of, numbers, fresh).unwrap().into_iter().map(|taken| taken.incarnation.0).collect()
}

fn drop_some(bench: &Bench<'_>, of: &Holder, limit: usize) -> Result<Dropped, CommitError> {
    wait(bench.store().drop_references(of.clone(), limit))
}

#[track_caller]
fn drop_all(bench: &Bench<'_>, of: &Holder) -> usize {
    let mut references = 0;
    loop {
        let dropped = drop_some(bench, of, 3).unwrap();
        references += dropped.references;
        if !dropped.more {
            return references;
        }
    }
}

fn orphans(bench: &Bench<'_>, of: Option<OperationId>) -> Vec<Orphan> {
    let mut all = Vec::new();
    loop {
        let page = wait(bench.store().orphans(of, all.last(), 2)).unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

fn lives(bench: &Bench<'_>, n: u8) -> Option<u128> {
    wait(bench.store().incarnations(&[item(n)])).unwrap()[0].map(|incarnation| incarnation.0)
}

/// Operation `n`, which is making a resource.
fn making(bench: &Bench<'_>, n: u64, resource: &str) -> (Live, Holder) {
    let live = bench.accept(Draft::chain(n, 1).with(creates(resource, "folder")));
    let holder = holder(bench, live.id(), resource);
    (live, holder)
}

/// The first reference begins a life; later ones, of anybody, are to the same.
pub fn the_first_reference_begins_a_life_that_others_share(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    let (_, mut a) = making(&bench, 1, "a");
    let (_, mut b) = making(&bench, 2, "b");
    assert_eq!(lives(&bench, 1), None);
    assert_eq!(taken(&bench, &a, &[1, 2], 10), [10, 10]);
    assert_eq!(taken(&bench, &b, &[2, 3], 20), [10, 20]);
    for _ in 0..2 {
        assert_eq!([1, 2, 3, 4].map(|n| lives(&bench, n)), [Some(10), Some(10), Some(20), None]);
        bench.restart();
        (a.fence, b.fence) = (bench.fence, bench.fence);
    }
    assert_eq!(taken(&bench, &a, &[3], 30), [20]);
}

/// A reference is taken once, however often it is asked for, also within one call.
pub fn a_reference_is_taken_once(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let (_, a) = making(&bench, 1, "a");
    assert_eq!(taken(&bench, &a, &[1, 1], 10), [10, 10]);
    assert_eq!(taken(&bench, &a, &[1], 20), [10]);
    assert_eq!(drop_all(&bench, &a), 1);
    assert_eq!(lives(&bench, 1), None);
}

/// What others still refer to lives on; what nobody does is an orphan of whoever dropped the last reference.
pub fn the_last_drop_leaves_an_orphan(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    let (_, a) = making(&bench, 1, "a");
    let (_, mut b) = making(&bench, 2, "b");
    taken(&bench, &a, &[1, 2], 10);
    taken(&bench, &b, &[2, 3], 20);
    assert_eq!(drop_all(&bench, &a), 2);
    assert_eq!([1, 2, 3].map(|n| lives(&bench, n)), [None, Some(10), Some(20)]);
    let of_a = Orphan { operation: a.operation, incarnation: Incarnation(10), item: item(1) };
    assert_eq!(orphans(&bench, None), std::slice::from_ref(&of_a));
    bench.restart();
    b.fence = bench.fence;
    assert_eq!(drop_all(&bench, &b), 2);
    let of_b = |n, life| Orphan { operation: b.operation, incarnation: Incarnation(life), item: item(n) };
    assert_eq!(orphans(&bench, Some(a.operation)), std::slice::from_ref(&of_a));
    assert_eq!(orphans(&bench, Some(b.operation)), [of_b(2, 10), of_b(3, 20)]);
    assert_eq!(orphans(&bench, None).len(), 3);
    // Forgetting, also twice, and also of what was never there.
    for _ in 0..2 {
        let forgotten = vec![of_a.clone(), of_b(3, 20), of_b(9, 9)];
        wait(bench.store().forget_orphans(bench.fence, forgotten)).unwrap();
        assert_eq!(orphans(&bench, None), [of_b(2, 10)]);
    }
}

/// An item that is taken again lives again, in another life, and its orphan stays until it is forgotten.
pub fn an_item_that_lives_again_has_another_life(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let (_, a) = making(&bench, 1, "a");
    let (_, b) = making(&bench, 2, "b");
    taken(&bench, &a, &[1], 10);
    drop_all(&bench, &a);
    assert_eq!(taken(&bench, &b, &[1], 20), [20]);
    drop_all(&bench, &b);
    assert_eq!(taken(&bench, &b, &[1], 30), [30]);
    let left: BTreeSet<_> = orphans(&bench, None).iter().map(|orphan| orphan.incarnation.0).collect();
    assert_eq!(left, BTreeSet::from([10, 20]));
}

/// Many references are dropped a part at a time, and the store says when there are more.
pub fn references_are_dropped_a_part_at_a_time(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let (_, a) = making(&bench, 1, "a");
    let (_, b) = making(&bench, 2, "ab");
    let all: Vec<_> = (0..10).collect();
    taken(&bench, &a, &all, 10);
    taken(&bench, &b, &all, 20);
    assert_eq!(drop_some(&bench, &a, 4).unwrap(), Dropped { references: 4, more: true });
    assert_eq!(drop_some(&bench, &a, 6).unwrap(), Dropped { references: 6, more: false });
    assert_eq!(drop_some(&bench, &a, 1).unwrap(), Dropped::default());
    assert_eq!(orphans(&bench, None), [], "the other resource has them still");
    assert_eq!(drop_some(&bench, &b, usize::MAX).unwrap(), Dropped { references: 10, more: false });
    assert_eq!(orphans(&bench, None).len(), 10);
}

/// Only an operation that holds the resource takes and drops for it: not another, not one that is done.
pub fn only_who_holds_the_resource_takes_and_drops(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let (mut live, a) = making(&bench, 1, "a");
    taken(&bench, &a, &[1], 10);
    let conflict = |result: Result<_, CommitError>| match result {
        Err(CommitError::Conflict(Conflict::Resource { holder, exists, .. })) => (holder, exists),
        other => panic!("{other:?}"),
    };
    let other = Holder { operation: operation_id(7), ..a.clone() };
    assert_eq!(conflict(take(&bench, &other, &[2], 20).map(drop)), (Some(a.operation), true));
    assert_eq!(conflict(drop_some(&bench, &other, 9).map(drop)), (Some(a.operation), true));
    let nothing = Holder { resource: resource_key("b"), ..other };
    assert_eq!(conflict(take(&bench, &nothing, &[2], 20).map(drop)), (None, false));
    let commit = live.done(bench.fence, 0);
    bench.stored(&live, commit);
    assert_eq!(conflict(take(&bench, &a, &[2], 20).map(drop)), (None, true));
    assert_eq!(conflict(drop_some(&bench, &a, 9).map(drop)), (None, true));
    assert_eq!([1, 2].map(|n| lives(&bench, n)), [Some(10), None]);
    // The next operation on it may.
    let row = bench.row("a").unwrap();
    let next = bench.accept(Draft::chain(2, 1).with(deletes(row)));
    assert_eq!(drop_all(&bench, &holder(&bench, next.id(), "a")), 1);
    assert_eq!(orphans(&bench, Some(next.id())).len(), 1);
}

/// C17: an older owner takes, drops and forgets nothing more.
pub fn an_older_owner_changes_no_references(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    let (_, a) = making(&bench, 1, "a");
    taken(&bench, &a, &[1, 2], 10);
    drop_some(&bench, &a, 1).unwrap();
    let left = orphans(&bench, None);
    bench.fence = bench.replaced();
    let fenced = |result: Result<(), CommitError>| matches!(result, Err(CommitError::Fenced { .. }));
    assert!(fenced(take(&bench, &a, &[3], 20).map(drop)));
    assert!(fenced(drop_some(&bench, &a, 9).map(drop)));
    assert!(fenced(wait(bench.store().forget_orphans(a.fence, left.clone()))));
    assert!(fenced(wait(bench.store().forget_orphans(Fence(99), left.clone()))));
    assert_eq!(orphans(&bench, None), left);
    assert_eq!([1, 2, 3].map(|n| lives(&bench, n)), [None, Some(10), None]);
}

/// Taking and dropping by many at once: each item lives exactly while somebody refers to it.
pub fn racing_takes_and_drops_keep_the_count(fixture: &mut dyn StoreFixture) {
    const RACERS: u8 = 6;
    let bench = Bench::new(fixture);
    let names: Vec<_> = (0..RACERS).map(|n| format!("r{n}")).collect();
    let holders: Vec<_> = (1..).zip(&names).map(|(n, name)| making(&bench, n, name).1).collect();
    thread::scope(|scope| {
        for (n, holder) in (0..RACERS).zip(&holders) {
            let bench = &bench;
            scope.spawn(move || {
                for round in 0..8_u8 {
                    let fresh = u128::from(n) * 100 + u128::from(round);
                    taken(bench, holder, &[0, 1, 10 + n], fresh);
                    if round < 7 || n > 0 {
                        drop_all(bench, holder);
                    }
                }
            });
        }
    });
    // The first racer kept what it took last.
    assert!([0, 1, 10].iter().all(|n| lives(&bench, *n).is_some()));
    assert!((11..10 + RACERS).all(|n| lives(&bench, n).is_none()));
    let orphans = orphans(&bench, None);
    let distinct: BTreeSet<_> = orphans.iter().map(|orphan| (&orphan.item, orphan.incarnation)).collect();
    assert_eq!(distinct.len(), orphans.len(), "no life ends twice");
    assert!(
        orphans
            .iter()
            .all(|orphan| lives(&bench, orphan.item.id.as_bytes()[1]) != Some(orphan.incarnation.0))
    );
}

/// Who takes a confirmed item is told so, for as long as that life lasts; a confirmation of another life counts for nothing.
pub fn what_is_confirmed_is_told_for_one_life(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    let (_, mut a) = making(&bench, 1, "a");
    let (_, mut b) = making(&bench, 2, "b");
    let confirmed = |bench: &Bench<'_>, of: &Holder, numbers: &[u8]| -> Vec<bool> {
        take(bench, of, numbers, 99).unwrap().iter().map(|taken| taken.confirmed).collect()
    };
    let confirm = |bench: &Bench<'_>, of: &Holder, n: u8, life: u128| {
        wait(bench.store().confirm_items(of.clone(), vec![(item(n), Incarnation(life))]))
    };
    taken(&bench, &a, &[1, 2], 10);
    assert_eq!(confirmed(&bench, &a, &[1, 2]), [false, false]);
    confirm(&bench, &a, 1, 10).unwrap();
    confirm(&bench, &a, 2, 11).unwrap();
    confirm(&bench, &a, 3, 10).unwrap();
    for _ in 0..2 {
        assert_eq!(confirmed(&bench, &a, &[1, 2]), [true, false]);
        assert_eq!(confirmed(&bench, &b, &[1, 2]), [true, false]);
        bench.restart();
        (a.fence, b.fence) = (bench.fence, bench.fence);
    }
    // Of those who hold something only: not by others.
    let other = Holder { operation: operation_id(7), ..a.clone() };
    assert!(matches!(confirm(&bench, &other, 2, 10), Err(CommitError::Conflict(Conflict::Resource { .. }))));
    drop_all(&bench, &a);
    assert_eq!(confirmed(&bench, &b, &[1]), [true], "it lives on");
    drop_all(&bench, &b);
    assert_eq!(confirmed(&bench, &a, &[1]), [false], "another life");
}

/// A confirmation that is taken back is gone for good, also for those who had it told before, until somebody confirms anew. One
/// of another life is left alone, and an older owner takes nothing back.
pub fn what_is_not_confirmed_any_more_is_told_to_nobody(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    let (_, mut a) = making(&bench, 1, "a");
    let (_, mut b) = making(&bench, 2, "b");
    taken(&bench, &a, &[1, 2], 10);
    let lives = |numbers: &[(u8, u128)]| -> Vec<_> {
        numbers.iter().map(|(n, life)| (item(*n), Incarnation(*life))).collect()
    };
    let confirmed = |bench: &Bench<'_>, of: &Holder| -> Vec<bool> {
        take(bench, of, &[1, 2], 99).unwrap().iter().map(|taken| taken.confirmed).collect()
    };
    wait(bench.store().confirm_items(a.clone(), lives(&[(1, 10), (2, 10)]))).unwrap();
    let unconfirm = |bench: &Bench<'_>, fence: Fence, numbers: &[(u8, u128)]| {
        wait(bench.store().unconfirm_items(fence, lives(numbers)))
    };
    unconfirm(&bench, a.fence, &[(1, 11), (2, 10), (3, 10)]).unwrap();
    for _ in 0..2 {
        assert_eq!(confirmed(&bench, &a), [true, false]);
        assert_eq!(confirmed(&bench, &b), [true, false]);
        bench.restart();
        assert!(matches!(unconfirm(&bench, a.fence, &[(1, 10)]), Err(CommitError::Fenced { .. })));
        (a.fence, b.fence) = (bench.fence, bench.fence);
    }
    wait(bench.store().confirm_items(b, lives(&[(2, 10)]))).unwrap();
    assert_eq!(confirmed(&bench, &a), [true, true]);
}

fn references(bench: &Bench<'_>, of: &Holder, limit: usize) -> Vec<ItemKey> {
    let mut all = Vec::new();
    loop {
        let page = wait(bench.store().references(&of.resource, all.last(), limit)).unwrap();
        if page.is_empty() {
            return all;
        }
        assert!(page.len() <= limit);
        all.extend(page);
    }
}

fn holders(bench: &Bench<'_>, limit: usize) -> Vec<ResourceKey> {
    let mut all = Vec::new();
    loop {
        let page = wait(bench.store().reference_holders(all.last(), limit)).unwrap();
        if page.is_empty() {
            return all;
        }
        assert!(page.len() <= limit);
        all.extend(page);
    }
}

/// The references that are named go, in one commit; others stay. One that is not there, or is named twice, does no harm.
pub fn references_to_some_items_are_dropped_and_others_stay(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let (_, a) = making(&bench, 1, "a");
    let (_, b) = making(&bench, 2, "b");
    taken(&bench, &a, &[1, 2, 3], 10);
    taken(&bench, &b, &[2], 20);
    let drop_to = |of: &Holder, numbers: &[u8]| {
        wait(bench.store().drop_references_to(of.clone(), items(numbers.iter().copied())))
    };
    assert_eq!(drop_to(&a, &[1, 2, 2, 9]).unwrap(), 2);
    assert_eq!([1, 2, 3].map(|n| lives(&bench, n)), [None, Some(10), Some(10)]);
    assert_eq!(references(&bench, &a, 9), items([3]));
    let of_a = Orphan { operation: a.operation, incarnation: Incarnation(10), item: item(1) };
    assert_eq!(orphans(&bench, None), [of_a]);
    assert_eq!(drop_to(&a, &[1, 2]).unwrap(), 0, "it may be repeated");
    assert_eq!(drop_to(&a, &[]).unwrap(), 0);
    let other = Holder { operation: operation_id(7), ..a.clone() };
    assert!(matches!(drop_to(&other, &[3]), Err(CommitError::Conflict(Conflict::Resource { .. }))));
    let old = Holder { fence: Fence(bench.fence.0 + 1), ..a.clone() };
    assert!(matches!(drop_to(&old, &[3]), Err(CommitError::Fenced { .. })));
    assert_eq!(references(&bench, &a, 9), items([3]));
}

/// What a resource refers to is listed in pages of any size, each item once, and nothing of others.
pub fn references_are_listed_in_pages_each_once(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    let (_, a) = making(&bench, 1, "a");
    let (_, b) = making(&bench, 2, "ab");
    taken(&bench, &a, &[5, 1, 3], 10);
    taken(&bench, &b, &[2, 3], 20);
    for _ in 0..2 {
        for limit in [1, 2, 3, 100] {
            assert_eq!(references(&bench, &a, limit), items([1, 3, 5]));
            assert_eq!(references(&bench, &b, limit), items([2, 3]));
        }
        bench.restart();
    }
    let nothing = Holder { resource: resource_key("c"), ..a };
    assert_eq!(references(&bench, &nothing, 5), []);
}

/// Each resource with references is listed once, however many it has.
pub fn each_holder_is_listed_once_whatever_it_holds(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    assert_eq!(holders(&bench, 5), []);
    for (n, name) in (1..).zip(["b", "a", "ab", "none"]) {
        let (_, of) = making(&bench, n, name);
        if name != "none" {
            taken(&bench, &of, &[0, 1, 255], 10);
        }
    }
    for limit in [1, 2, 100] {
        assert_eq!(holders(&bench, limit), ["a", "ab", "b"].map(resource_key));
    }
}

/// References of a resource are dropped as those of one that is gone when it is gone, and not before.
pub fn references_of_a_resource_are_dropped_as_gone_only_when_it_is_gone(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let (mut live, a) = making(&bench, 1, "a");
    let (_, b) = making(&bench, 2, "b");
    taken(&bench, &a, &[1, 2, 3], 10);
    taken(&bench, &b, &[2], 20);
    let collector = Holder { operation: operation_id(77), ..a.clone() };
    let drop_gone = |limit| wait(bench.store().drop_references_of_gone(collector.clone(), limit));
    let there = |holder| {
        move |result: &Result<Dropped, CommitError>| match result {
            Err(CommitError::Conflict(Conflict::Resource { holder: found, exists: true, .. })) => {
                *found == holder
            }
            _ => false,
        }
    };
    assert!(there(Some(a.operation))(&drop_gone(9)), "it is being made");
    let commit = live.done(bench.fence, 0);
    bench.stored(&live, commit);
    assert!(there(None)(&drop_gone(9)), "nobody holds it, and it is there");
    let mut delete = bench.accept(Draft::chain(3, 1).with(deletes(bench.row("a").unwrap())));
    assert!(there(Some(delete.id()))(&drop_gone(9)), "it is being deleted");
    let commit = delete.done(bench.fence, 0);
    bench.stored(&delete, commit);
    assert_eq!(bench.row("a"), None);
    assert_eq!(holders(&bench, 9), ["a", "b"].map(resource_key), "the delete left them");
    assert_eq!(drop_gone(2).unwrap(), Dropped { references: 2, more: true });
    assert_eq!(drop_gone(2).unwrap(), Dropped { references: 1, more: false });
    assert_eq!(drop_gone(2).unwrap(), Dropped::default());
    assert_eq!([1, 2, 3].map(|n| lives(&bench, n)), [None, Some(10), None]);
    let orphan = |n| Orphan { operation: operation_id(77), incarnation: Incarnation(10), item: item(n) };
    assert_eq!(orphans(&bench, None), [orphan(1), orphan(3)]);
    let old = Holder { fence: Fence(bench.fence.0 + 1), ..collector.clone() };
    assert!(matches!(wait(bench.store().drop_references_of_gone(old, 9)), Err(CommitError::Fenced { .. })));
}
