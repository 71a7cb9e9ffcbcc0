//! `crash kill`: SIGKILL at random moments.

use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::child::{self, READY_WITHIN, WriterPlan, await_ready};
use super::cli::Campaign;
use super::dice::Dice;
use super::ground::Ground;
use super::report::Report;
use super::rounds;

/// A folder of the machine.
struct Site {
    root: TempDir,
    ground: Ground,
}

/// Runs the test.
pub(crate) fn run(campaign: &Campaign, seed: u64) -> anyhow::Result<ExitCode> {
    rounds::run::<Site>(campaign, Report::new("kill", seed), seed)
}

impl rounds::Site for Site {
    const ROUNDS: u64 = 8;

    fn new(campaign: &Campaign) -> anyhow::Result<Self> {
        let root = TempDir::with_prefix("longrun-kill-")?;
        let ground = Ground::under(root.path(), root.path().join("kv"), campaign.store, campaign.durability);
        Ok(Self { root, ground })
    }

    fn ground(&self) -> &Ground {
        &self.ground
    }

    fn crash_writer(&mut self, plan: &WriterPlan, dice: &mut Dice) -> anyhow::Result<ExitStatus> {
        let ready_before = self.ground.read_facts()?.ready;
        let mut writer = child::writer(&self.ground, plan)?;
        if dice.one_in(6) {
            // Within the open and the recovery.
            thread::sleep(dice.millis(0..120));
        } else {
            await_ready(&self.ground, ready_before, READY_WITHIN)?;
            thread::sleep(dice.millis(0..350));
        }
        writer.kill()
    }

    fn crash_verifier(&mut self, after: Duration) -> anyhow::Result<bool> {
        child::interrupt_verifier(&self.ground, after, || Ok(()))
    }

    fn keep(mut self) -> anyhow::Result<PathBuf> {
        self.root.disable_cleanup(true);
        Ok(self.root.path().to_path_buf())
    }
}
