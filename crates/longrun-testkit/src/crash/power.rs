//! `crash power`: cuts of the power at random moments.
//!
//! The disk is ext4 on a loop device. What was told before the cut must be there after it; the effects and the facts
//! are outside of the disk, as the rest of the world is. It models a disk without a volatile cache that stops at once.

use std::fs::{self, File};
use std::process::ExitCode;
use std::thread;

use anyhow::Context;
use tempfile::TempDir;

use super::child::{self, WriterPlan};
use super::cli::Campaign;
use super::dice::Dice;
use super::disk::{self, Disk};
use super::ground::Ground;
use super::kill::{NUMBERS, READY_WITHIN, await_ready, tell};
use super::report::Report;
use super::verify::Mode;

/// A disk that is cut for some rounds.
struct Site {
    // Unmounted before its folder is removed.
    disk: Disk,
    root: TempDir,
    ground: Ground,
    left: u64,
    acknowledged: u64,
}

impl Site {
    fn new(campaign: &Campaign, dice: &mut Dice) -> anyhow::Result<Self> {
        let root = TempDir::with_prefix("longrun-power-")?;
        let disk = Disk::make(root.path())?;
        let dir = disk.point().join("kv");
        let ground = Ground::under(root.path(), dir, campaign.store, campaign.durability);
        Ok(Self { disk, root, ground, left: dice.within(1..6), acknowledged: 0 })
    }
}

/// Runs the test, or says why this machine cannot.
pub(crate) fn run(campaign: &Campaign, seed: u64) -> anyhow::Result<ExitCode> {
    disk::own_mounts();
    let mut report = Report::new("power", seed);
    if let Err(reason) = rehearse() {
        report.skip("power", format!("{reason:#}"));
        return Ok(report.end());
    }
    let mut site: Option<Site> = None;
    let mut round = 0;
    while report.checked < campaign.rounds && report.violations.len() < campaign.violations_max {
        round += 1;
        anyhow::ensure!(round <= 4 * campaign.rounds + 20, "most rounds acknowledge nothing");
        let mut dice = Dice::new(seed).part(round);
        let mut current = match site.take() {
            Some(site) => site,
            None => Site::new(campaign, &mut dice)?,
        };
        current.left -= 1;
        let wrong = one_round(&mut current, campaign, round, &mut dice, &mut report)
            .with_context(|| format!("round {round}, seed {seed}"))?;
        if !wrong.is_empty() {
            current.disk.unmount()?;
            current.root.disable_cleanup(true);
            tell(&mut report, &wrong, round, current.root.path());
        } else if current.left > 0 {
            site = Some(current);
        }
    }
    report.demand_all();
    Ok(report.end())
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

fn one_round(
    site: &mut Site,
    campaign: &Campaign,
    round: u64,
    dice: &mut Dice,
    report: &mut Report,
) -> anyhow::Result<Vec<String>> {
    let ground = &site.ground;
    let plan = WriterPlan {
        first: round * NUMBERS,
        seed: dice.next(),
        early_ack: campaign.early_ack,
        ..WriterPlan::default()
    };
    let ready_before = ground.read_facts()?.ready;
    let cutter = site.disk.arm()?;
    let mut writer = child::writer(ground, &plan)?;
    match dice.within(0..12) {
        // During the open and the recovery.
        0..2 => thread::sleep(dice.millis(0..120)),
        // So late that the file system has committed its journal by itself.
        2 => thread::sleep(dice.millis(5200..6500)),
        _ => {
            await_ready(ground, ready_before, READY_WITHIN)?;
            thread::sleep(dice.millis(0..500));
        }
    }
    // Nobody acts when the power is gone, but a process that goes on would: ext4 may answer a sync of a file that grows with
    // success when it was shut down in the midst of it.
    writer.stop()?;
    cutter.cut()?;
    writer.kill()?;
    site.disk.power_on()?;
    report.kills += 1;
    let facts = ground.read_facts()?;
    if facts.ready == ready_before {
        report.in_open += 1;
    }
    let mode = Mode { look: dice.one_in(2) && site.left > 0, tell: true };
    if !mode.look && dice.one_in(3) {
        // A second cut, while the store recovers from the first.
        let cutter = site.disk.arm()?;
        let in_recovery = child::interrupt_verifier(ground, dice.millis(0..80), || cutter.cut())?;
        site.disk.power_on()?;
        report.kills += 1;
        report.in_open += u64::from(in_recovery);
    }
    let (seen, wrong) = child::verify(ground, mode)?;
    report.seen.add(seen);
    let news = facts.acknowledged().saturating_sub(site.acknowledged);
    site.acknowledged = ground.read_facts()?.acknowledged();
    report.acknowledged += news;
    if news > 0 {
        report.checked += 1;
    } else {
        report.idle += 1;
    }
    Ok(wrong)
}
