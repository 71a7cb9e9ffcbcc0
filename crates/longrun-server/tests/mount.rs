//! The example of a server of one's own, driven through both faces.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, unreachable_pub)]
#[path = "../examples/mount.rs"]
mod mount;

use std::net::SocketAddr;
use std::time::Duration;

use http::{Method, Request, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use longrun_api::google::longrunning::operations_client::OperationsClient;
use longrun_api::google::longrunning::{WaitOperationRequest, operation::Result as Ended};
use longrun_api::well_known::Struct;
use longrun_api::yandex::cloud::operation::operation_service_client::OperationServiceClient;
use longrun_api::yandex::cloud::operation::{GetOperationRequest, Operation};
use prost::Message;
use serde_json::{Value, json};
use tonic::Code;

fn client(http2: bool) -> Client<HttpConnector, tonic::body::Body> {
    Client::builder(TokioExecutor::new()).http2_only(http2).build_http()
}

fn origin(address: SocketAddr) -> Uri {
    format!("http://{address}").parse().unwrap()
}

async fn ask(address: SocketAddr, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = Request::builder()
        .method(method)
        .uri(format!("http://{address}{path}"))
        .header("content-type", "application/json")
        .body(tonic::body::Body::new(body))
        .unwrap();
    let response = client(false).request(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

/// Waits, through google.longrunning, until an operation is done.
async fn wait(grpc: SocketAddr, id: &str) -> longrun_api::google::longrunning::Operation {
    let mut operations = OperationsClient::with_origin(client(true), origin(grpc));
    let request = WaitOperationRequest { name: format!("operations/{id}"), timeout: None };
    let wait = tokio::time::timeout(Duration::from_secs(30), operations.wait_operation(request));
    wait.await.unwrap().unwrap().into_inner()
}

#[tokio::test]
async fn an_order_is_seen_through_both_faces() {
    let (grpc, http) = mount::serve().await.unwrap();
    let cake = json!({ "sort": "sacher", "layers": 2 });
    let (status, accepted) = ask(http, Method::POST, "/cakes", &cake).await;
    assert_eq!((status, &accepted["done"]), (StatusCode::OK, &json!(false)), "{accepted}");
    let id = accepted["id"].as_str().unwrap();

    let done = wait(grpc, id).await;
    assert!(done.done);
    let Some(Ended::Response(response)) = done.result else { unreachable!("nothing fails in it") };
    assert_eq!(response.name(), "google.protobuf.Struct");
    let fields = Struct::decode(response.value).unwrap().fields;
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["layers", "sort"]);

    let (status, over_rest) = ask(http, Method::GET, &format!("/operations/{id}"), &Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    let shown = json!({ "@type": "type.googleapis.com/google.protobuf.Struct", "value": cake });
    assert_eq!((&over_rest["response"], &over_rest["metadata"]), (&shown, &shown));
    assert_eq!(over_rest["createdBy"], "guest");

    let mut operations = OperationServiceClient::with_origin(client(true), origin(grpc));
    let request = GetOperationRequest { operation_id: id.to_owned() };
    let over_grpc = operations.get(request).await.unwrap().into_inner();
    assert_eq!(over_grpc, serde_json::from_value::<Operation>(over_rest).unwrap(), "the faces differ");
}

#[tokio::test]
async fn an_order_is_cancelled() {
    let (grpc, http) = mount::serve().await.unwrap();
    let (_, accepted) = ask(http, Method::POST, "/cakes", &json!({ "sort": "stollen", "layers": 255 })).await;
    let id = accepted["id"].as_str().unwrap();
    let (status, _) = ask(http, Method::POST, &format!("/operations/{id}:cancel"), &Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    let done = wait(grpc, id).await;
    let Some(Ended::Error(error)) = done.result else { unreachable!("it was cancelled") };
    assert!(done.done && error.code == 1, "{error:?}");
}

#[tokio::test]
async fn what_was_not_mounted_is_not_there() {
    let (grpc, http) = mount::serve().await.unwrap();
    let (status, body) = ask(http, Method::GET, "/compute/v1/snapshots?folderId=b1g", &Value::Null).await;
    assert_eq!((status, &body["code"]), (StatusCode::NOT_FOUND, &json!(5)));
    // The embedder's own path answers in its own way.
    let (status, _) = ask(http, Method::POST, "/cakes", &json!({ "sort": 1 })).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    use longrun_api::yandex::cloud::compute::v1 as compute;
    let mut snapshots =
        compute::snapshot_service_client::SnapshotServiceClient::with_origin(client(true), origin(grpc));
    let refused = snapshots.list(compute::ListSnapshotsRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
}

#[test]
fn the_example_is_short() {
    let lines = include_str!("../examples/mount.rs").lines().count();
    assert!(lines < 60, "{lines}");
}
