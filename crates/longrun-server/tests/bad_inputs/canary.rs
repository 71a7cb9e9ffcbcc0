//! Nothing that a stranger sends is in the log or in the labels of the metrics.

use std::collections::BTreeMap;

use http::Method;
use longrun_api::google::longrunning;
use longrun_api::well_known::FieldMask;
use longrun_api::yandex::cloud::compute::v1 as compute;
use longrun_api::yandex::cloud::operation::{CancelOperationRequest, GetOperationRequest};
use serde_json::json;

use crate::client::{call, create, create_json, framed, raw, snapshot_of};
use crate::log;
use crate::server::{Server, Setup};

/// In every input. It may be part of an id, a name, a label and a key, so that it gets as far as it can.
const CANARY: &str = "canary-5ecret";
const PATH: &str = "/compute/v1/snapshots";

fn headers(token: &'static str) -> Vec<(&'static str, &'static str)> {
    // The id of a request alone goes to the log, if it is a plain word: it is there to be found.
    vec![
        ("authorization", token),
        ("idempotency-key", CANARY),
        ("user-agent", CANARY),
        ("x-client-trace-id", CANARY),
        ("x-canary-5ecret", CANARY),
        ("cookie", CANARY),
        ("x-request-id", "canary-5ecret not a word"),
    ]
}

async fn over_grpc(server: &Server, headers: &[(&'static str, &str)]) {
    let text = || CANARY.to_owned();
    let mut snapshots = server.snapshots_client();
    let mut good = create(CANARY, CANARY);
    good.description = text();
    good.labels = BTreeMap::from([(text(), text())]);
    if let Ok(operation) = snapshots.create(call(good.clone(), headers)).await {
        let operation = operation.into_inner();
        server.done(&operation.id).await;
        let snapshot_id = snapshot_of(&operation);
        let update_mask = Some(FieldMask { paths: vec!["name".to_owned()] });
        let (name, labels) = (format!("{CANARY}-2"), BTreeMap::new());
        let update = compute::UpdateSnapshotRequest {
            snapshot_id: snapshot_id.clone(),
            update_mask,
            name,
            description: text(),
            labels,
        };
        server.done(&snapshots.update(call(update, headers)).await.unwrap().into_inner().id).await;
        let delete = compute::DeleteSnapshotRequest { snapshot_id };
        server.done(&snapshots.delete(call(delete, headers)).await.unwrap().into_inner().id).await;
    }
    let broken = compute::CreateSnapshotRequest {
        folder_id: format!("{CANARY}\n"),
        disk_id: text(),
        name: format!("{CANARY}\n"),
        labels: BTreeMap::from([(format!("{CANARY}\n"), text())]),
        ..good.clone()
    };
    let no_disk = compute::CreateSnapshotRequest { disk_id: text(), ..good };
    for request in [broken, no_disk] {
        snapshots.create(call(request, headers)).await.unwrap_err();
    }
    for (filter, order_by, page_token) in
        [(CANARY, "", ""), ("", CANARY, ""), ("", "", CANARY), ("name = \"canary-5ecret\"", "", "")]
    {
        let request = compute::ListSnapshotsRequest {
            folder_id: text(),
            filter: filter.to_owned(),
            order_by: order_by.to_owned(),
            page_token: page_token.to_owned(),
            page_size: 1,
        };
        _ = snapshots.list(call(request, headers)).await;
    }
    let request = compute::GetSnapshotRequest { snapshot_id: text() };
    snapshots.get(call(request, headers)).await.unwrap_err();
    let update_mask = Some(FieldMask { paths: vec![text()] });
    let request = compute::UpdateSnapshotRequest { snapshot_id: text(), update_mask, ..Default::default() };
    snapshots.update(call(request, headers)).await.unwrap_err();
    let request = GetOperationRequest { operation_id: text() };
    server.operations().get(call(request, headers)).await.unwrap_err();
    let request = CancelOperationRequest { operation_id: text() };
    server.operations().cancel(call(request, headers)).await.unwrap_err();
    let request = longrunning::WaitOperationRequest { name: text(), timeout: None };
    server.longrunning().wait_operation(call(request, headers)).await.unwrap_err();
    let request =
        longrunning::ListOperationsRequest { name: text(), filter: text(), page_token: text(), page_size: 0 };
    server.longrunning().list_operations(call(request, headers)).await.unwrap_err();
    for frame in [framed(0, CANARY.as_bytes()), framed(1, CANARY.as_bytes()), CANARY.into()] {
        server.raw_grpc(crate::client::CREATE, &[("grpc-encoding", CANARY)], frame.clone()).await;
        server.raw_grpc(crate::client::CREATE, &[], frame).await;
    }
    server.raw_grpc(&format!("/{CANARY}/{CANARY}"), &[], framed(0, CANARY.as_bytes())).await;
}

async fn over_rest(server: &Server, headers: &[(&'static str, &str)]) {
    let mut good = create_json(CANARY, CANARY);
    good["description"] = json!(CANARY);
    good["labels"] = json!({ CANARY: CANARY });
    let bodies = [
        good.to_string(),
        CANARY.to_owned(),
        json!({ CANARY: CANARY }).to_string(),
        json!({ "name": [CANARY] }).to_string(),
        json!({ "diskId": CANARY, "folderId": CANARY }).to_string(),
    ];
    for body in bodies {
        server.rest(Method::POST, PATH, headers, body.clone()).await;
        server.rest(Method::PATCH, &format!("{PATH}/{CANARY}"), headers, body).await;
    }
    for path in [
        format!("{PATH}/{CANARY}"),
        format!("{PATH}/{CANARY}%ff"),
        format!("{PATH}/{CANARY}%00/operations"),
        format!("{PATH}?{CANARY}={CANARY}"),
        format!("{PATH}?folderId={CANARY}&filter={CANARY}&orderBy={CANARY}&pageToken={CANARY}"),
        format!("{PATH}?folderId={CANARY}&pageSize={CANARY}"),
        format!("/operations/{CANARY}"),
        format!("/operations/{CANARY}:cancel"),
        format!("/endpoints/{CANARY}"),
        format!("/{CANARY}"),
    ] {
        for method in [Method::GET, Method::POST, Method::DELETE, Method::TRACE] {
            server.rest(method, &path, headers, CANARY).await;
        }
    }
    for broken in [
        format!("{CANARY}\r\n\r\n"),
        format!("GET /{CANARY} HTTP/9\r\n\r\n"),
        format!("GET /\0{CANARY} HTTP/1.1\r\n{CANARY}\r\n\r\n"),
        format!("{:>24}", CANARY),
    ] {
        raw(server.http, format!("{broken}\r\n\r\n\r\n").as_bytes()).await;
        raw(server.grpc, format!("{broken}\r\n\r\n\r\n").as_bytes()).await;
    }
}

#[tokio::test]
async fn what_a_stranger_sends_is_in_no_line_of_the_log_and_in_no_label_of_a_metric() {
    let token_file = "alice-token alice *\ncanary-5ecret-right carol *";
    for (tokens, token) in [
        (None, "Bearer canary-5ecret"),
        (Some(token_file), "Bearer canary-5ecret"),
        (Some(token_file), "Bearer canary-5ecret-right"),
    ] {
        let server = Server::with(Setup { tokens, ..Setup::default() }).await;
        over_grpc(&server, &headers(token)).await;
        over_rest(&server, &headers(token)).await;
        server.lives().await;
    }
    let log = log::text();
    assert!(log.contains("DEBUG longrun"), "the log is listened to");
    if let Some(line) = log.lines().find(|line| line.contains("canary")) {
        panic!("in the log: {line}");
    }
    let counters = log::counters();
    assert!(counters.keys().any(|counter| counter.starts_with("longrun_api_calls_total")));
    assert!(!counters.keys().any(|counter| counter.contains("canary")), "{counters:?}");
}
