//! `crash replay`: losses of power without a disk.
//!
//! A writer works under strace, which records each call that changes the store, each sync, each effect and each fact, in
//! an order in which they happened. From that record states are built which a loss of power may have left at some moment;
//! each is opened in this process, and compared with the facts that were told before the moment.
//!
//! Runs are recorded in fours: on an empty folder, which begins with the creation of the store; on what the first one
//! leaves if it is killed at a write that it has not synced yet; on the folder that it closed; and on a state that a loss
//! of power left of it, which begins with a recovery. So the power fails during creation, work, close, open and recovery.
//! What a killed or closed run never synced is in the cache of the kernel: the run after it reads it, and a loss of power
//! may take it still. What the record says of the whole run must be, byte for byte, what the run left: a change that was
//! not recorded is an error and no state.
//!
//! # What is assumed of a disk
//!
//! - A sync that returned makes durable what had returned before it began: the bytes and the length of a file, or the
//!   names in a folder. `fdatasync` and `fsync` of a file do the same; neither makes its name durable.
//! - `sync_file_range` does nothing, and so does time: nothing that was not synced is there for sure.
//! - Of what is not synced any part may be there. What was synced is there and sound. Each state is one of these: all of
//!   it; nothing of it; each change or not, by chance; each page as after the first few of the writes to it; all up to one
//!   write, of that the first bytes, sectors or pages, and nothing later; all lengths and names, and none of the bytes;
//!   each name or not, by chance. That is more than ext4 does, which orders names and mostly lengths. Not built: a page
//!   of which several writes are torn at once, garbage instead of zeros, sectors of one write in another order.
//! - A name is there or not, whatever became of its file, and a rename takes place or does not: two names are never half
//!   of one. A name in a folder that has no name is gone with it. Modes of files are not followed.
//!
//! # What no replay has
//!
//! Writers have threads, so no two records are the same: a seed gives the same states of the same record only. A
//! violation keeps the state, with its facts and effects, for `crash verify --look`.

mod disk;
mod history;
mod judge;
mod site;
mod state;

use std::collections::BTreeMap;
use std::fs;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use super::child::{self, NUMBERS, WriterPlan, complaints};
use super::cli::ReplayCampaign;
use super::dice::Dice;
use super::ground::Ground;
use super::report::{Report, say};
use super::trace;
use super::verify::Seen;
use crate::panics::message_of;
use disk::Tree;
use history::{History, NEVER, Start};
use judge::{Judge, Outside};
use site::World;
pub(crate) use site::{Site, scratch};
use state::{Builder, Kind, State};

/// States of one record, at the most.
const STATES: usize = 700;
const WITHIN: Duration = Duration::from_secs(60);

/// A run that was recorded.
struct Record {
    name: &'static str,
    history: History,
    /// What was known before it.
    before: World,
    /// Kept until its states are done.
    root: TempDir,
}

/// Runs the test.
pub(crate) fn run(campaign: &ReplayCampaign, seed: u64) -> anyhow::Result<ExitCode> {
    let mut report = Report::new("replay", seed);
    if !child::strace_works() {
        report.skip("replay", "strace is not installed or may not trace");
        return Ok(report.end());
    }
    let mut replay = Replay {
        campaign,
        dice: Dice::new(seed),
        // Few states too are of all sorts of runs.
        share: campaign.states.div_ceil(4).min(STATES),
        kinds: BTreeMap::new(),
        moments: 0,
        calls: BTreeMap::new(),
        records: 0,
        finished: 0,
    };
    while replay.left(&report) > 0 {
        let first = replay.record("a new store", Site::default(), Start::sound(Tree::new()))?;
        replay.states(&first, &mut report)?;
        if replay.left(&report) > 0 {
            let (site, start) = ended(&first, replay.kill(&first)?)?;
            let record = replay.record("a store whose writer was killed", site, start)?;
            replay.states(&record, &mut report)?;
        }
        if replay.left(&report) > 0 {
            let (site, start) = ended(&first, NEVER - 1)?;
            let record = replay.record("a closed store", site, start)?;
            replay.states(&record, &mut report)?;
        }
        if replay.left(&report) > 0 {
            let site = replay.cut(&first)?;
            let start = Start::sound(site.tree.clone());
            let record = replay.record("a store that lost its power", site, start)?;
            replay.states(&record, &mut report)?;
        }
    }
    replay.tell(&mut report);
    Ok(report.end())
}

/// What a run leaves that ends at a moment: for the next process, and on the disk.
fn ended(record: &Record, moment: usize) -> anyhow::Result<(Site, Start)> {
    let mut outside = Outside::new(&record.history, &record.before)?;
    outside.advance(moment)?;
    let tree = Builder::new(&record.history).build(&State { moment, kind: Kind::Kept, seed: 0 })?;
    Ok((Site { tree, world: outside.world }, Start::after(&record.history, moment)))
}

struct Replay<'a> {
    campaign: &'a ReplayCampaign,
    dice: Dice,
    share: usize,
    kinds: BTreeMap<Kind, u64>,
    moments: u64,
    calls: BTreeMap<String, u64>,
    records: u64,
    finished: u64,
}

impl Replay<'_> {
    fn left(&self, report: &Report) -> usize {
        let done = usize::try_from(report.checked).unwrap_or(usize::MAX);
        let over = report.violations.len() >= self.campaign.violations_max;
        if over { 0 } else { self.campaign.states.saturating_sub(done) }
    }

    /// Has a writer work on a site, under strace.
    fn record(&mut self, name: &'static str, site: Site, start: Start) -> anyhow::Result<Record> {
        let root = scratch("longrun-record-")?;
        let (store, durability) = (self.campaign.store, self.campaign.durability);
        let ground = site.put(root.path(), store, durability)?;
        let log = root.path().join("trace");
        let plan = WriterPlan {
            first: self.records * NUMBERS,
            seed: self.dice.next(),
            operations: Some(self.campaign.operations),
            early_ack: self.campaign.early_ack,
            wrapper: trace::wrapper(&log),
        };
        self.records += 1;
        let ended = child::writer(&ground, &plan)?.wait(WITHIN)?;
        match ended {
            Some(status) if status.success() => {}
            other => bail!("the writer on {name} ended with {other:?}: {}", complaints(&ground)),
        }
        let history = History::of(&trace::read(&log)?, &ground, start)?;
        let above = ground.dir.parent().context("the store is nowhere")?;
        disk::compare(&Builder::end(&history)?, &disk::read(above, &ground.dir)?)?;
        ensure!(!history.facts.is_empty(), "nothing was told");
        for (call, count) in &history.calls {
            *self.calls.entry(call.clone()).or_default() += count;
        }
        Ok(Record { name, history, before: site.world, root })
    }

    /// When to kill the writer: in the later half of a run, when a write has returned and its sync has not.
    fn kill(&mut self, record: &Record) -> anyhow::Result<usize> {
        let mut writes = state::synced_writes(&record.history);
        writes.drain(..writes.len() / 2);
        // What is synced soon is what counts: most of the others are hints, which are synced when the store is closed.
        writes.sort_by_key(|(end, durable)| durable - end);
        writes.truncate(writes.len().div_ceil(2));
        Ok(self.dice.take(&mut writes).context("nothing was synced")?.0)
    }

    /// A state of the later half of a run, when there are things unfinished.
    fn cut(&mut self, record: &Record) -> anyhow::Result<Site> {
        let states = state::draw(&record.history, STATES, &mut self.dice);
        let mut late: Vec<State> =
            states.into_iter().skip(STATES / 2).filter(|state| state.kind != Kind::Kept).collect();
        let state = self.dice.take(&mut late).context("no states")?;
        let mut outside = Outside::new(&record.history, &record.before)?;
        outside.advance(state.moment)?;
        Ok(Site { tree: Builder::new(&record.history).build(&state)?, world: outside.world })
    }

    /// Looks at states of a run, on as many threads as there are cores.
    fn states(&mut self, record: &Record, report: &mut Report) -> anyhow::Result<()> {
        let states = state::draw(&record.history, self.share.min(self.left(report)), &mut self.dice);
        report.acknowledged += record.history.facts.len() as u64;
        self.moments += record.history.moments.len() as u64;
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let (campaign, size) = (self.campaign, states.len().div_ceil(threads).max(1));
        // Numbered over all threads and records: few states too have their share of those that are finished.
        let numbered: Vec<(u64, State)> = (report.checked..).zip(states).collect();
        let found = thread::scope(|scope| {
            let parts: Vec<_> =
                numbered.chunks(size).map(|part| scope.spawn(move || look(campaign, record, part))).collect();
            let joined = parts.into_iter().map(|part| part.join().unwrap_or_else(|_| bail!("a panic")));
            joined.collect::<anyhow::Result<Vec<Found>>>()
        })?;
        for found in found {
            report.checked += found.checked;
            report.seen.add(found.seen);
            self.finished += found.finished;
            for (kind, count) in found.kinds {
                *self.kinds.entry(kind).or_default() += count;
            }
            for (what, kept) in found.wrong {
                report.violation(what, report.checked, Some(&kept));
            }
        }
        Ok(())
    }

    fn tell(&self, report: &mut Report) {
        let calls: Vec<_> = self.calls.iter().map(|(call, count)| format!("{call} {count}")).collect();
        say(&format!(
            "  {} runs recorded, {} moments; calls: {}",
            self.records,
            self.moments,
            calls.join(", ")
        ));
        let count = |kind: &Kind| self.kinds.get(kind).copied().unwrap_or_default();
        let kinds: Vec<_> = Kind::ALL.iter().map(|kind| format!("{} {}", kind.name(), count(kind))).collect();
        say(&format!("  states: {}; {} finished by an engine", kinds.join(", "), self.finished));
        let whole = report.violations.is_empty();
        let every = self.campaign.finish_every;
        if whole && every > 0 && report.checked >= every && self.finished == 0 {
            report.violation("no state was finished by an engine, so that was not checked", 0, None);
        }
        for kind in Kind::ALL.iter().filter(|kind| whole && count(kind) == 0) {
            report.violation(format!("no state was {}, so that was not checked", kind.name()), 0, None);
        }
    }
}

/// What is wrong with states that a loss of power may leave after a sync has failed. A sync that failed makes nothing
/// durable, so they lack what it was for, unless a later one has made up for it. The power is lost at so many moments, and at
/// the last.
pub(crate) fn after_failed_sync(
    log: &Path,
    ground: &Ground,
    site: &Site,
    seed: u64,
    ended: bool,
    moments: usize,
) -> anyhow::Result<Vec<String>> {
    let calls = trace::read_killed(log)?;
    let history = History::of(&calls, ground, Start::sound(site.tree.clone()))?;
    if ended {
        let above = ground.dir.parent().context("the store is nowhere")?;
        disk::compare(&Builder::end(&history)?, &disk::read(above, &ground.dir)?)?;
    }
    let failed = calls.iter().filter(|call| call.result < 0 && call.name.contains("sync"));
    let failed = failed.map(|call| call.end).min().context("no sync has failed")?;
    let after = history.moments.partition_point(|moment| *moment < failed);
    let after = &history.moments[after..];
    let last = after.last().copied().unwrap_or(failed);
    let some = (0..moments).filter_map(|number| after.get(number * after.len() / moments));
    let mut states: Vec<State> =
        some.chain([&last]).map(|moment| State { moment: *moment, kind: Kind::Dropped, seed }).collect();
    states.push(State { moment: last, kind: Kind::Subset, seed });
    let mut judge = Judge::new(ground.store, ground.durability)?;
    let mut builder = Builder::new(&history);
    let mut outside = Outside::new(&history, &site.world)?;
    let mut wrong = Vec::new();
    for state in &states {
        outside.advance(state.moment)?;
        let found = judge.look(&builder.build(state)?, &outside, false)?;
        let place = format!("power lost at line {}, {}", state.moment + 1, state.kind.name());
        wrong.extend(found.into_iter().take(1).map(|what| format!("{place}: {what}")));
    }
    Ok(wrong)
}

/// What was found in some states of a run.
#[derive(Default)]
struct Found {
    checked: u64,
    kinds: BTreeMap<Kind, u64>,
    seen: Seen,
    finished: u64,
    /// What is wrong, and where the state was kept.
    wrong: Vec<(String, PathBuf)>,
}

/// Builds states of a run, by their moments, and looks at each.
fn look(campaign: &ReplayCampaign, record: &Record, states: &[(u64, State)]) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let mut judge = Judge::new(campaign.store, campaign.durability)?;
    let mut builder = Builder::new(&record.history);
    let mut outside = Outside::new(&record.history, &record.before)?;
    for (number, state) in states {
        outside.advance(state.moment)?;
        let tree = builder.build(state)?;
        found.checked += 1;
        *found.kinds.entry(state.kind).or_default() += 1;
        // In the middle of so many: the last states of a run leave an engine nothing to do.
        let every = campaign.finish_every;
        let finish = every > 0 && number % every == every / 2;
        found.finished += u64::from(finish);
        let looked = catch_unwind(AssertUnwindSafe(|| judge.look(&tree, &outside, finish)));
        let wrong = match looked {
            Ok(wrong) => wrong?,
            // A store or an engine that panics at a state has not stood it. The next ones get another judge.
            Err(panic) => {
                let fresh = Judge::new(campaign.store, campaign.durability)?;
                found.seen.add(mem::replace(&mut judge, fresh).seen);
                vec![format!("S16: a panic: {}", message_of(panic.as_ref()))]
            }
        };
        if wrong.is_empty() {
            continue;
        }
        let what = format!(
            "{}, at line {} of its trace, {}: {}",
            record.name,
            state.moment + 1,
            state.kind.name(),
            wrong.into_iter().take(3).collect::<Vec<_>>().join("; ")
        );
        found.wrong.push((what, keep(campaign, &tree, &outside.world, record)?));
        if found.wrong.len() >= campaign.violations_max {
            break;
        }
    }
    found.seen.add(judge.seen);
    Ok(found)
}

/// Leaves a state, and the trace that it comes from, for those who look into it.
fn keep(campaign: &ReplayCampaign, tree: &Tree, world: &World, record: &Record) -> anyhow::Result<PathBuf> {
    let mut kept = TempDir::with_prefix("longrun-replay-kept-")?;
    site::put(tree, world, kept.path(), campaign.store, campaign.durability)?;
    fs::copy(record.root.path().join("trace"), kept.path().join("trace"))?;
    kept.disable_cleanup(true);
    Ok(kept.path().to_path_buf())
}
