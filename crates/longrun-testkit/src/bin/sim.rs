//! `sim`: runs simulated seeds and says what was met, what was broken, and how to see it again.
#![allow(clippy::print_stdout)]

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use longrun_testkit::sim::campaign::{Campaign, Failure, Mode, Report, run_seed};
use longrun_testkit::sim::coverage::Coverage;
use longrun_testkit::sim::fast::{Kit, Setting};
use longrun_testkit::sim::plant::Plant;

/// Seeds from which on a fault kind that never fired is an error.
const ALL_FAULTS_FROM: u64 = 10_000;
/// The same for the full simulation, whose seeds hold more.
const ALL_FAULTS_FROM_FULL: u64 = 2_000;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeName {
    /// The pure core and a simulated log.
    Fast,
    /// The whole engine over a simulated key-value store.
    Full,
}

/// Runs operations in a simulated world of crashes and faults, and checks every rule of the contract.
#[derive(Debug, Parser)]
#[command(name = "sim", version)]
struct Arguments {
    /// Which simulation.
    #[arg(long, value_enum, default_value = "fast")]
    mode: ModeName,
    /// How many seeds.
    #[arg(long, default_value_t = 100_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Make this mistake on purpose, to see whether it is caught: S22, S9, ...
    #[arg(long)]
    plant: Option<String>,
    /// Judge by what is left and by what clients were told alone, not by the order of calls.
    #[arg(long)]
    outcome_only: bool,
    /// Run one seed in a hundred twice and compare.
    #[arg(long)]
    check_determinism: bool,
    /// Go on after a violation, up to so many.
    #[arg(long, default_value_t = 1)]
    violations: usize,
    /// Print what happened in the first seed, event by event.
    #[arg(long)]
    show: bool,
    /// Print the violations only.
    #[arg(long)]
    quiet: bool,
}

impl Arguments {
    fn campaign(&self) -> Result<Campaign> {
        let plant = match &self.plant {
            None => None,
            Some(name) => {
                let known = || format!("no plant {name}; there are {}", names());
                Some(Plant::of_name(name).with_context(known)?)
            }
        };
        let mode = match self.mode {
            ModeName::Fast => Mode::Fast,
            ModeName::Full => Mode::Full,
        };
        if mode == Mode::Full && plant.is_some_and(|plant| plant != Plant::S22) {
            bail!("the full simulation runs the real engine: only S22 can be planted, in its store");
        }
        Ok(Campaign {
            mode,
            from: self.from,
            seeds: self.seeds,
            threads: self.threads,
            setting: Setting { plant, outcome_only: self.outcome_only, show: false },
            check_determinism: self.check_determinism,
            violations_max: self.violations.max(1),
        })
    }

    fn reproduce(&self, campaign: &Campaign, failure: &Failure) -> String {
        let plant = campaign.setting.plant.map(|plant| format!(" --plant {plant}")).unwrap_or_default();
        let outcome_only = if self.outcome_only { " --outcome-only" } else { "" };
        let mode = campaign.mode.name();
        let seed = failure.seed;
        let command = format!("sim --mode {mode} --from {seed} --seeds 1{plant}{outcome_only}");
        format!("seed {seed}: {} -- reproduce: {command}", failure.violation)
    }
}

fn names() -> String {
    Plant::ALL.iter().map(|plant| plant.name()).collect::<Vec<_>>().join(", ")
}

fn show(campaign: &Campaign, report: &Report) {
    let coverage = &report.coverage;
    print!("{}", coverage.table());
    let seconds = report.took.as_secs_f64().max(1e-9);
    println!(
        "{} mode: {} seeds in {seconds:.1} s, {:.0} seeds/s; {} events, {} commits, {} operations done",
        campaign.mode.name(),
        coverage.seeds,
        coverage.seeds as f64 / seconds,
        coverage.events,
        coverage.commits,
        coverage.operations,
    );
    println!("{} crash points passed, {} crashes", coverage.crash_points(), coverage.crashes());
    if campaign.check_determinism {
        println!("{} seeds run twice", report.twice);
    }
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let campaign = arguments.campaign()?;
    if arguments.show {
        let setting = Setting { show: true, ..campaign.setting };
        let (kit, mut coverage) = (Kit::new()?, Coverage::default());
        for line in run_seed(campaign.mode, campaign.from, &kit, setting, &mut coverage).log {
            println!("{line}");
        }
    }
    let report = campaign.run()?;
    if !arguments.quiet {
        show(&campaign, &report);
    }
    if !report.failures.is_empty() {
        for failure in &report.failures {
            println!("{}", arguments.reproduce(&campaign, failure));
        }
        println!("{} checked, {} violations", report.coverage.seeds, report.failures.len());
        return Ok(ExitCode::FAILURE);
    }
    let full = campaign.mode == Mode::Full;
    let enough = if full { ALL_FAULTS_FROM_FULL } else { ALL_FAULTS_FROM };
    let missing = report.coverage.never_fired(full);
    if campaign.seeds >= enough && !missing.is_empty() {
        for fault in &missing {
            println!("this fault never fired: {}", fault.text());
        }
        println!(
            "{} checked, 0 violations, but {} kinds of faults never fired",
            report.coverage.seeds,
            missing.len()
        );
        return Ok(ExitCode::FAILURE);
    }
    println!("{} checked, 0 violations", report.coverage.seeds);
    Ok(ExitCode::SUCCESS)
}
