//! A proxy between a node and the database, that can cut what it carries at the worst moment.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// The name that PostgreSQL gives its socket.
const SOCKET: &str = ".s.PGSQL.5432";

#[derive(Debug)]
pub(super) struct Proxy {
    folder: PathBuf,
    orders: Arc<Orders>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Orders {
    /// Connections to cut at their next statement, still.
    to_cut: AtomicU64,
    /// Connections that were cut.
    cut: AtomicU64,
}

impl Proxy {
    /// Listens in a folder of its own beside the server's socket.
    pub(super) async fn start(server: &Path, number: usize) -> Result<Self> {
        let folder = server.join(format!("proxy{number}"));
        std::fs::create_dir(&folder)?;
        let listener = UnixListener::bind(folder.join(SOCKET))?;
        let (socket, orders) = (server.join(SOCKET), Arc::<Orders>::default());
        let ordered = Arc::clone(&orders);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(server) = UnixStream::connect(&socket).await {
                    tokio::spawn(carry(client, server, Arc::clone(&ordered)));
                }
            }
        });
        Ok(Self { folder, orders, accepting })
    }

    /// The address of the database through it.
    pub(super) fn address(&self) -> String {
        format!("host={} user=longrun dbname=postgres", self.folder.display())
    }

    /// Cuts the next connections on which a statement is sent: the server gets it, and nobody gets its answer.
    pub(super) fn cut(&self, connections: u64) {
        self.orders.to_cut.fetch_add(connections, Ordering::Relaxed);
    }

    pub(super) fn cuts(&self) -> u64 {
        self.orders.cut.load(Ordering::Relaxed)
    }

    /// Cuts no more.
    pub(super) fn rest(&self) {
        self.orders.to_cut.store(0, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(mut client: UnixStream, mut server: UnixStream, orders: Arc<Orders>) {
    let (mut from_client, mut from_server) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut began = false;
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(count @ 1..) = read else { return };
                if server.write_all(&from_client[..count]).await.is_err() {
                    return;
                }
                // What comes first is the greeting.
                let one_less = |left: u64| left.checked_sub(1);
                if began && orders.to_cut.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
                    orders.cut.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(count @ 1..) = read else { return };
                began = true;
                if client.write_all(&from_server[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}
