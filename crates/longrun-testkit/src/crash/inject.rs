//! One run of a writer with one fault in its system calls, injected by strace.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, bail};

use super::child::{self, WriterPlan};
use super::ground::Ground;
use super::kill::complaints;
use super::trace;

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
}

/// How a run went.
#[derive(Debug)]
pub(crate) struct Ran {
    /// `None` if it did not end in time.
    pub(crate) ended: Option<ExitStatus>,
    /// How many faults happened.
    pub(crate) hits: u64,
}

impl Injection {
    /// As strace wants it.
    pub(crate) fn text(&self) -> String {
        let plus = if self.stays { "+" } else { "" };
        format!("inject={}:{}:when={}{plus}", self.call, self.fault, self.at)
    }

    /// Has a writer work on a ground.
    pub(crate) fn run(&self, ground: &Ground, plan: WriterPlan, within: Duration) -> anyhow::Result<Ran> {
        let log = ground.facts.with_extension("trace");
        // With -D it is strace that is the grandchild: the writer itself is killed and waited for.
        let mut wrapper: Vec<OsString> = ["strace", "-D", "-f", "-o"].map(OsString::from).into();
        wrapper.push(log.clone().into());
        wrapper.extend(["-e".into(), self.text().into(), "-e".into(), format!("trace={}", self.call).into()]);
        let above = ground.dir.parent().context("the store is nowhere")?;
        for name in &self.names {
            wrapper
                .extend(["-P".into(), if name.is_empty() { above.into() } else { above.join(name).into() }]);
        }
        let mut writer = child::writer(ground, &WriterPlan { wrapper, ..plan })?;
        let ended = writer.wait(within)?;
        writer.kill()?;
        let text = whole_trace(&log)?;
        let hits = match self.fault.starts_with("signal") {
            // The traced process does not live to see it marked.
            true => u64::from(text.contains("killed by SIGKILL")),
            false => text.matches("INJECTED").count() as u64,
        };
        Ok(Ran { ended, hits })
    }
}

/// The trace, when strace has seen the end of what it traced.
fn whole_trace(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    for _ in 0..200 {
        text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
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
    /// How often it makes each call.
    pub(crate) calls: BTreeMap<String, u64>,
    /// On what: names below the folder above the store.
    pub(crate) names: BTreeSet<String>,
}

impl Habits {
    /// Watches a writer work on a ground.
    pub(crate) fn watch(ground: &Ground, plan: WriterPlan, within: Duration) -> anyhow::Result<Self> {
        let log = ground.facts.with_extension("trace");
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
                *habits.calls.entry(call.name).or_default() += 1;
                habits.names.extend(names);
            }
        }
        fs::remove_file(log)?;
        Ok(habits)
    }
}
