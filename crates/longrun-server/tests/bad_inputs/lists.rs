//! B10 to B17: pages, tokens and filters.

use longrun_api::google::longrunning;
use longrun_api::yandex::cloud::compute::v1 as compute;

use crate::client::bearer;
use crate::refusal::Want;
use crate::server::{Server, Setup};

const PATH: &str = "/compute/v1/snapshots";
const BAD_TOKEN: Want = Want {
    code: longrun::Code::InvalidArgument,
    http: 400,
    reason: "INVALID_PAGE_TOKEN",
    field: Some("page_token"),
};

fn list(folder: &str) -> compute::ListSnapshotsRequest {
    compute::ListSnapshotsRequest { folder_id: folder.to_owned(), ..Default::default() }
}

/// `a/b?c` percent-encoded.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// Three snapshots in a folder.
async fn three(server: &Server) -> String {
    let mut last = String::new();
    for name in ["one", "two", "three"] {
        last = server.snapshot("folder-a", name, &[]).await.1;
    }
    last
}

async fn refuse_page_size(size: i64) {
    let server = Server::new().await;
    let snapshot = three(&server).await;
    let before = server.state();
    let want = Want::invalid("page_size");
    let request = compute::ListSnapshotsRequest { page_size: size, ..list("folder-a") };
    want.grpc(server.snapshots_client().list(bearer(request)).await, &size.to_string());
    let request = compute::ListSnapshotOperationsRequest {
        snapshot_id: snapshot.clone(),
        page_size: size,
        ..Default::default()
    };
    want.grpc(server.snapshots_client().list_operations(bearer(request)).await, &size.to_string());
    if let Ok(page_size) = i32::try_from(size) {
        let request = longrunning::ListOperationsRequest { page_size, ..Default::default() };
        want.grpc(server.longrunning().list_operations(bearer(request)).await, &size.to_string());
    }
    for path in [
        format!("{PATH}?folderId=folder-a&pageSize={size}"),
        format!("{PATH}/{snapshot}/operations?pageSize={size}"),
    ] {
        want.rest(&server.get(&path).await, &format!("{size}\""));
    }
    assert_eq!(server.state(), before);
    server.lives().await;
}

#[tokio::test]
async fn b10_a_page_size_of_minus_one_is_refused() {
    refuse_page_size(-1).await;
    refuse_page_size(i64::MIN).await;
}

#[tokio::test]
async fn b11_a_page_size_over_a_thousand_is_refused() {
    refuse_page_size(1001).await;
    refuse_page_size((1 << 31) - 1).await;
    refuse_page_size(i64::MAX).await;
}

/// A first page of one, and the token of the next.
async fn token(server: &Server, request: compute::ListSnapshotsRequest) -> String {
    let request = compute::ListSnapshotsRequest { page_size: 1, ..request };
    let token = server.snapshots_client().list(bearer(request)).await.unwrap().into_inner().next_page_token;
    assert!(!token.is_empty() && token.len() <= 100);
    token
}

/// That a list does not take a token, over both faces.
async fn refuse_token(server: &Server, request: &compute::ListSnapshotsRequest, token: &str) {
    let request =
        compute::ListSnapshotsRequest { page_size: 1, page_token: token.to_owned(), ..request.clone() };
    BAD_TOKEN.grpc(server.snapshots_client().list(bearer(request.clone())).await, token);
    let query = format!(
        "?folderId={}&pageSize=1&pageToken={}&filter={}&orderBy={}",
        request.folder_id,
        encoded(token),
        encoded(&request.filter),
        encoded(&request.order_by)
    );
    BAD_TOKEN.rest(&server.get(&format!("{PATH}{query}")).await, token);
}

#[tokio::test]
async fn b12_a_page_token_with_a_bit_flipped_is_refused() {
    let server = Server::new().await;
    let snapshot = three(&server).await;
    let before = server.state();
    let good = token(&server, list("folder-a")).await;
    for place in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[place] ^= 1;
        refuse_token(&server, &list("folder-a"), std::str::from_utf8(&bytes).unwrap()).await;
    }
    for bad in [&good[1..], &good[..good.len() - 1], &format!("{good}A"), "hush", "\n", "\u{1F4A9}"] {
        refuse_token(&server, &list("folder-a"), bad).await;
    }
    let too_long = "h".repeat(101);
    let want = Want::invalid("page_token");
    let request = compute::ListSnapshotsRequest { page_token: too_long.clone(), ..list("folder-a") };
    want.grpc(server.snapshots_client().list(bearer(request)).await, "hhh");
    want.rest(&server.get(&format!("{PATH}?folderId=folder-a&pageToken={too_long}")).await, "hhh");
    // A token of one list is of no use in another: the operations of the snapshot, and all operations.
    let request = compute::ListSnapshotOperationsRequest {
        snapshot_id: snapshot,
        page_token: good.clone(),
        ..Default::default()
    };
    BAD_TOKEN.grpc(server.snapshots_client().list_operations(bearer(request)).await, &good);
    let request = longrunning::ListOperationsRequest { page_token: good.clone(), ..Default::default() };
    BAD_TOKEN.grpc(server.longrunning().list_operations(bearer(request)).await, &good);
    assert_eq!(server.state(), before);
    server.lives().await;
}

#[tokio::test]
async fn b13_a_page_token_of_one_folder_is_refused_in_another() {
    let server = Server::new().await;
    three(&server).await;
    server.snapshot("folder-b", "other", &[]).await;
    let before = server.state();
    let good = token(&server, list("folder-a")).await;
    refuse_token(&server, &list("folder-b"), &good).await;
    refuse_token(&server, &list("folder-c"), &good).await;
    assert_eq!(server.state(), before);
    server.lives().await;
}

#[tokio::test]
async fn b14_a_page_token_is_refused_with_another_filter_or_order() {
    let server = Server::new().await;
    three(&server).await;
    let before = server.state();
    let filtered =
        compute::ListSnapshotsRequest { filter: r#"name != "four""#.to_owned(), ..list("folder-a") };
    let ordered = compute::ListSnapshotsRequest { order_by: "name desc".to_owned(), ..list("folder-a") };
    let requests = [list("folder-a"), filtered, ordered];
    for one in &requests {
        let good = token(&server, one.clone()).await;
        for other in requests.iter().filter(|other| *other != one) {
            refuse_token(&server, other, &good).await;
        }
    }
    assert_eq!(server.state(), before);
    server.lives().await;
}

/// Page tokens do not expire here, and a store has one key, made with it and never exchanged: there is no retired key, and
/// nothing to give the reason "expired" for. What there is, is a token of another store.
#[tokio::test]
async fn b15_a_page_token_signed_by_the_key_of_another_store_is_refused() {
    let (server, other) = (Server::new().await, Server::new().await);
    three(&server).await;
    three(&other).await;
    let before = server.state();
    refuse_token(&server, &list("folder-a"), &token(&other, list("folder-a")).await).await;
    assert_eq!(server.state(), before);
    // A restart is no other store.
    let good = token(&server, list("folder-a")).await;
    let kv = server.end().await;
    let again = Server::with(Setup { kv: Some(kv), ..Setup::default() }).await;
    let request = compute::ListSnapshotsRequest { page_token: good, page_size: 1, ..list("folder-a") };
    assert_eq!(again.snapshots_client().list(bearer(request)).await.unwrap().into_inner().snapshots.len(), 1);
    again.lives().await;
}

async fn refuse_filter(server: &Server, filter: &str) -> Vec<String> {
    let want = Want::invalid("filter");
    let request = compute::ListSnapshotsRequest { filter: filter.to_owned(), ..list("folder-a") };
    let over_grpc = want.grpc(server.snapshots_client().list(bearer(request)).await, "hush");
    let mut shown = vec![over_grpc.raw];
    // Longer than a line of HTTP may be, it does not come so far.
    if filter.len() <= 2000 {
        let path = format!("{PATH}?folderId=folder-a&filter={}", encoded(filter));
        shown.push(want.rest(&server.get(&path).await, "hush").raw);
    }
    shown
}

#[tokio::test]
async fn b16_a_filter_of_a_hundred_thousand_parentheses_is_refused() {
    // In how much time is for the benchmarks; the parser looks at each character once.
    let server = Server::new().await;
    three(&server).await;
    let before = server.state();
    for parentheses in [100_000, 1001, 1000, 999] {
        refuse_filter(&server, &"(".repeat(parentheses)).await;
        refuse_filter(&server, &format!("name IN {}", "(".repeat(parentheses - 8))).await;
    }
    let request = longrunning::ListOperationsRequest { filter: "(".repeat(100_000), ..Default::default() };
    Want::invalid("filter").grpc(server.longrunning().list_operations(bearer(request)).await, "(((");
    assert_eq!(server.state(), before);
    server.lives().await;
}

#[tokio::test]
async fn b17_a_filter_on_an_unknown_field_or_of_a_wrong_type_is_refused_with_the_place() {
    let server = Server::new().await;
    three(&server).await;
    let before = server.state();
    for (filter, place) in [
        (r#"hush = "one""#, 1),
        ("size = 5", 1),
        (r#"name = "one" AND hush = "one""#, 18),
        ("name = 5", 8),
        ("name > \"hush\"", 6),
        ("name = \"hush", 8),
        ("name IN (one, 5)", 15),
    ] {
        for shown in refuse_filter(&server, filter).await {
            assert!(shown.contains(&format!("at character {place}:")), "{filter}: {shown}");
        }
    }
    for order_by in ["hush", "name hush", "name, hush"] {
        let request = compute::ListSnapshotsRequest { order_by: order_by.to_owned(), ..list("folder-a") };
        Want::invalid("order_by").grpc(server.snapshots_client().list(bearer(request)).await, "hush");
        let path = format!("{PATH}?folderId=folder-a&orderBy={}", encoded(order_by));
        Want::invalid("order_by").rest(&server.get(&path).await, "hush");
    }
    assert_eq!(server.state(), before);
    server.lives().await;
}
