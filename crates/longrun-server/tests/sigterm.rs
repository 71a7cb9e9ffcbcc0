//! A server that ends in the middle of load, in peace or not, has lost nothing that it had acknowledged.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)] // Other tests use the rest of it.
mod program;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;
use program::{PATIENCE, Place, Program, connect};
use rustix::process::Signal;
use serde_json::json;
use tokio::sync::{mpsc, watch};

const WORKERS: usize = 8;
/// So many have been acknowledged when the signal comes; others are on their way.
const BEFORE: usize = 200;
const PATH: &str = "/compute/v1/snapshots";

fn body(key: &str) -> String {
    json!({ "folderId": "folder-a", "diskId": "disk-1", "description": key }).to_string()
}

/// Creates snapshots, one after another, until the server is gone. Each that was acknowledged is sent on: its key and its
/// operation.
async fn load(
    to: SocketAddr,
    next: Arc<AtomicU64>,
    acknowledged: mpsc::UnboundedSender<(String, String)>,
    stopped: watch::Receiver<bool>,
) {
    while let Ok(mut client) = connect(to).await {
        loop {
            let key = format!("key-{}", next.fetch_add(1, Ordering::Relaxed));
            match client.ask(Method::POST, PATH, &key, body(&key)).await {
                Ok((200, operation)) => {
                    let id = operation["id"].as_str().unwrap().to_owned();
                    acknowledged.send((key, id)).unwrap();
                }
                // It says that it ends; what it had not begun is not done.
                Ok((503, _)) => break,
                Ok(other) => panic!("{other:?}"),
                Err(error) => {
                    assert!(*stopped.borrow(), "nobody had stopped it: {error}");
                    break;
                }
            }
        }
    }
}

async fn nothing_is_lost(signal: Signal, ended_well: impl FnOnce(ExitStatus) -> bool) {
    let place = Place::new();
    let server = Program::start(&place, &["--grace", "20"]).await;
    let (sender, mut acknowledgements) = mpsc::unbounded_channel();
    let stop = watch::Sender::new(false);
    let next = Arc::new(AtomicU64::new(0));
    for _ in 0..WORKERS {
        tokio::spawn(load(server.http, Arc::clone(&next), sender.clone(), stop.subscribe()));
    }
    drop(sender);
    let mut acknowledged = BTreeMap::new();
    let receive = async {
        while let Some((key, id)) = acknowledgements.recv().await {
            acknowledged.insert(key, id);
            if acknowledged.len() == BEFORE {
                stop.send_replace(true);
                server.signal(signal);
            }
        }
    };
    tokio::time::timeout(PATIENCE, receive).await.expect("the load ends with the server");
    let status = server.ended().await;
    assert!(ended_well(status), "{status:?}");
    assert!(acknowledged.len() >= BEFORE);

    let server = Program::start(&place, &[]).await;
    let mut client = server.connect().await.unwrap();
    for (key, id) in &acknowledged {
        let (status, operation) =
            client.ask(Method::GET, &format!("/operations/{id}"), key, String::new()).await.unwrap();
        assert_eq!((status, operation["id"].as_str()), (200, Some(id.as_str())), "{key}");
        let (status, operation) = client.ask(Method::POST, PATH, key, body(key)).await.unwrap();
        assert_eq!((status, operation["id"].as_str()), (200, Some(id.as_str())), "{key}");
    }
    server.signal(Signal::TERM);
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_in_the_middle_of_load_loses_no_acknowledged_operation_and_the_program_ends_well() {
    nothing_is_lost(Signal::TERM, |status| status.code() == Some(0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigkill_in_the_middle_of_load_loses_no_acknowledged_operation() {
    nothing_is_lost(Signal::KILL, |status| status.signal() == Some(Signal::KILL.as_raw())).await;
}
