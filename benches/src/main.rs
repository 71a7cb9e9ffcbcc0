//! Runs workloads and prints what they came to, one line of JSON each.
//!
//! ```sh
//! cargo run --release -p longrun-bench -- run     --workload happy --store fjall --concurrency 256 --seconds 5
//! cargo run --release -p longrun-bench -- limit   --workload happy --store fjall --concurrency 256 --seconds 5
//! cargo run --release -p longrun-bench -- compare --workload happy --store fjall --concurrency 256 --rounds 5
//! cargo run --release -p longrun-bench -- growth  --workload happy --store fjall --concurrency 256 --stored 1000000
//! cargo run --release -p longrun-bench -- nodes   --workload happy --store postgres --concurrency 256
//! cargo run --release -p longrun-bench -- run     --workload recovery --store fjall --unfinished 100000
//! cargo run --release -p longrun-bench -- memory  --store fjall --unfinished 1000000
//! cargo run --release -p longrun-bench -- soak    --store fjall --minutes 60
//! ```

#![allow(clippy::print_stdout)] // The lines are what it is for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::{Args, Parser, Subcommand};
use longrun_bench::Result;
use longrun_bench::report::{MemoryLine, Report, memory_mib};
use longrun_bench::stores::StoreName;
use longrun_bench::workloads::{Bare, Load, Longrun, Round, Session, Workload};
use longrun_bench::{memory, recovery, soak};
use serde::Serialize;
use tempfile::TempDir;

#[derive(Debug, Parser)]
#[command(about = "Benchmarks of longrun")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a workload on the engine. For a recovery, another process is killed first that has many operations in hand.
    Run(Options),
    /// Write the same bytes in as many durable commits on the store by its own API; or read as much.
    Limit(Options),
    /// Both in turn, round by round, with the median of the ratios.
    Compare(Options),
    /// The engine over a store with few done operations, and over one with many, in turn.
    Growth(Options),
    /// One engine, and three that share the same PostgreSQL, in turn.
    Nodes(Options),
    /// What a process takes whose store has many operations that wait, beside one whose store has none.
    Memory(MemoryOptions),
    /// Whether memory stays bounded over a long time, with a queue that is always full and clients who do not listen.
    Soak(SoakOptions),
    /// Leave that many unfinished operations, say so, and wait for the end.
    #[command(hide = true)]
    Fill(FillOptions),
    /// Leave that many operations that wait on the disk.
    #[command(hide = true)]
    FillWaiting(FillOptions),
    /// Open the store, rest, and say how much memory that takes.
    #[command(hide = true)]
    Rest(FillOptions),
}

#[derive(Clone, Debug, Args)]
struct Options {
    /// What to run.
    #[arg(long, default_value = "happy")]
    workload: Workload,
    /// Over which store.
    #[arg(long)]
    store: StoreName,
    /// How many at a time.
    #[arg(long, default_value_t = 256)]
    concurrency: usize,
    /// Seconds of each round, after half as many that do not count.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Rounds of a comparison.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Done operations in the store before; 100,000 for reads, none for others, unless said.
    #[arg(long)]
    stored: Option<u64>,
    /// Steps of a long operation.
    #[arg(long, default_value_t = 1000)]
    steps: u16,
    /// Operations in the middle of their work, for a recovery.
    #[arg(long, default_value_t = 100_000)]
    unfinished: u64,
    /// A folder on the disk to measure; a temporary one unless said.
    #[arg(long)]
    folder: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
struct MemoryOptions {
    /// Over which store.
    #[arg(long)]
    store: StoreName,
    /// Operations that wait.
    #[arg(long, default_value_t = 1_000_000)]
    unfinished: u64,
    /// A folder on the disk to measure; a temporary one unless said.
    #[arg(long)]
    folder: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
struct SoakOptions {
    /// Over which store.
    #[arg(long)]
    store: StoreName,
    /// How long it goes on.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Done operations in the store at the beginning.
    #[arg(long, default_value_t = 1_000_000)]
    stored: u64,
    /// Seconds for which done operations are kept.
    #[arg(long, default_value_t = 600)]
    retention_seconds: u64,
    /// Unfinished operations, at the most.
    #[arg(long, default_value_t = 20_000)]
    unfinished_max: u64,
    /// A folder on the disk to measure; a temporary one unless said.
    #[arg(long)]
    folder: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
struct FillOptions {
    #[arg(long)]
    store: StoreName,
    #[arg(long)]
    unfinished: u64,
    #[arg(long)]
    folder: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Run(options) if options.workload == Workload::Recovery => {
            ensure!(options.store != StoreName::Memory, "nothing is left of it after a kill");
            let folder = temporary(options.folder.as_deref())?;
            let path = folder.path().join("store");
            recovery::fill_and_kill(options.store, &path, options.unfinished)?;
            print(&recovery::recover(options.store, &path, options.unfinished).await?)
        }
        Command::Run(options) => {
            let (_folder, session) = longrun(&options).await?;
            print(&measured(&session, &options).await?)
        }
        Command::Limit(options) => {
            let (_folder, session) = bare(&options).await?;
            print(&measured(&session, &options).await?)
        }
        Command::Compare(options) => compare(&options).await,
        Command::Growth(options) => growth(options).await,
        Command::Nodes(options) => nodes(&options).await,
        Command::Memory(options) => {
            ensure!(options.store != StoreName::Memory, "it waits in memory");
            let folder = temporary(options.folder.as_deref())?;
            print(&memory::measure(options.store, folder.path(), options.unfinished)?)
        }
        Command::Soak(options) => {
            let folder = temporary(options.folder.as_deref())?;
            print(&soak::run(options.store, &folder.path().join("store"), options.load()).await?)
        }
        Command::Fill(options) => recovery::fill(options.store, &options.folder, options.unfinished).await,
        Command::FillWaiting(options) => {
            memory::fill(options.store, &options.folder, options.unfinished).await
        }
        Command::Rest(options) => print(&memory::rest(options.store, &options.folder).await?),
    }
}

fn temporary(within: Option<&Path>) -> Result<TempDir> {
    Ok(match within {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    })
}

impl SoakOptions {
    fn load(&self) -> soak::SoakLoad {
        soak::SoakLoad {
            stored: self.stored,
            retention: Duration::from_secs(self.retention_seconds),
            unfinished_max: self.unfinished_max,
            duration: Duration::from_secs_f64(self.minutes * 60.0),
        }
    }
}

impl Options {
    fn load(&self) -> Result<Load> {
        ensure!(self.concurrency > 0, "concurrency must be at least 1");
        let reads = matches!(self.workload, Workload::Get | Workload::List | Workload::Scan);
        let stored = self.stored.unwrap_or(if reads { 100_000 } else { 0 });
        ensure!(!reads || stored >= 100, "there must be 100 operations to read");
        ensure!(self.steps > 0, "there must be a step");
        Ok(Load { workload: self.workload, concurrency: self.concurrency, stored, steps: self.steps })
    }

    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

async fn longrun(options: &Options) -> Result<(TempDir, Session)> {
    let folder = temporary(options.folder.as_deref())?;
    let started = Longrun::start(options.store, &folder.path().join("store"), options.load()?).await?;
    Ok((folder, Session::Longrun(started)))
}

async fn bare(options: &Options) -> Result<(TempDir, Session)> {
    if matches!(options.workload, Workload::Wait | Workload::Long | Workload::Recovery) {
        bail!("there is nothing to compare it with");
    }
    let folder = temporary(options.folder.as_deref())?;
    let started = Bare::start(options.store, &folder.path().join("store"), options.load()?).await?;
    Ok((folder, Session::Raw(started)))
}

/// One round, after one that does not count.
async fn measured(session: &Session, options: &Options) -> Result<Report> {
    session.round(options.time() / 2).await?;
    report(session, options, session.round(options.time()).await?)
}

fn report(session: &Session, options: &Options, round: Round) -> Result<Report> {
    let Round { cost, mut times } = round;
    Ok(Report {
        peer: session.peer(),
        version: env!("CARGO_PKG_VERSION"),
        workload: options.workload.name(),
        store: options.store.name(),
        concurrency: options.concurrency,
        ops_per_s: cost.per_second(cost.operations),
        p50_ms: times.percentile(50),
        p99_ms: times.percentile(99),
        rss_mib: memory_mib(MemoryLine::Peak)?,
        durability: options.store.durability(),
        commits_per_op: cost.per_operation(cost.counts.turns),
        bytes_per_op: cost.per_operation(cost.counts.bytes),
        syncs_per_s: cost.per_second(cost.counts.batches),
    })
}

/// Both in one line.
#[derive(Debug, Serialize)]
struct Comparison {
    workload: &'static str,
    store: &'static str,
    concurrency: usize,
    /// The median over the rounds of the engine's operations a second by those of the store.
    ratio: f64,
    /// The ratio of each round.
    ratios: Vec<f64>,
    /// Each with the median of its operations a second.
    longrun: Report,
    raw: Report,
}

async fn compare(options: &Options) -> Result<()> {
    let ((_one, bare), (_other, longrun)) = (bare(options).await?, longrun(options).await?);
    let InTurn { ratio, ratios, reports: [raw, longrun] } = in_turn([bare, longrun], options).await?;
    let (workload, store, concurrency) = (options.workload.name(), options.store.name(), options.concurrency);
    print(&Comparison { workload, store, concurrency, ratio, ratios, longrun, raw })
}

/// Done operations in the smaller store of [`growth`].
const FEW: u64 = 10_000;

/// Few and many in one line.
#[derive(Debug, Serialize)]
struct Growth {
    workload: &'static str,
    store: &'static str,
    concurrency: usize,
    /// How many done operations are in each of the stores at the beginning.
    stored: [u64; 2],
    /// The median over the rounds of operations a second among many by those among few.
    ratio: f64,
    /// The ratio of each round.
    ratios: Vec<f64>,
    /// Each with the median of its operations a second.
    few: Report,
    many: Report,
}

async fn growth(options: Options) -> Result<()> {
    let many = Options { stored: Some(options.stored.unwrap_or(1_000_000)), ..options };
    let few = Options { stored: Some(FEW), ..many.clone() };
    let ((_one, first), (_other, second)) = (longrun(&few).await?, longrun(&many).await?);
    let stored = [&few, &many].map(|options| options.stored.unwrap_or_default());
    let InTurn { ratio, ratios, reports: [few, many] } = in_turn([first, second], &many).await?;
    let (workload, store, concurrency) = (few.workload, few.store, few.concurrency);
    print(&Growth { workload, store, concurrency, stored, ratio, ratios, few, many })
}

/// One and several in one line.
#[derive(Debug, Serialize)]
struct Nodes {
    workload: &'static str,
    store: &'static str,
    concurrency: usize,
    nodes: usize,
    /// The median over the rounds of operations a second of several by those of one.
    ratio: f64,
    /// The ratio of each round.
    ratios: Vec<f64>,
    /// Each with the median of its operations a second.
    one: Report,
    several: Report,
}

/// Engines that share a database, of [`nodes`].
const NODES: usize = 3;

async fn nodes(options: &Options) -> Result<()> {
    let start = async |nodes| Longrun::start_nodes(options.store, options.load()?, nodes).await;
    let sessions = [Session::Longrun(start(1).await?), Session::Longrun(start(NODES).await?)];
    let InTurn { ratio, ratios, reports: [one, several] } = in_turn(sessions, options).await?;
    let (workload, store, concurrency) = (options.workload.name(), options.store.name(), options.concurrency);
    print(&Nodes { workload, store, concurrency, nodes: NODES, ratio, ratios, one, several })
}

/// What rounds of two sessions in turn came to.
struct InTurn {
    /// The median of the ratios.
    ratio: f64,
    /// Operations a second of the second by those of the first, in each round, the lowest first.
    ratios: Vec<f64>,
    /// Of each the one with the median of operations a second.
    reports: [Report; 2],
}

async fn in_turn(sessions: [Session; 2], options: &Options) -> Result<InTurn> {
    ensure!(options.rounds > 0, "there must be a round");
    for session in &sessions {
        session.round(options.time() / 2).await?;
    }
    let mut reports: [Vec<Report>; 2] = [Vec::new(), Vec::new()];
    for round in 0..options.rounds {
        // The one that was second is first the next time.
        for place in [round % 2, 1 - round % 2] {
            let session = &sessions[place];
            reports[place].push(report(session, options, session.round(options.time()).await?)?);
        }
    }
    let [first, second] = &reports;
    let mut ratios: Vec<f64> =
        first.iter().zip(second).map(|(first, second)| second.ops_per_s / first.ops_per_s).collect();
    ratios.sort_by(f64::total_cmp);
    let reports = reports.map(|mut reports| {
        reports.sort_by(|one, other| one.ops_per_s.total_cmp(&other.ops_per_s));
        reports.swap_remove(reports.len() / 2)
    });
    Ok(InTurn { ratio: ratios[ratios.len() / 2], ratios, reports })
}

fn print(line: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(line)?);
    Ok(())
}
