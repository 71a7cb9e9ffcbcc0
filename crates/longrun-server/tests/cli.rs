//! The program as a client, run against a server that answers as it is told to: what it sends, what it prints, and the exit
//! code.

#![allow(clippy::unwrap_used, clippy::panic)] // Clippy takes helpers of a test for something else than a test.

#[path = "cli/fake.rs"]
mod fake;

use longrun_api::google::longrunning::{self, ListOperationsResponse};
use longrun_api::google::rpc;
use longrun_api::longrun::v1::{BlockedStep, OperationMetadata, Progress, progress::Unit};
use longrun_api::well_known::{Any, Timestamp};
use longrun_api::yandex::cloud::compute::v1::{
    CreateSnapshotMetadata, ListSnapshotOperationsResponse, ListSnapshotsResponse, Snapshot, snapshot,
};
use longrun_api::yandex::cloud::operation as cloud;
use longrun_api::{ApiError, Reason};
use prost::Message;
use serde_json::json;
use tokio::net::TcpListener;
use tonic::{Code, Status};

use self::fake::{Fake, run};

const CREATED: Timestamp = Timestamp { seconds: 1_535_567_475, nanos: 311_000_000 };

/// How an operation ends.
#[derive(Clone)]
enum End {
    Not,
    Error(rpc::Status),
    Made,
}

fn metadata() -> Any {
    Any::pack(&CreateSnapshotMetadata { snapshot_id: "fd8".to_owned(), disk_id: "epd".to_owned() })
}

/// In Google's dialect, as lists and waits answer.
fn google(id: &str, end: End) -> longrunning::Operation {
    let metadata = OperationMetadata {
        metadata: Some(metadata()),
        description: "Create snapshot".to_owned(),
        create_time: Some(CREATED),
        created_by: "ann".to_owned(),
        update_time: Some(CREATED),
        progress: Some(Progress { done: 64 << 20, total: 256 << 20, unit: Unit::Bytes.into() }),
        ..OperationMetadata::default()
    };
    let result = match end {
        End::Not => None,
        End::Error(error) => Some(longrunning::operation::Result::Error(error)),
        End::Made => Some(longrunning::operation::Result::Response(Any::pack(&ready()))),
    };
    longrunning::Operation {
        name: format!("operations/{id}"),
        metadata: Some(Any::pack(&metadata)),
        done: result.is_some(),
        result,
    }
}

/// In the dialect of Yandex Cloud, as changes answer.
fn accepted(id: &str) -> cloud::Operation {
    cloud::Operation {
        id: id.to_owned(),
        description: "Create snapshot".to_owned(),
        created_at: Some(CREATED),
        created_by: "ann".to_owned(),
        modified_at: Some(CREATED),
        done: false,
        metadata: Some(metadata()),
        result: None,
    }
}

fn ready() -> Snapshot {
    Snapshot {
        id: "fd8".to_owned(),
        folder_id: "b1g".to_owned(),
        created_at: Some(CREATED),
        name: "nightly".to_owned(),
        labels: [("env".to_owned(), "prod".to_owned())].into(),
        storage_size: 1 << 20,
        disk_size: 256 << 20,
        status: snapshot::Status::Ready.into(),
        source_disk_id: "epd".to_owned(),
        ..Snapshot::default()
    }
}

fn error(reason: Reason, message: &str) -> rpc::Status {
    ApiError::new(reason, message).to_status("req-op")
}

/// An error as the server answers with it.
fn refusal(error: &ApiError) -> Status {
    let status = error.to_status("req-1");
    let details = status.encode_to_vec().into();
    Status::with_details(Code::from(status.code), status.message, details)
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && text.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
}

#[tokio::test]
async fn get_shows_an_operation() {
    let fake = Fake::start().await;
    fake.on("GetOperation operations/opr1", Ok(google("opr1", End::Not)));
    let shown = fake.run(&["op", "get", "opr1"]).await;
    assert_eq!(
        shown.out,
        "\
ID           opr1
State        running
Progress     25 %, 64.00 MiB of 256.00 MiB
Description  Create snapshot
Created      2018-08-29T18:31:15.311Z
Created by   ann
Modified     2018-08-29T18:31:15.311Z
Metadata     CreateSnapshotMetadata diskId=epd snapshotId=fd8
"
    );
    assert_eq!((shown.code, shown.err.as_str()), (0, ""));
    let json = fake.run(&["op", "get", "operations/opr1", "--json"]).await;
    assert_eq!(
        json.json(),
        json!({
            "id": "opr1",
            "description": "Create snapshot",
            "createdAt": "2018-08-29T18:31:15.311Z",
            "createdBy": "ann",
            "modifiedAt": "2018-08-29T18:31:15.311Z",
            "done": false,
            "metadata": {
                "@type": "type.googleapis.com/yandex.cloud.compute.v1.CreateSnapshotMetadata",
                "snapshotId": "fd8",
                "diskId": "epd",
            },
        })
    );
}

#[tokio::test]
async fn list_follows_pages_filters_and_tells_when_there_are_more() {
    let fake = Fake::start().await;
    let page = |ids: &[&str], next: &str| {
        Ok(ListOperationsResponse {
            operations: ids.iter().map(|id| google(id, End::Not)).collect(),
            next_page_token: next.to_owned(),
        })
    };
    fake.on("ListOperations", page(&["opr1", "opr2"], "two"));
    fake.on("ListOperations", page(&["opr3"], "three"));
    let shown = fake.run(&["op", "list", "--unfinished", "--limit", "3"]).await;
    assert_eq!(
        shown.out,
        "\
ID    STATE         CREATED               BY   DESCRIPTION      ERROR
opr1  running 25 %  2018-08-29T18:31:15Z  ann  Create snapshot
opr2  running 25 %  2018-08-29T18:31:15Z  ann  Create snapshot
opr3  running 25 %  2018-08-29T18:31:15Z  ann  Create snapshot
"
    );
    assert_eq!((shown.code, shown.err.as_str()), (0, "longrun: there are more than these; see --limit 3\n"));
    let asked: Vec<_> = fake.calls().into_iter().map(|call| call.message).collect();
    assert_eq!(
        asked,
        [
            json!({ "filter": "done = false", "pageSize": 3 }),
            json!({ "filter": "done = false", "pageSize": 1, "pageToken": "two" }),
        ]
    );
}

#[tokio::test]
async fn a_list_of_nothing_is_an_empty_table_and_an_empty_array() {
    let fake = Fake::start().await;
    fake.on("ListOperations", Ok(ListOperationsResponse::default()));
    let shown = fake.run(&["op", "list", "--done"]).await;
    assert_eq!((shown.code, shown.out.as_str(), shown.err.as_str()), (0, "", "longrun: there are none\n"));
    assert_eq!(fake.call().message, json!({ "filter": "done = true", "pageSize": 200 }));
    let json = fake.run(&["op", "list", "--json"]).await;
    assert_eq!((json.out.as_str(), json.err.as_str()), ("[]\n", ""));
}

#[tokio::test]
async fn wait_goes_on_until_it_is_done() {
    let fake = Fake::start().await;
    fake.on("WaitOperation operations/opr1", Ok(google("opr1", End::Not)));
    fake.on("WaitOperation operations/opr1", Ok(google("opr1", End::Made)));
    let shown = fake.run(&["op", "wait", "opr1"]).await;
    assert!(shown.out.contains("State        done\n"), "{shown:?}");
    assert!(shown.out.contains("Response     Snapshot id=fd8\n"), "{shown:?}");
    assert_eq!((shown.code, shown.err.as_str()), (0, ""));
    let asked: Vec<_> = fake.calls().into_iter().map(|call| call.message).collect();
    assert_eq!(asked, vec![json!({ "name": "operations/opr1", "timeout": "30s" }); 2]);
}

#[tokio::test]
async fn wait_for_an_operation_that_fails_says_why() {
    let fake = Fake::start().await;
    let failed = error(Reason::PreconditionFailed, "the disk changed its size");
    fake.on("WaitOperation operations/opr1", Ok(google("opr1", End::Error(failed))));
    let shown = fake.run(&["op", "wait", "opr1"]).await;
    assert_eq!(shown.code, 1);
    assert!(
        shown.out.contains("State        failed: FAILED_PRECONDITION: the disk changed its size\n"),
        "{shown:?}"
    );
    assert_eq!(
        shown.err,
        "\
longrun: operation opr1 failed: FAILED_PRECONDITION: the disk changed its size
  reason: PRECONDITION_FAILED
  request id: req-op
"
    );
    let json = fake.run(&["op", "wait", "opr1", "--json"]).await;
    assert_eq!((json.code, &json.json()["error"]["code"]), (1, &json!(9)));
    let error: serde_json::Value = serde_json::from_str(&json.err).unwrap();
    assert_eq!(error["message"], "the disk changed its size");
}

#[tokio::test]
async fn wait_for_an_operation_that_is_cancelled_fails() {
    let fake = Fake::start().await;
    let cancelled = error(Reason::Cancelled, "cancelled by ann");
    fake.on("WaitOperation operations/opr1", Ok(google("opr1", End::Error(cancelled))));
    let shown = fake.run(&["op", "wait", "opr1"]).await;
    assert_eq!(shown.code, 1);
    assert!(shown.out.contains("State        cancelled\n"), "{shown:?}");
    assert!(
        shown.err.starts_with("longrun: operation opr1 was cancelled: CANCELLED: cancelled by ann\n"),
        "{shown:?}"
    );
}

#[tokio::test]
async fn wait_for_several_shows_all_and_ends_with_the_highest_code() {
    let fake = Fake::start().await;
    let failed = error(Reason::PreconditionFailed, "no");
    fake.on("WaitOperation operations/opr1", Ok(google("opr1", End::Error(failed))));
    fake.on("WaitOperation operations/opr2", Ok(google("opr2", End::Made)));
    let shown = fake.run(&["op", "wait", "opr1", "opr2"]).await;
    assert_eq!(shown.code, 1);
    assert_eq!(
        shown.out,
        "\
ID    STATE   CREATED               BY   DESCRIPTION      ERROR
opr1  failed  2018-08-29T18:31:15Z  ann  Create snapshot  FAILED_PRECONDITION: no
opr2  done    2018-08-29T18:31:15Z  ann  Create snapshot
"
    );
    fake.silent_on("WaitOperation operations/opr3");
    let shown = fake.run(&["op", "wait", "opr1", "opr2", "opr3", "--json", "--timeout", "1s"]).await;
    let ids: Vec<_> = shown.json().as_array().unwrap().iter().map(|found| found["id"].clone()).collect();
    assert_eq!((shown.code, ids), (3, vec![json!("opr1"), json!("opr2")]));
}

#[tokio::test]
async fn wait_outlasts_a_server_that_is_away_for_a_while() {
    let fake = Fake::start().await;
    let away = refusal(&ApiError::new(Reason::Unavailable, "").with_retry_after(std::time::Duration::ZERO));
    fake.on::<longrunning::Operation>("WaitOperation operations/opr1", Err(away.clone()));
    fake.on::<longrunning::Operation>("WaitOperation operations/opr1", Err(away));
    fake.on("WaitOperation operations/opr1", Ok(google("opr1", End::Made)));
    let shown = fake.run(&["op", "wait", "opr1"]).await;
    assert_eq!(shown.code, 0, "{shown:?}");
    assert_eq!(shown.err.matches("trying again").count(), 1, "{shown:?}");
    assert_eq!(fake.calls().len(), 3);
}

#[tokio::test]
async fn wait_ends_when_its_time_is_over_and_shows_how_far_it_came() {
    let fake = Fake::start().await;
    fake.on("WaitOperation operations/opr1", Ok(google("opr1", End::Not)));
    let shown = fake.run(&["op", "wait", "opr1", "--timeout", "1s"]).await;
    assert_eq!(shown.code, 3);
    assert!(shown.out.contains("State        running\n"), "{shown:?}");
    assert_eq!(
        shown.err,
        "longrun: operation opr1 (running, 25 %, 64.00 MiB of 256.00 MiB) is not done after 1s\n"
    );
}

#[tokio::test]
async fn a_blocked_operation_is_shown_with_what_blocks_it() {
    let fake = Fake::start().await;
    let mut operation = google("opr1", End::Not);
    let mut metadata: OperationMetadata = operation.metadata.unwrap().unpack().unwrap();
    metadata.rollback_cause = Some(error(Reason::Cancelled, "cancelled"));
    metadata.blocked.push(BlockedStep {
        name: "copy-chunks".to_owned(),
        undo: true,
        failures: 7,
        error: Some(rpc::Status { code: 14, message: "no route".to_owned(), details: Vec::new() }),
        again_at: None,
    });
    operation.metadata = Some(Any::pack(&metadata));
    fake.on("GetOperation operations/opr1", Ok(operation));
    let shown = fake.run(&["op", "get", "opr1"]).await;
    assert!(
        shown.out.contains("blocked: the undo of copy-chunks failed 7 times: UNAVAILABLE: no route\n"),
        "{shown:?}"
    );
}

#[tokio::test]
async fn cancel_shows_the_operation_and_with_wait_succeeds_when_it_is_undone() {
    let fake = Fake::start().await;
    let cancelled = error(Reason::Cancelled, "cancelled by ann");
    let mut rolling_back = accepted("opr1");
    rolling_back.result = Some(cloud::operation::Result::Error(cancelled.clone()));
    fake.on("Cancel opr1", Ok(rolling_back));
    let shown = fake.run(&["op", "cancel", "operations/opr1"]).await;
    assert!(shown.out.contains("State        rolling back because it was cancelled\n"), "{shown:?}");
    assert_eq!((shown.code, shown.err.as_str()), (0, ""));
    fake.on("WaitOperation operations/opr1", Ok(google("opr1", End::Error(cancelled))));
    let shown = fake.run(&["op", "cancel", "opr1", "--wait"]).await;
    assert!(shown.out.contains("State        cancelled\n"), "{shown:?}");
    assert_eq!((shown.code, shown.err.as_str()), (0, ""));
}

#[tokio::test]
async fn a_cancel_that_comes_too_late_says_so() {
    let fake = Fake::start().await;
    let mut done = accepted("opr1");
    done.done = true;
    done.result = Some(cloud::operation::Result::Response(Any::pack(&ready())));
    fake.on("Cancel opr1", Ok(done));
    fake.on("WaitOperation operations/opr1", Ok(google("opr1", End::Made)));
    let shown = fake.run(&["op", "cancel", "opr1"]).await;
    assert_eq!((shown.code, shown.err.as_str()), (0, "longrun: operation opr1 was done already\n"));
    let waited = fake.run(&["op", "cancel", "opr1", "--wait"]).await;
    assert_eq!(waited.code, 1);
    assert_eq!(waited.err, "longrun: operation opr1 was not cancelled: it has succeeded\n");
}

#[tokio::test]
async fn create_sends_its_fields_under_a_fresh_key() {
    let fake = Fake::start().await;
    fake.on("Create", Ok(accepted("opr1")));
    let create = ["snapshot", "create", "--folder", "b1g", "--disk", "epd"];
    let named =
        [&create[..], &["--name", "nightly", "--description", "text", "--label", "env=prod"]].concat();
    let shown = fake.run(&named).await;
    assert_eq!((shown.code, shown.err.as_str()), (0, ""));
    assert!(
        shown.out.contains("Metadata     CreateSnapshotMetadata diskId=epd snapshotId=fd8\n"),
        "{shown:?}"
    );
    let call = fake.call();
    assert_eq!(
        call.message,
        json!({
            "folderId": "b1g", "diskId": "epd", "name": "nightly", "description": "text",
            "labels": { "env": "prod" },
        })
    );
    let shown = fake.run(&[&create[..], &["--json"]].concat()).await;
    assert_eq!((&shown.json()["id"], &shown.json()["done"]), (&json!("opr1"), &json!(false)));
    fake.run(&[&create[..], &["--idempotency-key", "mine"]].concat()).await;
    let keys: Vec<_> =
        fake.calls().iter().map(|call| call.header("idempotency-key").unwrap().to_owned()).collect();
    assert!(is_uuid(&keys[0]) && is_uuid(&keys[1]) && keys[0] != keys[1], "{keys:?}");
    assert_eq!(keys[2], "mine");
}

#[tokio::test]
async fn create_with_wait_shows_the_snapshot() {
    let fake = Fake::start().await;
    fake.on("Create", Ok(accepted("opr1")));
    fake.on("WaitOperation operations/opr1", Ok(google("opr1", End::Made)));
    let create = ["snapshot", "create", "--disk", "epd", "--wait", "--folder", "b1g"];
    let shown = fake.run(&create).await;
    assert_eq!(
        shown.out,
        "\
ID         fd8
Name       nightly
Status     READY
Labels     env=prod
Folder     b1g
Disk       epd
Disk size  256.00 MiB (268435456 bytes)
Stored     1.00 MiB (1048576 bytes)
Created    2018-08-29T18:31:15.311Z
"
    );
    assert_eq!((shown.code, shown.err.as_str()), (0, ""));
    let shown = fake.run(&[&create[..], &["--json"]].concat()).await;
    assert_eq!(shown.json()["response"]["diskSize"], "268435456");
}

#[tokio::test]
async fn create_with_wait_fails_with_its_operation() {
    let fake = Fake::start().await;
    fake.on("Create", Ok(accepted("opr1")));
    // Known to have ended, so it is no case of "unreachable" although the code is UNAVAILABLE.
    let failed = error(Reason::Unavailable, "");
    fake.on("WaitOperation operations/opr1", Ok(google("opr1", End::Error(failed))));
    let shown = fake.run(&["snapshot", "create", "--folder", "b1g", "--disk", "epd", "--wait"]).await;
    assert_eq!(shown.code, 1);
    assert!(shown.err.starts_with("longrun: operation opr1 failed: UNAVAILABLE: "), "{shown:?}");
}

#[tokio::test]
async fn a_refused_request_shows_every_violation() {
    let fake = Fake::start().await;
    let refused = ApiError::violation("name", "must match a pattern").with_violation("labels", "must be few");
    fake.on::<cloud::Operation>("Create", Err(refusal(&refused)));
    let create = ["snapshot", "create", "--folder", "b1g", "--disk", "epd"];
    let shown = fake.run(&create).await;
    assert_eq!((shown.code, shown.out.as_str()), (1, ""));
    assert_eq!(
        shown.err,
        "\
longrun: INVALID_ARGUMENT: invalid request: name: must match a pattern
  name: must match a pattern
  labels: must be few
  reason: INVALID_REQUEST
  request id: req-1
"
    );
    let json = fake.run(&[&create[..], &["--json"]].concat()).await;
    let status: serde_json::Value = serde_json::from_str(&json.err).unwrap();
    assert_eq!((json.code, json.out.as_str()), (1, ""));
    assert_eq!(status, serde_json::to_value(refused.to_status("req-1")).unwrap());
}

#[tokio::test]
async fn update_names_in_its_mask_what_was_given() {
    let fake = Fake::start().await;
    fake.on("Update fd8", Ok(accepted("opr1")));
    let shown = fake.run(&["snapshot", "update", "fd8", "--description", "", "--label", "a=b"]).await;
    assert_eq!(shown.code, 0, "{shown:?}");
    let call = fake.call();
    let expected = json!({ "snapshotId": "fd8", "updateMask": "description,labels", "labels": { "a": "b" } });
    assert_eq!(call.message, expected);
    assert!(call.header("idempotency-key").is_some_and(is_uuid));
}

#[tokio::test]
async fn delete_with_wait_shows_the_operation() {
    let fake = Fake::start().await;
    fake.on("Delete fd8", Ok(accepted("opr1")));
    let mut done = google("opr1", End::Made);
    let empty = Any { type_url: "type.googleapis.com/google.protobuf.Empty".to_owned(), ..Any::default() };
    done.result = Some(longrunning::operation::Result::Response(empty));
    fake.on("WaitOperation operations/opr1", Ok(done));
    let shown = fake.run(&["snapshot", "delete", "fd8", "--wait"]).await;
    assert!(shown.out.contains("State        done\n"), "{shown:?}");
    assert_eq!((shown.code, shown.err.as_str()), (0, ""));
}

#[tokio::test]
async fn snapshots_are_shown_and_listed() {
    let fake = Fake::start().await;
    fake.on("Get fd8", Ok(ready()));
    let json = fake.run(&["snapshot", "get", "fd8", "--json"]).await;
    assert_eq!(json.json(), serde_json::to_value(ready()).unwrap());
    let page = ListSnapshotsResponse { snapshots: vec![ready()], next_page_token: String::new() };
    fake.on("List", Ok(page));
    let list =
        ["snapshot", "list", "--folder", "b1g", "--filter", "name = \"x\"", "--order-by", "createdAt desc"];
    let shown = fake.run(&list).await;
    assert_eq!(
        shown.out,
        "\
ID   NAME     STATUS  DISK  DISK SIZE   STORED    CREATED
fd8  nightly  READY   epd   256.00 MiB  1.00 MiB  2018-08-29T18:31:15Z
"
    );
    let calls = fake.calls();
    assert_eq!(
        calls[1].message,
        json!({ "folderId": "b1g", "pageSize": "200", "filter": "name = \"x\"", "orderBy": "createdAt desc" })
    );
    // Reads need no key, and the server ignores it.
    assert!(calls.iter().all(|call| call.header("idempotency-key").is_none()));
    let json = fake.run(&[&list[..], &["--json"]].concat()).await;
    assert_eq!(json.json(), json!([ready()]));
}

#[tokio::test]
async fn the_operations_of_a_snapshot_are_listed() {
    let fake = Fake::start().await;
    let page = ListSnapshotOperationsResponse {
        operations: vec![accepted("opr2"), accepted("opr1")],
        next_page_token: String::new(),
    };
    fake.on("SnapshotOperations fd8", Ok(page));
    let shown = fake.run(&["snapshot", "operations", "fd8", "--limit", "5"]).await;
    assert_eq!(
        shown.out,
        "\
ID    STATE    CREATED               BY   DESCRIPTION      ERROR
opr2  running  2018-08-29T18:31:15Z  ann  Create snapshot
opr1  running  2018-08-29T18:31:15Z  ann  Create snapshot
"
    );
    assert_eq!(fake.call().message, json!({ "snapshotId": "fd8", "pageSize": "5" }));
}

#[tokio::test]
async fn a_closed_port_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    for arguments in [
        &["op", "get", "opr1"][..],
        &["op", "wait", "opr1"],
        &["snapshot", "create", "--folder", "b1g", "--disk", "epd"],
    ] {
        let shown = run(&[arguments, &["--server", &address]].concat(), &[]).await;
        assert_eq!((shown.code, shown.out.as_str()), (3, ""), "{shown:?}");
        assert!(shown.err.starts_with(&format!("longrun: cannot reach {address}: ")), "{shown:?}");
        assert!(shown.err.contains("refused"), "{shown:?}");
    }
    let json = run(&["op", "get", "opr1", "--json", "--server", &address], &[]).await;
    let status: serde_json::Value = serde_json::from_str(&json.err).unwrap();
    assert_eq!((json.code, &status["code"]), (3, &json!(14)));
}

#[tokio::test]
async fn a_server_that_stays_unavailable_is_unreachable_and_the_key_is_told() {
    let fake = Fake::start().await;
    let away = ApiError::new(Reason::OutcomeUnknown, "").with_retry_after(std::time::Duration::ZERO);
    fake.on::<cloud::Operation>("Create", Err(refusal(&away)));
    let create = ["snapshot", "create", "--folder", "b1g", "--disk", "epd", "--timeout", "1s"];
    let shown = fake.run(&create).await;
    assert_eq!(shown.code, 3);
    let calls = fake.calls();
    assert!(calls.len() > 1, "{calls:?}");
    let key = calls[0].header("idempotency-key").unwrap().to_owned();
    assert!(calls.iter().all(|call| call.header("idempotency-key") == Some(&*key)), "{calls:?}");
    assert!(shown.err.contains(&format!("--idempotency-key {key}\n")), "{shown:?}");
    assert!(shown.err.contains("reason: OUTCOME_UNKNOWN\n"), "{shown:?}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_unreachable() {
    let fake = Fake::start().await;
    fake.silent_on("Get fd8");
    let shown = fake.run(&["snapshot", "get", "fd8", "--timeout", "1s"]).await;
    assert_eq!((shown.code, shown.out.as_str()), (3, ""));
    assert!(shown.err.starts_with(&format!("longrun: no answer from {} within ", fake.address)), "{shown:?}");
}

#[tokio::test]
async fn the_token_is_sent_and_a_file_goes_before_the_environment() {
    let fake = Fake::start().await;
    fake.on("Get fd8", Ok(ready()));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "from-file\n").unwrap();
    let address = fake.address.to_string();
    let get = ["snapshot", "get", "fd8", "--server", &address];
    run(&get, &[]).await;
    run(&get, &[("LONGRUN_TOKEN", "from-environment")]).await;
    let from_file = [("LONGRUN_TOKEN", "from-environment"), ("LONGRUN_TOKEN_FILE", file.to_str().unwrap())];
    run(&get, &from_file).await;
    let calls = fake.calls();
    let sent: Vec<_> = calls.iter().map(|call| call.header("authorization")).collect();
    assert_eq!(sent, [None, Some("Bearer from-environment"), Some("Bearer from-file")]);
}

#[tokio::test]
async fn tls_is_checked_against_the_given_certificates() {
    let own = |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let (good, other) = (own("localhost"), own("localhost"));
    let fake = Fake::start_tls(&good.cert.pem(), &good.signing_key.serialize_pem()).await;
    fake.on("Get fd8", Ok(ready()));
    let folder = tempfile::tempdir().unwrap();
    let [good, other] = [("good", good), ("other", other)].map(|(name, key)| {
        let file = folder.path().join(name);
        std::fs::write(&file, key.cert.pem()).unwrap();
        file.to_str().unwrap().to_owned()
    });
    let server = format!("localhost:{}", fake.address.port());
    let get = ["snapshot", "get", "fd8", "--timeout", "10s", "--server"];
    let shown = run(&[&get[..], &[&server, "--ca-cert", &good]].concat(), &[]).await;
    assert_eq!(shown.code, 0, "{shown:?}");
    for wrong in [&[&*server, "--ca-cert", &other][..], &[&server]] {
        let shown = run(&[&get[..], wrong].concat(), &[]).await;
        assert_eq!((shown.code, shown.out.as_str()), (3, ""), "{shown:?}");
    }
    assert_eq!(fake.calls().len(), 1);
}

#[tokio::test]
async fn what_a_server_says_does_nothing_to_a_terminal() {
    let fake = Fake::start().await;
    let hostile = "\u{1b}[2J\r\u{9b}31m\u{202e}x";
    fake.on("Get fd8", Ok(Snapshot { name: hostile.to_owned(), ..ready() }));
    let error = ApiError::violation(hostile, hostile).with_fact(hostile, hostile);
    fake.on::<Snapshot>("Get fd9", Err(refusal(&error)));
    for arguments in
        [&["snapshot", "get", "fd8"][..], &["snapshot", "get", "fd8", "--json"], &["snapshot", "get", "fd9"]]
    {
        let shown = fake.run(arguments).await;
        let printed = shown.out + &shown.err;
        let active = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(printed.contains("202e") && !printed.contains(active), "{printed:?}");
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_usage() {
    for arguments in [
        &[][..],
        &["op"],
        &["op", "wait"],
        &["op", "get", "opr1", "--server", "nonsense"],
        &["op", "get", "opr1", "--ca-cert", "/nonexistent"],
        &["op", "get", "opr1", "--token-file", "/nonexistent"],
        &["op", "get", "opr1", "--timeout", "soon"],
        &["op", "list", "--limit", "0"],
        &["op", "list", "--done", "--unfinished"],
        &["snapshot", "create", "--disk", "epd"],
        &["snapshot", "create", "--folder", "b1g", "--disk", "epd", "--label", "env"],
        &["snapshot", "create", "--folder", "b1g", "--disk", "epd", "--label", "a=1", "--label", "a=2"],
        &["snapshot", "update", "fd8"],
        &["completions", "nonsense"],
    ] {
        let shown = run(arguments, &[]).await;
        assert_eq!((shown.code, shown.out.as_str()), (2, ""), "{arguments:?}: {shown:?}");
        assert!(!shown.err.is_empty(), "{arguments:?}");
    }
}

#[tokio::test]
async fn help_tells_the_exit_codes_and_completions_know_the_commands() {
    let help = run(&["--help"], &[]).await;
    assert_eq!(help.code, 0);
    for code in ["0  done", "1  failed", "2  usage", "3  unreachable"] {
        assert!(help.out.contains(code), "{code}: {}", help.out);
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell], &[]).await;
        assert_eq!((script.code, script.err.as_str()), (0, ""), "{shell}");
        for word in ["longrun", "cancel", "order-by", "clear-labels"] {
            assert!(script.out.contains(word), "{shell}: {word}");
        }
        assert!(!script.out.contains("longrun-server"), "{shell}");
    }
}
