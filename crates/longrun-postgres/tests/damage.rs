//! Records that cannot be read (C18, S34): each is its own trouble.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use common::{Place, place};
use longrun_core::{Fence, OperationId, Timestamp};
use longrun_postgres::PostgresStore;
use longrun_store::conformance::records::reseal;
use longrun_store::conformance::sample::{
    Draft, Live, creates, operation_id, parent, resource_key, resource_kind, time,
};
use longrun_store::{Cluster, CommitError, OperationQuery, Purge, ResourceQuery, Store, StoreError, Wanted};

mod common;

struct Damaged {
    place: Place,
    store: PostgresStore,
    fence: Fence,
}

async fn opened() -> Option<Damaged> {
    let place = place()?;
    let store = place.open().await;
    let fence = store.take_over().await.unwrap();
    Some(Damaged { place, store, fence })
}

impl Damaged {
    async fn accept(&self, draft: Draft) -> Live {
        let (live, commit) = draft.accept(self.fence);
        self.store.commit(commit).await.unwrap();
        live
    }

    async fn finish(&self, n: u64) -> Live {
        let mut live = self.accept(Draft::chain(n, 1).with(creates(&format!("r{n}"), "folder"))).await;
        self.store.commit(live.done(self.fence, 0)).await.unwrap();
        live
    }

    async fn corrupt(&self, id: OperationId) {
        let found = self.store.load(id).await;
        let Err(StoreError::Corrupt { subject, .. }) = &found else { panic!("{found:?}") };
        assert!(subject.contains(id.as_str()), "{subject}");
    }

    async fn listed(&self) -> Vec<OperationId> {
        let slice = self.store.list_operations(&OperationQuery::All, None, 100).await.unwrap();
        assert_eq!(slice.next, None);
        slice.items.iter().map(longrun_core::Operation::id).collect()
    }

    async fn claim(&self) -> Vec<OperationId> {
        let wanted = Wanted { until: Timestamp::MAX, limit: 100, kinds: None, except: Vec::new() };
        let claimed = self.store.claim(self.fence, &wanted).await.unwrap();
        claimed.iter().map(|claimed| claimed.due.id).collect()
    }
}

const GARBAGE: [&str; 5] = [
    "''::bytea",
    "'\\xdeadbeef'::bytea",
    "substr(RECORD, 1, length(RECORD) - 1)",
    "set_byte(RECORD, length(RECORD) / 2, get_byte(RECORD, length(RECORD) / 2) # 1)",
    "set_byte(RECORD, 3, 9)",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c18_a_damaged_operation_is_its_own_trouble() {
    let Some(it) = opened().await else { return };
    let whole = [it.finish(1).await.id(), it.accept(Draft::chain(2, 2)).await.id()];
    let mut n = 10;
    for garbage in GARBAGE {
        n += 2;
        let done = it.finish(n).await.id();
        let mut live = it.accept(Draft::chain(n + 1, 2)).await;
        it.store.commit(live.done(it.fence, 0)).await.unwrap();
        let head = garbage.replace("RECORD", "head");
        it.place
            .execute(&format!(
                "UPDATE longrun.operation_records SET head = {head} WHERE operation = '{done}'"
            ))
            .await;
        it.corrupt(done).await;
        let record = garbage.replace("RECORD", "record");
        let text = format!(
            "UPDATE longrun.operation_journal SET record = {record} WHERE operation = '{}'",
            live.id()
        );
        it.place.execute(&text).await;
        it.corrupt(live.id()).await;
    }
    assert_eq!(it.listed().await, [whole[1], whole[0]]);
    // One whose journal has a hole, and one that lies under the key of another.
    let mut live = it.accept(Draft::chain(100, 3)).await;
    for step in 0..2 {
        it.store.commit(live.done(it.fence, step)).await.unwrap();
    }
    let text =
        format!("DELETE FROM longrun.operation_journal WHERE first = 2 AND operation = '{}'", live.id());
    it.place.execute(&text).await;
    it.corrupt(live.id()).await;
    let other = it.finish(101).await.id();
    let text = format!(
        "UPDATE longrun.operation_records SET head = (SELECT head FROM longrun.operation_records
        WHERE operation = '{}') WHERE operation = '{other}'",
        whole[0]
    );
    it.place.execute(&text).await;
    it.corrupt(other).await;
    assert_eq!(it.listed().await, [whole[1], whole[0]]);
    let key = resource_key("r101");
    let of = it.store.list_operations(&OperationQuery::OfResource(key), None, 10).await.unwrap();
    assert_eq!((of.items.len(), of.next), (0, None));
    it.finish(200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c18_a_damaged_row_is_its_own_trouble() {
    let Some(it) = opened().await else { return };
    for n in 1..=7 {
        it.finish(n).await;
    }
    for (n, garbage) in (2..).zip(GARBAGE) {
        let record = garbage.replace("RECORD", "record");
        it.place.execute(&format!("UPDATE longrun.resources SET record = {record} WHERE id = 'r{n}'")).await;
        let key = resource_key(&format!("r{n}"));
        let found = it.store.resource(&key).await;
        let Err(StoreError::Corrupt { subject, .. }) = &found else { panic!("{found:?}") };
        assert!(subject.contains(&format!("r{n}")), "{subject}");
    }
    let query = ResourceQuery::new(resource_kind(), parent("folder"));
    for order in [
        longrun_store::ResourceOrder::Id,
        longrun_store::ResourceOrder::Name,
        longrun_store::ResourceOrder::Creation,
    ] {
        let query = ResourceQuery { order, ..query.clone() };
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let slice = it.store.list_resources(&query, after.as_ref(), 2).await.unwrap();
            found.extend(slice.items.iter().map(|row| row.key.id.to_string()));
            after = slice.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, ["r1", "r7"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c20_a_purge_passes_over_what_it_cannot_read() {
    let Some(it) = opened().await else { return };
    for n in 1..=4 {
        it.finish(n).await;
    }
    let damaged = [operation_id(1), operation_id(3)];
    for id in damaged {
        let text = format!("UPDATE longrun.operation_records SET head = 'x' WHERE operation = '{id}'");
        it.place.execute(&text).await;
    }
    let purge =
        Purge { only: None, done_until: Timestamp::MAX, keys_expire_at: time(9), now: time(9), limit: 1 };
    let mut removed = 0;
    for _ in 0..10 {
        let purged = it.store.purge(it.fence, purge).await.unwrap();
        removed += purged.operations;
        if !purged.more {
            assert_eq!(purged.unreadable, 2);
            break;
        }
    }
    assert_eq!(removed, 2);
    assert_eq!(it.place.count("SELECT count(*) FROM longrun.operations").await, 2);
    for id in damaged {
        it.corrupt(id).await;
    }
    let stale = it.store.purge(Fence(it.fence.0 + 1), purge).await;
    assert!(matches!(stale, Err(CommitError::Fenced { .. })), "{stale:?}");
}

/// The version of a record, with a checksum that fits.
fn of_the_future(mut record: Vec<u8>) -> Vec<u8> {
    record[2..4].copy_from_slice(&9_u16.to_be_bytes());
    reseal(&mut record);
    record
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s34_what_a_newer_program_wrote_is_left_alone() {
    let Some(it) = opened().await else { return };
    let client = it.place.client().await;
    let waiting = |n| Draft { start: false, ..Draft::chain(n, 1) }.accept(it.fence).1.by_visitor();
    for n in [1, 2] {
        it.store.commit(waiting(n)).await.unwrap();
    }
    let (newer, done) = (operation_id(1), it.finish(3).await.id());
    for id in [newer, done] {
        let text = it.place.sql("SELECT head FROM longrun.operation_records WHERE operation = $1");
        let head = client.query_one(&text, &[&id.as_str()]).await.unwrap();
        let head = of_the_future(head.get(0));
        let text = it.place.sql("UPDATE longrun.operation_records SET head = $2 WHERE operation = $1");
        client.execute(&text, &[&id.as_str(), &head]).await.unwrap();
        let text = it.place.sql("UPDATE longrun.operations SET format = 9 WHERE id = $1");
        client.execute(&text, &[&id.as_str()]).await.unwrap();
        let found = it.store.load(id).await;
        assert!(matches!(found, Err(StoreError::FutureFormat { found: 9, .. })), "{found:?}");
    }
    let row = client.query_one(&it.place.sql("SELECT record FROM longrun.resources"), &[]).await.unwrap();
    let row = of_the_future(row.get(0));
    client.execute(&it.place.sql("UPDATE longrun.resources SET record = $1"), &[&row]).await.unwrap();
    let found = it.store.resource(&resource_key("r3")).await;
    assert!(matches!(found, Err(StoreError::FutureFormat { .. })), "{found:?}");
    assert_eq!(it.claim().await, [operation_id(2)]);
    assert_eq!(it.listed().await, [operation_id(2)]);
    let purge =
        Purge { only: None, done_until: Timestamp::MAX, keys_expire_at: time(9), now: time(9), limit: 9 };
    let purged = it.store.purge(it.fence, purge).await.unwrap();
    assert_eq!((purged.operations, purged.unreadable), (0, 1));
    assert_eq!(it.place.count("SELECT count(*) FROM longrun.operations").await, 3);
}

/// An operation has the format of its newest record: what an older program began and this one went on with is no longer for the
/// older one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s34_the_format_of_an_operation_rises_with_its_records() {
    let Some(it) = opened().await else { return };
    let mut live = it.accept(Draft::chain(1, 2)).await;
    for (before, after) in [(0, 1), (9, 9)] {
        it.place.execute(&format!("UPDATE longrun.operations SET format = {before}")).await;
        let commit = live.checkpoint(it.fence, 0, 1);
        it.store.commit(commit).await.unwrap();
        assert_eq!(it.place.count("SELECT format::bigint FROM longrun.operations").await, after);
    }
}
