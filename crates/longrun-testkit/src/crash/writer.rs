//! The writer: keeps operations in flight and tells what was acknowledged, until somebody kills it.

use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use longrun::{Call, Caller, Engine, Operation, OperationId, OperationQuery, PageRequest, ResourceId};
use longrun::{ResourceList, ResourceStatus, SubmitError};
use tokio::task::JoinSet;

use super::cli::WriterArgs;
use super::dice::Dice;
use super::facts::{Fact, Teller, outcome};
use super::ground::{Ground, caller};
use super::script::{Act, End, PARENT, Request, Script, Thing, key_text};
use crate::panics::lock;

/// Tries of one reading, 20 ms apart.
const READS_MAX: u32 = 250;

/// What the tasks of a writer share.
struct Writer {
    engine: Engine,
    teller: Arc<Teller>,
    caller: Caller,
    early_ack: bool,
    next: AtomicU64,
    /// No request has this number or a higher one.
    end: u64,
    dice: Mutex<Dice>,
    /// Things that no operation holds, as far as this process knows.
    things: Mutex<Vec<ResourceId>>,
    running: Mutex<Vec<OperationId>>,
}

/// Works until `--operations` are done, or for ever.
pub(crate) async fn run(args: &WriterArgs) -> anyhow::Result<()> {
    if args.leash {
        std::thread::spawn(|| {
            // Nothing is ever sent: this returns when the parent is gone.
            _ = std::io::stdin().read(&mut [0]);
            std::process::exit(3);
        });
    }
    let ground = Ground::at(&args.place);
    let teller = Arc::new(Teller::stdout()?);
    let opened = ground.open()?;
    let engine = ground.start(opened.for_engine(args.early_ack.then_some(&teller))).await?;
    teller.tell(&Fact::Ready);
    let writer = Arc::new(Writer {
        engine,
        teller,
        caller: caller()?,
        early_ack: args.early_ack,
        next: AtomicU64::new(args.first),
        end: args.operations.map_or(u64::MAX, |operations| args.first + operations),
        dice: Mutex::new(Dice::new(args.seed)),
        things: Mutex::default(),
        running: Mutex::default(),
    });
    let mut tasks = writer.take_up().await?;
    for _ in 0..args.inflight {
        let writer = Arc::clone(&writer);
        tasks.spawn(async move { writer.work().await });
    }
    let watcher = tokio::spawn(Arc::clone(&writer).watch());
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    watcher.abort();
    writer.engine.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

impl Writer {
    fn roll<T>(&self, roll: impl FnOnce(&mut Dice) -> T) -> T {
        roll(&mut lock(&self.dice))
    }

    fn things(&self) -> std::sync::MutexGuard<'_, Vec<ResourceId>> {
        lock(&self.things)
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Vec<OperationId>> {
        lock(&self.running)
    }

    /// Finds what a former writer left: waits for its operations, and uses its things.
    async fn take_up(self: &Arc<Self>) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
        let mut tasks = JoinSet::new();
        let mut page = PageRequest { size: 1000, token: String::new() };
        loop {
            let found = until_read(|| self.engine.list_operations(&OperationQuery::All, &page)).await?;
            for operation in found.items.into_iter().filter(|operation| !operation.done()) {
                let writer = Arc::clone(self);
                tasks.spawn(async move { writer.wait(operation.id()).await.map(|_| ()) });
            }
            page.token = found.next_token;
            if page.token.is_empty() {
                break;
            }
        }
        let parent = ResourceId::new(PARENT)?;
        let list = ResourceList::of(parent);
        let found = until_read(|| self.engine.list_resources::<Thing>(&list, &page)).await?;
        let free = found
            .items
            .into_iter()
            .filter(|thing| thing.row.operation.is_none() && thing.row.status == ResourceStatus::Ready);
        self.things().extend(free.map(|thing| thing.row.key.id));
        Ok(tasks)
    }

    /// One operation after the other.
    async fn work(&self) -> anyhow::Result<()> {
        loop {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            if number >= self.end {
                return Ok(());
            }
            let request = self.draw(number);
            let Some(operation) = self.submit(&request).await? else { continue };
            let id = operation.id();
            self.running().push(id);
            if request.end == End::Cancelled {
                tokio::time::sleep(self.roll(|dice| dice.millis(0..15))).await;
                self.cancel(id).await;
            }
            let done = self.wait(id).await?;
            self.running().retain(|running| *running != id);
            self.keep(&request, &done)?;
        }
    }

    fn draw(&self, number: u64) -> Request {
        let thing = self.roll(|dice| if dice.one_in(3) { dice.take(&mut self.things()) } else { None });
        self.roll(|dice| {
            let act = match thing {
                None => Act::Make,
                Some(thing) if dice.one_in(3) => Act::Delete(thing),
                Some(thing) => Act::Change(thing),
            };
            Request::draw(number, act, dice)
        })
    }

    /// Puts the thing back for others, if it is still there.
    fn keep(&self, request: &Request, done: &Operation) -> anyhow::Result<()> {
        let id: ResourceId = done.metadata().decode()?;
        let there = match request.act {
            Act::Make => done.error().is_none(),
            Act::Change(_) => true,
            Act::Delete(_) => done.error().is_some(),
        };
        if there {
            self.things().push(id);
        }
        Ok(())
    }

    /// Submits until the store takes it, or gives it up when it no longer makes sense.
    async fn submit(&self, request: &Request) -> anyhow::Result<Option<Operation>> {
        loop {
            let call = Call::by(self.caller.clone()).key(request.key()?);
            match self.engine.submit::<Script>(request, call).await {
                Ok(operation) => {
                    if !self.early_ack {
                        let key = key_text(request.number);
                        self.teller.tell(&Fact::Accepted { id: operation.id(), key });
                    }
                    return Ok(Some(operation));
                }
                Err(error) => {
                    self.teller.tell(&Fact::Refused { code: error.code().to_string() });
                    if let SubmitError::Busy { .. } | SubmitError::Refused(_) | SubmitError::Changed(_) =
                        error
                    {
                        return Ok(None);
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    /// Cancels, and tells what the answer promised. A cancel that was not acknowledged promises nothing.
    async fn cancel(&self, id: OperationId) {
        if let Ok(operation) = self.engine.cancel(id, &self.caller).await {
            self.seen(&operation);
            if operation.error().is_some() {
                self.teller.tell(&Fact::Cancelled { id });
            }
        }
    }

    /// Waits for the end and tells it.
    async fn wait(&self, id: OperationId) -> anyhow::Result<Operation> {
        loop {
            match self.engine.wait_done(id).await {
                Ok(operation) => {
                    if let Some(outcome) = outcome(&operation) {
                        self.teller.tell(&Fact::Done { id, outcome });
                        return Ok(operation);
                    }
                }
                // The store is away for now.
                Err(error) => {
                    self.teller.tell(&Fact::Refused { code: error.code().to_string() });
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    fn seen(&self, operation: &Operation) {
        let (id, revision, phase) = (operation.id(), operation.revision().0, operation.phase());
        self.teller.tell(&Fact::Seen { id, revision, phase });
    }

    /// Looks at operations that run, and tells what it was shown.
    async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.roll(|dice| dice.millis(1..6))).await;
            let id = self.roll(|dice| dice.take(&mut self.running().clone()));
            let Some(id) = id else { continue };
            if let Ok(operation) = self.engine.get(id).await {
                self.seen(&operation);
            }
        }
    }
}

/// Reads until the store is there: what breaks down once may do so a few times.
async fn until_read<T, E: std::error::Error + Send + Sync + 'static>(
    mut read: impl AsyncFnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    let mut tries = 0;
    loop {
        match read().await {
            Ok(found) => return Ok(found),
            Err(error) if tries == READS_MAX => return Err(error).context("the store cannot be read"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        tries += 1;
    }
}
