//! B27: peers that do not come to the point, or do not read.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::channel::{Channel, Sender};
use hyper_util::rt::{TokioExecutor, TokioIo};
use longrun::Code;
use longrun_server::listen::Limits;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{CREATE, RawAnswer, Rest, create, framed, status_line};
use crate::refusal::Want;
use crate::server::{PATIENCE, Server, Setup};

/// What takes half a minute otherwise.
const TIME: Duration = Duration::from_millis(300);
/// Between two bytes of a peer that trickles: often enough that it is never silent for long.
const PAUSE: Duration = Duration::from_millis(20);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

async fn impatient() -> Server {
    let mut limits = Limits::default();
    (limits.headers_time, limits.ping_every, limits.peer_time) = (TIME, TIME, TIME);
    Server::with(Setup { limits, body_time: Some(TIME), ..Setup::default() }).await
}

/// Sends `at_once` and then a byte at a time, on and on, until the server closes. Gives what it has answered.
async fn trickle(to: SocketAddr, at_once: &[u8], byte: u8) -> Vec<u8> {
    let stream = TcpStream::connect(to).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    writer.write_all(at_once).await.unwrap();
    let write = async {
        let mut every = tokio::time::interval(PAUSE);
        loop {
            every.tick().await;
            if writer.write_all(&[byte]).await.is_err() {
                // Whether it has answered, the reader sees.
                std::future::pending::<()>().await;
            }
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        () = write => {}
        read = tokio::time::timeout(PATIENCE, reader.read_to_end(&mut answer)) => {
            _ = read.expect("the server closes");
        }
    }
    answer
}

/// A peer on HTTP/2 that says no more than that it is one, and one that answers pings.
async fn sit(
    to: SocketAddr,
) -> (TcpStream, hyper::client::conn::http2::SendRequest<http_body_util::Empty<Bytes>>) {
    let mut silent = TcpStream::connect(to).await.unwrap();
    silent.write_all(PREFACE).await.unwrap();
    silent.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let stream = TcpStream::connect(to).await.unwrap();
    let (idle, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    (silent, idle)
}

#[tokio::test]
async fn b27_peers_that_sit_on_every_connection_lock_nobody_out() {
    let mut limits = Limits::default();
    limits.connections = 4;
    let server = Server::with(Setup { limits, ..Setup::default() }).await;
    for to in [server.grpc, server.http] {
        let sitting = [sit(to).await, sit(to).await];
        // Each finds the room of one of those, of the newcomers before it at last.
        for _ in 0..6 {
            let stream = TcpStream::connect(to).await.unwrap();
            let (mut newcomer, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                    .await
                    .unwrap();
            tokio::spawn(connection);
            let request =
                Request::get(format!("http://{to}/endpoints")).body(http_body_util::Empty::<Bytes>::new());
            let answer = tokio::time::timeout(PATIENCE, newcomer.send_request(request.unwrap())).await;
            answer.expect("it is served").unwrap();
            std::mem::forget(newcomer);
        }
        drop(sitting);
    }
}

#[tokio::test]
async fn b27_a_peer_whose_headers_come_a_byte_at_a_time_is_closed_after_the_time() {
    let server = impatient().await;
    let before = server.state();
    // One that is only silent, and answers pings, may stay all the while.
    let stream = TcpStream::connect(server.grpc).await.unwrap();
    let (mut idle, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);

    let request = b"GET /endpoints HTTP/1.1\r\nhost: x\r\nx-long: ";
    for to in [server.grpc, server.http] {
        // The first bytes; headers of HTTP/1; the preface of HTTP/2; and a frame after it, whose sender cannot answer a ping.
        for (at_once, byte) in [(b"".as_slice(), b'G'), (request, b'x'), (&PREFACE[..12], b'x'), (PREFACE, 0)]
        {
            let answer = trickle(to, at_once, byte).await;
            let text = String::from_utf8_lossy(&answer);
            assert!(!text.starts_with("HTTP/1.1 200"), "{text}");
        }
    }
    let request =
        Request::get(format!("http://{}/endpoints", server.grpc)).body(http_body_util::Empty::<Bytes>::new());
    idle.send_request(request.unwrap()).await.expect("it is not closed");
    assert_eq!(server.state(), before);
    server.lives().await;
}

#[tokio::test]
async fn b27_a_body_that_trickles_over_rest_is_late() {
    let server = impatient().await;
    let before = server.state();
    let head = b"POST /compute/v1/snapshots HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n{";
    let answer = trickle(server.http, head, b' ').await;
    assert_eq!(status_line(&answer), 504);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let id = head.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();
    let headers = [(http::HeaderName::from_static("x-request-id"), id.parse().unwrap())];
    let answer = Rest { status: 504, headers: headers.into_iter().collect(), body: body.to_owned().into() };
    Want::new(Code::DeadlineExceeded, 504, "DEADLINE_EXCEEDED").rest(&answer, "");
    assert_eq!(server.state(), before);
    server.lives().await;
}

/// A request over gRPC whose body is still to be sent.
async fn begin(server: &Server, path: &str) -> (Sender<Bytes>, tokio::task::JoinHandle<RawAnswer>) {
    let stream = TcpStream::connect(server.grpc).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let (body_sender, body) = Channel::<Bytes>::new(1);
    let request = Request::post(format!("http://{}{path}", server.grpc))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap();
    let answer = tokio::spawn(async move {
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = http_body_util::BodyExt::collect(body).await.unwrap();
        RawAnswer { headers: parts.headers, body: body.to_bytes(), trailers: http::HeaderMap::new() }
    });
    (body_sender, answer)
}

#[tokio::test]
async fn b27_a_body_that_trickles_or_does_not_end_over_grpc_is_late() {
    let server = impatient().await;
    let before = server.state();
    let want = Want::new(Code::DeadlineExceeded, 504, "DEADLINE_EXCEEDED");
    // Also those that strangers may ask.
    for path in [CREATE, "/grpc.health.v1.Health/Check", "/yandex.cloud.endpoint.ApiEndpointService/List"] {
        let (mut sender, answer) = begin(&server, path).await;
        let trickle = tokio::spawn(async move {
            let mut every = tokio::time::interval(PAUSE);
            _ = sender.send_data(Bytes::from_static(&[0, 0, 0, 8, 0])).await;
            while sender.send_data(Bytes::from_static(b"x")).await.is_ok() {
                every.tick().await;
            }
        });
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
        want.check(answer.refusal(), "");
        trickle.abort();
    }

    // The whole message, but not the end of the request: nothing is done.
    let (mut sender, answer) = begin(&server, CREATE).await;
    sender.send_data(framed(0, &create("folder-a", "never").encode_to_vec())).await.unwrap();
    let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    want.check(answer.refusal(), "never");
    drop(sender);
    assert_eq!(server.state(), before);
    server.lives().await;
}

/// No method here streams: a watcher that could be dropped with RESOURCE_EXHAUSTED is not built. What is, are answers that
/// nobody reads.
#[tokio::test]
async fn b27_a_peer_that_asks_on_and_on_and_reads_no_answer_is_closed_after_the_time() {
    let server = impatient().await;
    let before = server.state();
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    let requests = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1000);
    let asked = tokio::time::timeout(PATIENCE, async {
        // Ends when the server has closed, and only then.
        while stream.write_all(&requests).await.is_ok() {}
    });
    asked.await.expect("the server closes");
    assert_eq!(server.state(), before);
    server.lives().await;
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_their_order() {
    let server = Server::new().await;
    let one = "GET /endpoints/compute HTTP/1.1\r\nhost: x\r\n\r\n";
    let other = "GET /endpoints/hush HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = crate::client::raw(server.http, format!("{one}{other}").as_bytes()).await;
    let text = String::from_utf8(answer).unwrap();
    let statuses: Vec<_> = text.match_indices("HTTP/1.1 ").map(|(at, _)| &text[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "404"], "{text}");
    server.lives().await;
}

/// Clients that keep a connection alive ping it although nothing is under way; none of that counts as abuse.
#[tokio::test]
async fn pings_without_a_request_are_answered_however_many() {
    const FRAME: usize = 9;
    const PINGS: usize = 1000;
    let server = Server::new().await;
    let stream = TcpStream::connect(server.grpc).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    // An empty SETTINGS frame, then pings: eight bytes each, of type 6, on no stream.
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    writer.write_all(&[PREFACE, &settings].concat()).await.unwrap();
    let mut answered = 0;
    for _ in 0..PINGS {
        writer.write_all(&ping).await.unwrap();
        loop {
            let mut head = [0; FRAME];
            let read = tokio::time::timeout(PATIENCE, reader.read_exact(&mut head)).await;
            read.expect("it answers").expect("it does not close");
            let length = usize::from(head[1]) << 8 | usize::from(head[2]);
            let mut payload = vec![0; length];
            reader.read_exact(&mut payload).await.unwrap();
            assert_ne!(head[3], 7, "GOAWAY: {payload:?}");
            if (head[3], head[4]) == (6, 1) {
                answered += 1;
                break;
            }
        }
    }
    assert_eq!(answered, PINGS);
    server.lives().await;
}

/// What a stranger sends is not taken in at all: it is answered before any of its message has come.
#[tokio::test]
async fn b26_a_stranger_is_refused_by_headers_alone() {
    let server = Server::with_tokens().await;
    let (sender, answer) = begin(&server, CREATE).await;
    let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    Want::new(Code::Unauthenticated, 401, "UNAUTHENTICATED").check(answer.refusal(), "");
    drop(sender);
    server.lives().await;
}
