//! Lists and retention: nothing skipped, nothing repeated, nothing kept too long, nothing removed too soon.

use std::collections::BTreeSet;

use longrun::store::{Batch, Kv, Table};
use longrun::{
    Code, Operation, OperationId, OperationQuery, Page, PageRequest, ResourceKey, ResourceList,
    ResourceOrder, ResourceStatus,
};

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

/// The ids of all that a list shows, page by page.
async fn shown(rig: &Rig, list: &ResourceList, size: usize) -> String {
    let (mut ids, mut token) = (String::new(), String::new());
    loop {
        let found = rig.engine().list_resources::<Thing>(list, &page(size, &token)).await.unwrap();
        ids.extend(found.items.iter().map(|found| found.row.key.id.as_str()));
        token = found.next_token;
        let count = found.items.len();
        assert!(count == size || token.is_empty() && count < size, "{count} of {size}");
        if token.is_empty() {
            return ids;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn c19_a_list_shows_what_is_asked_for_in_the_order_that_is_asked_for() {
    let rig = Rig::new().await;
    for id in ["c", "a", "d", "b"] {
        rig.play(&Script::chain(&["x"]).touch(Touch::Create(id.to_owned()))).await;
        pass(1).await;
    }
    for id in ["d", "b"] {
        rig.play(&Script::chain(&["x"]).touch(Touch::Update(id.to_owned()))).await;
    }
    let long = Script::new([Act::new("x").run([Do::Sleep(1000)])]).touch(Touch::Create("e".to_owned()));
    rig.submit(&long).await;
    let ordered = |order, descending| in_folder().order(order).descending(descending);
    let lists = [
        (in_folder(), "abcde"),
        (ordered(ResourceOrder::Id, true), "edcba"),
        (ordered(ResourceOrder::Creation, false), "cadbe"),
        (ordered(ResourceOrder::Creation, true), "ebdac"),
        (ordered(ResourceOrder::Name, false), "bdace"),
        (ordered(ResourceOrder::Name, true), "ecadb"),
        (in_folder().status(ResourceStatus::Ready), "abcd"),
        (in_folder().status(ResourceStatus::Creating), "e"),
        (in_folder().name("changed"), "bd"),
        (in_folder().name("nobody"), ""),
        (in_folder().filter("all but c", |row| row.key.id.as_str() != "c"), "abde"),
        (in_folder().filter("only c", |row| row.key.id.as_str() == "c"), "c"),
    ];
    for (list, ids) in &lists {
        assert!(format!("{list:?}").contains(folder().as_str()), "{list:?}");
        for size in [1, 2, 3, 100] {
            assert_eq!(shown(&rig, list, size).await, *ids, "{list:?} by {size}");
        }
    }
    // Each is another list: a token of one is none of another.
    for (place, (list, _)) in lists.iter().enumerate().filter(|(_, (_, ids))| ids.len() > 1) {
        let first = rig.engine().list_resources::<Thing>(list, &page(1, "")).await.unwrap();
        assert_eq!(first.items.len(), 1);
        let (before, after) = (&lists[..place], &lists[place + 1..]);
        for (other, _) in before.iter().chain(after) {
            let other = rig.engine().list_resources::<Thing>(other, &page(1, &first.next_token)).await;
            assert_eq!(other.unwrap_err().code(), Code::InvalidArgument);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn c19_filtered_operations_come_each_once_and_no_page_is_too_long() {
    let rig = Rig::new().await;
    let (mut all, mut odd) = (Vec::new(), BTreeSet::new());
    for place in 0..130 {
        let id = rig.play(&Script::chain(&["a"])).await.id();
        pass(1).await;
        all.insert(0, id);
        if place % 2 == 1 {
            odd.insert(id);
        }
    }
    let list = async |size, token: &str, text: &str, among: &BTreeSet<OperationId>| {
        let holds = |operation: &Operation| among.contains(&operation.id());
        rig.engine().filter_operations(&OperationQuery::All, &page(size, token), text, holds).await
    };
    let expected: Vec<_> = all.iter().copied().filter(|id| odd.contains(id)).collect();
    for size in [1, 2, 7, 1000] {
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let found = list(size, &token, "odd", &odd).await.unwrap();
            let last = found.next_token.is_empty();
            assert!(found.items.len() == size || last && found.items.len() < size, "{size}");
            seen.extend(found.items.iter().map(Operation::id));
            token = found.next_token;
            if last {
                break;
            }
        }
        assert_eq!(seen, expected, "{size}");
    }
    let first = list(1, "", "odd", &odd).await.unwrap();
    let other = list(1, &first.next_token, "even", &odd).await;
    assert_eq!(other.unwrap_err().code(), Code::InvalidArgument, "a token of another filter");
    let all = rig.engine().list_operations(&OperationQuery::All, &page(1, &first.next_token)).await;
    assert_eq!(all.unwrap_err().code(), Code::InvalidArgument, "a token of a list without a filter");
}

#[tokio::test(start_paused = true)]
async fn c19_a_page_on_which_nothing_belongs_ends_after_its_share_of_readings() {
    let rig = Rig::new().await;
    for n in 0..130 {
        rig.play(&Script::chain(&["a"]).touch(Touch::Create(format!("t{n:03}")))).await;
    }
    let nothing = in_folder().filter("nothing", |_| false);
    let things = async |token: &str| {
        let found = rig.engine().list_resources::<Thing>(&nothing, &page(1, token)).await.unwrap();
        (found.items.len(), found.next_token)
    };
    let operations = async |token: &str| {
        let asked = page(1, token);
        let found =
            rig.engine().filter_operations(&OperationQuery::All, &asked, "nothing", |_| false).await.unwrap();
        (found.items.len(), found.next_token)
    };
    // Of 130 a page of one looks at 100, and the next at what is left.
    let (found, token) = things("").await;
    assert!(found == 0 && !token.is_empty());
    assert_eq!(things(&token).await, (0, String::new()));
    let (found, token) = operations("").await;
    assert!(found == 0 && !token.is_empty());
    assert_eq!(operations(&token).await, (0, String::new()));
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
    let all = rig.engine().list_operations(&OperationQuery::All, &page(1, &found.next_token)).await;
    assert_eq!(all.unwrap_err().code(), Code::InvalidArgument, "a token of the operations of a resource");
    let others =
        OperationQuery::OfResource(ResourceKey { kind: "test.thing".parse().unwrap(), id: thing_id("u") });
    let others = rig.engine().list_operations(&others, &page(1, &found.next_token)).await;
    assert_eq!(others.unwrap_err().code(), Code::InvalidArgument, "a token of another resource");
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
