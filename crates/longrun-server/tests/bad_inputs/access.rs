//! B26: who may what.

use http::Method;
use longrun::Code;
use longrun_api::yandex::cloud::compute::v1 as compute;
use longrun_api::yandex::cloud::operation::{CancelOperationRequest, GetOperationRequest};

use crate::client::{call, create, create_json};
use crate::refusal::Want;
use crate::server::Server;

const PATH: &str = "/compute/v1/snapshots";

#[tokio::test]
async fn b26_no_credential_and_a_bad_one_are_unauthenticated_and_nothing_is_looked_at() {
    let server = Server::with_tokens().await;
    let (operation, snapshot) =
        server.snapshot("folder-a", "mine", &[("authorization", "Bearer alice-token")]).await;
    let before = server.state();
    let want = Want::new(Code::Unauthenticated, 401, "UNAUTHENTICATED");
    for bad in [
        None,
        Some("Bearer hush"),
        Some("Basic hush"),
        Some("hush"),
        Some(""),
        Some("Bearer alice-token hush"),
    ] {
        let headers: Vec<_> = bad.map(|bad| ("authorization", bad)).into_iter().collect();
        let get = GetOperationRequest { operation_id: operation.id.clone() };
        want.grpc(server.operations().get(call(get, &headers)).await, "hush");
        want.grpc(server.snapshots_client().create(call(create("folder-a", "new"), &headers)).await, "hush");
        for (method, path) in [
            (Method::GET, format!("/operations/{}", operation.id)),
            (Method::POST, PATH.to_owned()),
            (Method::DELETE, format!("{PATH}/{snapshot}")),
            (Method::GET, format!("{PATH}?folderId=folder-a")),
        ] {
            // The body is no JSON, but who is not known is not told so.
            let answer = server.rest(method, &path, &headers, "hush").await;
            want.rest(&answer, "hush");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
        }
    }
    assert_eq!(server.state(), before);
    server.lives().await;
}

#[tokio::test]
async fn b26_without_permission_one_is_told_so_within_what_one_may_see_and_else_as_if_it_were_not_there() {
    let server = Server::with_tokens().await;
    let (operation, snapshot) =
        server.snapshot("folder-a", "mine", &[("authorization", "Bearer alice-token")]).await;
    let before = server.state();
    let denied = Want::new(Code::PermissionDenied, 403, "PERMISSION_DENIED");
    for (token, of_what_is_there) in [("Bearer eyes-token", denied), ("Bearer bob-token", Want::NOT_FOUND)] {
        let headers = [("authorization", token)];
        // In a folder that is named there is nothing to hide: that it is not the caller's, the caller knows.
        denied.grpc(server.snapshots_client().create(call(create("folder-a", "new"), &headers)).await, "");
        denied.rest(
            &server.rest(Method::POST, PATH, &headers, create_json("folder-a", "new").to_string()).await,
            "",
        );

        let delete = compute::DeleteSnapshotRequest { snapshot_id: snapshot.clone() };
        of_what_is_there.grpc(server.snapshots_client().delete(call(delete, &headers)).await, "mine");
        let path = format!("{PATH}/{snapshot}");
        of_what_is_there.rest(&server.rest(Method::DELETE, &path, &headers, "").await, "mine");
        of_what_is_there
            .rest(&server.rest(Method::PATCH, &path, &headers, r#"{"name": "new"}"#).await, "mine");
        let cancel = CancelOperationRequest { operation_id: operation.id.clone() };
        of_what_is_there.grpc(server.operations().cancel(call(cancel, &headers)).await, "mine");
        let path = format!("/operations/{}:cancel", operation.id);
        of_what_is_there.rest(&server.rest(Method::POST, &path, &headers, "").await, "mine");
    }
    // Looking is allowed to those who may look, and denied in a folder of others, whether anything is in it or not.
    let list = |folder: &str| format!("{PATH}?folderId={folder}");
    let eyes = [("authorization", "Bearer eyes-token")];
    assert_eq!(server.rest(Method::GET, &list("folder-a"), &eyes, "").await.status, 200);
    for folder in ["folder-b", "folder-of-nobody"] {
        denied.rest(&server.rest(Method::GET, &list(folder), &eyes, "").await, folder);
        let request = compute::ListSnapshotsRequest { folder_id: folder.to_owned(), ..Default::default() };
        denied.grpc(server.snapshots_client().list(call(request, &eyes)).await, folder);
    }
    assert_eq!(server.state(), before);
    server.lives().await;
}
