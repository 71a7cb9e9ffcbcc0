//! Two thousand connections that are silent and five hundred that wait take little memory, and the same when they come again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)] // Other tests use the rest of it.
mod program;

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use h2::client::{ResponseFuture, SendRequest};
use http::{Method, Request};
use longrun_api::google::longrunning::WaitOperationRequest;
use longrun_api::yandex::cloud::operation::GetOperationRequest;
use program::{PATIENCE, Place, Program};
use prost::Message;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::net::TcpStream;

/// Connections over HTTP/2 that have asked once and are silent since.
const IDLE: usize = 2000;
/// Waits, on so many connections.
const WAITS: usize = 500;
const WAITING: usize = 10;
/// So many are opened at the same time.
const AT_ONCE: usize = 32;
/// Bytes that one connection, silent or with its share of waits, may cost: the buffers and tables of HTTP/2.
const BYTES_EACH: u64 = 64 * 1024;
/// So often all of them are opened and closed again. The allocator does not find room for the second wave in exactly what the
/// first has left, and less and less is missing from wave to wave; what leaks would be missing again each time.
const WAVES: usize = 5;
/// Bytes by which the last wave may be above the one before it: less than 2.5 KiB for each connection.
const NOISE: u64 = 5 * 1024 * 1024;

const GET: &str = "/yandex.cloud.operation.OperationService/Get";
const WAIT: &str = "/google.longrunning.Operations/WaitOperation";

/// As many open files as the machine allows, here and in the server, which inherits it.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let needed = 2 * (IDLE + WAITING) as u64 + 200;
    assert!(limit.maximum.is_none_or(|most| most >= needed), "{needed} open files are needed: ulimit -n");
}

fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn open_files(process: u32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

struct Connection {
    sender: SendRequest<Bytes>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    async fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        let task = tokio::spawn(async move { _ = connection.await });
        Self { sender, task }
    }

    async fn send(&mut self, path: &str, message: &impl Message) -> ResponseFuture {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://server{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(());
        let mut frame = BytesMut::from([0; 5].as_slice());
        message.encode(&mut frame).unwrap();
        let length = u32::try_from(frame.len() - 5).unwrap();
        frame[1..5].copy_from_slice(&length.to_be_bytes());
        self.sender = self.sender.clone().ready().await.unwrap();
        let (response, mut body) = self.sender.send_request(request.unwrap(), false).unwrap();
        body.send_data(frame.freeze(), true).unwrap();
        response
    }

    /// Asks and gets an answer: then the server has taken the connection, and all that was sent before.
    async fn ask(&mut self) {
        let response = self.send(GET, &GetOperationRequest { operation_id: "none".to_owned() }).await;
        let response = tokio::time::timeout(PATIENCE, response).await.expect("an answer").unwrap();
        assert_eq!(response.headers()["grpc-status"], "5");
    }
}

/// All that is held open at one time.
struct Wave {
    idle: Vec<Connection>,
    waiting: Vec<Connection>,
    waits: Vec<ResponseFuture>,
}

impl Wave {
    async fn new(to: SocketAddr, operation: &str) -> Self {
        let mut wave = Self { idle: Vec::new(), waiting: Vec::new(), waits: Vec::new() };
        let opened = futures_util::stream::iter(0..IDLE).map(|_| async {
            let mut connection = Connection::open(to).await;
            connection.ask().await;
            connection
        });
        wave.idle = opened.buffer_unordered(AT_ONCE).collect().await;
        let wait = WaitOperationRequest { name: format!("operations/{operation}"), timeout: None };
        for _ in 0..WAITING {
            let mut connection = Connection::open(to).await;
            for _ in 0..WAITS / WAITING {
                wave.waits.push(connection.send(WAIT, &wait).await);
            }
            connection.ask().await;
            wave.waiting.push(connection);
        }
        wave
    }

    /// That it is still held: each connection answers, and no wait has.
    async fn check(&mut self) {
        for connection in self.idle.iter_mut().step_by(100).chain(&mut self.waiting) {
            connection.ask().await;
        }
        for wait in &mut self.waits {
            assert!(futures_util::FutureExt::now_or_never(wait).is_none(), "a wait is over");
        }
    }
}

async fn until_closed(process: u32, files: usize) {
    let mut look = tokio::time::interval(std::time::Duration::from_millis(10));
    let closed = async {
        // The copy and the store open a few of their own.
        while open_files(process) > files + 10 {
            look.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("the server closes what its clients have closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_silent_connections_and_five_hundred_waits_take_little_memory_again_and_again() {
    raise_open_files();
    let place = Place::new();
    // A byte a second: the copy does not end.
    let server = Program::start(&place, &["--store", "memory", "--copy-rate", "1", "--grace", "1"]).await;
    let mut client = server.connect().await.unwrap();
    let body = json!({ "folderId": "folder-a", "diskId": "disk-1" }).to_string();
    let (status, operation) = client.ask(Method::POST, "/compute/v1/snapshots", "key-1", body).await.unwrap();
    assert_eq!(status, 200, "{operation}");
    let operation = operation["id"].as_str().unwrap();
    // What is made once is not counted.
    Connection::open(server.grpc).await.ask().await;

    let (files, before) = (open_files(server.id()), resident(server.id()));
    let mut held = Vec::new();
    for _ in 0..WAVES {
        let mut wave = Wave::new(server.grpc, operation).await;
        wave.check().await;
        assert!(open_files(server.id()) > IDLE + WAITING);
        held.push(resident(server.id()));
        drop(wave);
        until_closed(server.id(), files).await;
    }
    let most = held.iter().max().unwrap().saturating_sub(before) / (IDLE + WAITING) as u64;
    println!("{before} bytes, then {held:?}: at most {most} for each connection");
    assert!(most < BYTES_EACH, "{most} bytes for each connection");
    let [.., last_but_one, last] = held.as_slice() else { panic!("several waves") };
    assert!(*last < last_but_one + NOISE, "{held:?}");
}
