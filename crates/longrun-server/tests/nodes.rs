//! Services that share one PostgreSQL, the chunks and the disks: each answers for all, and what one leaves behind another finishes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "program/mod.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod program;

use std::time::Duration;

use http::Method;
use longrun_postgres::testing::PrivateServer;
use program::{PATIENCE, Place, Program};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::Instant;

/// A disk that takes some seconds to copy at the rate that is given.
const DISK_BYTES: usize = 48 << 20;
const COPY_RATE: &str = "12000000";

/// The address of a database, as it is said to the program; `None`, loudly, where there is none.
fn database() -> Option<String> {
    match PrivateServer::shared() {
        Ok(server) => {
            let folder = server.folder().to_str().unwrap().replace('/', "%2F");
            Some(format!("postgres://longrun@{folder}/postgres"))
        }
        Err(missing) => {
            println!("SKIPPED: {missing}");
            None
        }
    }
}

async fn serve(place: &Place, store: &str, schema: &str) -> Program {
    serve_with(place, store, schema, &[]).await
}

async fn serve_with(place: &Place, store: &str, schema: &str, more: &[&str]) -> Program {
    let args = ["--store", store, "--schema", schema, "--lease", "2", "--copy-rate", COPY_RATE];
    Program::start(place, &[&args, more].concat()).await
}

async fn ask(server: &Program, method: Method, path: &str, key: &str, body: &str) -> (u16, Value) {
    server.connect().await.unwrap().ask(method, path, key, body.to_owned()).await.unwrap()
}

/// Asks until the answer is as it should be.
async fn until(server: &Program, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let (_, told) = ask(server, Method::GET, path, "", "").await;
        if is_so(&told) {
            return told;
        }
        assert!(began.elapsed() < PATIENCE, "{path}: {told}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Bytes that do not repeat, so that every chunk is another.
fn bytes() -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..DISK_BYTES).map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_whose_node_was_killed_is_finished_by_another_from_its_last_checkpoint() {
    let Some(store) = database() else { return };
    let place = Place::new();
    std::fs::write(place.path("disks").join("large.raw"), bytes()).unwrap();
    let (one, other) = (serve(&place, &store, "killed").await, serve(&place, &store, "killed").await);

    let create = r#"{"folderId": "f", "diskId": "large", "name": "large-one"}"#;
    let (code, operation) = ask(&one, Method::POST, "/compute/v1/snapshots", "key-1", create).await;
    assert_eq!(code, 200, "{operation}");
    let path = format!("/operations/{}", operation["id"].as_str().unwrap());
    // The other one knows of it at once, and of a repeat of the request.
    let (code, known) = ask(&other, Method::GET, &path, "", "").await;
    assert_eq!((code, &known["done"]), (200, &Value::Bool(false)), "{known}");
    let (_, again) = ask(&other, Method::POST, "/compute/v1/snapshots", "key-1", create).await;
    assert_eq!(again["id"], operation["id"]);

    // In the middle of the copy.
    let copied = || {
        let chunks = place.path("data").join("chunks/chunks");
        let folders = std::fs::read_dir(chunks).into_iter().flatten().flatten();
        folders.filter_map(|folder| std::fs::read_dir(folder.path()).ok()).map(Iterator::count).sum::<usize>()
    };
    let began = Instant::now();
    while copied() < 4 {
        assert!(began.elapsed() < PATIENCE, "nothing is copied");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    one.signal(Signal::KILL);
    _ = one.ended().await;

    let done = until(&other, &path, |told| told["done"] == true).await;
    assert_eq!(done["response"]["status"], "READY", "{done}");
    let id = done["response"]["id"].as_str().unwrap();
    let restored = place.path("restored.raw");
    let restore = tokio::process::Command::new(env!("CARGO_BIN_EXE_longrun"))
        .args(["snapshot", "restore", "--id", id, "--dir"])
        .arg(place.path("data").join("chunks"))
        .arg("--to")
        .arg(&restored)
        .output();
    assert!(restore.await.unwrap().status.success());
    assert!(std::fs::read(restored).unwrap() == bytes(), "the bytes are those of the disk");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_at_another_node_stops_the_copy_and_leaves_nothing_behind() {
    let Some(store) = database() else { return };
    let place = Place::new();
    std::fs::write(place.path("disks").join("large.raw"), bytes()).unwrap();
    let (one, other) = (serve(&place, &store, "cancelled").await, serve(&place, &store, "cancelled").await);
    let create = r#"{"folderId": "f", "diskId": "large", "name": "large-one"}"#;
    let (_, operation) = ask(&one, Method::POST, "/compute/v1/snapshots", "key-1", create).await;
    let path = format!("/operations/{}", operation["id"].as_str().unwrap());
    let (code, told) = ask(&other, Method::POST, &format!("{path}:cancel"), "key-2", "").await;
    assert_eq!(code, 200, "{told}");
    let done = until(&one, &path, |told| told["done"] == true).await;
    assert_eq!(done["error"]["code"], 1, "{done}");
    let (_, list) = ask(&other, Method::GET, "/compute/v1/snapshots?folderId=f", "", "").await;
    assert!(list["snapshots"].as_array().is_none_or(Vec::is_empty), "{list}");
}

/// Both at once on the same chunks: creates that share all of them, and deletes, at one node and the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_stay_right_with_creates_and_deletes_at_several_nodes() {
    let Some(store) = database() else { return };
    let place = Place::new();
    // One of them uses what every server of the protocol has, and nothing else.
    let plain = serve_with(&place, &store, "shared", &["--store-plain"]).await;
    let (one, other) = (serve(&place, &store, "shared").await, plain);
    let mut kept = Vec::new();
    for round in 0..6 {
        let mut made = Vec::new();
        for (number, server) in [&one, &other].into_iter().enumerate() {
            let create =
                format!(r#"{{"folderId": "f", "diskId": "disk-1", "name": "snap-{round}-{number}"}}"#);
            let key = format!("create-{round}-{number}");
            let (code, operation) = ask(server, Method::POST, "/compute/v1/snapshots", &key, &create).await;
            assert_eq!(code, 200, "{operation}");
            made.push(format!("/operations/{}", operation["id"].as_str().unwrap()));
        }
        let mut ids = Vec::new();
        // Each is asked for at the node that did not accept it.
        for (path, server) in made.iter().zip([&other, &one]) {
            let done = until(server, path, |told| told["done"] == true).await;
            assert_eq!(done["response"]["status"], "READY", "{done}");
            ids.push(done["response"]["id"].as_str().unwrap().to_owned());
        }
        let path = format!("/compute/v1/snapshots/{}", ids[0]);
        let (code, operation) = ask(&other, Method::DELETE, &path, &format!("delete-{round}"), "").await;
        assert_eq!(code, 200, "{operation}");
        let path = format!("/operations/{}", operation["id"].as_str().unwrap());
        until(&one, &path, |told| told["done"] == true).await;
        kept.push(ids.remove(1));
    }
    for id in kept {
        let verify = tokio::process::Command::new(env!("CARGO_BIN_EXE_longrun"))
            .args(["snapshot", "verify", "--id", &id, "--dir"])
            .arg(place.path("data").join("chunks"))
            .output();
        let verified = verify.await.unwrap();
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    }
}
