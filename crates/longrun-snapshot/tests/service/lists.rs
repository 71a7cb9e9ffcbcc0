//! List: orders, filters, pages.

use std::collections::BTreeSet;

use longrun::{Code, IdPrefix, Kind, PlanBuilder, Planned, ResourceId, ResourceStatus, async_trait};
use longrun_snapshot::service::{ListSnapshotsRequest, UpdateSnapshotRequest};
use longrun_snapshot::{Snapshot, SnapshotService};
use serde::{Deserialize, Serialize};

use crate::common::{FOLDER, Lab, call, caller, delete_of, done, list_of, pass};

/// Makes READY snapshots without any data: rows for lists.
struct Plant;

#[derive(Serialize, Deserialize)]
struct Seeds {
    folder: String,
    /// At most 8.
    names: Vec<String>,
}

#[async_trait]
impl Kind for Plant {
    const NAME: &'static str = "test.plant";
    type Request = Seeds;
    type Metadata = Vec<ResourceId>;
    type Response = ();

    async fn plan(&self, seeds: &Seeds, plan: &mut PlanBuilder) -> Planned<Self> {
        let folder_id = ResourceId::new(&seeds.folder)?;
        let mut ids = Vec::new();
        for name in &seeds.names {
            let id = plan.new_id(IdPrefix::new("fd8")?);
            let snapshot = Snapshot {
                id: id.clone(),
                folder_id: folder_id.clone(),
                created_at: plan.now(),
                name: name.clone(),
                description: String::new(),
                labels: Default::default(),
                storage_size: 0,
                disk_size: 0,
                product_ids: Vec::new(),
                status: ResourceStatus::Ready,
                source_disk_id: "disk-1".to_owned(),
                damage: None,
            };
            let made = plan.value(&snapshot);
            plan.create(&id, &folder_id, name.clone(), &snapshot, &made)?;
            ids.push(id);
        }
        let nothing = plan.value(&());
        Ok((ids, nothing))
    }
}

async fn start(lab: &Lab) -> SnapshotService {
    lab.start_with(lab.plane(), |builder| builder.kind(Plant)).await.unwrap()
}

async fn plant(service: &SnapshotService, folder: &str, names: &[&str]) -> Vec<ResourceId> {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    let seeds = Seeds { folder: folder.to_owned(), names };
    let operation = service.engine().submit::<Plant>(&seeds, call()).await.unwrap();
    assert!(operation.response().is_some());
    operation.metadata().decode().unwrap()
}

/// One after another, each at a time of its own.
async fn plant_each(service: &SnapshotService, names: &[&str]) -> Vec<ResourceId> {
    let mut ids = Vec::new();
    for name in names {
        pass(1).await;
        ids.extend(plant(service, FOLDER, &[name]).await);
    }
    ids
}

/// All pages of a list; how many there were, too.
async fn pages(service: &SnapshotService, request: &ListSnapshotsRequest) -> (Vec<Snapshot>, usize) {
    let (mut all, mut pages, mut token) = (Vec::new(), 0, String::new());
    loop {
        let request = ListSnapshotsRequest { page_token: token, ..request.clone() };
        let page = service.list(&caller(), &request).await.unwrap();
        assert!(page.next_token.len() <= 100, "{}", page.next_token);
        let most = if request.page_size == 0 { 100 } else { usize::try_from(request.page_size).unwrap() };
        assert!(page.items.len() <= most);
        all.extend(page.items);
        pages += 1;
        token = page.next_token;
        if token.is_empty() {
            return (all, pages);
        }
    }
}

fn ordered(order_by: &str) -> ListSnapshotsRequest {
    ListSnapshotsRequest { order_by: order_by.to_owned(), ..list_of(FOLDER) }
}

fn filtered(filter: &str) -> ListSnapshotsRequest {
    ListSnapshotsRequest { filter: filter.to_owned(), ..list_of(FOLDER) }
}

#[tokio::test(start_paused = true)]
async fn c19_a_list_has_one_of_three_orders_in_both_directions_whatever_the_page_size() {
    let lab = Lab::new();
    let service = start(&lab).await;
    let long = "n".repeat(63);
    let ids = plant_each(&service, &["mmm", "", "zzz", "aaa", "mmm", &long, ""]).await;
    plant(&service, "folder-2", &["elsewhere"]).await;
    let (mut expected, _) = pages(&service, &list_of(FOLDER)).await;
    let made: BTreeSet<_> = ids.into_iter().collect();
    assert_eq!(expected.iter().map(|snapshot| snapshot.id.clone()).collect::<BTreeSet<_>>(), made);
    for field in ["", "id", "name", "createdAt", "created_at"] {
        match field {
            "" | "id" => expected.sort_by(|a, b| a.id.cmp(&b.id)),
            "name" => expected.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id))),
            _ => expected.sort_by_key(|snapshot| snapshot.created_at),
        }
        for direction in ["", " asc", " desc", " DESC"] {
            if field.is_empty() && !direction.is_empty() {
                continue;
            }
            let mut expected = expected.clone();
            if direction.eq_ignore_ascii_case(" desc") {
                expected.reverse();
            }
            for size in [0, 1, 2, 3, 6, 7, 8, 1000] {
                let request =
                    ListSnapshotsRequest { page_size: size, ..ordered(&format!("{field}{direction}")) };
                let (found, count) = pages(&service, &request).await;
                assert_eq!(found, expected, "{request:?}");
                let size = if size == 0 { 100 } else { usize::try_from(size).unwrap() };
                assert_eq!(count, 7_usize.div_ceil(size), "the last page has no token: {request:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_filter_lets_through_what_it_says_in_any_order() {
    let lab = Lab::new();
    let service = start(&lab).await;
    plant_each(&service, &["aaa", "bbb", "ccc", "bbb", "", "ddd"]).await;
    for (filter, expected) in [
        ("", "aaa bbb ccc bbb  ddd"),
        (r#"name = "bbb""#, "bbb bbb"),
        ("name=bbb", "bbb bbb"),
        ("name = 'zzz'", ""),
        ("name != bbb", "aaa ccc  ddd"),
        (r#"name IN ("aaa", 'ddd', "zzz")"#, "aaa ddd"),
        ("name in (bbb)", "bbb bbb"),
        (r#"name NOT IN ("aaa", "bbb")"#, "ccc  ddd"),
        ("name IN (aaa, bbb, ccc) AND name != bbb", "aaa ccc"),
        ("name != aaa AND name NOT IN (ccc) AND name != zzz", "bbb bbb  ddd"),
        ("name = aaa AND name = bbb", ""),
    ] {
        let expected: Vec<_> = expected.split(' ').filter(|_| !expected.is_empty()).collect();
        for order_by in ["", "createdAt", "name", "createdAt desc"] {
            for size in [0, 1, 2] {
                let request = ListSnapshotsRequest {
                    order_by: order_by.to_owned(),
                    page_size: size,
                    ..filtered(filter)
                };
                let (found, _) = pages(&service, &request).await;
                let mut names: Vec<_> = found.iter().map(|snapshot| snapshot.name.as_str()).collect();
                let mut expected = expected.clone();
                match order_by {
                    // These ids do not tell when they were made: only who is there is looked at.
                    "" | "name" => {
                        expected.sort_unstable();
                        names.sort_unstable();
                    }
                    "createdAt desc" => expected.reverse(),
                    _ => {}
                }
                assert_eq!(names, expected, "{request:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_is_none_is_refused_and_the_place_is_named() {
    let lab = Lab::new();
    let service = start(&lab).await;
    for (filter, place) in [
        ("id = abc", 1),
        ("name ~ abc", 6),
        ("name = ab", 8),
        ("name =", 7),
        ("name = \"abc", 8),
        ("name = abc OR name = abd", 12),
        ("name IN ()", 10),
    ] {
        let error = service.list(&caller(), &filtered(filter)).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.to_string().contains(&format!("filter: at character {place}:")), "{filter}: {error}");
    }
    let error = service.list(&caller(), &ordered("name, id")).await.unwrap_err();
    assert!(error.to_string().contains("order_by: at character 5:"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn c19_a_token_belongs_to_its_question() {
    let lab = Lab::new();
    let service = start(&lab).await;
    plant_each(&service, &["aaa", "bbb", "ccc"]).await;
    let question = ListSnapshotsRequest {
        page_size: 1,
        filter: "name != ccc".to_owned(),
        order_by: "name".to_owned(),
        ..list_of(FOLDER)
    };
    let token = service.list(&caller(), &question).await.unwrap().next_token;
    let asked = ListSnapshotsRequest { page_token: token.clone(), ..question };
    let same = [
        asked.clone(),
        // Another size, and other words for the same question.
        ListSnapshotsRequest { page_size: 2, ..asked.clone() },
        ListSnapshotsRequest { filter: " name!='ccc' AND name NOT IN(ccc)".to_owned(), ..asked.clone() },
        ListSnapshotsRequest { order_by: "name ASC".to_owned(), ..asked.clone() },
    ];
    for request in same {
        assert_eq!(service.list(&caller(), &request).await.unwrap().items[0].name, "bbb", "{request:?}");
    }
    let mut other = vec![
        ListSnapshotsRequest { folder_id: "folder-2".to_owned(), ..asked.clone() },
        ListSnapshotsRequest { filter: "name != bbb".to_owned(), ..asked.clone() },
        ListSnapshotsRequest { filter: String::new(), ..asked.clone() },
        ListSnapshotsRequest { filter: "name = bbb".to_owned(), ..asked.clone() },
        ListSnapshotsRequest { order_by: "name desc".to_owned(), ..asked.clone() },
        ListSnapshotsRequest { order_by: "id".to_owned(), ..asked.clone() },
    ];
    // Any other letter.
    for place in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
        let page_token = String::from_utf8(bytes).unwrap();
        other.push(ListSnapshotsRequest { page_token, ..asked.clone() });
    }
    for request in other {
        let error = service.list(&caller(), &request).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{request:?}");
    }
    // A token outlives the engine.
    drop(service);
    let service = start(&lab).await;
    assert_eq!(service.list(&caller(), &asked).await.unwrap().items[0].name, "bbb");
}

#[tokio::test(start_paused = true)]
async fn c19_a_filtered_page_looks_at_10_000_rows_at_most_and_may_be_short_although_more_follow() {
    let lab = Lab::new();
    let service = start(&lab).await;
    // By name, those that pass are behind 12,000 that do not.
    for _ in 0..1500 {
        plant(&service, FOLDER, &["aaa"; 8]).await;
    }
    plant(&service, FOLDER, &["zzz", "zzz", "zzy"]).await;
    for (size, order_by) in [(1000, "name"), (7, "name"), (1, "name"), (1000, "name desc")] {
        let request = ListSnapshotsRequest {
            page_size: size,
            order_by: order_by.to_owned(),
            ..filtered("name IN (zzz, zzy, zzx)")
        };
        let first = service.list(&caller(), &request).await.unwrap();
        let (found, _) = pages(&service, &request).await;
        let mut names: Vec<_> = found.iter().map(|snapshot| snapshot.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["zzy", "zzz", "zzz"]);
        if order_by == "name" {
            assert_eq!(first.items, [], "it would have had to look too far");
        } else {
            assert_eq!(first.items.len(), 3);
        }
        assert_ne!(first.next_token, "", "it does not know that nothing follows");
    }
    // One name is found by the index, whatever is in between.
    for order_by in ["", "name desc"] {
        let request = ListSnapshotsRequest { order_by: order_by.to_owned(), ..filtered("name = zzy") };
        let page = service.list(&caller(), &request).await.unwrap();
        assert_eq!((page.items.len(), page.next_token.as_str()), (1, ""));
    }
}

/// A small page has few rows in each reading of the store, and makes few readings too.
#[tokio::test(start_paused = true)]
async fn c19_a_small_filtered_page_reads_the_store_100_times_at_most() {
    let lab = Lab::new();
    let service = start(&lab).await;
    for _ in 0..150 {
        plant(&service, FOLDER, &["aaa"]).await;
    }
    plant(&service, FOLDER, &["zzz"]).await;
    let mut request =
        ListSnapshotsRequest { page_size: 1, order_by: "name".to_owned(), ..filtered("name IN (zzz, zzy)") };
    let first = service.list(&caller(), &request).await.unwrap();
    assert_eq!(first.items, []);
    request.page_token = first.next_token;
    let second = service.list(&caller(), &request).await.unwrap();
    assert_eq!((second.items.len(), second.items[0].name.as_str()), (1, "zzz"));
    let looked_at = std::sync::atomic::AtomicUsize::new(0);
    let nothing = |_: &longrun::Operation| {
        looked_at.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        false
    };
    let page = longrun::PageRequest { size: 1, token: String::new() };
    let query = longrun::OperationQuery::All;
    let found = service.engine().filter_operations(&query, &page, "nothing", nothing).await.unwrap();
    assert_eq!((found.items.len(), found.next_token.is_empty()), (0, false));
    assert_eq!(looked_at.into_inner(), 100);
}

#[tokio::test(start_paused = true)]
async fn c19_paging_neither_skips_nor_repeats_while_others_come_and_go() {
    let lab = Lab::new();
    let service = start(&lab).await;
    for order_by in ["id", "id desc", "name", "name desc", "createdAt", "createdAt desc"] {
        let ids = plant_each(&service, &["mmm", "aaa", "zzz", "mmm", "kkk", "mmm", "bbb"]).await;
        let (going, renamed) = (&ids[3], &ids[4]);
        let stays: BTreeSet<_> = ids.iter().filter(|id| ![going, renamed].contains(id)).cloned().collect();
        let mut request = ListSnapshotsRequest { page_size: 2, ..ordered(order_by) };
        let (mut seen, mut turn) = (Vec::new(), 0);
        loop {
            let page = service.list(&caller(), &request).await.unwrap();
            seen.extend(page.items.into_iter().map(|snapshot| snapshot.id));
            request.page_token = page.next_token;
            if request.page_token.is_empty() {
                break;
            }
            turn += 1;
            if turn <= 2 {
                plant_each(&service, &["aaaa", "nnn", "zzzz"]).await;
            }
            if turn == 2 {
                let delete = service.delete(call(), &delete_of(going)).await.unwrap();
                done(&service, &delete).await;
            }
            let update = UpdateSnapshotRequest {
                snapshot_id: renamed.to_string(),
                name: if turn % 2 == 0 { "aaa" } else { "zzz" }.to_owned(),
                ..UpdateSnapshotRequest::default()
            };
            service.update(call(), &update).await.unwrap();
        }
        let times = |id: &ResourceId| seen.iter().filter(|other| *other == id).count();
        for id in &stays {
            assert_eq!(times(id), 1, "{order_by}: {id}");
        }
        let (all, _) = pages(&service, &list_of(FOLDER)).await;
        for snapshot in all {
            let delete = service.delete(call(), &delete_of(&snapshot.id)).await.unwrap();
            done(&service, &delete).await;
        }
    }
}
