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
use crate::kinds::{self, Barrier, Happy, Held, Rollback};
use crate::report::{MemoryLine, memory_mib};
use crate::stores::{self, StoreName};
use crate::template::Template;
use crate::workloads::Workload;

/// Clients that submit, each as soon as it may.
const SUBMITTERS: u64 = 512;
/// Clients that wait for an end.
const LISTENERS: u32 = 1000;
/// Operations that never end while they are waited for.
const HELD: u64 = 100;
/// How long a client that waits does not listen.
const UNHEARD_FOR: Duration = Duration::from_secs(5);
/// How long a client rests that was refused, or has nothing to ask for.
const RETRY_AFTER: Duration = Duration::from_millis(20);
/// How often memory and the queue are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Into how many parts the time is divided.
const PARTS: usize = 12;
/// The most that the last third of the time takes, over the most that the third before it takes: caches fill for a while, and an
/// allocator keeps what it has had.
const GROWTH_MAX: f64 = 1.05;
/// The share of the queue that is taken when it counts as full: others end while those who were refused rest.
const FULL_PERCENT: u64 = 90;
/// In how many of a hundred looks it has to be full.
const FULL_LOOKS_PERCENT: u64 = 90;

/// What the engine has to bear, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct SoakLoad {
    /// Done operations in the store at the beginning.
    pub stored: u64,
    /// How long done operations are kept.
    pub retention: Duration,
    /// Unfinished operations, at the most.
    pub unfinished_max: u64,
    /// How long it goes on.
    pub duration: Duration,
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
    /// How long it went on, in seconds.
    pub seconds: u64,
    /// Done operations in the store at the beginning.
    pub stored: u64,
    /// Operations that were accepted.
    pub accepted: u64,
    /// Requests that were refused, because the queue was full.
    pub refused: u64,
    /// Unfinished operations, the most that were counted.
    pub unfinished_peak: u64,
    /// How often the queue was looked at.
    pub looks: u64,
    /// How often it was full then.
    pub full: u64,
    /// Ends that were asked for, and not listened to for some time.
    pub unheard: u64,
    /// Resident memory, in MiB: the most in each twelfth of the time.
    pub peaks_mib: Vec<f64>,
}

/// What all clients share.
struct Shared {
    engine: Engine,
    /// The operation that was accepted last.
    newest: Mutex<Option<OperationId>>,
    held: Vec<OperationId>,
    accepted: AtomicU64,
    refused: AtomicU64,
    unheard: AtomicU64,
}

/// Soaks a store in an empty folder. An error if the queue was mostly not full, if more were accepted than it holds, if everybody was
/// heard, or if memory still grows in the last third of the time.
pub async fn run(name: StoreName, folder: &Path, load: SoakLoad) -> Result<Soak> {
    let opened = stores::open(name, folder).await?;
    for batch in Template::of(Workload::Happy).await?.settled(load.stored) {
        opened.kv()?.commit(&batch)?;
    }
    let barrier = Barrier::new(false);
    let builder = Engine::builder_shared(opened.store).unfinished_max(load.unfinished_max);
    let builder = builder.retention(load.retention).sweep_every(Duration::from_secs(1));
    let engine = kinds::register(builder, &barrier).start().await?;
    let call = Call::by(Caller::new("bench")?);
    let mut held = Vec::new();
    for number in 0..HELD {
        held.push(engine.submit::<Held>(&number, call.clone()).await?.id());
    }
    let shared = Arc::new(Shared {
        engine,
        newest: Mutex::default(),
        held,
        accepted: AtomicU64::new(HELD),
        refused: AtomicU64::new(0),
        unheard: AtomicU64::new(0),
    });
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..SUBMITTERS {
        let (shared, call) = (Arc::clone(&shared), call.clone());
        if number % 2 == 0 {
            clients.spawn(async move { shared.submit::<Happy>(call).await });
        } else {
            clients.spawn(async move { shared.submit::<Rollback>(call).await });
        }
    }
    for number in 0..LISTENERS {
        let shared = Arc::clone(&shared);
        clients.spawn(async move { shared.listen(number).await });
    }

    let mut soak = Soak {
        peer: "longrun",
        workload: "soak",
        store: name.name(),
        seconds: load.duration.as_secs(),
        stored: load.stored,
        accepted: 0,
        refused: 0,
        unfinished_peak: 0,
        looks: 0,
        full: 0,
        unheard: 0,
        peaks_mib: vec![0.0; PARTS],
    };
    let began = Instant::now();
    while began.elapsed() < load.duration {
        sleep(LOOK_EVERY).await;
        let part = began.elapsed().as_millis() * PARTS as u128 / load.duration.as_millis().max(1);
        let peak = &mut soak.peaks_mib[usize::try_from(part)?.min(PARTS - 1)];
        *peak = memory_mib(MemoryLine::Now)?.max(*peak);
        let unfinished = shared.engine.unfinished();
        soak.unfinished_peak = unfinished.max(soak.unfinished_peak);
        soak.looks += 1;
        soak.full += u64::from(unfinished * 100 >= load.unfinished_max * FULL_PERCENT);
        if let Some(ended) = clients.try_join_next() {
            ended??;
            bail!("a client has nothing to do");
        }
    }
    clients.shutdown().await;
    soak.accepted = shared.accepted.load(Relaxed);
    soak.refused = shared.refused.load(Relaxed);
    soak.unheard = shared.unheard.load(Relaxed);
    // Its files are removed next.
    shared.engine.shutdown(Duration::from_secs(60)).await;
    soak.judge(load)?;
    Ok(soak)
}

impl Soak {
    fn judge(&self, load: SoakLoad) -> Result<()> {
        let mostly_full = self.full * 100 >= self.looks * FULL_LOOKS_PERCENT;
        ensure!(mostly_full && self.refused > 0, "the queue was mostly not full: {self:?}");
        ensure!(
            self.unfinished_peak <= load.unfinished_max,
            "more were accepted than there is room for: {self:?}"
        );
        ensure!(self.unheard > 0, "everybody was heard at once: {self:?}");
        let most = |part: &[f64]| part.iter().copied().fold(0.0, f64::max);
        let third = PARTS / 3;
        let (before, last) = (most(&self.peaks_mib[third..2 * third]), most(&self.peaks_mib[2 * third..]));
        ensure!(last <= before * GROWTH_MAX, "memory grows: {self:?}");
        Ok(())
    }
}

impl Shared {
    /// Submits without end. What is refused is tried again.
    async fn submit<K: Kind<Request = u64>>(&self, call: Call) -> Result<()> {
        for number in 0.. {
            match self.engine.submit::<K>(&number, call.clone()).await {
                Ok(accepted) => {
                    self.accepted.fetch_add(1, Relaxed);
                    *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(accepted.id());
                }
                Err(error) if error.code() == Code::ResourceExhausted => {
                    self.refused.fetch_add(1, Relaxed);
                    sleep(RETRY_AFTER).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Asks for the end of one after the other, and does not listen for some time. Of four clients two then hear it, one drops what it
    /// has asked for, and one drops what would never have ended.
    async fn listen(&self, number: u32) -> Result<()> {
        // Else all would ask at the same moments, for the same operations.
        sleep(UNHEARD_FOR * number / LISTENERS).await;
        loop {
            let id = match number % 4 {
                3 => self.held.get(number as usize % self.held.len()).copied(),
                _ => *self.newest.lock().unwrap_or_else(PoisonError::into_inner),
            };
            let Some(id) = id else {
                sleep(RETRY_AFTER).await;
                continue;
            };
            let mut answer = pin!(self.engine.wait_done(id));
            // Asks once, so that the engine knows of the client.
            if let Ok(ended) = timeout(Duration::ZERO, answer.as_mut()).await {
                ended?;
                sleep(RETRY_AFTER).await;
                continue;
            }
            self.unheard.fetch_add(1, Relaxed);
            sleep(UNHEARD_FOR).await;
            if number % 4 < 2 {
                ensure!(answer.await?.done(), "an answer with an operation that is not done");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn memory_that_grows_and_a_load_that_is_none_are_errors() {
        let load =
            SoakLoad { stored: 0, retention: Duration::ZERO, unfinished_max: 100, duration: Duration::ZERO };
        let sound = Soak {
            peer: "longrun",
            workload: "soak",
            store: "memory",
            seconds: 0,
            stored: 0,
            accepted: 0,
            refused: 1,
            unfinished_peak: 100,
            looks: 100,
            full: 90,
            unheard: 1,
            peaks_mib: parts([50.0, 200.0, 209.0]),
        };
        // What is taken at the beginning is not compared.
        sound.judge(load).unwrap();
        let said = |soak: Soak| soak.judge(load).unwrap_err().to_string();
        let with = || sound.clone();
        assert!(said(Soak { peaks_mib: parts([50.0, 200.0, 211.0]), ..with() }).starts_with("memory grows"));
        assert!(said(Soak { refused: 0, ..with() }).starts_with("the queue was mostly not full"));
        assert!(said(Soak { full: 89, ..with() }).starts_with("the queue was mostly not full"));
        assert!(said(Soak { unfinished_peak: 101, ..with() }).starts_with("more were accepted"));
        assert!(said(Soak { unheard: 0, ..with() }).starts_with("everybody was heard"));
    }

    fn parts(thirds: [f64; 3]) -> Vec<f64> {
        thirds.into_iter().flat_map(|peak| [peak; PARTS / 3]).collect()
    }
}
