//! Whether a commit is on the disk when it returns: by the system calls of the thread that makes it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use longrun_store::{Durability, Kv};

use super::{CHILD, MakeOptions, batch, new_folder, test_name};
use crate::engine::Engine;
use crate::kv::FolderKv;
use crate::options::FolderOptions;
use crate::record::TAIL;

/// A call on this name is seen in a trace. Nobody has such a file.
const MARK: &str = "/longrun-commit-returned";
/// Tells another process that its durability is the weaker one.
const WEAKER: &str = "LONGRUN_RULES_WEAKER";
const COMMITS: usize = 5;
const WRITES: [&str; 5] = ["write(", "writev(", "pwrite64(", "pwritev(", "pwritev2("];
const SYNCS: [&str; 2] = ["fsync(", "fdatasync("];

/// What the trace of a thread tells of the commits that it made.
#[derive(Debug, Default)]
struct Traced {
    /// Marks: one before the first commit, and one after each.
    marks: usize,
    /// Commits that wrote to the folder.
    wrote: usize,
    /// Commits that returned when something of what they wrote was not synced.
    unsynced: usize,
    /// Syncs that succeeded, within commits.
    syncs: usize,
}

/// With power-loss durability nothing that a commit has written to a file is unsynced when it returns; with less nothing is synced, or
/// it would cost what it is there to save. What other threads do is not looked at: an engine commits on the thread that it is called on.
/// Needs `strace`, and says so loudly where that is missing.
pub fn a_commit_syncs_exactly_if_it_is_to_survive_a_loss_of_power<E: Engine>(
    _: MakeOptions<E>,
    module: &str,
) {
    if strace_is_missing(module) {
        return;
    }
    let durable = trace(module, Durability::PowerLoss);
    assert_eq!((durable.marks, durable.wrote, durable.unsynced), (COMMITS + 1, COMMITS, 0), "{durable:?}");
    let weaker = trace(module, Durability::ProcessCrash);
    assert_eq!((weaker.marks, weaker.wrote, weaker.syncs), (COMMITS + 1, COMMITS, 0), "{weaker:?}");
}

/// Whether a test that needs `strace` has to be left out, which it then says.
pub fn strace_is_missing(test: &str) -> bool {
    let ran = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    let missing = !ran.is_ok_and(|output| output.status.success());
    if missing {
        // Not by `println`, which nobody sees when the test passes.
        let line = format!("SKIPPED {test}: strace is not installed or may not trace\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    missing
}

/// Has another process commit under strace. With what its trace tells.
fn trace(module: &str, durability: Durability) -> Traced {
    let root = new_folder();
    let folder = root.path().canonicalize().unwrap().join("kv");
    let log = root.path().join("trace");
    let mut command = Command::new("strace");
    // A file for each thread: so no call is cut in two by another.
    command.args(["-ff", "-y", "-s", "0", "-e", "trace=%desc,%file", "-o"]).arg(&log);
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", &test_name(module, "commit_and_mark"), "--ignored", "--nocapture"]);
    let weaker = durability < Durability::PowerLoss;
    command.env(CHILD, &folder).envs(weaker.then_some((WEAKER, "")));
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let threads = fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().path());
    let traces = threads.filter(|path| path.is_file()).map(|path| fs::read_to_string(path).unwrap());
    let own: Vec<String> = traces.filter(|text| text.contains(MARK)).collect();
    assert_eq!(own.len(), 1, "one thread makes all commits");
    commits_of(&own[0], &folder)
}

/// What the trace of a thread tells of its commits to a folder.
fn commits_of(trace: &str, folder: &Path) -> Traced {
    let (mut told, mut dirty, mut wrote, mut syncs) = (Traced::default(), BTreeSet::new(), false, 0);
    for line in trace.lines().skip_while(|line| !line.contains(MARK)) {
        if line.contains(MARK) {
            told.marks += 1;
            told.wrote += usize::from(wrote);
            told.unsynced += usize::from(!dirty.is_empty());
            told.syncs += syncs;
            (wrote, syncs) = (false, 0);
            continue;
        }
        let file = line.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(file, _)| file);
        // The hint is never synced, by intent.
        let Some(file) = file.filter(|file| Path::new(file).starts_with(folder) && !file.ends_with(TAIL))
        else {
            continue;
        };
        if WRITES.iter().any(|call| line.starts_with(call)) {
            dirty.insert(file);
            wrote = true;
        } else if SYNCS.iter().any(|call| line.starts_with(call)) && line.ends_with("= 0") {
            dirty.remove(file);
            syncs += 1;
        }
    }
    told
}

/// The other process.
pub fn commit_and_mark<E: Engine>(options: MakeOptions<E>) {
    let folder = PathBuf::from(std::env::var_os(CHILD).expect("run by another test"));
    let weaker = std::env::var_os(WEAKER).is_some();
    let durability = if weaker { Durability::ProcessCrash } else { Durability::PowerLoss };
    let kv = FolderKv::<E>::open(&folder, options(FolderOptions::default().durability(durability))).unwrap();
    for n in 0..=COMMITS as u64 {
        if n > 0 {
            kv.commit(&batch(n)).unwrap();
        }
        assert!(!Path::new(MARK).exists());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_counts_until_its_own_file_is_synced() {
        let mark = format!("statx(AT_FDCWD, \"{MARK}\", 0, 0, 0x1) = -1 ENOENT");
        let told = |calls: &[&str]| {
            let trace = [&[mark.as_str()], calls, &[&mark]].concat().join("\n");
            let Traced { marks, wrote, unsynced, syncs } = commits_of(&trace, Path::new("/kv"));
            assert_eq!(marks, 2);
            (wrote, unsynced, syncs)
        };
        let (write, sync) = ("pwrite64(7</kv/db>, \"\"..., 4096, 0) = 4096", "fdatasync(7</kv/db>) = 0");
        assert_eq!(told(&[write, sync]), (1, 0, 1));
        assert_eq!(told(&[write]), (1, 1, 0));
        assert_eq!(told(&[sync, write]), (1, 1, 1));
        // When the store is closed.
        assert_eq!(commits_of(&[mark.as_str(), write, &mark, sync].join("\n"), Path::new("/kv")).syncs, 0);
        assert_eq!(told(&[write, "fdatasync(7</kv/db>) = -1 EIO (Input/output error)"]), (1, 1, 0));
        assert_eq!(told(&[write, "fdatasync(8</kv/other>) = 0"]), (1, 1, 1));
        // Neither is of the folder's promises.
        let others =
            ["write(1</dev/null>, \"\"..., 4) = 4", "pwrite64(9</kv/longrun.tail>, \"\"..., 20, 0) = 20"];
        assert_eq!(told(&others), (0, 0, 0));
    }
}
