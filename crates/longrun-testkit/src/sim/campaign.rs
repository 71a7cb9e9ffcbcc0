//! Campaigns: many seeds, on a few threads, with one report.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::cluster;
use super::coverage::Coverage;
use super::fast::{self, Kit, Outcome, Setting};
use super::full;
use super::invariants::Violation;
use super::shrink::Reduction;
use super::watched::watched;
use crate::panics::lock;

/// Which simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The pure core and a simulated log.
    Fast,
    /// The whole engine over a simulated key-value store.
    Full,
    /// Several engines on a store that they share.
    Cluster,
}

impl Mode {
    /// The name, as the command line takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Full => "full",
            Self::Cluster => "cluster",
        }
    }
}

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// Which simulation.
    pub mode: Mode,
    /// The first seed.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// On so many threads.
    pub threads: usize,
    /// How each is run.
    pub setting: Setting,
    /// Run one seed in a hundred twice and compare (L9).
    pub check_determinism: bool,
    /// Go on after a violation, up to so many.
    pub violations_max: usize,
}

/// A seed that broke a rule.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The rule.
    pub violation: Violation,
}

/// What came of a campaign.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was met.
    pub coverage: Coverage,
    /// Seeds that broke a rule, in order.
    pub failures: Vec<Failure>,
    /// Seeds that were run twice.
    pub twice: u64,
    /// How long it took.
    pub took: Duration,
}

/// Seeds that a thread takes at once.
const BLOCK: u64 = 64;

/// Runs one seed.
pub fn run_seed(mode: Mode, seed: u64, kit: &Kit, setting: Setting, coverage: &mut Coverage) -> Outcome {
    let (mut outcome, panicked) = watched(|| match mode {
        Mode::Fast => fast::run(seed, kit, setting, coverage),
        Mode::Full => full::run(seed, setting, coverage),
        Mode::Cluster => cluster::run(seed, setting, coverage),
    });
    if let Some(what) = panicked {
        outcome.violation = Some(Violation::new("panic", what));
    }
    outcome
}

impl Campaign {
    /// Runs it.
    pub fn run(&self) -> Result<Report, longrun_core::Invalid> {
        let begun = Instant::now();
        let next = AtomicU64::new(0);
        let stop = AtomicBool::new(false);
        let total = Mutex::new((Coverage::default(), Vec::new(), 0_u64));
        let kits: Result<Vec<Kit>, _> = (0..self.threads.max(1)).map(|_| Kit::new()).collect();
        std::thread::scope(|scope| {
            for kit in kits? {
                let (next, stop, total) = (&next, &stop, &total);
                scope.spawn(move || {
                    let (coverage, failures, twice) = self.work(&kit, next, stop);
                    let mut total = lock(total);
                    total.0.merge(&coverage);
                    total.1.extend(failures);
                    total.2 += twice;
                });
            }
            Ok(())
        })?;
        let (coverage, mut failures, twice) =
            total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        failures.sort_by_key(|failure: &Failure| failure.seed);
        // Each thread goes on to so many.
        failures.truncate(self.violations_max);
        Ok(Report { coverage, failures, twice, took: begun.elapsed() })
    }

    /// The command that shows again what broke a rule, with less if that is enough.
    pub fn command(&self, seed: u64, rule: &str, less: Reduction) -> String {
        let mode = self.mode.name();
        let Setting { plant, outcome_only, nodes, .. } = self.setting;
        let nodes = if self.mode == Mode::Fast { String::new() } else { format!(" --nodes {nodes}") };
        let plant = plant.map(|plant| format!(" --plant {plant}")).unwrap_or_default();
        let outcome_only = if outcome_only { " --outcome-only" } else { "" };
        // That a seed goes two ways shows only to who runs it twice.
        let check = if rule == "L9" { " --check-determinism" } else { "" };
        let less = less.options();
        format!("sim --mode {mode} --from {seed} --seeds 1{nodes}{plant}{outcome_only}{check}{less}")
    }

    fn work(&self, kit: &Kit, next: &AtomicU64, stop: &AtomicBool) -> (Coverage, Vec<Failure>, u64) {
        let (mut coverage, mut failures, mut twice) = (Coverage::default(), Vec::new(), 0);
        while !stop.load(Ordering::Relaxed) {
            let begin = next.fetch_add(BLOCK, Ordering::Relaxed);
            if begin >= self.seeds {
                break;
            }
            for place in begin..(begin + BLOCK).min(self.seeds) {
                let seed = self.from.wrapping_add(place);
                let outcome = run_seed(self.mode, seed, kit, self.setting, &mut coverage);
                let mut violation = outcome.violation;
                if self.check_determinism && place % 100 == 0 {
                    twice += 1;
                    let again = run_seed(self.mode, seed, kit, self.setting, &mut Coverage::default());
                    if again.trace != outcome.trace {
                        violation.get_or_insert(Violation::new("L9", "the same seed went two ways"));
                    }
                }
                if let Some(violation) = violation {
                    failures.push(Failure { seed, violation });
                    if failures.len() >= self.violations_max {
                        stop.store(true, Ordering::Relaxed);
                        break;
                    }
                }
            }
        }
        (coverage, failures, twice)
    }
}
