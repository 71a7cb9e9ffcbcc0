//! The workloads: the same for the engine and for the raw stores.
//!
//! - **happy**: three steps that do nothing, each outcome recorded; a closed loop, from submit until the one who submitted
//!   knows that it is done.
//! - **rollback**: the third step fails for good, the second and the first are undone, each undo recorded.
//! - **submit**: accepted, durably, and no more.
//! - **get**, **list**: one operation by its id, one of the pages of 100 of all of them, among as many as are stored.
//! - **long**: the same as happy with more steps, to see that a step costs the same in a long plan.
//! - **wait**: all wait for operations whose second step does, too; from the moment at which that may go on, two commits, until a
//!   waiter knows.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use longrun::store::Table;
use longrun::{Call, Caller, Engine, OperationQuery, PageRequest};

use crate::Result;
use crate::kinds::{self, Barrier, Happy, Held, Long, Rollback};
use crate::metered::{Counts, Meter};
use crate::raw::{self, Group, Raw};
use crate::report::{Cost, Times};
use crate::stores::{self, StoreName};
use crate::template::Template;

/// Entries of a page.
const PAGE: usize = 100;
/// Pages that are read, the newest that there are, in no order.
const PAGES_MAX: u64 = 1000;

/// A workload that is measured by what it does in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Three steps.
    Happy,
    /// Three steps of which the last fails.
    Rollback,
    /// Acceptance alone.
    Submit,
    /// Reads by id.
    Get,
    /// Pages of 100; of the store alone, a scan of the keys and a get of each.
    List,
    /// The same; of the store alone, the scan and no more.
    Scan,
    /// Waiters that are told.
    Wait,
    /// As many steps as `--steps` says.
    Long,
    /// What a process left that was killed. See [`recovery`](crate::recovery); not for a [`Session`].
    Recovery,
}

impl Workload {
    /// The name, as it is said on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Happy => "happy",
            Self::Rollback => "rollback",
            Self::Submit => "submit",
            Self::Get => "get",
            Self::List => "list",
            Self::Scan => "scan",
            Self::Wait => "wait",
            Self::Long => "long",
            Self::Recovery => "recovery",
        }
    }
}

/// What is run, and how.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// What.
    pub workload: Workload,
    /// How many at a time.
    pub concurrency: usize,
    /// Done operations that are in the store before.
    pub stored: u64,
    /// Steps of a long operation.
    pub steps: u16,
}

/// What one round came to.
#[derive(Debug, Default)]
pub struct Round {
    /// What it cost.
    pub cost: Cost,
    /// How long each took.
    pub times: Times,
}

/// Who does the work.
pub enum Session {
    /// The engine.
    Longrun(Longrun),
    /// A store by its own API.
    Raw(Bare),
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.peer())
    }
}

impl Session {
    /// `longrun` or `raw`.
    pub const fn peer(&self) -> &'static str {
        match self {
            Self::Longrun(_) => "longrun",
            Self::Raw(_) => "raw",
        }
    }

    /// Runs the load for a time.
    pub async fn round(&self, time: Duration) -> Result<Round> {
        match self {
            Self::Longrun(longrun) => longrun.round(time).await,
            Self::Raw(bare) => bare.round(time).await,
        }
    }
}

/// An engine over a store with a meter.
#[derive(Clone)]
pub struct Longrun {
    engine: Engine,
    /// All engines that share the store, this one first.
    nodes: Arc<Vec<Engine>>,
    meter: Meter,
    barrier: Barrier,
    template: Arc<Template>,
    load: Load,
    caller: Caller,
    /// Of each page that is read.
    tokens: Arc<Vec<String>>,
    next: Arc<AtomicU64>,
}

impl std::fmt::Debug for Longrun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Longrun").field("load", &self.load).finish_non_exhaustive()
    }
}

impl Longrun {
    /// Opens the store in an empty folder, fills it, and starts.
    pub async fn start(name: StoreName, folder: &Path, load: Load) -> Result<Self> {
        Self::over(stores::open(name, folder).await?, load).await
    }

    async fn over(opened: stores::Opened, load: Load) -> Result<Self> {
        let template = Arc::new(Template::of(Workload::Happy).await?);
        for batch in template.settled(load.stored) {
            opened.kv()?.commit(&batch)?;
        }
        let barrier = Barrier::new(load.workload != Workload::Submit && load.workload != Workload::Wait);
        let running = if load.workload == Workload::Submit { 1 } else { load.concurrency.max(1024) };
        let builder = Engine::builder_shared(opened.store).running_max(running);
        let engine = kinds::register(builder, &barrier).start().await?;
        let caller = Caller::new("bench")?;
        if load.workload == Workload::Submit {
            // It takes the only place, so that all others wait.
            engine.submit::<Held>(&0, Call::by(caller.clone())).await?;
        }
        let lists = matches!(load.workload, Workload::List | Workload::Scan);
        let tokens = Arc::new(if lists { tokens(&engine, load).await? } else { Vec::new() });
        Ok(Self {
            nodes: Arc::new(vec![engine.clone()]),
            engine,
            meter: opened.meter,
            barrier,
            template,
            load,
            caller,
            tokens,
            next: Arc::default(),
        })
    }

    /// The same, with so many engines on one PostgreSQL, each with its own connections, that take the operations in turn.
    pub async fn start_nodes(name: StoreName, load: Load, nodes: usize) -> Result<Self> {
        let StoreName::Postgres(address) = name else { bail!("only PostgreSQL is shared") };
        let schema = stores::fresh_schema();
        let mut first = None::<Self>;
        let mut engines = Vec::new();
        for _ in 0..nodes {
            let store = stores::postgres(address, &schema).await?;
            let started = Self::over(stores::Opened::shared(store), load).await?;
            engines.push(started.engine.clone());
            first = first.or(Some(started));
        }
        let first = first.context("there must be a node")?;
        Ok(Self { nodes: Arc::new(engines), ..first })
    }

    async fn round(&self, time: Duration) -> Result<Round> {
        let before = self.meter.counts();
        let began = Instant::now();
        let times = match self.load.workload {
            Workload::Wait => self.wait(time).await?,
            _ => {
                let this = self.clone();
                let one = move |number| this.one(number);
                closed_loop(self.load.concurrency, time, &self.next, one).await?
            }
        };
        let counts = self.meter.counts() - before;
        Ok(Round { cost: Cost { operations: times.len() as u64, counts, time: began.elapsed() }, times })
    }

    /// Runs so many, as many at a time as there may be.
    pub async fn times(&self, count: u64) -> Result<()> {
        let until = self.next.load(Relaxed) + count;
        let mut tasks = Vec::new();
        for _ in 0..self.load.concurrency {
            let this = self.clone();
            let one_more = move |next: u64| (next < until).then(|| next + 1);
            tasks.push(tokio::spawn(async move {
                while let Ok(number) = this.next.fetch_update(Relaxed, Relaxed, one_more) {
                    this.one(number).await?;
                }
                Ok::<_, anyhow::Error>(())
            }));
        }
        for task in tasks {
            task.await??;
        }
        Ok(())
    }

    fn one(&self, number: u64) -> impl Future<Output = Result<()>> + Send + use<> {
        let node = usize::try_from(number).unwrap_or_default() % self.nodes.len();
        let (engine, load) = (self.nodes[node].clone(), self.load);
        let call = Call::by(self.caller.clone());
        let id = self.template.id(scattered(number, load.stored));
        let tokens = Arc::clone(&self.tokens);
        async move {
            match load.workload {
                Workload::Happy => {
                    let accepted = engine.submit::<Happy>(&number, call).await?;
                    let operation = engine.wait_done(accepted.id()).await?;
                    ensure!(operation.response().is_some(), "it has failed");
                }
                Workload::Rollback => {
                    let accepted = engine.submit::<Rollback>(&number, call).await?;
                    let operation = engine.wait_done(accepted.id()).await?;
                    ensure!(operation.error().is_some(), "it has not failed");
                }
                Workload::Long => {
                    let accepted = engine.submit::<Long>(&load.steps, call).await?;
                    let operation = engine.wait_done(accepted.id()).await?;
                    ensure!(operation.response().is_some(), "it has failed");
                }
                Workload::Submit => _ = engine.submit::<Happy>(&number, call).await?,
                Workload::Get => _ = engine.get(id).await?,
                Workload::List | Workload::Scan => {
                    let place = usize::try_from(scattered(number, tokens.len() as u64))?;
                    let page = PageRequest { size: PAGE, token: tokens[place].clone() };
                    let page = engine.list_operations(&OperationQuery::All, &page).await?;
                    ensure!(page.items.len() == PAGE, "a page of {}", page.items.len());
                }
                Workload::Wait | Workload::Recovery => {}
            }
            Ok(())
        }
    }

    /// As many operations as are to be waited for, all of which end at once, again and again.
    async fn wait(&self, time: Duration) -> Result<Times> {
        let mut times = Times::default();
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.barrier.set_open(false);
            let arrived = self.barrier.arrived() + self.load.concurrency as u64;
            let mut waiters = Vec::new();
            for number in 0..self.load.concurrency {
                let call = Call::by(self.caller.clone());
                let id = self.engine.submit::<Held>(&(number as u64), call).await?.id();
                let engine = self.engine.clone();
                waiters.push(tokio::spawn(async move {
                    engine.wait_done(id).await?;
                    Ok::<_, anyhow::Error>(Instant::now())
                }));
            }
            while self.barrier.arrived() < arrived {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let opened = Instant::now();
            self.barrier.set_open(true);
            for waiter in waiters {
                times.push(waiter.await??.duration_since(opened));
            }
        }
        Ok(times)
    }
}

/// The same bytes in as many durable commits, on the store alone.
#[derive(Clone)]
pub struct Bare {
    raw: Arc<dyn Raw>,
    /// Through which commits go that wait for a disk.
    group: Option<Group>,
    template: Arc<Template>,
    load: Load,
    next: Arc<AtomicU64>,
}

impl std::fmt::Debug for Bare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bare").field("load", &self.load).finish_non_exhaustive()
    }
}

impl Bare {
    /// Opens the store in an empty folder and fills it.
    pub async fn start(name: StoreName, folder: &Path, load: Load) -> Result<Self> {
        let raw = raw::open(name, folder).await?;
        for batch in Template::of(Workload::Happy).await?.settled(load.stored) {
            raw.commit(&batch.writes)?;
        }
        let group = (name != StoreName::Memory).then(|| Group::over(Arc::clone(&raw)));
        Ok(Self {
            raw,
            group,
            template: Arc::new(Template::of(load.workload).await?),
            load,
            next: Arc::default(),
        })
    }

    async fn round(&self, time: Duration) -> Result<Round> {
        let batches = || self.group.as_ref().map_or(0, Group::commits);
        let (before, began) = (batches(), Instant::now());
        let this = self.clone();
        let one = move |number| this.one(number);
        let times = closed_loop(self.load.concurrency, time, &self.next, one).await?;
        let operations = times.len() as u64;
        let writes = matches!(self.load.workload, Workload::Happy | Workload::Rollback | Workload::Submit);
        let of_each = |count: usize| if writes { operations * count as u64 } else { 0 };
        let counts = Counts {
            turns: of_each(self.template.commits()),
            batches: batches() - before,
            bytes: of_each(self.template.byte_len()),
        };
        Ok(Round { cost: Cost { operations, counts, time: began.elapsed() }, times })
    }

    fn one(&self, number: u64) -> impl Future<Output = Result<()>> + Send + use<> {
        let (Self { raw, group, template, .. }, load) = (self.clone(), self.load);
        async move {
            match load.workload {
                Workload::Get => {
                    let id = template.id(scattered(number, load.stored));
                    ensure!(raw.get(Table::Operations, id.as_bytes())?.is_some(), "it is not there");
                }
                Workload::List | Workload::Scan => {
                    let before = load.stored - scattered(number, pages(load)) * PAGE as u64;
                    let found = raw.newest(Table::Operations, template.id(before).as_bytes(), PAGE)?;
                    ensure!(found.len() == PAGE, "a page of {}", found.len());
                    if load.workload == Workload::List {
                        // The keys in their order, and then what lies under each, as over an index.
                        for (key, _) in found {
                            raw.get(Table::Operations, &key)?;
                        }
                    }
                }
                _ => {
                    for batch in template.instance(load.stored + number) {
                        match &group {
                            Some(group) => group.commit(batch).await?,
                            None => raw.commit(&batch.writes)?,
                        }
                    }
                }
            }
            Ok(())
        }
    }
}

/// How many whole pages are read of.
fn pages(load: Load) -> u64 {
    (load.stored / PAGE as u64).min(PAGES_MAX)
}

/// The token of each page that is read, by going through them once.
async fn tokens(engine: &Engine, load: Load) -> Result<Vec<String>> {
    let mut tokens = vec![String::new()];
    for _ in 1..pages(load) {
        let token = tokens.last().cloned().unwrap_or_default();
        let page = engine.list_operations(&OperationQuery::All, &PageRequest { size: PAGE, token }).await?;
        tokens.push(page.next_token);
    }
    Ok(tokens)
}

/// One after the other in each of so many tasks, until the time is over. Each has a number of its own.
async fn closed_loop<F>(
    concurrency: usize,
    time: Duration,
    next: &Arc<AtomicU64>,
    one: impl Fn(u64) -> F + Clone + Send + Sync + 'static,
) -> Result<Times>
where
    F: Future<Output = Result<()>> + Send,
{
    let until = Instant::now() + time;
    let mut tasks = Vec::with_capacity(concurrency);
    for _ in 0..concurrency {
        let (next, one) = (Arc::clone(next), one.clone());
        tasks.push(tokio::spawn(async move {
            let mut times = Times::default();
            let mut began = Instant::now();
            while began < until {
                one(next.fetch_add(1, Relaxed)).await?;
                let ended = Instant::now();
                times.push(ended - began);
                began = ended;
            }
            Ok::<_, anyhow::Error>(times)
        }));
    }
    let mut times = Times::default();
    for task in tasks {
        times.append(task.await??);
    }
    Ok(times)
}

/// One of so many, as far from those of the numbers beside it as chance has it.
fn scattered(number: u64, among: u64) -> u64 {
    // SplitMix64.
    let mut mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed ^ (mixed >> 31)) % among.max(1)
}
