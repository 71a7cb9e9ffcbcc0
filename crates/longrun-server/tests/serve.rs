//! `longrun serve`, as a program.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

#[test]
fn every_store_makes_the_data_folder() {
    for store in ["sled", "memory"] {
        let place = tempfile::tempdir().unwrap();
        let mut server = Command::new(env!("CARGO_BIN_EXE_longrun"))
            .args(["serve", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--store", store, "--disks"])
            .arg(place.path())
            .arg("--data")
            .arg(place.path().join("not/yet/there"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        // Nothing, if it ended instead.
        let read = BufReader::new(server.stdout.take().unwrap()).read_line(&mut line);
        server.kill().unwrap();
        server.wait().unwrap();
        assert!(read.unwrap() > 0 && line.starts_with("ready grpc=127.0.0.1:"), "{store}: {line:?}");
    }
}
