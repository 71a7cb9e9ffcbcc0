//! Rounds: a writer works, is crashed at a random moment, and a verifier looks at what is left.
//!
//! A folder serves several rounds, so that a store is crashed that was crashed before; then comes a new one.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::Context;

use super::child::{self, NUMBERS, WriterPlan};
use super::cli::Campaign;
use super::dice::Dice;
use super::ground::Ground;
use super::report::Report;
use super::verify::Mode;

/// A folder with a store, and how it is crashed.
pub(crate) trait Site: Sized {
    /// Rounds in one folder, at the most.
    const ROUNDS_MAX: u64;

    fn new(campaign: &Campaign) -> anyhow::Result<Self>;

    fn ground(&self) -> &Ground;

    /// Has a writer work for a while, and crashes it; facts tell of `ready_before` starts. With how it ended, if that was before.
    fn crash_writer(
        &mut self,
        plan: &WriterPlan,
        ready_before: u64,
        dice: &mut Dice,
    ) -> anyhow::Result<Option<ExitStatus>>;

    /// Crashes a verifier so long after its start. False when it had ended by then, which is no crash.
    fn crash_verifier(&mut self, after: Duration) -> anyhow::Result<bool>;

    /// Leaves the folder for those who look into a violation.
    fn keep(self) -> anyhow::Result<PathBuf>;
}

/// A site, and what is known of it.
struct Visited<S> {
    site: S,
    /// Rounds that it has still to go.
    left: u64,
    /// Facts that were acknowledged there.
    acknowledged: u64,
}

/// Crashes folders until as many rounds as the campaign wants were checked, or it has violations enough. An error if most rounds
/// acknowledge nothing.
pub(crate) fn run<S: Site>(campaign: &Campaign, mut report: Report, seed: u64) -> anyhow::Result<ExitCode> {
    let mut visited: Option<Visited<S>> = None;
    let mut round = 0;
    while report.checked < campaign.rounds && report.violations.len() < campaign.violations_max {
        round += 1;
        anyhow::ensure!(round <= 4 * campaign.rounds + 20, "most rounds acknowledge nothing");
        let mut dice = Dice::of_part(seed, round);
        let mut current = match visited.take() {
            Some(current) => current,
            None => {
                Visited { site: S::new(campaign)?, left: dice.within(1..S::ROUNDS_MAX + 1), acknowledged: 0 }
            }
        };
        current.left -= 1;
        let plan = WriterPlan {
            first: round * NUMBERS,
            seed: dice.next(),
            early_ack: campaign.early_ack,
            ..WriterPlan::default()
        };
        let wrong = one_round(&mut current, &plan, &mut dice, &mut report)
            .with_context(|| format!("round {round}, seed {seed}"))?;
        if !wrong.is_empty() {
            let kept = current.site.keep()?;
            tell(&mut report, &wrong, round, &kept);
        } else if current.left > 0 {
            visited = Some(current);
        }
    }
    report.demand_all();
    Ok(report.end())
}

fn one_round<S: Site>(
    visited: &mut Visited<S>,
    plan: &WriterPlan,
    dice: &mut Dice,
    report: &mut Report,
) -> anyhow::Result<Vec<String>> {
    let ready_before = visited.site.ground().read_facts()?.ready;
    let ended = visited.site.crash_writer(plan, ready_before, dice)?;
    report.kills += 1;
    let facts = visited.site.ground().read_facts()?;
    if facts.ready == ready_before {
        report.in_open += 1;
    }
    if let Some(status) = ended {
        let complaints = child::complaints(visited.site.ground());
        return Ok(vec![format!("the writer ended by itself with {status}: {complaints}")]);
    }
    // Every other time the next writer finds what this one left; the last time all of it is finished.
    let mode = Mode { look: dice.one_in(2) && visited.left > 0, tell: true };
    if !mode.look && dice.one_in(3) && visited.site.crash_verifier(dice.millis(0..80))? {
        report.kills += 1;
        report.in_open += 1;
    }
    let (seen, wrong) = child::verify(visited.site.ground(), mode)?;
    report.seen.add(seen);
    let news = facts.acknowledged().saturating_sub(visited.acknowledged);
    visited.acknowledged = visited.site.ground().read_facts()?.acknowledged();
    report.acknowledged += news;
    if news > 0 {
        report.checked += 1;
    } else {
        report.idle += 1;
    }
    Ok(wrong)
}

/// One violation for the round, with the first few of its findings.
fn tell(report: &mut Report, wrong: &[String], round: u64, kept: &Path) {
    let more = wrong.len().saturating_sub(3);
    let first = wrong.iter().take(3).cloned().collect::<Vec<_>>().join("; ");
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    report.violation(format!("{first}{more}"), round, Some(kept));
}
