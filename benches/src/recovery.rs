//! The *recovery* workload: a process with many operations in the middle of their work is killed, and another goes on.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use longrun::store::{Direction, KeyRange, Table};
use longrun::{Call, Caller, Engine};
use serde::Serialize;

use crate::Result;
use crate::kinds::{self, Barrier, Happy, Held};
use crate::report::{MemoryLine, memory_mib, millis};
use crate::stores::{self, StoreName};

/// What a recovery came to. Times are from the moment before the store is opened.
#[derive(Clone, Debug, Serialize)]
pub struct Recovery {
    /// `longrun`.
    pub peer: &'static str,
    /// The version of this workspace.
    pub version: &'static str,
    /// `recovery`.
    pub workload: &'static str,
    /// Over which store.
    pub store: &'static str,
    /// Operations that were in the middle of their second step.
    pub unfinished: u64,
    /// Until the store was open, in milliseconds.
    pub open_ms: f64,
    /// Until a new operation was accepted.
    pub accepts_ms: f64,
    /// Until the first step was resumed.
    pub first_step_ms: f64,
    /// Until nothing was left to do.
    pub all_done_ms: f64,
    /// Operations finished a second, from the first step that was resumed.
    pub ops_per_s: f64,
    /// The most memory that the process has had, in MiB.
    pub rss_mib: f64,
    /// What an acknowledged commit survives.
    pub durability: &'static str,
}

/// The process that will be killed: brings so many operations into their second step, says so, and waits.
pub async fn fill(name: StoreName, folder: &Path, unfinished: u64) -> Result<()> {
    let barrier = Barrier::new(false);
    let opened = stores::open(name, folder).await?;
    let running = usize::try_from(unfinished)?.max(1);
    let engine =
        kinds::register(Engine::builder_shared(opened.store).running_max(running), &barrier).start().await?;
    kinds::submit_all::<Held>(&engine, unfinished).await?;
    while barrier.arrived() < unfinished {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut out = std::io::stdout();
    writeln!(out, "filled")?;
    out.flush()?;
    std::future::pending().await
}

/// Has another process fill the store and kills it.
pub fn fill_and_kill(name: StoreName, folder: &Path, unfinished: u64) -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["fill", "--store", name.name(), "--unfinished", &unfinished.to_string(), "--folder"])
        .arg(folder)
        .stdout(Stdio::piped())
        .spawn()?;
    let out = child.stdout.take().context("its output")?;
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    // SIGKILL.
    child.kill()?;
    child.wait()?;
    ensure!(line == "filled\n", "it did not come so far");
    Ok(())
}

/// Goes on with what is in the store.
pub async fn recover(name: StoreName, folder: &Path, unfinished: u64) -> Result<Recovery> {
    let barrier = Barrier::new(true);
    let began = Instant::now();
    let opened = stores::open(name, folder).await?;
    let open = began.elapsed();
    let engine = kinds::register(Engine::builder_shared(Arc::clone(&opened.store)), &barrier).start().await?;
    engine.submit::<Happy>(&0, Call::by(Caller::new("bench")?)).await?;
    let accepts = began.elapsed();
    let kv = opened.kv()?;
    let due = || kv.scan(Table::Due, &KeyRange::prefix(b""), Direction::Forward, 1);
    // The order of due work is asked only when little can be left of it: it begins with all that was removed, which some stores
    // pass over one by one, and that would be the harness's work.
    while barrier.arrived() < unfinished || !due()?.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let all_done = began.elapsed();
    let first = barrier.first().context("a step that was resumed")? - began;
    #[allow(clippy::cast_precision_loss)] // Counts are far below 2^52.
    let ops_per_s = unfinished as f64 / (all_done - first).as_secs_f64();
    Ok(Recovery {
        peer: "longrun",
        version: env!("CARGO_PKG_VERSION"),
        workload: "recovery",
        store: name.name(),
        unfinished,
        open_ms: millis(open),
        accepts_ms: millis(accepts),
        first_step_ms: millis(first),
        all_done_ms: millis(all_done),
        ops_per_s,
        rss_mib: memory_mib(MemoryLine::Peak)?,
        durability: name.durability(),
    })
}
