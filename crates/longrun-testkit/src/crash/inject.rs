//! One run of a writer with one fault in its system calls, injected by strace.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::child::{self, WriterPlan, complaints};
use super::ground::Ground;
use super::trace::{self, HARMLESS};

/// Calls that change a store, or make its changes durable.
pub(crate) const CALLS: [&str; 14] = [
    "openat",
    "mkdir",
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "ftruncate",
    "fallocate",
    "rename",
    "renameat",
    "unlink",
    "unlinkat",
    "rmdir",
];

/// The codes of a store that is not there.
const AWAY: [&str; 2] = ["UNAVAILABLE", "RESOURCE_EXHAUSTED"];
/// A writer that takes longer is asked whether its store refuses.
const ASKED_AFTER: Duration = Duration::from_secs(20);
/// In this time one that is refused tells so, and one that meets its fault meets it.
const ASKED_FOR: Duration = Duration::from_secs(4);

/// A fault, and at which of the calls of a thread it is.
#[derive(Clone, Debug)]
pub(crate) struct Injection {
    /// A system call, or several with commas.
    pub(crate) call: String,
    /// `error=EIO`, `retval=0`, `signal=KILL`.
    pub(crate) fault: String,
    /// Each thread counts its own calls.
    pub(crate) at: u64,
    /// All later calls have it too.
    pub(crate) stays: bool,
    /// Names below the folder above the store, with an empty one for that folder itself. Only calls on these count; if
    /// there are none, all do.
    pub(crate) names: BTreeSet<String>,
    /// The trace has all calls, as for a replay, not only those that are hit. Then calls on all files count.
    pub(crate) all: bool,
}

/// How a run went.
#[derive(Debug)]
pub(crate) struct Ran {
    /// `None` if it did not end in time.
    pub(crate) ended: Option<ExitStatus>,
    /// How many faults happened.
    pub(crate) hits: u64,
    /// Of a writer that did not end: its store refused until the end.
    pub(crate) refused: Option<Refusing>,
}

/// A store that says that it is not available.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusing {
    /// It still met the fault.
    pub(crate) faults: bool,
}

impl Injection {
    /// As strace wants it.
    pub(crate) fn text(&self) -> String {
        let plus = if self.stays { "+" } else { "" };
        format!("inject={}:{}:when={}{plus}", self.call, self.fault, self.at)
    }

    /// Has a writer work on a ground.
    pub(crate) fn run(&self, ground: &Ground, plan: WriterPlan, within: Duration) -> anyhow::Result<Ran> {
        let log = trace_of(ground);
        // With -D it is strace that is the grandchild: the writer itself is killed and waited for.
        let mut wrapper: Vec<OsString> = ["strace", "-D", "-f", "-o"].map(OsString::from).into();
        wrapper.push(log.clone().into());
        if self.all {
            wrapper = trace::wrapper(&log);
            wrapper.insert(1, "-D".into());
        } else {
            wrapper.extend(["-e".into(), format!("trace={}", self.call).into()]);
        }
        wrapper.extend(["-e".into(), self.text().into()]);
        let above = ground.dir.parent().context("the store is nowhere")?;
        for name in self.names.iter().filter(|_| !self.all) {
            wrapper
                .extend(["-P".into(), if name.is_empty() { above.into() } else { above.join(name).into() }]);
        }
        let mut writer = child::writer(ground, &WriterPlan { wrapper, ..plan })?;
        let mut ended = writer.wait(within.min(ASKED_AFTER))?;
        let mut refused = None;
        if ended.is_none() && within > ASKED_AFTER {
            let deadline = Instant::now() + (within - ASKED_AFTER);
            while ended.is_none() && refused.is_none() && Instant::now() < deadline {
                let (refusals, hits) = (refusals(ground)?, injected(&text_of(&log)?));
                ended = writer.wait(ASKED_FOR)?;
                if ended.is_none() && self::refusals(ground)? > refusals {
                    refused = Some(Refusing { faults: injected(&text_of(&log)?) > hits });
                }
            }
        }
        writer.kill()?;
        let text = whole_trace(&log)?;
        let hits = match self.fault.starts_with("signal") {
            // The traced process does not live to see it marked; one that had not ended was killed by this process.
            true => u64::from(ended.is_some() && text.contains("killed by SIGKILL")),
            false => injected(&text),
        };
        Ok(Ran { ended, hits, refused })
    }
}

/// How often the writer was told that the store is not there. What is held or has changed is no such refusal.
fn refusals(ground: &Ground) -> anyhow::Result<u64> {
    let facts = ground.read_facts()?;
    let away = facts.refused.iter().filter(|(code, _)| AWAY.contains(&code.as_str()));
    Ok(away.map(|(_, count)| count).sum())
}

/// How many faults a trace tells of.
fn injected(trace: &str) -> u64 {
    trace.matches("INJECTED").count() as u64
}

fn text_of(trace: &Path) -> anyhow::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(trace)?).into_owned())
}

/// Where the trace of a run is.
pub(crate) fn trace_of(ground: &Ground) -> PathBuf {
    ground.facts.with_extension("trace")
}

/// The trace, when strace has seen the end of what it traced.
fn whole_trace(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    for _ in 0..200 {
        text = text_of(path)?;
        if text.lines().last().is_some_and(|line| line.ends_with("+++")) {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(text)
}

/// What a writer does to the files of its store.
#[derive(Debug, Default)]
pub(crate) struct Habits {
    /// How often it makes each call, by thread.
    pub(crate) calls: BTreeMap<String, BTreeMap<u32, u64>>,
    /// On what: names below the folder above the store.
    pub(crate) names: BTreeSet<String>,
}

impl Habits {
    /// Watches a writer work on a ground.
    pub(crate) fn watch(ground: &Ground, plan: WriterPlan, within: Duration) -> anyhow::Result<Self> {
        let log = trace_of(ground);
        let mut writer = child::writer(ground, &WriterPlan { wrapper: trace::wrapper(&log), ..plan })?;
        match writer.wait(within)? {
            Some(status) if status.success() => {}
            other => bail!("the writer ended with {other:?}: {}", complaints(ground)),
        }
        let above = ground.dir.parent().context("the store is nowhere")?;
        let mut habits = Self::default();
        for call in trace::read(&log)?.into_iter().filter(|call| call.name != "execve") {
            // Data may look like a path; the data of facts and of the store do not.
            let names: Vec<String> = call
                .paths()
                .filter(|path| Path::new(path).starts_with(&ground.dir) || Path::new(path) == above)
                .filter_map(|path| {
                    Some(Path::new(&path).strip_prefix(above).ok()?.to_string_lossy().into_owned())
                })
                .collect();
            if !names.is_empty() {
                let name = call.name.as_str();
                let known = CALLS.contains(&name) || HARMLESS.contains(&name);
                ensure!(known, "{name} of {names:?} is in no list");
                let mapped = name == "mmap" && call.arg(3)?.contains("MAP_SHARED");
                ensure!(!mapped, "{names:?} can be written without a call");
                *habits.calls.entry(call.name).or_default().entry(call.thread).or_default() += 1;
                habits.names.extend(names);
            }
        }
        fs::remove_file(log)?;
        Ok(habits)
    }
}
