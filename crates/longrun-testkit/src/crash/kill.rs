//! `crash kill`: SIGKILL at random moments.

use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::child::{self, WriterPlan, await_ready};
use super::cli::Campaign;
use super::dice::Dice;
use super::ground::Ground;
use super::report::Report;
use super::rounds::{self, Site};

/// A folder whose processes are killed.
struct KilledFolder {
    root: TempDir,
    ground: Ground,
}

/// Runs the test.
pub(crate) fn run(campaign: &Campaign, seed: u64) -> anyhow::Result<ExitCode> {
    rounds::run::<KilledFolder>(campaign, Report::new("kill", seed), seed)
}

impl Site for KilledFolder {
    const ROUNDS_MAX: u64 = 8;

    fn new(campaign: &Campaign) -> anyhow::Result<Self> {
        let root = TempDir::with_prefix("longrun-kill-")?;
        let ground = Ground::under(root.path(), root.path().join("kv"), campaign.store, campaign.durability);
        Ok(Self { root, ground })
    }

    fn ground(&self) -> &Ground {
        &self.ground
    }

    fn crash_writer(
        &mut self,
        plan: &WriterPlan,
        ready_before: u64,
        dice: &mut Dice,
    ) -> anyhow::Result<Option<ExitStatus>> {
        let mut writer = child::writer(&self.ground, plan)?;
        if dice.one_in(6) {
            // Within the open and the recovery.
            thread::sleep(dice.millis(0..120));
        } else {
            await_ready(&self.ground, ready_before)?;
            thread::sleep(dice.millis(0..350));
        }
        let ended = writer.kill()?;
        Ok(ended.code().is_some().then_some(ended))
    }

    fn crash_verifier(&mut self, after: Duration) -> anyhow::Result<bool> {
        child::interrupt_verifier(&self.ground, after, || Ok(()))
    }

    fn keep(mut self) -> anyhow::Result<PathBuf> {
        self.root.disable_cleanup(true);
        Ok(self.root.path().to_path_buf())
    }
}
