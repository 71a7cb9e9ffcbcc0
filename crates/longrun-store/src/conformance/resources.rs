//! Resource rows: of one parent, by id, by name, by creation.

use longrun_core::{Intent, ResourceKind, ResourceStatus, Verb};

use super::bench::Bench;
use super::sample::{Draft, creates, deletes, parent, resource_key, updates};
use super::{StoreFixture, wait};
use crate::store::{ResourceOrder, ResourceQuery};

/// What was never created is not there, and that is no error.
pub fn a_row_that_is_not_there_is_none(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    bench.resource(1, "a", "folder");
    assert_eq!(bench.row("b"), None);
    assert_eq!(bench.row_ids("nowhere", None, 10), [""; 0]);
}

/// S37: the rows of a parent come by id, as bytes.
pub fn rows_of_a_parent_come_by_id(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    for (n, id) in (1..).zip(["b", "a", "B", "ab", "a-b", "9", "a_b"]) {
        bench.resource(n, id, "folder");
    }
    for _ in 0..2 {
        assert_eq!(bench.row_ids("folder", None, 10), ["9", "B", "a", "a-b", "a_b", "ab", "b"]);
        bench.restart();
    }
}

/// Page after page gives each row once, whatever the size of the page.
pub fn pages_of_rows_cover_all_of_them_once(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let names: Vec<_> = (10..23).map(|n| format!("r{n}")).collect();
    for (n, id) in (1..).zip(&names) {
        bench.resource(n, id, "folder");
    }
    for limit in [1, 2, 3, 12, 13, 14, 1000] {
        assert_eq!(bench.row_ids("folder", None, limit), names, "pages of {limit}");
    }
}

/// S36: a row that is there throughout is listed once, while others come and go between the pages.
pub fn a_row_that_stays_is_listed_once_while_others_come_and_go(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let mut number = 0;
    let mut next = || {
        number += 1;
        number
    };
    let names: Vec<_> = (10..20).map(|n| format!("r{n}")).collect();
    for id in &names {
        bench.resource(next(), id, "folder");
    }
    let goes: Vec<_> = ["r19x", "r11x", "r10x"].into_iter().collect();
    for id in &goes {
        bench.resource(next(), id, "folder");
    }
    let mut listed = Vec::new();
    let mut after = None;
    for round in 0.. {
        let page = bench.rows("folder", None, after.as_ref(), 2);
        listed.extend(page.items.iter().map(|row| row.key.id.to_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
        if let Some(id) = goes.get(round) {
            let row = bench.row(id).unwrap();
            bench.finished(Draft::chain(next(), 1).with(deletes(row)), 1000);
        }
        bench.resource(next(), &format!("r{}y", 10 + round), "folder");
        bench.resource(next(), &format!("a{round}"), "folder");
        bench.resource(next(), &format!("z{round}"), "folder");
    }
    assert_eq!(listed.iter().filter(|id| names.contains(id)).cloned().collect::<Vec<_>>(), names);
    assert!(listed.is_sorted_by(|a, b| a < b), "{listed:?}");
}

/// S40: a list of one parent shows nothing of another.
pub fn rows_of_another_parent_never_show(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    for (n, (id, of)) in (1..).zip([("x", "a"), ("y", "ab"), ("z", "a-"), ("w", "b"), ("v", "a")]) {
        bench.resource(n, id, of);
    }
    assert_eq!(bench.row_ids("a", None, 1), ["v", "x"]);
    assert_eq!(bench.row_ids("ab", None, 1), ["y"]);
    // Not even with a position from a list of another parent.
    let position = bench.rows("a", None, None, 1).next;
    let page = bench.rows("b", None, position.as_ref(), 10);
    assert_eq!(page.items.iter().map(|row| row.key.id.as_str()).collect::<Vec<_>>(), ["w"]);
}

/// A list of one kind shows nothing of another, not even of one whose name begins the same.
pub fn rows_of_another_kind_never_show(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let kinds = ["sample.thing", "sample.thingy", "sample", "sample.thing.part"];
    for (n, kind) in (1..).zip(kinds) {
        let mut claim = creates("same", "folder");
        claim.key.kind = ResourceKind::new(kind).unwrap();
        bench.finished(Draft::chain(n, 1).with(claim), 9);
    }
    for kind in kinds {
        let kind = ResourceKind::new(kind).unwrap();
        let query = ResourceQuery::new(kind.clone(), parent("folder"));
        let page = wait(bench.store().list_resources(&query, None, 10)).unwrap();
        assert_eq!(page.items.iter().map(|row| &row.key.kind).collect::<Vec<_>>(), [&kind]);
    }
}

/// S37: a filter and pages give the same set as filtering all.
pub fn a_filter_gives_what_filtering_all_would(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    for n in 0..12 {
        let id = format!("r{:02}", n % 12);
        match n % 4 {
            0 => _ = bench.resource(n, &id, "folder"),
            1 => _ = bench.accept(Draft::chain(n, 1).with(creates(&id, "folder"))),
            2 => {
                let row = bench.resource(n, &id, "folder");
                bench.accept(Draft::chain(100 + n, 1).with(deletes(row)));
            }
            _ => {
                let mut live = bench.accept(Draft::chain(n, 1).with(creates(&id, "folder")));
                let commit = live.fails(bench.fence, 0, false);
                bench.stored(&live, commit);
                let commit = live.undo_fails(bench.fence, 0);
                bench.stored(&live, commit);
                let commit = live.intervene(bench.fence, Verb::Abandon);
                bench.stored(&live, commit);
            }
        }
    }
    let all = bench.rows("folder", None, None, 100).items;
    assert_eq!(all.len(), 12);
    for status in ResourceStatus::ALL {
        let of_all = all.iter().filter(|row| row.status == status).map(|row| row.key.id.to_string());
        let of_all: Vec<_> = of_all.collect();
        assert_eq!(of_all.len(), 3, "{status}");
        for limit in [1, 2, 5, 100] {
            assert_eq!(bench.row_ids("folder", Some(status), limit), of_all, "{status}, pages of {limit}");
        }
    }
}

/// A row that was removed is in no list.
pub fn a_row_that_is_gone_is_not_listed(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    bench.resource(1, "a", "folder");
    let row = bench.resource(2, "b", "folder");
    bench.finished(Draft::chain(3, 1).with(deletes(row)), 9);
    for _ in 0..2 {
        assert_eq!(bench.row_ids("folder", None, 10), ["a"]);
        assert_eq!(bench.row("b"), None);
        bench.restart();
    }
}

/// A list shows a row as reading it shows it.
pub fn a_listed_row_is_as_it_is_read(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    bench.resource(1, "a", "folder");
    bench.accept(Draft::chain(2, 1).with(creates("b", "folder")));
    let page = bench.rows("folder", None, None, 10);
    assert_eq!(page.items.len(), 2);
    for row in page.items {
        assert_eq!(wait(bench.store().resource(&resource_key(row.key.id.as_str()))).unwrap(), Some(row));
    }
}

/// Creates a resource with this name, at second `n`.
fn named(bench: &Bench<'_>, n: u64, id: &str, name: &str) {
    let mut claim = creates(id, "folder");
    if let Intent::Create { name: of_claim, .. } = &mut claim.intent {
        *of_claim = name.to_owned();
    }
    bench.finished(Draft::chain(n, 1).with(claim), i64::try_from(n).unwrap() + 1);
}

/// The ids of a whole list, in pages of this size.
fn listed(bench: &Bench<'_>, query: &ResourceQuery, limit: usize) -> Vec<String> {
    let mut ids = Vec::new();
    let mut after = None;
    loop {
        let page = wait(bench.store().list_resources(query, after.as_ref(), limit)).unwrap();
        assert!(page.next.is_none() || page.next != after, "the list does not go on");
        ids.extend(page.items.iter().map(|row| row.key.id.to_string()));
        after = page.next;
        if after.is_none() {
            return ids;
        }
    }
}

fn ordered(order: ResourceOrder, descending: bool) -> ResourceQuery {
    ResourceQuery {
        order,
        descending,
        ..ResourceQuery::new(super::sample::resource_kind(), parent("folder"))
    }
}

/// S37: in each order, both ways, in pages of any size; what is equal comes by id.
pub fn rows_come_by_name_and_by_creation_both_ways(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    for (n, (id, name)) in (1..).zip([("c", "m"), ("a", "z"), ("e", ""), ("b", "m"), ("d", "ma")]) {
        named(&bench, n, id, name);
    }
    let orders = [
        (ResourceOrder::Id, ["a", "b", "c", "d", "e"]),
        (ResourceOrder::Name, ["e", "b", "c", "d", "a"]),
        (ResourceOrder::Creation, ["c", "a", "e", "b", "d"]),
    ];
    for _ in 0..2 {
        for (order, expected) in &orders {
            for limit in [1, 2, 5, 100] {
                assert_eq!(listed(&bench, &ordered(*order, false), limit), *expected, "{order:?}");
                let mut backward = listed(&bench, &ordered(*order, true), limit);
                backward.reverse();
                assert_eq!(backward, *expected, "{order:?}, descending");
            }
        }
        bench.restart();
    }
}

/// A name is a filter; it does not take in longer names.
pub fn rows_of_one_name_are_found_by_it(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    for (n, (id, name)) in (1..).zip([("c", "x"), ("a", "xy"), ("b", "x"), ("d", ""), ("e", "x-")]) {
        named(&bench, n, id, name);
    }
    for order in [ResourceOrder::Id, ResourceOrder::Name] {
        let of = |name: &str| ResourceQuery { name: Some(name.to_owned()), ..ordered(order, false) };
        for limit in [1, 100] {
            assert_eq!(listed(&bench, &of("x"), limit), ["b", "c"], "{order:?}");
            assert_eq!(listed(&bench, &of(""), limit), ["d"], "{order:?}");
            assert_eq!(listed(&bench, &of("y"), limit), [""; 0], "{order:?}");
        }
    }
    let by_creation = ResourceQuery { name: Some("x".to_owned()), ..ordered(ResourceOrder::Creation, true) };
    assert_eq!(listed(&bench, &by_creation, 1), ["b", "c"]);
}

/// S36: a row that is renamed is found under its new name alone; the others are listed once.
pub fn a_row_that_is_renamed_moves_and_others_stay(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    for (n, (id, name)) in (1..).zip([("a", "aa"), ("b", "zz"), ("c", "mm"), ("d", "pp")]) {
        named(&bench, n, id, name);
    }
    let query = ordered(ResourceOrder::Name, false);
    let first = wait(bench.store().list_resources(&query, None, 1)).unwrap();
    assert_eq!(first.items[0].key.id.as_str(), "a");
    // "new name" lies between mm and pp.
    let row = bench.row("a").unwrap();
    bench.finished(Draft::chain(9, 1).with(updates(row)), 10);
    let rest = wait(bench.store().list_resources(&query, first.next.as_ref(), 10)).unwrap();
    let rest: Vec<_> = rest.items.iter().map(|row| row.key.id.as_str()).collect();
    assert_eq!(rest.iter().filter(|id| **id != "a").collect::<Vec<_>>(), [&"c", &"d", &"b"]);
    assert_eq!(listed(&bench, &query, 1), ["c", "a", "d", "b"]);
    let of_old = ResourceQuery { name: Some("aa".to_owned()), ..query };
    assert_eq!(listed(&bench, &of_old, 1), [""; 0]);
}

/// Names as long as they may be, of any characters, that differ only at the end.
pub fn long_and_strange_names_are_listed_once(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let mut ids = Vec::new();
    for n in 0..12_u64 {
        let name = match n % 4 {
            0 => format!("{}{n:02}", "a".repeat(254)),
            1 => format!("{}{n:02}", "é".repeat(254)),
            2 => format!("{}{n:02}", "🦀".repeat(254)),
            _ => format!("Ünïcødé {n}"),
        };
        let id = format!("{n:0>50}");
        named(&bench, n, &id, &name);
        let of = ResourceQuery { name: Some(name), ..ordered(ResourceOrder::Name, false) };
        assert_eq!(listed(&bench, &of, 1), [id.as_str()]);
        assert_eq!(listed(&bench, &ResourceQuery { order: ResourceOrder::Id, ..of }, 1), [id.as_str()]);
        ids.push(id);
    }
    for limit in [1, 5, 100] {
        let mut listed = listed(&bench, &ordered(ResourceOrder::Name, limit == 5), limit);
        listed.sort_unstable();
        assert_eq!(listed, ids, "pages of {limit}");
    }
}
