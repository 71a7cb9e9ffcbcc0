//! `crash faults`: bad ground. Each fault gets its typed error, and nothing is lost.

mod damage;
mod full;
mod records;
mod second;
mod syscalls;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use tempfile::TempDir;

use super::child::{self, READY_WITHIN};
use super::cli::Campaign;
use super::dice::Dice;
use super::disk;
use super::ground::Ground;
use super::report::{Report, say};
use super::verify::Mode;

/// Facts that a store must be bound by before it is damaged.
const FACTS_MIN: u64 = 120;

/// What the checks share.
struct Bench {
    report: Report,
    root: TempDir,
    campaign: Campaign,
    dice: Dice,
    runtime: tokio::runtime::Runtime,
}

/// Runs the test.
pub(crate) fn run(campaign: &Campaign, seed: u64) -> anyhow::Result<ExitCode> {
    disk::own_mounts();
    let mut bench = Bench {
        report: Report::new("faults", seed),
        root: TempDir::with_prefix("longrun-faults-")?,
        campaign: campaign.clone(),
        dice: Dice::new(seed),
        runtime: super::runtime()?,
    };
    damage::run(&mut bench)?;
    records::run(&mut bench)?;
    second::run(&mut bench)?;
    full::run(&mut bench)?;
    syscalls::run(&mut bench)?;
    if !bench.report.violations.is_empty() {
        bench.root.disable_cleanup(true);
    }
    Ok(bench.report.end())
}

impl Bench {
    /// A ground in a folder of its own.
    fn ground(&self, name: &str) -> anyhow::Result<Ground> {
        let root = self.root.path().join(name);
        fs::create_dir_all(&root)?;
        let Campaign { store, durability, .. } = self.campaign;
        Ok(Ground::under(&root, root.join("kv"), store, durability))
    }

    /// Counts a check.
    fn check(&mut self, name: &str, result: anyhow::Result<()>) {
        match result {
            Ok(()) => self.report.checked += 1,
            Err(error) => {
                let kept = self.root.path().to_path_buf();
                self.report.violation(format!("{name}: {error:#}"), 0, Some(&kept));
            }
        }
    }

    /// Has a writer work on a ground, and kills it when there are facts and unfinished operations.
    fn killed(&mut self, ground: &Ground) -> anyhow::Result<()> {
        child::killed_writer(ground, self.dice.next(), FACTS_MIN, READY_WITHIN)?;
        self.report.kills += 1;
        Ok(())
    }

    /// The same, with everything finished, and closed and opened again, so that the store has written all its files.
    fn closed(&mut self, ground: &Ground) -> anyhow::Result<()> {
        self.killed(ground)?;
        self.whole(ground, Mode { look: false, tell: true })?;
        self.whole(ground, Mode { look: true, tell: false })
    }

    /// Verifies in another process; everything must be there.
    fn whole(&mut self, ground: &Ground, mode: Mode) -> anyhow::Result<()> {
        let (seen, wrong) = child::verify(ground, mode)?;
        self.report.seen.add(seen);
        self.report.acknowledged = self.report.acknowledged.max(seen.acknowledged);
        anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("; "));
        Ok(())
    }
}

/// A copy of the store alone: its facts and effects stay where they are.
fn copy(ground: &Ground, to: &Path) -> anyhow::Result<Ground> {
    copy_folder(&ground.dir, to).with_context(|| format!("cannot copy {}", ground.dir.display()))?;
    Ok(Ground { dir: to.to_path_buf(), ..ground.clone() })
}

pub(crate) fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// A line of a check that found nothing wrong.
fn note(line: &str) {
    say(&format!("  {line}"));
}
