//! A clean restart changes nothing that anybody can see.

use super::bench::Bench;
use super::sample::{Draft, creates, digest, operation_id};
use super::{StoreFixture, wait};
use crate::store::OperationQuery;

/// Operations of every kind, rows, keys, work and lists.
pub fn everything_is_there_after_a_restart(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    let mut lives = Vec::new();
    for n in 0..6 {
        let draft =
            Draft::chain(n, 2).with(creates(&format!("r{n}"), "folder")).with_key(u8::try_from(n).unwrap());
        let mut live = bench.accept(draft);
        for step in 0..u16::try_from(n % 3).unwrap() {
            let commit = live.done(bench.fence, step);
            bench.stored(&live, commit);
        }
        lives.push(live);
    }
    let see = |bench: &Bench<'_>| {
        let rows = bench.rows("folder", None, None, 100);
        let keys: Vec<_> = (0..6).map(|n| wait(bench.store().ledger(&digest(n))).unwrap()).collect();
        let all = bench.operations(&OperationQuery::All, None, 100);
        format!("{rows:?} {keys:?} {all:?} {:?}", bench.due())
    };
    let before = see(&bench);
    for _ in 0..3 {
        bench.restart();
        assert_eq!(see(&bench), before);
        for live in &lives {
            bench.check(live);
        }
    }
}

/// C19: the secret behind page tokens stays the same, so that a token outlives a restart.
pub fn the_page_secret_stays(fixture: &mut dyn StoreFixture) {
    let secret = fixture.store().page_secret();
    assert_ne!(secret, [0; 32]);
    for _ in 0..2 {
        wait(fixture.reopen());
        assert_eq!(fixture.store().page_secret(), secret);
    }
}

/// What is marked with the id of a store is known by it after a restart; and it does not give the secret away.
pub fn the_id_of_a_store_stays_and_is_not_its_secret(fixture: &mut dyn StoreFixture) {
    let id = fixture.store().id();
    let secret: String = fixture.store().page_secret().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(id.to_string().len(), 32);
    assert!(!secret.contains(&id.to_string()));
    for _ in 0..2 {
        wait(fixture.reopen());
        assert_eq!(fixture.store().id(), id);
    }
}

/// C19: a list goes on after a restart where it was.
pub fn positions_outlive_a_restart(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    for n in 0..5 {
        bench.resource(n, &format!("r{n}"), "folder");
    }
    let operations = bench.operations(&OperationQuery::All, None, 2);
    let rows = bench.rows("folder", None, None, 2);
    bench.restart();
    let page = bench.operations(&OperationQuery::All, operations.next.as_ref(), 10);
    let ids: Vec<_> = page.items.iter().map(longrun_core::Operation::id).collect();
    assert_eq!(ids, [2, 1, 0].map(operation_id));
    let page = bench.rows("folder", None, rows.next.as_ref(), 10);
    assert_eq!(page.items.iter().map(|row| row.key.id.as_str()).collect::<Vec<_>>(), ["r2", "r3", "r4"]);
}

/// What it promises is the same each time.
pub fn what_it_promises_stays(fixture: &mut dyn StoreFixture) {
    let promises = fixture.store().capabilities();
    assert!(!promises.name.is_empty());
    wait(fixture.reopen());
    assert_eq!(fixture.store().capabilities(), promises);
}
