//! Whether memory stays bounded (L7): over a store of many operations, with a queue that is always full, and with clients who ask for
//! an end and do not listen.

use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use longrun::{Call, Caller, Code, Engine, Kind, OperationId};
use serde::Serialize;
use tokio::time::{sleep, timeout};

use crate::Result;
use crate::kinds::{self, Barrier, Happy, Rollback};
use crate::report::{MemoryLine, memory_mib};
use crate::stores::{self, StoreName};
use crate::template::Template;
use crate::workloads::Workload;

/// Who submit, each as soon as it is let.
const SUBMITTERS: u64 = 512;
/// Who wait for an end.
const LISTENERS: u64 = 1000;
/// How long a listener does not listen.
const DEAF: Duration = Duration::from_secs(5);
/// How long a submitter that was refused stays away.
const AWAY: Duration = Duration::from_millis(20);
/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Into how many parts the time is divided.
const PARTS: usize = 12;
/// What the last third of the time may take more than the one before it: caches fill, and an allocator keeps what it has had.
const GROWTH_MAX: f64 = 1.1;
const GROWTH_MAX_MIB: f64 = 16.0;

/// How it is done.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Done operations in the store at the beginning.
    pub stored: u64,
    /// How long done operations are kept.
    pub retention: Duration,
    /// Unfinished operations, at the most.
    pub queue: u64,
    /// How long it goes on.
    pub time: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Soak {
    /// `longrun`.
    pub peer: &'static str,
    /// `soak`.
    pub workload: &'static str,
    /// Over which store.
    pub store: &'static str,
    /// Seconds.
    pub seconds: u64,
    /// Done operations in the store at the beginning.
    pub stored: u64,
    /// Operations that were accepted.
    pub accepted: u64,
    /// Requests that were refused, because the queue was full.
    pub refused: u64,
    /// Unfinished operations, the most that were counted.
    pub unfinished_peak: u64,
    /// Ends that were asked for, and not listened to for some time.
    pub unheard: u64,
    /// Resident memory, in MiB: the most in each twelfth of the time.
    pub mib: Vec<f64>,
}

/// What goes on at the same time.
struct Shared {
    engine: Engine,
    newest: Mutex<Option<OperationId>>,
    accepted: AtomicU64,
    refused: AtomicU64,
    unheard: AtomicU64,
}

/// Runs it on an empty folder. An error if memory still grows in the last third.
pub async fn run(name: StoreName, folder: &Path, plan: Plan) -> Result<Soak> {
    let opened = stores::open(name, folder).await?;
    for batch in Template::of(Workload::Happy).await?.settled(plan.stored) {
        opened.kv()?.commit(&batch)?;
    }
    let builder = Engine::builder_shared(opened.store).unfinished_max(plan.queue).retention(plan.retention);
    let builder = builder.sweep_every(Duration::from_secs(1));
    let shared = Arc::new(Shared {
        engine: kinds::register(builder, &Barrier::new(true)).start().await?,
        newest: Mutex::default(),
        accepted: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        unheard: AtomicU64::new(0),
    });
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..SUBMITTERS {
        let shared = Arc::clone(&shared);
        if number % 2 == 0 {
            tasks.spawn(async move { shared.submit::<Happy>().await });
        } else {
            tasks.spawn(async move { shared.submit::<Rollback>().await });
        }
    }
    for number in 0..LISTENERS {
        let shared = Arc::clone(&shared);
        tasks.spawn(async move { shared.listen(number % 2 == 0).await });
    }
    let (began, mut mib, mut unfinished_peak) = (Instant::now(), vec![0.0; PARTS], 0);
    while began.elapsed() < plan.time {
        sleep(LOOK_EVERY).await;
        let part = began.elapsed().as_millis() * PARTS as u128 / plan.time.as_millis().max(1);
        let part = usize::try_from(part)?.min(PARTS - 1);
        mib[part] = memory_mib(MemoryLine::Now)?.max(mib[part]);
        unfinished_peak = shared.engine.unfinished().max(unfinished_peak);
        if let Some(ended) = tasks.try_join_next() {
            ended??;
            bail!("a client has nothing to do");
        }
    }
    tasks.shutdown().await;
    let soak = Soak {
        peer: "longrun",
        workload: "soak",
        store: name.name(),
        seconds: plan.time.as_secs(),
        stored: plan.stored,
        accepted: shared.accepted.load(Relaxed),
        refused: shared.refused.load(Relaxed),
        unfinished_peak,
        unheard: shared.unheard.load(Relaxed),
        mib,
    };
    soak.judge(plan)?;
    Ok(soak)
}

impl Soak {
    fn judge(&self, plan: Plan) -> Result<()> {
        ensure!(self.refused > 0, "the queue was never full: {self:?}");
        ensure!(self.unfinished_peak <= plan.queue, "more were accepted than there is room for: {self:?}");
        let most = |part: &[f64]| part.iter().copied().fold(0.0, f64::max);
        let third = PARTS / 3;
        let (before, last) = (most(&self.mib[third..2 * third]), most(&self.mib[2 * third..]));
        ensure!(last <= before * GROWTH_MAX + GROWTH_MAX_MIB, "memory grows: {self:?}");
        Ok(())
    }
}

impl Shared {
    /// Submits without end. What is refused is tried again.
    async fn submit<K: Kind<Request = u64>>(&self) -> Result<()> {
        let call = Call::by(Caller::new("bench")?);
        for number in 0.. {
            match self.engine.submit::<K>(&number, call.clone()).await {
                Ok(accepted) => {
                    self.accepted.fetch_add(1, Relaxed);
                    *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(accepted.id());
                }
                Err(error) if error.code() == Code::ResourceExhausted => {
                    self.refused.fetch_add(1, Relaxed);
                    sleep(AWAY).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Asks for the end of one after the other, and does not listen for some time: then to the answer, or never.
    async fn listen(&self, at_last: bool) -> Result<()> {
        loop {
            let newest = *self.newest.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(id) = newest else {
                sleep(AWAY).await;
                continue;
            };
            let mut answer = pin!(self.engine.wait_done(id));
            if timeout(Duration::ZERO, answer.as_mut()).await.is_ok() {
                continue;
            }
            self.unheard.fetch_add(1, Relaxed);
            sleep(DEAF).await;
            if at_last {
                ensure!(answer.await?.done(), "an end that is none");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn l7_memory_that_grows_and_a_queue_that_is_never_full_are_errors() {
        let plan = Plan { stored: 0, retention: Duration::ZERO, queue: 100, time: Duration::ZERO };
        let with = |mib: [f64; 3], refused, unfinished_peak| Soak {
            peer: "longrun",
            workload: "soak",
            store: "memory",
            seconds: 0,
            stored: 0,
            accepted: 0,
            refused,
            unfinished_peak,
            unheard: 0,
            mib: mib.into_iter().flat_map(|part| [part; PARTS / 3]).collect(),
        };
        // What is taken at the beginning is not compared.
        with([50.0, 200.0, 220.0], 1, 100).judge(plan).unwrap();
        let said = |soak: Soak| soak.judge(plan).unwrap_err().to_string();
        assert!(said(with([50.0, 200.0, 240.0], 1, 100)).starts_with("memory grows"));
        assert!(said(with([50.0, 200.0, 200.0], 0, 100)).starts_with("the queue was never full"));
        assert!(said(with([50.0, 200.0, 200.0], 1, 101)).starts_with("more were accepted"));
    }
}
