//! Helpers of several test files.
#![allow(dead_code)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use longrun_sled::{OpenError, SledKv, SledOptions};
use longrun_store::{Batch, Direction, KeyRange, Kv, Table};

pub(crate) fn open(path: &Path) -> Result<SledKv, OpenError> {
    SledKv::open(path, SledOptions::default().cache_bytes(8 << 20))
}

/// Batch number `n` of a writer: one entry of its own and one that each batch overwrites, in two tables.
pub(crate) fn batch(n: u64) -> Batch {
    let mut batch = Batch::default();
    batch.put(Table::Operations, n.to_be_bytes().to_vec(), value(n));
    batch.put(Table::Due, b"last".to_vec(), n.to_be_bytes().to_vec());
    batch
}

pub(crate) fn value(n: u64) -> Vec<u8> {
    format!("operation {n} ").repeat(20).into_bytes()
}

/// True when exactly the batches `0..count` are there; false on a read error.
pub(crate) fn holds(kv: &SledKv, count: u64) -> bool {
    let Ok(found) = kv.scan(Table::Operations, &KeyRange::prefix(b""), Direction::Forward, usize::MAX) else {
        return false;
    };
    let expected = (0..count).map(|n| (n.to_be_bytes().to_vec(), value(n)));
    assert!(found.into_iter().eq(expected), "a smaller or changed set was shown");
    let last = kv.get(Table::Due, b"last").unwrap();
    assert_eq!(last, count.checked_sub(1).map(|n| n.to_be_bytes().to_vec()));
    true
}

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// This test program as another process, to run its ignored test `name` on `folder`, under `wrapper`.
pub(crate) fn child(wrapper: &[&str], name: &str, folder: &Path) -> Command {
    let exe = std::env::current_exe().unwrap();
    let mut words = wrapper.iter().map(|word| (*word).into()).chain([exe.into_os_string()]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"]);
    // A panic of sled that is survived need not cost the time of a backtrace.
    command.env("LONGRUN_SLED_FOLDER", folder).env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    command
}

pub(crate) fn child_folder() -> std::path::PathBuf {
    std::env::var_os("LONGRUN_SLED_FOLDER").expect("run by another test").into()
}
