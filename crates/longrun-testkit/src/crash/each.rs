//! `crash errors` and `crash kill --every-call`: one fault at each system call that changes the store.
//!
//! A run is watched first: which calls it makes on the files of its store. Then for each of them, and each fault, a
//! thread meets the fault at its first such call, in the next run at its second, and so on until runs get through
//! untouched. Or it is tried at some of its calls only: at every so many-th, or at so many that are spread over those of the
//! watched run. Calls are counted in each thread by itself: the n-th call of every thread is hit. Only calls on files of the
//! store count, but for those whose names are drawn at random, as fjall's temporary ones are. A call that no list knows is
//! an error. Runs that were over before their fault happened are looked at, but not counted.
//!
//! After each run the writer must have ended: by itself, or with an error before its engine was up. A store may refuse for
//! as long as it meets the fault anew, as each thread that it starts does, and must say so; not for longer. It has not
//! panicked, but for panics of a store that are contained. Then another process opens the store: nothing that was
//! acknowledged is lost, nothing is there that nobody asked for, and an engine brings all that is unfinished to its end.
//!
//! A sync that fails leaves the bytes in the cache of the kernel, where the verifier finds them. So the whole of such a run
//! is recorded, and states that a loss of power may leave after the failure are looked at as `crash replay` does, at
//! some moments: what was not synced is gone, or in part. A later sync that succeeds counts for what the failed one was to
//! write: that a kernel may have given those pages up by then is not modelled.
//!
//! # Faults
//!
//! `EIO`, `ENOSPC`, `EDQUOT` and `EINTR`: the call is not made and fails. `short`: a write is not made and says that it
//! wrote nothing, which is the one short count that strace can give without a lie. A kill comes before the call is made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use tempfile::TempDir;

use super::FAILED;
use super::child::{self, NUMBERS, READY_WITHIN, WriterPlan, complaints};
use super::cli::{Campaign, DurabilityChoice, ErrorCampaign, StoreChoice};
use super::ground::Ground;
use super::inject::{CALLS, Habits, Injection, Ran, Refusing, trace_of};
use super::replay::{self, Site, scratch};
use super::report::{Report, say};
use super::verify::Mode;
use crate::panics::lock;

const SYNCS: [&str; 3] = ["fsync", "fdatasync", "sync_file_range"];
const WRITES: [&str; 2] = ["write", "pwrite64"];
const ERRORS: [&str; 4] = ["EIO", "ENOSPC", "EDQUOT", "EINTR"];
const SHORT: &str = "short";
const KILL: &str = "kill";

const OPERATIONS: u64 = 6;
/// What is acknowledged before a writer is killed whose store has to recover.
const FACTS_MIN: u64 = 24;
const WITHIN: Duration = Duration::from_secs(60);
/// Moments after a failed sync at which the power is lost, beside the last.
const AFTER_FAILURE: usize = 6;
/// A run that takes longer hangs.
const RUN_WITHIN: Duration = Duration::from_secs(60);

const SIGKILL: i32 = 9;

/// How the place of a panic of this project begins; those of others have absolute paths.
const OURS: &str = "crates/";

/// Where a run begins.
struct Phase {
    name: &'static str,
    site: Site,
    habits: Habits,
}

/// One fault of one call.
struct Cell {
    phase: usize,
    call: String,
    fault: &'static str,
    /// The place of the fault among those of its call, and how many these are.
    place: (u64, u64),
}

/// At which of its calls a thread meets a fault.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Positions {
    /// The first, the one so many after it, and so on, until runs get through untouched.
    Every(u64),
    /// So many, from the first to the last that a thread made in the watched run.
    Spread(u64),
}

impl Positions {
    pub(crate) fn of(every: u64, spread: Option<u64>) -> Self {
        spread.map_or(Self::Every(every), Self::Spread)
    }
}

/// What came of a cell.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    runs: u64,
    /// Runs in which it happened.
    fired: u64,
}

struct Each {
    store: StoreChoice,
    positions: Positions,
    seed: u64,
    violations_max: usize,
    phases: Vec<Phase>,
    root: TempDir,
    shared: Mutex<Shared>,
}

struct Shared {
    report: Report,
    cells: Vec<Cell>,
    counts: BTreeMap<(usize, String, &'static str), Count>,
    /// Runs that the writer ended with an error, or that a store refused until the end.
    gave_up: u64,
    refused: u64,
    /// Panics of a store that went no further.
    contained: u64,
    /// Runs that were over before the call was made so often. They are looked at too, but check no fault.
    untouched: u64,
    /// Runs whose store still refused long after the last fault.
    stuck: Vec<String>,
}

/// Runs `crash errors`.
pub(crate) fn errors(campaign: &ErrorCampaign) -> anyhow::Result<ExitCode> {
    let report = Report::new("errors", campaign.seed);
    let ErrorCampaign { store, every, positions, seed, violations_max } = *campaign;
    let positions = Positions::of(every, positions);
    each(report, store, positions, seed, violations_max, &["creation", "recovery"], &|call| {
        let short = WRITES.contains(&call).then_some(SHORT);
        ERRORS.into_iter().chain(short).collect()
    })
}

/// Runs `crash kill --every-call`.
pub(crate) fn kill(campaign: &Campaign, positions: Positions, seed: u64) -> anyhow::Result<ExitCode> {
    let report = Report::new("kill at every call", seed);
    let phases = ["creation", "work", "recovery"];
    each(report, campaign.store, positions, seed, campaign.violations_max, &phases, &|_| vec![KILL])
}

fn each(
    mut report: Report,
    store: StoreChoice,
    positions: Positions,
    seed: u64,
    violations_max: usize,
    phases: &[&'static str],
    faults: &dyn Fn(&str) -> Vec<&'static str>,
) -> anyhow::Result<ExitCode> {
    if !child::strace_works() {
        report.skip(report.name(), "strace is not installed or may not trace");
        return Ok(report.end());
    }
    let root = scratch("longrun-each-")?;
    let phases: Vec<Phase> =
        phases.iter().map(|name| Phase::prepare(name, store, seed, &root)).collect::<Result<_, _>>()?;
    let mut cells = Vec::new();
    for (phase, Phase { habits, .. }) in phases.iter().enumerate() {
        for call in CALLS.into_iter().filter(|call| habits.calls.contains_key(*call)) {
            let faults = faults(call);
            let of = faults.len() as u64;
            let numbered = (0..).zip(faults);
            cells.extend(numbered.map(|(place, fault)| Cell {
                phase,
                call: call.to_owned(),
                fault,
                place: (place, of),
            }));
        }
    }
    cells.reverse();
    let shared = Shared {
        report,
        cells,
        counts: BTreeMap::new(),
        gave_up: 0,
        refused: 0,
        contained: 0,
        untouched: 0,
        stuck: Vec::new(),
    };
    let each = Each { store, positions, seed, violations_max, phases, root, shared: Mutex::new(shared) };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let each = &each;
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(move || each.work())).collect();
        let ended =
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| anyhow::bail!("a panic")));
        ended.collect::<anyhow::Result<()>>()
    })?;
    Ok(each.end())
}

impl Phase {
    /// Makes what a run of this phase begins with, and watches one run.
    fn prepare(name: &'static str, store: StoreChoice, seed: u64, root: &TempDir) -> anyhow::Result<Self> {
        let durability = DurabilityChoice::Power;
        let made = root.path().join(name);
        let empty = Site::default();
        let ground = empty.put(&made, store, durability)?;
        let plan = WriterPlan { seed, operations: Some(OPERATIONS), ..WriterPlan::default() };
        let site = match name {
            "creation" => empty,
            "work" => {
                let ended = child::writer(&ground, &plan)?.wait(WITHIN)?;
                ensure!(ended.is_some_and(|status| status.success()), "the writer ended with {ended:?}");
                Site::read(&ground)?
            }
            _ => {
                child::killed_writer(&ground, seed, FACTS_MIN, READY_WITHIN)?;
                Site::read(&ground)?
            }
        };
        let watched = site.put(&root.path().join(format!("{name}-watched")), store, durability)?;
        let habits = Habits::watch(&watched, WriterPlan { first: NUMBERS, ..plan }, WITHIN)?;
        Ok(Self { name, site, habits })
    }
}

impl Each {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }

    /// Does one cell after the other.
    fn work(&self) -> anyhow::Result<()> {
        loop {
            let mut shared = self.shared();
            let over = shared.report.violations.len() >= self.violations_max;
            let Some(cell) = (if over { None } else { shared.cells.pop() }) else { return Ok(()) };
            drop(shared);
            self.cell(&cell).with_context(|| format!("{} {}", cell.call, cell.fault))?;
        }
    }

    fn cell(&self, cell: &Cell) -> anyhow::Result<()> {
        let mut count = Count::default();
        let mut untouched = 0;
        for at in self.positions(cell)? {
            let hits = self.one(cell, at)?;
            count.runs += 1;
            count.fired += u64::from(hits > 0);
            untouched = if hits > 0 { 0 } else { untouched + 1 };
            // Threads share the work as it comes: one untouched run may be luck.
            if untouched >= 2 || self.shared().report.violations.len() >= self.violations_max {
                break;
            }
        }
        if count.fired == 0 && matches!(self.positions, Positions::Spread(_)) && untouched > 0 {
            // Threads share the work otherwise each time. There is a first call in every run.
            count.runs += 1;
            count.fired += u64::from(self.one(cell, 1)? > 0);
        }
        self.shared().counts.insert((cell.phase, cell.call.clone(), cell.fault), count);
        Ok(())
    }

    fn positions(&self, cell: &Cell) -> anyhow::Result<Box<dyn Iterator<Item = u64>>> {
        let count = match self.positions {
            Positions::Every(every) => return Ok(Box::new((1..).step_by(usize::try_from(every)?))),
            Positions::Spread(count) => count,
        };
        let threads = self.phases[cell.phase].habits.calls.get(&cell.call);
        let made = threads.and_then(|threads| threads.values().max()).context("a call that nobody made")?;
        // Each fault takes others, so that together they are spread more densely.
        let (place, of) = cell.place;
        let found: BTreeSet<u64> =
            (0..count).map(|number| 1 + (number * of + place) * made / (count * of)).collect();
        Ok(Box::new(found.into_iter()))
    }

    /// One run, and the look at what it left. Gives the number of faults that happened.
    fn one(&self, cell: &Cell, at: u64) -> anyhow::Result<u64> {
        let phase = &self.phases[cell.phase];
        let name = format!("{}-{}-{}-{at}", phase.name, cell.call, cell.fault);
        let root = self.root.path().join(&name);
        let ground = phase.site.put(&root, self.store, DurabilityChoice::Power)?;
        let fault = match cell.fault {
            KILL => "signal=KILL".to_owned(),
            SHORT => "retval=0".to_owned(),
            error => format!("error={error}"),
        };
        let names = phase.habits.names.clone();
        let failed_sync = SYNCS.contains(&cell.call.as_str()) && cell.fault != KILL;
        let injection =
            Injection { call: cell.call.clone(), fault, at, stays: false, names, all: failed_sync };
        let plan = WriterPlan {
            first: NUMBERS,
            seed: self.seed,
            operations: Some(OPERATIONS),
            ..WriterPlan::default()
        };
        let ran = injection.run(&ground, plan, RUN_WITHIN)?;
        let mut wrong = Vec::new();
        // All of it: what is told of a panic is long.
        let stderr = fs::read(ground.facts.with_extension("stderr"))?;
        let stderr = String::from_utf8_lossy(&stderr);
        let panics = stderr.matches("panicked at").count() as u64;
        if let Some(place) = stderr.split("panicked at ").skip(1).find(|place| place.starts_with(OURS)) {
            wrong.push(format!("a panic at {}", place.lines().next().unwrap_or_default()));
        }
        let ready_before = phase.site.ready();
        let how = how_it_ended(&ground, cell, &ran, ready_before, &mut wrong)?;
        if failed_sync && ran.hits > 0 {
            // The verifier reads what is in the cache of the kernel. This is what may be on the disk.
            let ended = ran.ended.is_some();
            // Where few faults are tried, few losses of power are.
            let moments = if let Positions::Spread(_) = self.positions { 1 } else { AFTER_FAILURE };
            let trace = trace_of(&ground);
            let found = replay::after_failed_sync(&trace, &ground, &phase.site, self.seed, ended, moments)
                .with_context(|| name.clone())?;
            wrong.extend(found);
        }
        let (seen, found) = child::verify(&ground, Mode { look: false, tell: false })?;
        wrong.extend(found);

        let mut shared = self.shared();
        let report = &mut shared.report;
        report.checked += u64::from(ran.hits > 0);
        report.kills += u64::from(cell.fault == KILL && ran.hits > 0);
        report.in_open += u64::from(cell.fault == KILL && ran.hits > 0 && how == How::BeforeReady);
        report.acknowledged += seen.acknowledged;
        report.seen.add(seen);
        if wrong.is_empty() {
            fs::remove_dir_all(&root)?;
        } else {
            let first = wrong.into_iter().take(3).collect::<Vec<_>>().join("; ");
            let kept = keep(&root, &name)?;
            report.violation(format!("{}: {}: {first}", phase.name, injection.text()), at, Some(&kept));
        }
        shared.gave_up += u64::from(how == How::GaveUp);
        shared.refused += u64::from(how == How::Refused);
        shared.contained += panics;
        shared.untouched += u64::from(ran.hits == 0);
        if how == How::Stuck {
            shared.stuck.push(name);
        }
        Ok(ran.hits)
    }

    /// Prints the matrix; what did not happen was not checked.
    fn end(&self) -> ExitCode {
        let whole = self.shared().report.violations.is_empty();
        for (number, phase) in self.phases.iter().enumerate() {
            say(&format!("  {}: runs in which it happened, of those that were tried", phase.name));
            for call in CALLS {
                let mut shared = self.shared();
                let row = shared.counts.iter().filter(|((of, name, _), _)| *of == number && name == call);
                let row: Vec<_> = row.map(|((.., fault), count)| (*fault, *count)).collect();
                let Some(made) = phase.habits.calls.get(call).filter(|_| !row.is_empty()) else { continue };
                let made: u64 = made.values().sum();
                let cells: Vec<_> = row
                    .iter()
                    .map(|(fault, Count { runs, fired })| format!("{fault} {fired}/{runs}"))
                    .collect();
                say(&format!("    {call:<16} {made:>5} calls  {}", cells.join("  ")));
                for (fault, _) in row.iter().filter(|(_, count)| whole && count.fired == 0) {
                    let what =
                        format!("{}: {call} was never hit by {fault}, so that was not checked", phase.name);
                    shared.report.violation(what, 0, None);
                }
            }
        }
        let shared = self.shared();
        for name in &shared.stuck {
            say(&format!("  still refused, and no fault any more: {name}"));
        }
        say(&format!(
            "  {} writers ended with an error before the engine was up, {} were refused until the end, \
             {} panics of the store were contained; {} runs met no fault and are not counted",
            shared.gave_up, shared.refused, shared.contained, shared.untouched
        ));
        shared.report.end()
    }
}

/// How a writer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Well,
    /// Killed, before the engine was up or later.
    BeforeReady,
    Killed,
    /// With an error that it told.
    GaveUp,
    /// Not at all: the store said no, again and again, and met the fault again and again.
    Refused,
    /// Not at all: the store said no, and there was no fault any more.
    Stuck,
    /// Not at all, and it says nothing.
    Hangs,
}

fn how_it_ended(
    ground: &Ground,
    cell: &Cell,
    ran: &Ran,
    ready_before: u64,
    wrong: &mut Vec<String>,
) -> anyhow::Result<How> {
    let told = complaints(ground);
    let facts = ground.read_facts()?;
    let was_ready = facts.ready > ready_before;
    match ran.ended {
        Some(status) if status.success() => Ok(How::Well),
        Some(status) if status.signal() == Some(SIGKILL) && cell.fault == KILL => {
            Ok(if was_ready { How::Killed } else { How::BeforeReady })
        }
        Some(status) if status.code() == Some(i32::from(FAILED)) => {
            if was_ready {
                wrong.push(format!("a fault that went away has ended an engine that was up: {told}"));
            }
            Ok(How::GaveUp)
        }
        Some(status) => {
            wrong.push(format!("the writer ended with {status}: {told}"));
            Ok(How::GaveUp)
        }
        None => match ran.refused {
            Some(Refusing { faults: true }) => Ok(How::Refused),
            Some(Refusing { faults: false }) => {
                wrong.push("L8: the store refuses although the fault is gone".to_owned());
                Ok(How::Stuck)
            }
            None => {
                wrong.push("L1: the writer hangs".to_owned());
                Ok(How::Hangs)
            }
        },
    }
}

/// Copies what a run left: the folder of the campaign goes with it, and may be in memory.
fn keep(from: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let mut kept = TempDir::with_prefix("longrun-each-kept-")?;
    kept.disable_cleanup(true);
    let to = kept.path().join(name);
    super::faults::copy_folder(from, &to)?;
    Ok(to)
}
