//! Lists of operations: newest first, paged by key (C19).

use longrun_core::limits::PAGE_SIZE_MAX;
use longrun_core::{Operation, OperationId};

use super::StoreFixture;
use super::bench::Bench;
use super::sample::{Draft, assert_same, creates, deletes, operation_id, resource_key, updates};
use crate::store::{OperationQuery, Slice};

fn ids(page: &Slice<Operation>) -> Vec<OperationId> {
    page.items.iter().map(Operation::id).collect()
}

fn newest_first(numbers: impl Iterator<Item = u64>) -> Vec<OperationId> {
    let mut ids: Vec<_> = numbers.map(operation_id).collect();
    ids.sort_unstable_by(|a, b| b.cmp(a));
    ids
}

/// S37: newest first, done or not.
pub fn operations_come_newest_first(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    assert_eq!(bench.ids(&OperationQuery::All, 10), []);
    for n in [4, 1, 3, 5, 2] {
        if n % 2 == 0 {
            bench.finished(Draft::chain(n, 1), 9);
        } else {
            bench.accept(Draft::chain(n, 1));
        }
    }
    for _ in 0..2 {
        assert_eq!(bench.ids(&OperationQuery::All, 10), newest_first(1..6));
        bench.restart();
    }
}

/// Page after page gives each operation once, whatever the size of the page.
pub fn pages_of_operations_cover_all_of_them_once(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    for n in 0..13 {
        bench.accept(Draft::chain(n, 1));
    }
    for limit in [1, 2, 3, 5, 12, 13, 14, 1000] {
        assert_eq!(bench.ids(&OperationQuery::All, limit), newest_first(0..13), "pages of {limit}");
    }
}

/// S36: what is there throughout is listed once, while others are added between the pages.
pub fn an_item_that_stays_is_listed_once_while_others_come(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    for n in 0..10 {
        bench.accept(Draft::chain(10 + 2 * n, 1));
    }
    let mut listed = Vec::new();
    let mut after = None;
    for round in 0.. {
        let page = bench.operations(&OperationQuery::All, after.as_ref(), 3);
        listed.extend(ids(&page));
        after = page.next;
        if after.is_none() {
            break;
        }
        // One above all, one among those that were listed, one among those to come, one below all.
        for n in [100 + round, 27 - 2 * round, 11 + 2 * round, round] {
            if !bench.is_there(operation_id(n)) {
                bench.accept(Draft::chain(n, 1));
            }
        }
    }
    let stayed: Vec<_> =
        listed.iter().copied().filter(|id| (0..10).any(|n| *id == operation_id(10 + 2 * n))).collect();
    assert_eq!(stayed, newest_first((10..29).step_by(2)));
    let mut once = listed.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), listed.len(), "an operation was listed twice");
    assert!(listed.is_sorted_by(|a, b| a > b));
}

/// S36: also while others are purged between the pages.
pub fn an_item_that_stays_is_listed_once_while_others_go(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    for n in 0..20 {
        if n % 3 == 0 {
            bench.accept(Draft::chain(n, 1));
        } else {
            bench.finished(Draft::chain(n, 1), i64::try_from(n).unwrap());
        }
    }
    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = bench.operations(&OperationQuery::All, after.as_ref(), 3);
        listed.extend(ids(&page));
        after = page.next;
        bench.purge(20, 2);
        if after.is_none() {
            break;
        }
    }
    let stayed: Vec<_> =
        listed.iter().copied().filter(|id| (0..20).step_by(3).any(|n| *id == operation_id(n))).collect();
    assert_eq!(stayed, newest_first((0..20).step_by(3)));
    assert!(listed.is_sorted_by(|a, b| a > b));
}

/// The item that a position was made from may be gone when the next page is asked for.
pub fn the_operation_at_the_end_of_a_page_may_go(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    for n in 0..6 {
        bench.finished(Draft::chain(n, 1), 100 - i64::try_from(n).unwrap());
    }
    let first = bench.operations(&OperationQuery::All, None, 2);
    assert_eq!(ids(&first), [5, 4].map(operation_id));
    // The newest were done first.
    assert_eq!(bench.purge(96, 10).operations, 2);
    assert!(!bench.is_there(operation_id(4)));
    let second = bench.operations(&OperationQuery::All, first.next.as_ref(), 2);
    assert_eq!(ids(&second), [3, 2].map(operation_id));
}

/// A page has no more than was asked for, nor more than the limit of pages, but goes on at every size.
pub fn a_page_has_no_more_than_was_asked_for(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    for n in 0..3 {
        bench.accept(Draft::chain(n, 1));
    }
    for limit in 1..5 {
        assert_eq!(bench.operations(&OperationQuery::All, None, limit).items.len(), limit.min(3));
    }
    // The interface above has a meaning for 0; here it must only not hang, and not lose its place.
    let page = bench.operations(&OperationQuery::All, None, 0);
    assert!(page.items.len() <= 1 && page.next.is_some());
    assert_eq!(bench.operations(&OperationQuery::All, None, usize::MAX).items.len(), 3.min(PAGE_SIZE_MAX));
}

/// When nothing follows there is no position, also when the last page is full.
pub fn the_last_page_says_so(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    assert_eq!(bench.operations(&OperationQuery::All, None, 2).next, None);
    for n in 0..4 {
        bench.accept(Draft::chain(n, 1));
    }
    let first = bench.operations(&OperationQuery::All, None, 2);
    assert!(first.next.is_some());
    let last = bench.operations(&OperationQuery::All, first.next.as_ref(), 2);
    assert_eq!((last.items.len(), last.next), (2, None));
}

/// A list shows an operation as loading it shows it.
pub fn a_listed_operation_is_as_it_is_loaded(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let mut lives = vec![bench.accept(Draft::chain(1, 2)), bench.finished(Draft::chain(2, 1), 9)];
    let mut live = bench.accept(Draft::chain(3, 2));
    for _ in 0..2 {
        let commit = live.checkpoint(bench.fence, 0, 5);
        bench.stored(&live, commit);
    }
    let commit = live.cancel(bench.fence);
    bench.stored(&live, commit);
    lives.push(live);
    lives.reverse();
    let page = bench.operations(&OperationQuery::All, None, 10);
    for (listed, live) in page.items.iter().zip(&lives) {
        assert_eq!(*listed, live.execution.operation());
        assert_same(&bench.load(listed.id()), &live.execution);
    }
}

/// The list of a resource holds the operations that create, change or delete it, and no others.
pub fn operations_of_a_resource_are_its_own(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    bench.resource(1, "a", "folder");
    bench.resource(2, "b", "folder");
    bench.finished(Draft::chain(3, 1).with(updates(bench.row("a").unwrap())), 9);
    bench.accept(
        Draft::chain(4, 1).with(updates(bench.row("a").unwrap())).with(deletes(bench.row("b").unwrap())),
    );
    bench.accept(Draft::chain(5, 1));
    let of = |id| bench.ids(&OperationQuery::OfResource(resource_key(id)), 2);
    assert_eq!(of("a"), [4, 3, 1].map(operation_id));
    assert_eq!(of("b"), [4, 2].map(operation_id));
    assert_eq!(of("c"), []);
}

/// The operations of a resource are listed when it is gone, and when it never came to be.
pub fn operations_of_a_resource_are_listed_when_it_is_gone(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    let row = bench.resource(1, "a", "folder");
    bench.finished(Draft::chain(2, 1).with(deletes(row)), 9);
    let mut live = bench.accept(Draft::chain(3, 1).with(creates("b", "folder")));
    let commit = live.fails_without_effect(bench.fence, 0);
    bench.stored(&live, commit);
    assert!(live.execution.is_done());
    for _ in 0..2 {
        assert_eq!((bench.row("a"), bench.row("b")), (None, None));
        let of = |id| bench.ids(&OperationQuery::OfResource(resource_key(id)), 10);
        assert_eq!(of("a"), [2, 1].map(operation_id));
        assert_eq!(of("b"), [operation_id(3)]);
        bench.restart();
    }
}

/// The list of a resource is paged like any other.
pub fn operations_of_a_resource_are_paged(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    bench.resource(0, "a", "folder");
    for n in 1..9 {
        bench.finished(Draft::chain(n, 1).with(updates(bench.row("a").unwrap())), 9);
        bench.accept(Draft::chain(100 + n, 1));
    }
    for limit in [1, 2, 3, 8, 9, 10] {
        let paged = bench.ids(&OperationQuery::OfResource(resource_key("a")), limit);
        assert_eq!(paged, newest_first(0..9), "pages of {limit}");
    }
}

/// S40: the list of `a` has nothing of `ab`, nor of `a-`, nor of `A`.
pub fn an_id_that_begins_like_another_is_another(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    for (n, id) in (1..).zip(["a", "ab", "a-", "A", "a0", "a_"]) {
        bench.accept(Draft::chain(n, 1).with(creates(id, id)));
    }
    for (n, id) in (1..).zip(["a", "ab", "a-", "A", "a0", "a_"]) {
        assert_eq!(bench.ids(&OperationQuery::OfResource(resource_key(id)), 10), [operation_id(n)]);
        assert_eq!(bench.row_ids(id, None, 10), [id]);
    }
}
