//! `longrun serve` as a process of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// Longer than anything here takes; a test that waits for so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A folder for what a server keeps, and one disk, `disk-1`.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disks = folder.path().join("disks");
        std::fs::create_dir(&disks).unwrap();
        std::fs::write(disks.join("disk-1.raw"), vec![7; 64 * 1024]).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        Path::join(self.folder.path(), name)
    }
}

/// A running server. It is killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
}

impl Program {
    /// Starts a server and waits until it says that it is ready.
    pub(crate) async fn start(place: &Place, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_longrun"))
            .arg("serve")
            .arg("--data")
            .arg(place.path("data"))
            .arg("--disks")
            .arg(place.path("disks"))
            .args(["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .args(arguments)
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line =
            tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("it is ready").unwrap().unwrap();
        let address = |name: &str| {
            let word = line.split(' ').find_map(|word| word.strip_prefix(name)).unwrap();
            word.parse().unwrap()
        };
        Self { grpc: address("grpc="), http: address("http="), child }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.id().try_into().unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    pub(crate) async fn ended(mut self) -> ExitStatus {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap()
    }

    /// A connection for REST.
    pub(crate) async fn connect(&self) -> std::io::Result<Client> {
        connect(self.http).await
    }
}

pub(crate) async fn connect(to: SocketAddr) -> std::io::Result<Client> {
    let stream = TcpStream::connect(to).await?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(std::io::Error::other)?;
    tokio::spawn(connection);
    Ok(Client(sender))
}

/// A connection for REST.
pub(crate) struct Client(SendRequest<Full<Bytes>>);

impl Client {
    /// Asks, and gives the status and the JSON; an error if the connection did not bring a whole answer.
    pub(crate) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        key: &str,
        body: String,
    ) -> hyper::Result<(u16, Value)> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("idempotency-key", key);
        self.0.ready().await?;
        let response = self.0.send_request(request.body(Full::new(body.into())).unwrap()).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, serde_json::from_slice(&body).unwrap()))
    }
}
