//! `crash kill`: SIGKILL at random moments.

use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;

use super::child::{self, WriterPlan};
use super::cli::Campaign;
use super::dice::Dice;
use super::ground::Ground;
use super::report::Report;
use super::verify::Mode;

/// Numbers of requests that one writer may use.
pub(crate) const NUMBERS: u64 = 1_000_000;

/// How long an open may take before the test goes on without it.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(20);

/// A folder that is crashed for some rounds.
struct Site {
    root: TempDir,
    ground: Ground,
    /// Rounds that it has still to go.
    left: u64,
    acknowledged: u64,
}

impl Site {
    fn new(campaign: &Campaign, dice: &mut Dice) -> anyhow::Result<Self> {
        let root = TempDir::with_prefix("longrun-kill-")?;
        let ground = Ground::under(root.path(), root.path().join("kv"), campaign.store, campaign.durability);
        Ok(Self { root, ground, left: dice.within(1..9), acknowledged: 0 })
    }

    /// Leaves the folder for those who look into a violation.
    fn keep(mut self) -> std::path::PathBuf {
        self.root.disable_cleanup(true);
        self.root.path().to_path_buf()
    }
}

/// Runs the test.
pub(crate) fn run(campaign: &Campaign, seed: u64) -> anyhow::Result<ExitCode> {
    let mut report = Report::new("kill", seed);
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
            let path = current.keep();
            tell(&mut report, &wrong, round, &path);
        } else if current.left > 0 {
            site = Some(current);
        }
    }
    report.demand_all();
    Ok(report.end())
}

/// One violation for the round, with the first few of its findings.
pub(crate) fn tell(report: &mut Report, wrong: &[String], round: u64, kept: &Path) {
    let more = wrong.len().saturating_sub(3);
    let first = wrong.iter().take(3).cloned().collect::<Vec<_>>().join("; ");
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    report.violation(format!("{first}{more}"), round, Some(kept));
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
        operations: None,
        early_ack: campaign.early_ack,
        wrapper: Vec::new(),
    };
    let ready_before = ground.read_facts()?.ready;
    let mut writer = child::writer(ground, &plan)?;
    if dice.one_in(6) {
        // Within the open and the recovery.
        thread::sleep(dice.millis(0..120));
    } else {
        await_ready(ground, ready_before, READY_WITHIN)?;
        thread::sleep(dice.millis(0..350));
    }
    let ended = writer.kill()?;
    report.kills += 1;
    let facts = ground.read_facts()?;
    if facts.ready == ready_before {
        report.in_open += 1;
    }
    if let Some(code) = ended.code() {
        return Ok(vec![format!("the writer ended by itself with {code}: {}", complaints(ground))]);
    }
    // Every other time the next writer finds what this one left; the last time all of it is finished.
    let mode = Mode { look: dice.one_in(2) && site.left > 0, tell: true };
    if !mode.look && dice.one_in(3) && child::interrupt_verifier(ground, dice.millis(0..80), || Ok(()))? {
        report.kills += 1;
        report.in_open += 1;
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

/// The end of what children wrote to their standard error.
pub(crate) fn complaints(ground: &Ground) -> String {
    let text = std::fs::read(ground.facts.with_extension("stderr")).unwrap_or_default();
    let from = text.len().saturating_sub(1500);
    String::from_utf8_lossy(&text[from..]).into_owned()
}

/// Waits until the engine of a writer is up. False when that takes longer than `limit`.
pub(crate) fn await_ready(ground: &Ground, before: u64, limit: Duration) -> anyhow::Result<bool> {
    let began = std::time::Instant::now();
    while began.elapsed() < limit {
        if ground.read_facts()?.ready > before {
            return Ok(true);
        }
        thread::sleep(Duration::from_millis(3));
    }
    Ok(false)
}
