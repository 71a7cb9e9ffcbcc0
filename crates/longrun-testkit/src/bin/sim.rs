//! `sim`: runs simulated seeds and says what was met, what was broken, and how to see it again.
#![allow(clippy::print_stdout)]

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use longrun_testkit::sim::campaign::{Campaign, Failure, Mode, Report, run_seed};
use longrun_testkit::sim::coverage::{Coverage, Situation};
use longrun_testkit::sim::fast::{Kit, Setting};
use longrun_testkit::sim::plant::Plant;
use longrun_testkit::sim::shrink::{Reduction, Trouble, shrink};

/// Seeds from which on a fault kind that never fired is an error, and a situation that was never met.
const ALL_FAULTS_FROM: u64 = 10_000;
/// The same for the full simulation, whose seeds hold more.
const ALL_FAULTS_FROM_FULL: u64 = 2_000;
/// Seeds of a long run, in which a situation that was hardly met is an error too.
const LONG_FROM: u64 = 1_000_000;
const LONG_FROM_FULL: u64 = 200_000;
const LONG_FROM_CLUSTER: u64 = 20_000;
/// Nodes, unless it is said how many.
const NODES: u32 = 3;
/// How often each has to be met in a long run.
const MET_MIN: u64 = 100;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeName {
    /// The pure core and a simulated log.
    Fast,
    /// The whole engine over a simulated key-value store.
    Full,
    /// Several engines, alive at the same time, on a store that they share.
    Cluster,
}

/// Runs operations in a simulated world of crashes and faults, and checks every rule of the contract.
#[derive(Debug, Parser)]
#[command(name = "sim", version)]
struct Arguments {
    /// Which simulation: that of the core, unless there are to be several nodes.
    #[arg(long, value_enum)]
    mode: Option<ModeName>,
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
    /// Nodes, at most: in full mode those that take the store over from each other while those before them still work, in
    /// cluster mode those that share it, which are two at least. [default: 3]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=5))]
    nodes: Option<u32>,
    /// Operations, at most.
    #[arg(long)]
    operations: Option<u32>,
    /// Steps of each operation, at most.
    #[arg(long)]
    steps: Option<u32>,
    /// Crashes, at most.
    #[arg(long)]
    crashes: Option<u32>,
    /// Leave this trouble out: slow-steps, unknown-commits, ... With a comma between them.
    #[arg(long, value_delimiter = ',', value_parser = trouble)]
    without: Vec<Trouble>,
    /// Do not look for a smaller way to the same violation.
    #[arg(long)]
    no_shrink: bool,
}

fn trouble(name: &str) -> Result<Trouble, String> {
    let names = || Trouble::ALL.iter().map(|trouble| trouble.name()).collect::<Vec<_>>().join(", ");
    Trouble::of_name(name).ok_or_else(|| format!("no such trouble; there are {}", names()))
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
        let mode = match (self.mode, self.nodes) {
            (Some(ModeName::Fast), Some(_)) => bail!("the simulation of the core has no nodes"),
            (Some(ModeName::Cluster), Some(1)) => bail!("one node shares its store with nobody: --mode full"),
            (Some(ModeName::Cluster), _) => Mode::Cluster,
            (Some(ModeName::Full), _) | (None, Some(_)) => Mode::Full,
            (Some(ModeName::Fast) | None, None) => Mode::Fast,
        };
        if let Some(plant) = plant.filter(|plant| !plant.is_for(mode)) {
            bail!("{plant} cannot be planted in the {} simulation", mode.name());
        }
        Ok(Campaign {
            mode,
            from: self.from,
            seeds: self.seeds,
            threads: self.threads,
            setting: Setting {
                plant,
                outcome_only: self.outcome_only,
                show: false,
                nodes: self.nodes.unwrap_or(NODES),
                less: self.less(),
            },
            check_determinism: self.check_determinism,
            violations_max: self.violations.max(1),
        })
    }

    fn less(&self) -> Reduction {
        let counts = Reduction::of(self.operations, self.steps, self.crashes);
        self.without.iter().fold(counts, |less, trouble| less.without(*trouble))
    }

    fn reproduce(&self, campaign: &Campaign, failure: &Failure) -> String {
        let Failure { seed, violation } = failure;
        let command = campaign.command(*seed, violation.rule, campaign.setting.less);
        let found = format!("seed {seed}: {violation} -- reproduce: {command}");
        // One run of a seed that goes two ways breaks no rule, so there is none to make smaller.
        let kit = Kit::new().ok().filter(|_| !self.no_shrink && violation.rule != "L9");
        let small = kit.map(|kit| shrink(campaign.mode, *seed, violation.rule, &kit, campaign.setting));
        match small {
            Some(small) => {
                format!("{found}\n  smaller: {}", campaign.command(small.seed, violation.rule, small.less))
            }
            None => found,
        }
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
    if campaign.mode != Mode::Cluster {
        println!("{} crash points passed, {} crashes", coverage.crash_points(), coverage.crashes());
    }
    if campaign.check_determinism {
        println!("{} seeds run twice", report.twice);
    }
}

/// What so many seeds should have met, and have not.
fn missing(campaign: &Campaign, coverage: &Coverage) -> Vec<String> {
    let (mode, nodes) = (campaign.mode, campaign.setting.nodes);
    let (enough, long) = match mode {
        Mode::Fast => (ALL_FAULTS_FROM, LONG_FROM),
        Mode::Full => (ALL_FAULTS_FROM_FULL, LONG_FROM_FULL),
        Mode::Cluster => (ALL_FAULTS_FROM_FULL, LONG_FROM_CLUSTER),
    };
    let mut missing = Vec::new();
    if campaign.setting.less != Reduction::default() {
        println!("run with less: what was never met is not looked at");
        return missing;
    }
    if campaign.seeds >= enough {
        let faults = coverage.never_fired(mode, nodes);
        missing.extend(faults.iter().map(|fault| format!("this fault never fired: {}", fault.text())));
        let points = coverage.never_crashed(mode);
        missing.extend(points.iter().map(|point| format!("never a crash {}", point.text())));
        let often = if campaign.seeds >= long { MET_MIN } else { 1 };
        let seldom = coverage.seldom_met(mode, nodes, often);
        let line = |one: &Situation| format!("met {} times only: {}", coverage.met_count(*one), one.text());
        missing.extend(seldom.iter().map(line));
    } else {
        println!("that every fault fires, and every situation is met, is demanded of {enough} seeds or more");
    }
    missing
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
    let missing = missing(&campaign, &report.coverage);
    missing.iter().for_each(|what| println!("{what}"));
    let but = if missing.is_empty() { "" } else { ", but not everything was met that has to be" };
    println!("{} checked, 0 violations{but}", report.coverage.seeds);
    Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
