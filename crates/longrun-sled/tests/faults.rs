//! Faults of the system: a full disk, failing calls, and the order of the calls that make a commit durable.
//! What needs root or strace is left out, loudly, where they are missing.

// The helpers below are not inside a `#[test]`, so the lints do not know that they are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use common::{batch, child, child_folder, holds, open};
use longrun_folder::rules::strace_is_missing;
use longrun_sled::{DiskFull, FolderOptions, RESERVE_BYTES, SledKv, SledOptions};
use longrun_store::{Batch, Kv, KvError, Table};
use tempfile::tempdir;

struct Mount<'a>(&'a Path);

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

fn run(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

#[test]
fn full_disk_heals_by_reopen() {
    let folder = tempdir().unwrap();
    if !run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=48m", "tmpfs"]).arg(folder.path())) {
        eprintln!("SKIPPED full_disk_heals_by_reopen: cannot mount a tmpfs (not root?)");
        return;
    }
    let _mount = Mount(folder.path());
    let ballast = folder.path().join("ballast");
    let options = || with_reserve(0).cache_bytes(8 << 20);
    let kv = SledKv::open(folder.path().join("kv"), options()).unwrap();
    let mut acknowledged = 0;
    for round in 0..3 {
        // Fill the disk but for a little, and write until that is used up too.
        let _ = fs::write(&ballast, vec![1; 48 << 20]);
        let len = fs::metadata(&ballast).unwrap().len();
        fs::OpenOptions::new()
            .write(true)
            .open(&ballast)
            .unwrap()
            .set_len(len - (round + 1) * 40_000)
            .unwrap();
        let error = loop {
            match kv.commit(&batch(acknowledged)) {
                Ok(()) => acknowledged += 1,
                Err(error) => break error,
            }
        };
        let KvError::Unknown(cause) = error else { panic!("{error:?}") };
        let cause = cause.downcast::<std::io::Error>().unwrap();
        assert_eq!(cause.kind(), std::io::ErrorKind::StorageFull);
        assert!(matches!(kv.get(Table::Due, b"last"), Err(KvError::Unknown(_))), "poisoned");
        assert!(matches!(kv.commit(&batch(acknowledged)), Err(KvError::Unknown(_))), "poisoned");
        // Still full. It may open or not, and must hold no less if it does.
        if let Err(error) = kv.reopen() {
            assert!(matches!(error, KvError::Unknown(_)), "{error:?}");
        }
        fs::remove_file(&ballast).unwrap();
        kv.reopen().unwrap();
        acknowledged = after_unknown(&kv, acknowledged);
        println!("round {round}: {acknowledged} batches");
        kv.commit(&batch(acknowledged)).unwrap();
        acknowledged += 1;
    }
    drop(kv);
    assert!(holds(&open(&folder.path().join("kv")).unwrap(), acknowledged));
}

#[test]
fn full_disk_is_seen_before_sled_is_touched_and_heals_by_itself() {
    let folder = tempdir().unwrap();
    if !run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"]).arg(folder.path())) {
        eprintln!(
            "SKIPPED full_disk_is_seen_before_sled_is_touched_and_heals_by_itself: cannot mount a tmpfs (not root?)"
        );
        return;
    }
    let _mount = Mount(folder.path());
    let (ballast, path) = (folder.path().join("ballast"), folder.path().join("kv"));
    let kv = open(&path).unwrap();
    let mut acknowledged = 0;
    for round in 0..3 {
        for _ in 0..5 {
            kv.commit(&batch(acknowledged)).unwrap();
            acknowledged += 1;
        }
        // Nearly full, and quite full.
        let left = [RESERVE_BYTES - 1, 1 << 20, 0][round];
        let _ = fs::write(&ballast, vec![1; 64 << 20]);
        let len = fs::metadata(&ballast).unwrap().len();
        fs::OpenOptions::new().write(true).open(&ballast).unwrap().set_len(len - left).unwrap();
        let before = fs::read(path.join("db")).unwrap();
        for _ in 0..3 {
            let Err(KvError::NotApplied(cause)) = kv.commit(&batch(acknowledged)) else { panic!("applied") };
            let cause = cause.downcast::<std::io::Error>().unwrap();
            assert_eq!(cause.kind(), std::io::ErrorKind::StorageFull);
            let full = cause.get_ref().unwrap().downcast_ref::<DiskFull>().unwrap();
            assert_eq!(full.path, fs::canonicalize(&path).unwrap());
            assert!(full.free <= left && full.needed > RESERVE_BYTES, "{full:?}");
            for part in [full.path.display().to_string(), full.free.to_string(), full.needed.to_string()] {
                assert!(cause.to_string().contains(&part), "{cause}");
            }
            assert!(holds(&kv, acknowledged), "reads go on");
            kv.commit(&Batch::default()).unwrap();
        }
        assert!(fs::read(path.join("db")).unwrap() == before, "sled has written nothing");
        fs::remove_file(&ballast).unwrap();
        kv.commit(&batch(acknowledged)).unwrap();
        acknowledged += 1;
        assert!(holds(&kv, acknowledged));
    }
    drop(kv);
    assert!(holds(&open(&path).unwrap(), acknowledged));
    // A disk that is smaller than the reserve takes a smaller one.
    let kv = SledKv::open(&path, with_reserve(64 << 20)).unwrap();
    assert!(matches!(kv.commit(&batch(acknowledged)), Err(KvError::NotApplied(_))));
    drop(kv);
    let kv = SledKv::open(&path, with_reserve(1 << 20)).unwrap();
    kv.commit(&batch(acknowledged)).unwrap();
}

fn with_reserve(bytes: u64) -> SledOptions {
    SledOptions::default().folder(FolderOptions::default().reserve_bytes(bytes))
}

/// How many batches there are, when the outcome of one is unknown.
fn after_unknown(kv: &impl Kv, acknowledged: u64) -> u64 {
    let last = kv.get(Table::Due, b"last").unwrap();
    let found = last.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()) + 1);
    assert!(found == acknowledged || found == acknowledged + 1, "{found} of {acknowledged}");
    found
}

const MARK: &str = "/longrun-commit-returned";

#[test]
fn commit_returns_after_fdatasync() {
    if strace_is_missing("commit_returns_after_fdatasync") {
        return;
    }
    let folder = tempdir().unwrap();
    let trace = folder.path().join("trace");
    let strace =
        ["strace", "-f", "-y", "-o", trace.to_str().unwrap(), "-e", "trace=pwrite64,fdatasync,access,statx"];
    let output = child(&strace, "commit_five", &folder.path().join("kv")).output().unwrap();
    assert!(output.status.success(), "{output:?}");

    let trace = fs::read_to_string(trace).unwrap();
    let (mut dirty, mut marks) = (false, 0);
    for line in trace.lines().skip_while(|line| !line.contains(MARK)) {
        if line.contains(MARK) {
            assert!(!dirty, "a commit returned with unsynced writes:\n{trace}");
            marks += 1;
        } else if line.contains("pwrite64(") && line.contains("/db>") {
            dirty = true;
        } else if line.contains("fdatasync(") && line.contains("/db>") {
            assert!(!line.contains("unfinished") && line.contains("= 0"), "{line}");
            dirty = false;
        }
    }
    assert_eq!(marks, 6);
}

#[test]
#[ignore = "run by commit_returns_after_fdatasync"]
fn commit_five() {
    let kv = open(&child_folder()).unwrap();
    for n in 0..6 {
        if n > 0 {
            kv.commit(&batch(n)).unwrap();
        }
        // A call that the trace shows.
        assert!(!Path::new(MARK).exists());
    }
}

/// One call fails, at each place in turn: nothing acknowledged is lost, nothing hangs, reopen heals.
#[test]
fn one_failing_call_is_survived() {
    if strace_is_missing("one_failing_call_is_survived") {
        return;
    }
    // A late failure of the manifest's write is the one that sled tells nobody of: the watchdog's case.
    let calls = [
        ("pwrite64", "", 3..7),
        ("pwrite64", ":delay_enter=100000", 2..5),
        ("sync_file_range", "", 2..7),
        ("fdatasync", "", 2..5),
        ("fsync", "", 1..4),
    ];
    let inject = |call: &str, late: &str, place: u32| {
        let folder = tempdir().unwrap();
        let trace = folder.path().join("trace");
        // The kernel counts per thread, and sled writes in several.
        let inject = format!("inject={call}:error=EIO{late}:when={place}");
        let filter = format!("trace={call}");
        let path = trace.to_str().unwrap();
        let strace = ["timeout", "20", "strace", "-f", "-o", path, "-e", &inject, "-e", &filter];
        let output = child(&strace, "commit_with_errors", &folder.path().join("kv")).output().unwrap();
        assert!(output.status.success(), "{inject}: {output:?}");
        fs::read_to_string(trace).unwrap().matches("INJECTED").count()
    };
    // They wait more than they work.
    let injected: usize = thread::scope(|scope| {
        let runs = calls.map(|(call, late, places)| {
            let inject = &inject;
            scope.spawn(move || places.map(|place| inject(call, late, place)).sum::<usize>())
        });
        runs.into_iter().map(|run| run.join().unwrap()).sum()
    });
    println!("{injected} failures were injected");
    assert!(injected > 10);
}

#[test]
#[ignore = "run by one_failing_call_is_survived"]
fn commit_with_errors() {
    let folder = child_folder();
    let kv = loop {
        // A failure at open is reported, and the next open does.
        if let Ok(kv) = open(&folder) {
            break kv;
        }
    };
    let mut acknowledged = 0;
    while acknowledged < 30 {
        match kv.commit(&batch(acknowledged)) {
            Ok(()) => acknowledged += 1,
            Err(KvError::Unknown(cause)) => {
                println!("{cause}");
                while let Err(error) = kv.reopen() {
                    println!("{error:?}");
                    assert!(matches!(error, KvError::Unknown(_)), "{error:?}");
                }
                acknowledged = after_unknown(&kv, acknowledged);
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(holds(&kv, acknowledged));
    assert!(kv.commit(&Batch::default()).is_ok());
    drop(kv);
    assert!(holds(&open(&folder).unwrap(), acknowledged));
}
