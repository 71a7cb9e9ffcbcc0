//! B4 to B9: messages and bodies that are none, too large, or not what they say.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::Method;
use longrun_api::yandex::cloud::compute::v1 as compute;
use prost::Message;

use crate::client::{CREATE, bearer, framed, raw, status_line};
use crate::refusal::Want;
use crate::server::Server;

const LIMIT: usize = 4 * 1024 * 1024;
const PATH: &str = "/compute/v1/snapshots";

#[tokio::test]
async fn b04_an_empty_request_names_every_field_that_is_missing() {
    let server = Server::new().await;
    let before = server.state();
    let empty = compute::CreateSnapshotRequest::default();
    let refusal = Want::invalid("folder_id").grpc(server.snapshots_client().create(bearer(empty)).await, "");
    assert_eq!(refusal.fields, ["folder_id", "disk_id"]);
    for body in ["", "{}"] {
        let refusal = Want::invalid("folder_id").rest(&server.post(PATH, body).await, "");
        assert_eq!(refusal.fields, ["folder_id", "disk_id"]);
    }
    // Not even a message: no frame, or half of one.
    for frame in [Bytes::new(), Bytes::from_static(&[0, 0, 0]), Bytes::from_static(&[0, 0, 0, 0, 9, 1])] {
        Want::invalid("message").check(server.raw_grpc(CREATE, &[], frame).await.refusal(), "");
    }
    assert_eq!(server.state(), before);
    server.lives().await;
}

/// A request that is so many bytes long, and nothing else is wrong with it but its description.
fn sized(bytes: usize) -> compute::CreateSnapshotRequest {
    let mut request = crate::client::create("folder-a", "big");
    request.description = "h".repeat(bytes - request.encoded_len() - 5);
    assert_eq!(request.encoded_len(), bytes);
    request
}

#[tokio::test]
async fn b05_a_message_one_byte_over_the_limit_is_too_large_and_one_at_the_limit_is_read() {
    let server = Server::new().await;
    let before = server.state();
    let mut client = server.snapshots_client();
    Want::TOO_LARGE.grpc(client.create(bearer(sized(LIMIT + 1))).await, "hhh");
    Want::invalid("description").grpc(client.create(bearer(sized(LIMIT))).await, "hhh");
    // A frame that only says that it is large is not waited for.
    let claim = Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]);
    Want::TOO_LARGE.check(server.raw_grpc(CREATE, &[], claim).await.refusal(), "");

    let body = |bytes: usize| {
        let (head, tail) = (r#"{"folderId": "folder-a", "diskId": "disk-1", "description": ""#, r#""}"#);
        format!("{head}{}{tail}", "h".repeat(bytes - head.len() - tail.len()))
    };
    Want::TOO_LARGE.rest(&server.post(PATH, body(LIMIT + 1)).await, "hhh");
    Want::invalid("description").rest(&server.post(PATH, body(LIMIT)).await, "hhh");
    let claim = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\nh", u64::MAX / 4);
    assert_eq!(status_line(&raw(server.http, claim.as_bytes()).await), 413);
    // In chunks, so that no length is told.
    let chunk = format!("{:x}\r\n{}\r\n", LIMIT + 1, "h".repeat(LIMIT + 1));
    let chunked = format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{chunk}0\r\n\r\n"
    );
    assert_eq!(status_line(&raw(server.http, chunked.as_bytes()).await), 413);
    assert_eq!(server.state(), before);
    server.lives().await;
}

/// A gibibyte of zeros in a mebibyte: one block of a mebibyte of them, repeated. It has no end, for nobody must get so far.
fn bomb() -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![0; 1 << 20];
    let mut block = || {
        encoder.write_all(&zeros).unwrap();
        encoder.flush().unwrap();
        encoder.get_ref().len()
    };
    let (first, second) = (block(), block());
    let all = encoder.get_ref().clone();
    let (head, again) = (&all[..first], &all[first..second]);
    [head, &again.repeat(1023)].concat().into()
}

fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn b06_a_gzip_bomb_is_stopped_when_the_limit_is_passed_and_not_after() {
    let server = Server::new().await;
    let before = server.state();
    let bomb = bomb();
    assert!(bomb.len() < 2 << 20, "{}", bomb.len());
    let memory = most_memory();
    let compressed = [("grpc-encoding", "gzip")];
    Want::TOO_LARGE.check(server.raw_grpc(CREATE, &compressed, framed(1, &bomb)).await.refusal(), "");
    let encoded = [("content-encoding", "gzip")];
    Want::TOO_LARGE.rest(&server.rest(Method::POST, PATH, &encoded, bomb).await, "");
    // Other tests run meanwhile; but a gibibyte they do not take.
    let grown = most_memory() - memory;
    assert!(grown < 512 << 20, "{grown} bytes");
    // What is compressed and small is read as if it were not.
    let message = crate::client::create("folder-a", "hush-");
    let answer = server.raw_grpc(CREATE, &compressed, framed(1, &gzip(&message.encode_to_vec()))).await;
    Want::invalid("name").check(answer.refusal(), "hush");
    let body = gzip(br#"{"folderId": "folder-a", "diskId": "disk-1", "name": "hush-"}"#);
    Want::invalid("name").rest(&server.rest(Method::POST, PATH, &encoded, body).await, "hush");
    // What is not what it says.
    for frame in [framed(1, b"no gzip"), framed(7, b"")] {
        Want::invalid("message").check(server.raw_grpc(CREATE, &compressed, frame).await.refusal(), "");
    }
    Want::invalid("message").check(server.raw_grpc(CREATE, &[], framed(1, b"x")).await.refusal(), "");
    Want::invalid("body").rest(&server.rest(Method::POST, PATH, &encoded, "no gzip").await, "");
    let unknown = Want::new(longrun::Code::Unimplemented, 501, "NOT_SUPPORTED");
    unknown.check(
        server.raw_grpc(CREATE, &[("grpc-encoding", "hush")], framed(1, b"x")).await.refusal(),
        "hush",
    );
    let strange = server.rest(Method::POST, PATH, &[("content-encoding", "hush")], "x").await;
    Want::invalid("content-encoding").rest(&strange, "hush");
    assert_eq!(server.state(), before);
    server.lives().await;
}

#[tokio::test]
async fn b07_nesting_a_hundred_thousand_deep_is_refused_and_no_stack_overflows() {
    let server = Server::new().await;
    let before = server.state();
    for open in ["[", r#"{"labels":"#, r#"{"hardwareGeneration":"#] {
        let body = open.repeat(100_000);
        Want::invalid("body").rest(&server.post(PATH, body).await, "hardware");
    }
    // The same in protobuf: groups in groups, of an unknown field.
    let answer = server.raw_grpc(CREATE, &[], framed(0, &[0xfb, 0x07].repeat(100_000))).await;
    Want::invalid("message").check(answer.refusal(), "");
    assert_eq!(server.state(), before);
    server.lives().await;
}

#[tokio::test]
async fn b08_a_length_of_two_to_the_63_is_refused_and_nothing_is_allocated() {
    let server = Server::new().await;
    let before = server.state();
    let length = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
    // A string, a map's entry, an unknown field.
    for tag in [0x0a, 0x32, 0xfa] {
        let mut message = vec![tag];
        if tag == 0xfa {
            message.push(0x07);
        }
        message.extend(length);
        Want::invalid("message").check(server.raw_grpc(CREATE, &[], framed(0, &message)).await.refusal(), "");
    }
    // REST has no lengths in its bodies. What HTTP says of them is B5, and no length at all:
    let refused = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\nh");
    assert_eq!(status_line(&raw(server.http, refused.as_bytes()).await), 400);
    assert_eq!(server.state(), before);
    server.lives().await;
}

#[tokio::test]
async fn b09_a_string_that_is_not_utf_8_is_refused() {
    let server = Server::new().await;
    let before = server.state();
    let message = [b"\x0a\x05hush\xff".as_slice(), b"\x12\x01d"].concat();
    Want::invalid("message").check(server.raw_grpc(CREATE, &[], framed(0, &message)).await.refusal(), "hush");
    let body = b"{\"folderId\": \"hush\xff\"}".as_slice();
    Want::invalid("body").rest(&server.post(PATH, body).await, "hush");
    Want::invalid("query").rest(&server.get(&format!("{PATH}?folderId=hush%ff")).await, "hush");
    Want::invalid("path").rest(&server.get(&format!("{PATH}/hush%ff")).await, "hush");
    assert_eq!(server.state(), before);
    server.lives().await;
}
