//! `longrun serve` as a program, with each store, and the same program as its client.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "program/mod.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod program;

use program::{PATIENCE, Place, Program};
use rustix::process::Signal;
use serde_json::Value;
use tokio::process::Command;

/// Runs the program as a client, and gives its exit code and what it printed, as JSON.
async fn client(server: &Program, arguments: &[&str]) -> (i32, Value) {
    let ran = Command::new(env!("CARGO_BIN_EXE_longrun"))
        .args(arguments)
        .args(["--json", "--server", &server.grpc.to_string()])
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, ran).await.expect("it ends").unwrap();
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

/// Creates, lists, renames and deletes a snapshot by the command line.
async fn life_of_a_snapshot(server: &Program) {
    let create = ["snapshot", "create", "--folder", "f", "--disk", "disk-1", "--name", "first", "--wait"];
    let (code, operation) = client(server, &create).await;
    assert_eq!((code, &operation["done"]), (0, &Value::Bool(true)), "{operation}");
    let snapshot = operation["response"]["id"].as_str().unwrap().to_owned();
    assert_eq!(operation["response"]["status"], "READY");

    let (code, list) =
        client(server, &["snapshot", "list", "--folder", "f", "--filter", "name = first"]).await;
    assert_eq!(code, 0);
    assert!(list.to_string().contains(&snapshot), "{list}");

    let (code, _) = client(server, &["snapshot", "update", &snapshot, "--name", "second", "--wait"]).await;
    assert_eq!(code, 0);
    let (_, found) = client(server, &["snapshot", "get", &snapshot]).await;
    assert_eq!(found["name"], "second");

    let (code, _) = client(server, &["snapshot", "delete", &snapshot, "--wait"]).await;
    assert_eq!(code, 0);
    let (code, _) = client(server, &["snapshot", "get", &snapshot]).await;
    assert_eq!(code, 1, "it is gone");
}

/// A store in memory is another one at each start; chunks that are left from the one before must not be in its way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_store_serves_and_serves_again_on_the_same_folder() {
    for store in ["sled", "fjall", "redb", "memory"] {
        let place = Place::new();
        for _ in 0..2 {
            let server = Program::start(&place, &["--store", store]).await;
            life_of_a_snapshot(&server).await;
            server.signal(Signal::TERM);
            assert!(server.ended().await.success(), "{store}");
        }
    }
}

/// Damage on the medium is found by the server itself, and whoever asks sees it and why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_scrub_finds_damaged_shows_as_error_with_its_reason() {
    let place = Place::new();
    let server = Program::start(&place, &["--scrub-every", "1"]).await;
    let create = ["snapshot", "create", "--folder", "f", "--disk", "disk-1", "--wait"];
    let (code, operation) = client(&server, &create).await;
    assert_eq!(code, 0, "{operation}");
    let snapshot = operation["response"]["id"].as_str().unwrap().to_owned();
    let chunks = place.path("data").join("chunks/chunks");
    let folders = std::fs::read_dir(chunks).unwrap().map(|entry| entry.unwrap().path());
    let chunk =
        folders.filter_map(|folder| std::fs::read_dir(folder).unwrap().next()).next().unwrap().unwrap();
    let mut bytes = std::fs::read(chunk.path()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(chunk.path(), bytes).unwrap();

    let found =
        async { while client(&server, &["snapshot", "get", &snapshot]).await.1["status"] != "ERROR" {} };
    tokio::time::timeout(PATIENCE, found).await.expect("the damage is found");
    let (_, operations) = client(&server, &["snapshot", "operations", &snapshot]).await;
    assert!(operations.to_string().contains("damaged"), "{operations}");
}

#[tokio::test]
async fn nothing_answers_when_the_server_is_gone() {
    let place = Place::new();
    let server = Program::start(&place, &["--store", "memory"]).await;
    let address = server.grpc.to_string();
    server.signal(Signal::TERM);
    assert!(server.ended().await.success());
    let output =
        Command::new(env!("CARGO_BIN_EXE_longrun")).args(["op", "list", "--server", &address]).output();
    assert_eq!(output.await.unwrap().status.code(), Some(3));
}
