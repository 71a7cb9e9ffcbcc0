//! `crash power`: cuts of the power at random moments.
//!
//! The disk is ext4 on a loop device. What was told before the cut must be there after it; the effects and the facts
//! are outside of the disk, as the rest of the world is. It models a disk without a volatile cache that stops at once.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::child::{self, WriterPlan, await_ready};
use super::cli::Campaign;
use super::dice::Dice;
use super::disk::{self, Disk};
use super::ground::Ground;
use super::report::Report;
use super::rounds::{self, Site};

/// A folder on a disk that loses its power.
struct CutDisk {
    // Unmounted before its folder is removed.
    disk: Disk,
    root: TempDir,
    ground: Ground,
}

/// Runs the test, or says why this machine cannot.
pub(crate) fn run(campaign: &Campaign, seed: u64) -> anyhow::Result<ExitCode> {
    disk::own_mounts();
    let mut report = Report::new("power", seed);
    if let Err(reason) = rehearse() {
        report.skip("power", format!("{reason:#}"));
        return Ok(report.end());
    }
    rounds::run::<CutDisk>(campaign, report, seed)
}

/// One cut of a disk that nobody uses: what is synced stays, what is not goes. Else the test would prove nothing.
fn rehearse() -> anyhow::Result<()> {
    let root = TempDir::new()?;
    let mut disk = Disk::make(root.path())?;
    let (synced, other) = (disk.point().join("synced"), disk.point().join("other"));
    fs::write(&synced, b"here")?;
    File::open(&synced)?.sync_all()?;
    File::open(disk.point())?.sync_all()?;
    fs::write(&other, b"gone")?;
    disk.arm()?.cut()?;
    disk.power_on()?;
    let (stays, goes) = (fs::read(&synced).is_ok_and(|text| text == b"here"), !other.exists());
    anyhow::ensure!(
        stays && goes,
        "a cut does not do here what it must (synced stays: {stays}, other goes: {goes})"
    );
    Ok(())
}

impl Site for CutDisk {
    const ROUNDS_MAX: u64 = 5;

    fn new(campaign: &Campaign) -> anyhow::Result<Self> {
        let root = TempDir::with_prefix("longrun-power-")?;
        let disk = Disk::make(root.path())?;
        let dir = disk.point().join("kv");
        let ground = Ground::under(root.path(), dir, campaign.store, campaign.durability);
        Ok(Self { disk, root, ground })
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
        let cutter = self.disk.arm()?;
        let mut writer = child::writer(&self.ground, plan)?;
        match dice.within(0..12) {
            // During the open and the recovery.
            0..2 => thread::sleep(dice.millis(0..120)),
            // So late that the file system has committed its journal by itself.
            2 => thread::sleep(dice.millis(5200..6500)),
            _ => {
                await_ready(&self.ground, ready_before)?;
                thread::sleep(dice.millis(0..500));
            }
        }
        // Only what it does before counts: a thread that is not stopped at once may see the disk fail.
        let ended = writer.wait(Duration::ZERO)?;
        // Nobody acts when the power is gone, but a process that goes on would: ext4 may answer a sync of a file that grows
        // with success when it was shut down in the midst of it.
        writer.stop()?;
        cutter.cut()?;
        writer.kill()?;
        self.disk.power_on()?;
        Ok(ended)
    }

    /// A second cut, while the store recovers from the first.
    fn crash_verifier(&mut self, after: Duration) -> anyhow::Result<bool> {
        let cutter = self.disk.arm()?;
        let in_recovery = child::interrupt_verifier(&self.ground, after, || cutter.cut())?;
        self.disk.power_on()?;
        Ok(in_recovery)
    }

    fn keep(mut self) -> anyhow::Result<PathBuf> {
        self.disk.unmount()?;
        self.root.disable_cleanup(true);
        Ok(self.root.path().to_path_buf())
    }
}
