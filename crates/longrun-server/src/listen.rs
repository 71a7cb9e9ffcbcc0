//! The server beneath the faces: TCP and TLS, limits on what a connection may do, and graceful shutdown.
//!
//! A connection that says nothing may stay, for clients keep connections; one that does not come to the point may not:
//! its first bytes, its TLS handshake, the headers and the body of a request have each their time, and a peer that does not answer
//! a ping, or does not read what it is sent, is gone. When all connections are taken, one that is idle makes room for a new one.

mod connections;
mod guard;
mod tls;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use connections::{Connections, InFlight, Slot};
use guard::Guard;
pub use tls::{TlsError, acceptor};

/// Bytes of the headers of a request.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// Bytes of an HTTP/1 connection that are read ahead: the headers, and part of a body.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Streams that were opened and reset before anybody looked at them.
const RESET_STREAMS_MAX: usize = 64;
/// A pause after the machine refused a connection: too many open files do not go away at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long an idle connection may take to end when it is asked to: it may be about to send a request.
const LEAVE_TIME: Duration = Duration::from_secs(1);

/// What connections may do.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Connections at the same time. For another the one that has been idle the longest is closed; when none is idle, it waits.
    pub connections: usize,
    /// Requests at the same time on one connection of HTTP/2. Others wait.
    pub streams: u32,
    /// How long the first bytes of a connection, its TLS handshake and the headers of a request may each take to come.
    pub headers_time: Duration,
    /// After so long a peer on HTTP/2 is asked whether it is still there.
    pub ping_every: Duration,
    /// How long a peer may take to answer that, or to read what it is sent.
    pub peer_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            streams: 1_000,
            headers_time: Duration::from_secs(10),
            ping_every: Duration::from_secs(30),
            peer_time: Duration::from_secs(30),
        }
    }
}

/// A server socket for one face.
pub struct Listener {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    limits: Limits,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listener, tls, limits } = self;
        f.debug_struct("Listener")
            .field("on", listener)
            .field("tls", &tls.is_some())
            .field("limits", limits)
            .finish()
    }
}

impl Listener {
    /// Listens on an address; port 0 is a free one. With `tls`, nothing is said in clear.
    pub async fn bind(address: SocketAddr, tls: Option<TlsAcceptor>, limits: Limits) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, tls, limits })
    }

    /// The address, with the port that was found.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is over; then takes no more, and lets what was begun come to an end. Whoever calls decides how
    /// long to wait for that.
    pub async fn serve(self, router: Router, stop: impl Future<Output = ()>) {
        let connections = Connections::new(self.limits.connections);
        let mut stop = pin!(stop);
        loop {
            let next = async {
                // Nobody is asked to make room for one that has not come.
                let (stream, _) = self.listener.accept().await?;
                Ok::<_, io::Error>((stream, connections.slot().await))
            };
            let accepted = tokio::select! {
                biased;
                () = &mut stop => break,
                next = next => next,
            };
            match accepted {
                Ok((stream, slot)) => {
                    let connection = Connection { limits: self.limits, router: router.clone(), slot };
                    let tls = self.tls.clone();
                    tokio::spawn(connection.serve(stream, tls));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        connections.close().await;
    }
}

fn builder(limits: Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.headers_time)
        .max_buf_size(BUFFER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.ping_every)
        .keep_alive_timeout(limits.peer_time)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .max_local_error_reset_streams(RESET_STREAMS_MAX);
    builder
}

/// The body of an answer. Its request is over when it has been sent, or given up.
struct Answer {
    body: Body,
    _in_flight: InFlight,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

struct Connection {
    limits: Limits,
    router: Router,
    slot: Slot,
}

impl Connection {
    async fn serve(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        // Answers are small and awaited.
        _ = stream.set_nodelay(true);
        let Some(tls) = tls else { return self.talk(stream).await };
        let handshake = tokio::time::timeout(self.limits.headers_time, tls.accept(stream));
        let shaken = tokio::select! {
            biased;
            () = self.slot.peer.leave.notified() => return,
            shaken = handshake => shaken,
        };
        match shaken {
            Ok(Ok(stream)) => self.talk(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn talk(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let io = TokioIo::new(Guard::new(stream, self.limits.headers_time, self.limits.peer_time));
        let Self { limits, router, slot } = self;
        let router = TowerToHyperService::new(router);
        let service = service_fn(|request| {
            let (in_flight, answer) = (slot.begin_request(), router.call(request));
            async move { answer.await.map(|answer| answer.map(|body| Answer { body, _in_flight: in_flight })) }
        });
        let builder = builder(limits);
        let mut connection = pin!(builder.serve_connection(io, service));
        let mut asked = false;
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(error, "a connection ended");
                    }
                    return;
                }
                () = slot.peer.leave.notified(), if !asked => {
                    asked = true;
                    connection.as_mut().graceful_shutdown();
                }
                // A peer that says nothing would take until the next ping to end.
                () = tokio::time::sleep(LEAVE_TIME), if asked => {
                    if slot.peer.is_idle() {
                        return;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::routing::get;
    use http_body_util::channel::Channel;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A newcomer gets the place of a connection that is idle, and one whose answer has only begun is not.
    #[tokio::test(start_paused = true)]
    async fn b27_a_connection_whose_answer_is_still_being_sent_is_left_alone() {
        let (mut rest, body) = Channel::<Bytes>::new(1);
        let body = Arc::new(Mutex::new(Some(Body::new(body))));
        let answer = move || std::future::ready(body.lock().unwrap().take().unwrap());
        let router = Router::new().route("/", get(answer));
        let connections = Connections::new(1);
        let limits = Limits { peer_time: LEAVE_TIME * 100, ..Limits::default() };
        let connection = Connection { limits, router, slot: connections.slot().await };
        let (mut client, stream) = tokio::io::duplex(1024);
        let talk = tokio::spawn(connection.talk(stream));
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        rest.send_data(Bytes::from_static(b"first")).await.unwrap();
        let mut received = Vec::new();
        while !received.ends_with(b"first\r\n") {
            assert!(client.read_buf(&mut received).await.unwrap() > 0, "it was closed");
        }
        let newcomer = tokio::spawn(async move { connections.slot().await });
        tokio::time::sleep(LEAVE_TIME * 10).await;
        assert!(!talk.is_finished() && !newcomer.is_finished());
        rest.send_data(Bytes::from_static(b"last")).await.unwrap();
        drop(rest);
        client.read_to_end(&mut received).await.unwrap();
        assert!(received.ends_with(b"4\r\nlast\r\n0\r\n\r\n"), "{}", String::from_utf8_lossy(&received));
        talk.await.unwrap();
        drop(newcomer.await.unwrap());
    }
}
