//! What else strangers send: times, numbers, keys, fields, masks, methods and headers.

use http::Method;
use longrun::Code;
use longrun_api::google::longrunning;
use longrun_api::well_known::{Duration, FieldMask};
use longrun_api::yandex::cloud::compute::v1 as compute;
use longrun_api::yandex::cloud::operation::{GetOperationRequest, Operation};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{CREATE, bearer, create, framed, raw, status_line};
use crate::refusal::Want;
use crate::server::{PATIENCE, Server};

const PATH: &str = "/compute/v1/snapshots";

/// No request has a time of the calendar; the one duration is that of a wait, which REST does not have.
#[tokio::test]
async fn a_wait_that_is_negative_or_longer_than_ten_thousand_years_is_refused() {
    let server = Server::new().await;
    let operation = server.snapshot("folder-a", "done", &[]).await.0;
    let before = server.state();
    let name = format!("operations/{}", operation.id);
    for (seconds, nanos) in [
        (-1, 0),
        (0, -1),
        (1, -1),
        (i64::MIN, i32::MIN),
        (0, 1_000_000_000),
        (315_576_000_001, 0),
        (i64::MAX, i32::MAX),
    ] {
        let timeout = Some(Duration { seconds, nanos });
        let request = longrunning::WaitOperationRequest { name: name.clone(), timeout };
        Want::invalid("timeout").grpc(server.longrunning().wait_operation(bearer(request)).await, "");
    }
    for (seconds, nanos) in [(0, 0), (315_576_000_000, 0), (0, 999_999_999)] {
        let timeout = Some(Duration { seconds, nanos });
        let request = longrunning::WaitOperationRequest { name: name.clone(), timeout };
        assert!(server.longrunning().wait_operation(bearer(request)).await.unwrap().into_inner().done);
    }
    assert_eq!(server.state(), before);
    server.lives().await;
}

#[tokio::test]
async fn json_that_is_nearly_right_is_refused() {
    let server = Server::new().await;
    let before = server.state();
    for (body, field) in [
        (r#"{"folderId": NaN}"#, "body"),
        (r#"{"folderId": 5}"#, "body"),
        (r#"{"folderId": "hush", "folderId": "hush"}"#, "folderId"),
        (r#"{"folderId": "hush", "folder_id": "hush"}"#, "folderId"),
        (r#"{"labels": {"key": "hush", "key": "hush"}}"#, "key"),
        (r#"{"labels": {"key": 5}}"#, "body"),
        (r#"{"labels": ["hush"]}"#, "body"),
        (r#"{"unknown": "hush"}"#, "unknown"),
        (r#"{"hardwareGeneration": {"legacyFeatures": {"pciTopology": "HUSH"}}}"#, "body"),
        (r#"["hush"]"#, "body"),
        (r#""hush""#, "body"),
        ("null", "body"),
        (r#"{"folderId": "hush"} {"folderId": "hush"}"#, "body"),
        ("hush", "body"),
        ("\u{feff}{}", "body"),
    ] {
        let want = Want { field: Some(field), ..Want::invalid("") };
        want.rest(&server.post(PATH, body).await, "hush");
    }
    for (query, field) in [
        ("folderId=folder-a&pageSize=NaN", "query"),
        ("folderId=folder-a&pageSize=1.5", "query"),
        ("folderId=folder-a&pageSize=99999999999999999999", "query"),
        ("folderId=hush&folderId=hush", "folderId"),
        ("folderId=hush&folder_id=hush", "folderId"),
        ("unknown=hush", "unknown"),
        ("hush%0d%0aset-cookie:%20x=1", "hush\\r\\nset-cookie: x"),
    ] {
        let want = Want { field: Some(field), ..Want::invalid("") };
        let hush = if field.starts_with("hush") { "\r\nset-cookie" } else { "hush" };
        want.rest(&server.get(&format!("{PATH}?{query}")).await, hush);
    }
    assert_eq!(server.state(), before);
    server.lives().await;
}

#[tokio::test]
async fn a_field_in_body_and_query_or_in_body_and_path_is_refused() {
    let server = Server::new().await;
    let id = server.snapshot("folder-a", "there", &[]).await.1;
    let before = server.state();
    let body = r#"{"folderId": "folder-a", "diskId": "disk-1", "name": "hush"}"#;
    Want::invalid("query").rest(&server.post(&format!("{PATH}?name=hush"), body).await, "hush");
    Want::invalid("query").rest(&server.post(&format!("{PATH}?hush"), body).await, "hush");
    let path = format!("{PATH}/{id}");
    let other = r#"{"snapshotId": "hush", "name": "hush"}"#;
    Want::invalid("snapshot_id").rest(&server.rest(Method::PATCH, &path, &[], other).await, "hush");
    Want::invalid("snapshot_id").rest(&server.get(&format!("{path}?snapshotId=hush")).await, "hush");
    assert_eq!(server.state(), before);
    assert_eq!(
        server.get(&format!("{path}?snapshotId={id}")).await.status,
        200,
        "twice the same is no mistake"
    );
    server.lives().await;
}

#[tokio::test]
async fn an_unknown_field_of_protobuf_is_ignored_and_an_unknown_enum_value_is_refused() {
    let server = Server::new().await;
    // Field 127 as a number, a string and a group; and that of a later version of the API.
    let mut message = create("folder-a", "ignored").encode_to_vec();
    message.extend([0xf8, 0x07, 0x01, 0xfa, 0x07, 0x01, b'x', 0xfb, 0x07, 0xfc, 0x07]);
    let answer = server.raw_grpc(CREATE, &[], framed(0, &message)).await;
    assert_eq!(answer.trailers["grpc-status"], "0");
    let operation = Operation::decode(answer.body.slice(5..)).unwrap();
    assert!(server.done(&operation.id).await.error().is_none());
    let before = server.state();
    // hardware_generation { legacy_features { pci_topology: 99 } }
    let mut message = create("folder-a", "enum").encode_to_vec();
    message.extend([0x3a, 0x04, 0x0a, 0x02, 0x08, 99]);
    Want::invalid("hardware_generation")
        .check(server.raw_grpc(CREATE, &[], framed(0, &message)).await.refusal(), "enum");
    assert_eq!(server.state(), before);
    server.lives().await;
}

#[tokio::test]
async fn a_mask_with_an_unknown_path_is_refused_whole() {
    let server = Server::new().await;
    let id = server.snapshot("folder-a", "there", &[]).await.1;
    let before = server.state();
    let path = format!("{PATH}/{id}");
    for (paths, field) in [
        (vec!["hush"], "update_mask[0]"),
        (vec!["name", "labels.hush"], "update_mask[1]"),
        (vec!["name", ""], "update_mask[1]"),
        (vec!["*"], "update_mask[0]"),
        (vec!["id"], "update_mask[0]"),
    ] {
        let want = Want { field: Some(field), ..Want::invalid("") };
        let request = compute::UpdateSnapshotRequest {
            snapshot_id: id.clone(),
            update_mask: Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }),
            name: "new".to_owned(),
            ..Default::default()
        };
        want.grpc(server.snapshots_client().update(bearer(request)).await, "hush");
        let body = serde_json::json!({ "updateMask": paths.join(","), "name": "new" });
        want.rest(&server.rest(Method::PATCH, &path, &[], body.to_string()).await, "hush");
    }
    assert_eq!(server.state(), before);
    server.lives().await;
}

#[tokio::test]
async fn head_does_what_get_does_without_a_body_and_never_cancels_and_other_methods_are_refused() {
    let server = Server::new().await;
    server.gate.close();
    let operation = server.create("folder-a", "held", &[]).await;
    let path = format!("/operations/{}", operation.id);
    let head = server.rest(Method::HEAD, &path, &[], "").await;
    assert!(head.status == 200 && head.body.is_empty());
    assert_eq!(server.rest(Method::HEAD, &format!("{path}:cancel"), &[], "").await.status, 405);
    for (method, path) in [
        (Method::TRACE, path.as_str()),
        (Method::OPTIONS, path.as_str()),
        (Method::PUT, path.as_str()),
        (Method::POST, path.as_str()),
        (Method::DELETE, PATH),
        (Method::PATCH, PATH),
        (Method::TRACE, PATH),
    ] {
        let answer = server.rest(method, path, &[("x-secret", "hush")], "hush").await;
        Want::new(Code::Unimplemented, 405, "NOT_SUPPORTED").rest(&answer, "hush");
    }
    // What is no gRPC call is none of the services' methods, either.
    let get =
        raw(server.grpc, format!("GET {CREATE} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await;
    assert_ne!(status_line(&get), 500);
    server.gate.open();
    assert!(server.done(&operation.id).await.error().is_none(), "nobody has cancelled it");
    server.lives().await;
}

/// A header block by hand, for no client sends such a one: HPACK without Huffman codes or tables.
fn headers_frame(name: &[u8], value: &[u8]) -> Vec<u8> {
    let literal = |prefix: &[u8], texts: &[&[u8]]| {
        let mut bytes = prefix.to_vec();
        for text in texts {
            bytes.push(u8::try_from(text.len()).unwrap());
            bytes.extend_from_slice(text);
        }
        bytes
    };
    let block = [
        // POST, http, path, authority.
        vec![0x83, 0x86],
        literal(&[0x04], &[CREATE.as_bytes()]),
        literal(&[0x01], &[b"x"]),
        literal(&[0x00], &[b"content-type", b"application/grpc"]),
        literal(&[0x00], &[b"te", b"trailers"]),
        literal(&[0x00], &[name, value]),
    ]
    .concat();
    let length = u8::try_from(block.len()).unwrap();
    // HEADERS, that end the headers and the stream, on stream 1.
    [&[0, 0, length, 0x01, 0x05, 0, 0, 0, 1], block.as_slice()].concat()
}

/// What the server says on the stream: the type of the frame and its payload.
async fn answer_to(server: &Server, frame: &[u8]) -> (u8, Vec<u8>) {
    let mut stream = TcpStream::connect(server.grpc).await.unwrap();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    stream
        .write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", settings.as_slice(), frame].concat())
        .await
        .unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.unwrap();
        // Settings, pings and windows are not an answer.
        if matches!(head[3], 0x1 | 0x3 | 0x7) {
            return (head[3], payload);
        }
    }
}

#[tokio::test]
async fn a_line_break_in_a_header_is_refused_by_http_and_never_comes_back() {
    let server = Server::new().await;
    let before = server.state();
    const HEADERS: u8 = 0x1;
    let (good, _) = tokio::time::timeout(PATIENCE, answer_to(&server, &headers_frame(b"x-good", b"value")))
        .await
        .unwrap();
    assert_eq!(good, HEADERS, "the frame is right but for the line break");
    for (name, value) in [
        (b"x-request-id".as_slice(), b"hush\r\nset-cookie: x".as_slice()),
        (b"idempotency-key", b"hush\nx"),
        (b"x-request-id", b"hush\0x"),
        (b"x-hush\r\nset-cookie", b"x"),
    ] {
        let frame = headers_frame(name, value);
        let (kind, payload) = tokio::time::timeout(PATIENCE, answer_to(&server, &frame)).await.unwrap();
        // The stream is reset, or the connection closed: the service never sees it.
        assert_ne!(kind, HEADERS);
        assert!(!String::from_utf8_lossy(&payload).contains("hush"));
    }
    // Over HTTP/1 a line break ends the header; one alone is refused.
    let request = b"GET /endpoints HTTP/1.1\r\nhost: x\r\nx-request-id: hush\rset-cookie: x\r\nconnection: close\r\n\r\n";
    let answer = raw(server.http, request).await;
    assert_eq!(status_line(&answer), 400);
    assert!(!String::from_utf8_lossy(&answer).contains("hush"));
    // What HTTP lets pass and is no plain word is no id of a request.
    for odd in ["hush hush", "hush;x", "\u{e9}hush"] {
        let answer = server.rest(Method::GET, "/endpoints", &[("x-request-id", odd)], "").await;
        let id = answer.headers["x-request-id"].to_str().unwrap();
        assert!(id.len() == 32 && !id.contains("hush"));
    }
    assert_eq!(server.state(), before);
    server.lives().await;
}

#[tokio::test]
async fn headers_that_are_too_many_or_too_long_are_refused() {
    let server = Server::new().await;
    let before = server.state();
    let long = "h".repeat(17 * 1024);
    let message = framed(0, &GetOperationRequest::default().encode_to_vec());
    let answer = crate::client::raw_grpc_status(server.grpc, CREATE, &[("x-long", &long)], message).await;
    assert_eq!(answer, Some(431));
    for headers in [format!("x-long: {}\r\n", "h".repeat(100 * 1024)), "x-many: h\r\n".repeat(1000)] {
        let request = format!("GET /endpoints HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        let answer = raw(server.http, request.as_bytes()).await;
        assert_eq!(status_line(&answer), 431);
    }
    assert_eq!(server.state(), before);
    server.lives().await;
}
