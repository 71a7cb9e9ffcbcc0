//! B18 to B25: requests that change something, their idempotency keys, and each other.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use longrun::Code;
use longrun_api::google::longrunning;
use longrun_api::yandex::cloud::compute::v1 as compute;
use longrun_api::yandex::cloud::operation::{CancelOperationRequest, GetOperationRequest};
use serde_json::json;

use crate::client::{bearer, call, create, create_json, raw, snapshot_of, status_line};
use crate::refusal::Want;
use crate::server::{Server, Setup};

const PATH: &str = "/compute/v1/snapshots";

#[tokio::test]
async fn b18_sixty_five_labels_or_a_key_with_a_line_break_are_refused() {
    let server = Server::new().await;
    let before = server.state();
    let many: BTreeMap<String, String> = (0..65).map(|n| (format!("key{n}"), "value".to_owned())).collect();
    let broken = BTreeMap::from([("hush\n".to_owned(), "value".to_owned())]);
    for (labels, field, hush) in [(many, "labels", "value\""), (broken, r#"labels["hush\n"]"#, "hush\n")] {
        let want = Want { field: Some(field), ..Want::invalid("") };
        let request =
            compute::CreateSnapshotRequest { labels: labels.clone(), ..create("folder-a", "named") };
        want.grpc(server.snapshots_client().create(bearer(request)).await, hush);
        let mut body = create_json("folder-a", "named");
        body["labels"] = json!(labels);
        want.rest(&server.post(PATH, body.to_string()).await, hush);
    }
    assert_eq!(server.state(), before);
    server.lives().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b19_a_thousand_requests_with_one_key_at_the_same_time_are_one_operation() {
    let server = Server::new().await;
    let channel = server.channel();
    let grpc = (0..500).map(|_| {
        let mut client = compute::snapshot_service_client::SnapshotServiceClient::new(channel.clone());
        async move {
            let headers = [("idempotency-key", "key-1")];
            client.create(call(create("folder-a", "once"), &headers)).await.unwrap().into_inner().id
        }
    });
    let rest = (0..500).map(|_| async {
        let headers = [("idempotency-key", "key-1")];
        let answer =
            server.rest(Method::POST, PATH, &headers, create_json("folder-a", "once").to_string()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    });
    let (grpc, rest) =
        tokio::join!(futures_util::future::join_all(grpc), futures_util::future::join_all(rest));
    assert_eq!(grpc.len() + rest.len(), 1000);
    let ids: BTreeSet<String> = grpc.into_iter().chain(rest).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    server.done(ids.first().unwrap()).await;
    let all = longrunning::ListOperationsRequest::default();
    assert_eq!(
        server.longrunning().list_operations(bearer(all)).await.unwrap().into_inner().operations.len(),
        1
    );
    let request = compute::ListSnapshotsRequest { folder_id: "folder-a".to_owned(), ..Default::default() };
    assert_eq!(
        server.snapshots_client().list(bearer(request)).await.unwrap().into_inner().snapshots.len(),
        1
    );
    server.lives().await;
}

#[tokio::test]
async fn b20_a_key_with_another_request_is_refused_and_the_first_is_not_touched() {
    let server = Server::new().await;
    let key = [("idempotency-key", "key-1")];
    let (first, snapshot) = server.snapshot("folder-a", "first", &key).await;
    let before = server.state();
    let want = Want::new(Code::AlreadyExists, 409, "IDEMPOTENCY_KEY_REUSED");
    let refusal =
        want.grpc(server.snapshots_client().create(call(create("folder-a", "second"), &key)).await, "key-1");
    assert_eq!(refusal.facts["operation"], first.id);
    let body = create_json("folder-a", "second").to_string();
    let refusal = want.rest(&server.rest(Method::POST, PATH, &key, body).await, "key-1");
    assert_eq!(refusal.facts["operation"], first.id);
    assert_eq!(server.state(), before);
    // The same request is the same operation, as it is now; and another method has keys of its own.
    let again = server.create("folder-a", "first", &key).await;
    assert!(again.id == first.id && again.done);
    let delete = compute::DeleteSnapshotRequest { snapshot_id: snapshot };
    let deleted = server.snapshots_client().delete(call(delete, &key)).await.unwrap().into_inner();
    assert_ne!(deleted.id, first.id);
    server.lives().await;
}

#[tokio::test]
async fn b21_a_key_that_is_empty_too_long_or_not_printable_is_refused() {
    let server = Server::new().await;
    let snapshot = server.snapshot("folder-a", "there", &[]).await.1;
    let before = server.state();
    let want = Want::invalid("idempotency_key");
    let long = "hush".repeat(33);
    for bad in ["", &long[..129], "hush\thush"] {
        let key = [("idempotency-key", bad)];
        want.grpc(server.snapshots_client().create(call(create("folder-a", "keyed"), &key)).await, "hush");
        let body = create_json("folder-a", "keyed").to_string();
        want.rest(&server.rest(Method::POST, PATH, &key, body).await, "hush");
        want.rest(&server.rest(Method::DELETE, &format!("{PATH}/{snapshot}"), &key, "").await, "hush");
        // Reads do not look at it.
        let get = compute::GetSnapshotRequest { snapshot_id: snapshot.clone() };
        server.snapshots_client().get(call(get, &key)).await.unwrap();
        assert_eq!(server.rest(Method::GET, &format!("{PATH}/{snapshot}"), &key, "").await.status, 200);
    }
    // Bytes that are no text; and control characters, which HTTP itself refuses.
    let body = create_json("folder-a", "keyed").to_string();
    let request = |key: &[u8]| {
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\nidempotency-key: ",
            body.len()
        );
        [head.as_bytes(), key, b"\r\n\r\n", body.as_bytes()].concat()
    };
    for bad in [b"hush\xff".as_slice(), b"hush\x01", b"hush\0", b"hush\x7f"] {
        let answer = raw(server.http, &request(bad)).await;
        assert_eq!(status_line(&answer), 400, "{bad:?}");
        assert!(!String::from_utf8_lossy(&answer).contains("hush"));
    }
    assert_eq!(server.state(), before);
    server.lives().await;
}

/// As many keys as it takes, not a million: a few a second are allowed here.
#[tokio::test]
async fn b22_a_folder_that_sends_more_than_its_share_waits_and_others_are_not_affected() {
    let server = Server::with(Setup { rate: Some(1), ..Setup::default() }).await;
    let mut refused = None;
    for number in 0..1000 {
        let (key, name) = (format!("key-{number}"), format!("name-{number}"));
        let request = call(create("folder-a", &name), &[("idempotency-key", &key)]);
        if let Err(status) = server.snapshots_client().create(request).await {
            refused = Some((number, status));
            break;
        }
    }
    let (accepted, status) = refused.expect("a share has an end");
    assert!(accepted >= 10, "{accepted}");
    let want = Want::new(Code::ResourceExhausted, 429, "QUOTA_EXCEEDED");
    assert!(want.grpc::<()>(Err(status), "folder-a").retry);
    // Another second brings another change, so that some of these may be accepted; of two at once, one is not.
    let mut over_rest = None;
    for number in 0..1000 {
        let key = format!("rest-{number}");
        let body = create_json("folder-a", &format!("rest-{number}")).to_string();
        let answer = server.rest(Method::POST, PATH, &[("idempotency-key", &key)], body).await;
        if answer.status != 200 {
            over_rest = Some(answer);
            break;
        }
    }
    let answer = over_rest.expect("a share has an end");
    assert!(want.rest(&answer, "folder-a").retry);
    assert!(answer.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    // Reads and others' changes go on.
    server.snapshot("folder-b", "other", &[]).await;
    assert_eq!(server.get(&format!("{PATH}?folderId=folder-a")).await.status, 200);
    server.lives().await;
}

#[tokio::test]
async fn b23_a_cancel_of_what_is_done_changes_nothing() {
    let server = Server::new().await;
    let (operation, snapshot) = server.snapshot("folder-a", "done", &[]).await;
    let before = server.state();
    let get = GetOperationRequest { operation_id: operation.id.clone() };
    let done = server.operations().get(bearer(get)).await.unwrap().into_inner();
    assert!(done.done);
    let cancel = CancelOperationRequest { operation_id: operation.id.clone() };
    assert_eq!(server.operations().cancel(bearer(cancel)).await.unwrap().into_inner(), done);
    let name = format!("operations/{}", operation.id);
    server
        .longrunning()
        .cancel_operation(bearer(longrunning::CancelOperationRequest { name }))
        .await
        .unwrap();
    let shown = server.get(&format!("/operations/{}", operation.id)).await.json();
    for method in [Method::GET, Method::POST] {
        let answer = server.rest(method, &format!("/operations/{}:cancel", operation.id), &[], "").await;
        assert_eq!((answer.status, answer.json()), (200, shown.clone()));
    }
    assert_eq!(server.state(), before);
    assert_eq!(server.get(&format!("{PATH}/{snapshot}")).await.json()["status"], "READY");
    server.lives().await;
}

/// That there was one rollback is seen by its effects: one operation, CANCELLED, and nothing left of what it made. That an undo
/// runs once is for the tests of the engine.
#[tokio::test]
async fn b24_two_cancels_at_the_same_time_are_both_ok_and_there_is_one_rollback() {
    let server = Server::new().await;
    let before = server.get(&format!("{PATH}?folderId=folder-a")).await.json();
    server.gate.close();
    let operation = server.create("folder-a", "held", &[]).await;
    let cancel = CancelOperationRequest { operation_id: operation.id.clone() };
    let path = format!("/operations/{}:cancel", operation.id);
    let (mut one, mut other) = (server.operations(), server.operations());
    let (one, other, third) = tokio::join!(
        one.cancel(bearer(cancel.clone())),
        other.cancel(bearer(cancel)),
        server.post(&path, "")
    );
    for cancelled in [one.unwrap().into_inner(), other.unwrap().into_inner()] {
        assert_eq!(cancelled.id, operation.id);
    }
    assert_eq!(third.status, 200);
    server.gate.open();
    assert_eq!(server.done(&operation.id).await.error().unwrap().code(), Code::Cancelled);
    let all = longrunning::ListOperationsRequest::default();
    assert_eq!(
        server.longrunning().list_operations(bearer(all)).await.unwrap().into_inner().operations.len(),
        1
    );
    assert_eq!(server.get(&format!("{PATH}?folderId=folder-a")).await.json(), before);
    server.lives().await;
}

#[tokio::test]
async fn b25_a_snapshot_that_is_being_created_cannot_be_changed_or_deleted_and_its_creation_goes_on() {
    let server = Server::new().await;
    server.gate.close();
    let operation = server.create("folder-a", "held", &[]).await;
    let id = snapshot_of(&operation);
    let want = Want::new(Code::Aborted, 409, "OPERATION_IN_THE_WAY");
    let update = compute::UpdateSnapshotRequest {
        snapshot_id: id.clone(),
        name: "hush".to_owned(),
        ..Default::default()
    };
    let delete = compute::DeleteSnapshotRequest { snapshot_id: id.clone() };
    let path = format!("{PATH}/{id}");
    for refusal in [
        want.grpc(server.snapshots_client().update(bearer(update)).await, "hush"),
        want.grpc(server.snapshots_client().delete(bearer(delete)).await, "hush"),
        want.rest(&server.rest(Method::PATCH, &path, &[], r#"{"name": "hush"}"#).await, "hush"),
        want.rest(&server.rest(Method::DELETE, &path, &[], "").await, "hush"),
    ] {
        assert_eq!(refusal.facts["operation"], operation.id);
    }
    assert_eq!(server.get(&path).await.json()["status"], "CREATING");
    server.gate.open();
    assert!(server.done(&operation.id).await.error().is_none());
    let snapshot = server.get(&path).await.json();
    assert_eq!((snapshot["status"].as_str(), snapshot["name"].as_str()), (Some("READY"), Some("held")));
    server.lives().await;
}
