//! B1 to B3: ids that are not there, not for the caller, or none.

use http::Method;
use longrun_api::google::longrunning;
use longrun_api::yandex::cloud::compute::v1 as compute;
use longrun_api::yandex::cloud::operation::{CancelOperationRequest, GetOperationRequest};
use prost::Message;
use tonic::Code;

use crate::client::{RawAnswer, Rest, bearer, framed, status_line};
use crate::refusal::Want;
use crate::server::Server;

const OPERATIONS: &str = "/yandex.cloud.operation.OperationService/";
const SNAPSHOTS: &str = "/yandex.cloud.compute.v1.SnapshotService/";
const LONGRUNNING: &str = "/google.longrunning.Operations/";

/// Every method that takes an id: its path and the message with the id.
fn grpc_calls(operation: &str, snapshot: &str) -> Vec<(String, Vec<u8>)> {
    let (operation_id, snapshot_id) = (operation.to_owned(), snapshot.to_owned());
    let name = format!("operations/{operation}");
    let calls = [
        (OPERATIONS, "Get", GetOperationRequest { operation_id: operation_id.clone() }.encode_to_vec()),
        (OPERATIONS, "Cancel", CancelOperationRequest { operation_id }.encode_to_vec()),
        (
            LONGRUNNING,
            "GetOperation",
            longrunning::GetOperationRequest { name: name.clone() }.encode_to_vec(),
        ),
        (
            LONGRUNNING,
            "CancelOperation",
            longrunning::CancelOperationRequest { name: name.clone() }.encode_to_vec(),
        ),
        (
            LONGRUNNING,
            "DeleteOperation",
            longrunning::DeleteOperationRequest { name: name.clone() }.encode_to_vec(),
        ),
        (
            LONGRUNNING,
            "WaitOperation",
            longrunning::WaitOperationRequest { name, timeout: None }.encode_to_vec(),
        ),
        (SNAPSHOTS, "Get", compute::GetSnapshotRequest { snapshot_id: snapshot_id.clone() }.encode_to_vec()),
        (
            SNAPSHOTS,
            "Update",
            compute::UpdateSnapshotRequest {
                snapshot_id: snapshot_id.clone(),
                name: "new-name".to_owned(),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            SNAPSHOTS,
            "Delete",
            compute::DeleteSnapshotRequest { snapshot_id: snapshot_id.clone() }.encode_to_vec(),
        ),
        (
            SNAPSHOTS,
            "ListOperations",
            compute::ListSnapshotOperationsRequest { snapshot_id, ..Default::default() }.encode_to_vec(),
        ),
    ];
    calls.map(|(service, method, message)| (format!("{service}{method}"), message)).to_vec()
}

/// The same over REST.
fn rest_calls(operation: &str, snapshot: &str) -> Vec<(Method, String, &'static str)> {
    let snapshots = "/compute/v1/snapshots";
    vec![
        (Method::GET, format!("/operations/{operation}"), ""),
        (Method::GET, format!("/operations/{operation}:cancel"), ""),
        (Method::POST, format!("/operations/{operation}:cancel"), ""),
        (Method::GET, format!("{snapshots}/{snapshot}"), ""),
        (Method::PATCH, format!("{snapshots}/{snapshot}"), r#"{"name": "new-name"}"#),
        (Method::DELETE, format!("{snapshots}/{snapshot}"), ""),
        (Method::GET, format!("{snapshots}/{snapshot}/operations"), ""),
    ]
}

#[tokio::test]
async fn b01_an_unknown_id_is_not_found() {
    let server = Server::new().await;
    server.snapshot("folder-a", "there", &[]).await;
    let before = server.state();
    let an_operation = longrun::OperationId::parse("opr00000000000000000")
        .map_or_else(|_| "nothing".to_owned(), |id| id.to_string());
    for (operation, snapshot) in
        [("unknown-id", "unknown-id"), (an_operation.as_str(), an_operation.as_str())]
    {
        for (path, message) in grpc_calls(operation, snapshot) {
            let answer = server.raw_grpc(&path, &[], framed(0, &message)).await;
            Want::NOT_FOUND.check(answer.refusal(), operation);
        }
        for (method, path, body) in rest_calls(operation, snapshot) {
            Want::NOT_FOUND.rest(&server.rest(method, &path, &[], body).await, operation);
        }
    }
    Want::NOT_FOUND.rest(&server.get("/no/such/hush").await, "hush");
    assert_eq!(server.state(), before);
    server.lives().await;
}

fn undated(mut headers: http::HeaderMap) -> http::HeaderMap {
    headers.remove("date");
    headers
}

#[tokio::test]
async fn b02_a_foreign_id_and_a_missing_one_are_answered_with_the_same_bytes() {
    let server = Server::with_tokens().await;
    let alice = [("authorization", "Bearer alice-token")];
    let (operation, snapshot) = server.snapshot("folder-a", "mine", &alice).await;
    let before = server.state();
    // As long as the real ones, so that nothing differs but that they are not there.
    let missing_operation = format!(
        "{}{}",
        &operation.id[..operation.id.len() - 1],
        if operation.id.ends_with('0') { '1' } else { '0' }
    );
    let missing_snapshot =
        format!("{}{}", &snapshot[..snapshot.len() - 1], if snapshot.ends_with('0') { '1' } else { '0' });
    for key in [None, Some(("idempotency-key", "key-1"))] {
        let mut headers = vec![("authorization", "Bearer bob-token"), ("x-request-id", "request-1")];
        headers.extend(key);
        let (foreign, missing) =
            (grpc_calls(&operation.id, &snapshot), grpc_calls(&missing_operation, &missing_snapshot));
        for ((path, foreign), (_, missing)) in foreign.into_iter().zip(missing) {
            let ask = async |message: &[u8]| {
                let answer = server.raw_grpc(&path, &headers, framed(0, message)).await;
                RawAnswer { headers: undated(answer.headers), ..answer }
            };
            let foreign = ask(&foreign).await;
            assert_eq!(foreign, ask(&missing).await, "{path}");
            Want::NOT_FOUND.check(foreign.refusal(), "mine");
        }
        let (foreign, missing) =
            (rest_calls(&operation.id, &snapshot), rest_calls(&missing_operation, &missing_snapshot));
        for ((method, foreign, body), (_, missing, _)) in foreign.into_iter().zip(missing) {
            let ask = async |path: &str| {
                let answer = server.rest(method.clone(), path, &headers, body).await;
                Rest { headers: undated(answer.headers), ..answer }
            };
            let (foreign, missing) = (ask(&foreign).await, ask(&missing).await);
            assert_eq!(format!("{foreign:?}"), format!("{missing:?}"));
            Want::NOT_FOUND.rest(&foreign, "mine");
        }
    }
    assert_eq!(server.state(), before);
    server.lives().await;
}

#[tokio::test]
async fn b03_what_is_no_id_is_named_and_not_repeated() {
    let server = Server::new().await;
    let before = server.state();
    let long = "hush".repeat(1 << 18);
    for bad in ["../hush", "hush\0", "hush\n", "hush/x", "\u{1F4A9}hush", "hush hush", long.as_str()] {
        for (path, message) in grpc_calls(bad, bad) {
            let field = if path.starts_with(LONGRUNNING) {
                "name"
            } else if path.starts_with(OPERATIONS) {
                "operation_id"
            } else {
                "snapshot_id"
            };
            let answer = server.raw_grpc(&path, &[], framed(0, &message)).await;
            Want::invalid(field).check(answer.refusal(), "hush");
        }
    }
    let longer_than_any = "hush".repeat(1000);
    for bad in [
        "..%2Fhush",
        "%2e%2e%2fhush",
        "hush%00",
        "hush%0a",
        "hush%2Fx",
        "%F0%9F%92%A9hush",
        "hush%20",
        longer_than_any.as_str(),
    ] {
        for (method, path, body) in rest_calls(bad, bad) {
            let field = if path.starts_with("/operations") { "operation_id" } else { "snapshot_id" };
            Want::invalid(field).rest(&server.rest(method, &path, &[], body).await, "hush");
        }
    }
    // Not even text.
    for (method, path, body) in rest_calls("hush%ff", "hush%ff") {
        Want::invalid("path").rest(&server.rest(method, &path, &[], body).await, "hush");
    }
    // In a body, up to the limit of the body.
    let body = format!(r#"{{"folderId": "{long}", "diskId": "../hush"}}"#);
    let refusal = Want::invalid("folder_id").rest(&server.post("/compute/v1/snapshots", body).await, "hush");
    assert_eq!(refusal.fields, ["folder_id", "disk_id"]);
    assert_eq!(server.state(), before);
    server.lives().await;
}

#[tokio::test]
async fn b03_an_id_of_ten_mebibytes_is_not_even_read() {
    let server = Server::new().await;
    let before = server.state();
    let long = "hush".repeat(10 << 18);
    // Over gRPC that is a message over the limit: B5.
    let request = GetOperationRequest { operation_id: long.clone() };
    Want::TOO_LARGE.grpc(server.operations().get(bearer(request)).await, "hush");
    // Over REST likewise in a body, and in a path more than any path may have: that is HTTP's own refusal, without a Status.
    let body = format!(r#"{{"folderId": "{long}"}}"#);
    let request = format!(
        "POST /compute/v1/snapshots HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = crate::client::raw(server.http, request.as_bytes()).await;
    assert_eq!(status_line(&answer), 413);
    assert!(!String::from_utf8_lossy(&answer).contains("hush"));
    let request = format!("GET /operations/{long} HTTP/1.1\r\nhost: x\r\n\r\n");
    let answer = crate::client::raw(server.http, request.as_bytes()).await;
    assert_eq!(status_line(&answer), 431);
    assert!(!String::from_utf8_lossy(&answer).contains("hush"));
    assert_eq!(server.state(), before);
    assert_eq!(
        server.operations().get(bearer(GetOperationRequest::default())).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    server.lives().await;
}
