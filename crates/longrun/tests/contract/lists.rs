//! Lists and retention: nothing skipped, nothing repeated, nothing kept too long, nothing removed too soon.

use std::collections::BTreeSet;

use longrun::store::{Batch, Kv, Table};
use longrun::{Code, Operation, OperationQuery, Page, PageRequest, ResourceKey, ResourceList};

use crate::common::script::{Act, Do, Script, Thing, Touch, folder, thing_id};
use crate::common::{Rig, keyed, millis, pass};

fn page(size: usize, token: &str) -> PageRequest {
    PageRequest { size, token: token.to_owned() }
}

fn in_folder() -> ResourceList {
    ResourceList::of(folder())
}

async fn operations(rig: &Rig, size: usize, token: &str) -> Page<Operation> {
    rig.engine().list_operations(&OperationQuery::All, &page(size, token)).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn c19_pages_neither_skip_nor_repeat_while_operations_come_and_the_engine_goes() {
    let mut rig = Rig::new().await;
    let script = Script::chain(&["a"]);
    let mut there = BTreeSet::new();
    for _ in 0..25 {
        there.insert(rig.play(&script).await.id());
        pass(1).await;
    }
    for size in [1, 7, 25, 1000] {
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let page = operations(&rig, size, &token).await;
            assert!(page.items.len() <= size && page.next_token.len() <= 100);
            seen.extend(page.items.iter().map(Operation::id));
            rig.play(&script).await;
            token = page.next_token;
            if token.is_empty() {
                break;
            }
            rig.restart().await;
        }
        assert!(seen.is_sorted_by(|a, b| a > b), "newest first, none twice");
        assert!(there.iter().all(|id| seen.contains(id)));
    }
}

#[tokio::test(start_paused = true)]
async fn c19_resources_are_listed_by_id_and_tokens_stay_with_their_list() {
    let rig = Rig::new().await;
    for n in 0..12 {
        rig.play(&Script::chain(&["a"]).touch(Touch::Create(format!("t{n:02}")))).await;
    }
    let list = async |size, token: &str| {
        rig.engine().list_resources::<Thing>(&in_folder(), &page(size, token)).await
    };
    let first = list(5, "").await.unwrap();
    rig.play(&Script::chain(&["a"]).touch(Touch::Delete("t04".to_owned()))).await;
    rig.play(&Script::chain(&["a"]).touch(Touch::Create("t001".to_owned()))).await;
    let second = list(100, &first.next_token).await.unwrap();
    let ids: Vec<_> =
        first.items.iter().chain(&second.items).map(|found| found.row.key.id.to_string()).collect();
    assert_eq!(ids, (0..12).map(|n| format!("t{n:02}")).collect::<Vec<_>>());
    assert_eq!(second.next_token, "");

    let token = &first.next_token;
    let elsewhere =
        rig.engine().list_resources::<Thing>(&ResourceList::of(thing_id("other")), &page(5, token)).await;
    assert_eq!(elsewhere.unwrap_err().code(), Code::InvalidArgument, "a token of another parent");
    let other = rig.engine().list_operations(&OperationQuery::All, &page(5, token)).await;
    assert_eq!(other.unwrap_err().code(), Code::InvalidArgument, "a token of another list");
    for place in [0, token.len() / 2, token.len() - 1] {
        let mut bent = token.clone().into_bytes();
        bent[place] = if bent[place] == b'A' { b'B' } else { b'A' };
        let refused = list(5, std::str::from_utf8(&bent).unwrap()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "a flipped bit");
    }
    for size in [1001, usize::MAX] {
        assert_eq!(
            list(size, "").await.unwrap_err().code(),
            Code::InvalidArgument,
            "a page size out of range"
        );
    }
    assert_eq!(list(1000, "").await.unwrap().items.len(), 12);
    assert_eq!(list(0, "").await.unwrap().items.len(), 12);
}

#[tokio::test(start_paused = true)]
async fn operations_of_a_resource_are_found_when_it_is_gone() {
    let rig = Rig::new().await;
    let made = rig.play(&Script::chain(&["a"]).touch(Touch::Create("t".to_owned()))).await;
    pass(1).await;
    rig.play(&Script::chain(&["a"]).touch(Touch::Create("u".to_owned()))).await;
    let gone = rig.play(&Script::chain(&["a"]).touch(Touch::Delete("t".to_owned()))).await;
    let query =
        OperationQuery::OfResource(ResourceKey { kind: "test.thing".parse().unwrap(), id: thing_id("t") });
    let found = rig.engine().list_operations(&query, &page(1, "")).await.unwrap();
    assert_eq!(found.items, [gone]);
    let found = rig.engine().list_operations(&query, &page(1, &found.next_token)).await.unwrap();
    assert_eq!((found.items, found.next_token), (vec![made], String::new()));
}

#[tokio::test(start_paused = true)]
async fn one_row_that_does_not_decode_hides_itself_alone() {
    let rig = Rig::new().await;
    for id in ["a", "b", "c"] {
        rig.play(&Script::chain(&["x"]).touch(Touch::Create(id.to_owned()))).await;
    }
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Strict {
        text: Word,
    }
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        X,
    }
    impl longrun::Resource for Strict {
        const KIND: &'static str = "test.thing";
        const TYPE_URL: &'static str = "type.googleapis.com/test.Thing";
    }
    rig.play(&Script::chain(&["odd"]).touch(Touch::Update("b".to_owned()))).await;
    assert_eq!(rig.engine().resource::<Strict>(&thing_id("b")).await.unwrap_err().code(), Code::DataLoss);
    let listed = rig.engine().list_resources::<Strict>(&in_folder(), &page(0, "")).await.unwrap();
    let ids: Vec<_> = listed.items.iter().map(|found| found.row.key.id.as_str()).collect();
    assert_eq!(ids, ["a", "c"]);
    // The same for a row whose bytes are damaged.
    let mut batch = Batch::default();
    batch.put(Table::Resources, b"test.thing\0c".to_vec(), vec![1, 2, 3]);
    rig.disk.inner().commit(&batch).unwrap();
    let listed = rig.engine().list_resources::<Strict>(&in_folder(), &page(0, "")).await.unwrap();
    assert_eq!(listed.items.len(), 1);
    assert_eq!(rig.engine().resource::<Strict>(&thing_id("c")).await.unwrap_err().code(), Code::DataLoss);
}

#[tokio::test(start_paused = true)]
async fn c20_only_what_is_done_and_old_is_removed_with_all_that_belongs_to_it() {
    let day = 24 * 3_600_000;
    let keep = move |builder: longrun::EngineBuilder| {
        builder.retention(millis(day)).key_retention(millis(0)).running_max(2).sweep_every(millis(60_000))
    };
    let rig = Rig::with(keep).await;
    let unfinished =
        rig.submit(&Script::new([Act::new("a").run([Do::Sleep(30 * day)]).limits(60 * day, 1)])).await;
    for n in 0..1300 {
        let touch =
            if n % 2 == 0 { Touch::Create(format!("t{n}")) } else { Touch::Delete(format!("t{}", n - 1)) };
        let accepted =
            rig.try_submit(&Script::chain(&["a"]).touch(touch), keyed(&n.to_string())).await.unwrap();
        rig.done(accepted.id()).await;
    }
    pass(day - 10_000_000).await;
    let young = rig.play(&Script::chain(&["a"])).await;
    assert_eq!(rig.engine().sweep().await.unwrap(), 0);
    pass(10_000_000 + 60_000 * 3).await;
    let mut left: Vec<_> = operations(&rig, 0, "").await.items.iter().map(Operation::id).collect();
    left.sort();
    assert_eq!(left, [unfinished.id(), young.id()], "the sweep comes by itself");
    rig.engine().sweep().await.unwrap();
    for table in
        [Table::ByResource, Table::Idempotency, Table::IdempotencyExpiry, Table::Resources, Table::ByParent]
    {
        assert!(rig.keys(table).is_empty(), "{table:?}");
    }
    assert_eq!(rig.keys(Table::Finished).len(), 1);
    let largest = rig.faults.history().iter().map(|batch| batch.writes.len()).max().unwrap();
    assert!(largest <= 500 * 7, "C20: bounded batches: {largest}");
    assert!(!rig.get(unfinished.id()).await.done());
}

#[tokio::test(start_paused = true)]
async fn c20_a_sweep_of_much_does_not_keep_the_backlog_waiting() {
    let keep = |builder: longrun::EngineBuilder| {
        builder.retention(millis(1000)).key_retention(millis(0)).running_max(1).sweep_every(millis(5000))
    };
    let rig = Rig::with(keep).await;
    for _ in 0..1200 {
        rig.play(&Script::chain(&["a"])).await;
    }
    let mut ids = Vec::new();
    for _ in 0..50 {
        ids.push(rig.submit(&Script::new([Act::new("a").run([Do::Sleep(200), Do::Apply])])).await.id());
    }
    for id in ids {
        // Retention is short: it may be gone before it is asked for.
        if let Ok(operation) = rig.engine().wait(id, millis(60_000)).await {
            assert!(operation.done());
        }
    }
    pass(10_000).await;
    assert_eq!(rig.keys(Table::Operations).len(), 0);
}
