//! The operations of the workloads: three steps that do nothing, and what ends or holds them up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use longrun::{
    Call, Caller, Code, Engine, EngineBuilder, Kind, PlanBuilder, Planned, Step, StepContext, StepError,
    StepResult, UndoContext, UndoResult, Undoable, async_trait,
};
use tokio::sync::watch;

use crate::Result;

/// Callers that submit at the same time.
const CALLERS: u64 = 256;

/// A step that does nothing, and has nothing to undo.
struct Nothing;

#[async_trait]
impl Step for Nothing {
    const NAME: &'static str = "nothing";
    type Input = u64;
    type Output = u64;
    type Checkpoint = ();

    async fn run(&self, _: &StepContext<()>, input: u64) -> StepResult<u64> {
        Ok(input + 1)
    }

    async fn undo(&self, _: &UndoContext, _: u64, _: Undoable<u64, ()>) -> UndoResult {
        Ok(())
    }
}

/// A step that fails for good and says that it has done nothing.
struct Fails;

#[async_trait]
impl Step for Fails {
    const NAME: &'static str = "fails";
    type Input = u64;
    type Output = u64;
    type Checkpoint = ();

    async fn run(&self, _: &StepContext<()>, _: u64) -> StepResult<u64> {
        Err(StepError::not_applied(Code::FailedPrecondition, "it always does"))
    }

    async fn undo(&self, _: &UndoContext, _: u64, _: Undoable<u64, ()>) -> UndoResult {
        Ok(())
    }
}

/// A barrier that operations wait at.
#[derive(Clone, Debug)]
pub struct Barrier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    open: watch::Sender<bool>,
    arrived: AtomicU64,
    first: OnceLock<Instant>,
}

impl Barrier {
    /// One that is open, or not.
    pub fn new(open: bool) -> Self {
        let (open, arrived) = (watch::Sender::new(open), AtomicU64::new(0));
        Self(Arc::new(Inner { open, arrived, first: OnceLock::new() }))
    }

    /// Lets everybody pass, or nobody from now on.
    pub fn set_open(&self, open: bool) {
        self.0.open.send_replace(open);
    }

    /// How many have come so far.
    pub fn arrived(&self) -> u64 {
        self.0.arrived.load(Ordering::Relaxed)
    }

    /// When the first of them came.
    pub fn first(&self) -> Option<Instant> {
        self.0.first.get().copied()
    }
}

/// A step that waits at the barrier.
struct Waits(Barrier);

#[async_trait]
impl Step for Waits {
    const NAME: &'static str = "waits";
    type Input = u64;
    type Output = u64;
    type Checkpoint = ();

    async fn run(&self, cx: &StepContext<()>, input: u64) -> StepResult<u64> {
        let Barrier(barrier) = &self.0;
        barrier.first.get_or_init(Instant::now);
        barrier.arrived.fetch_add(1, Ordering::Relaxed);
        let mut open = barrier.open.subscribe();
        tokio::select! {
            biased;
            _ = open.wait_for(|open| *open) => Ok(input + 1),
            _ = cx.stopped() => Err(StepError::unknown(Code::Aborted, "told to stop")),
        }
    }

    async fn undo(&self, _: &UndoContext, _: u64, _: Undoable<u64, ()>) -> UndoResult {
        Ok(())
    }
}

/// Declares a kind: three steps in a row, each with the output of the one before.
macro_rules! kind {
    ($(#[$doc:meta])* $kind:ident, $name:literal, $first:ty, $second:ty, $third:ty) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $kind;

        #[async_trait]
        impl Kind for $kind {
            const NAME: &'static str = $name;
            type Request = u64;
            type Metadata = u64;
            type Response = u64;

            async fn plan(&self, request: &u64, plan: &mut PlanBuilder) -> Planned<Self> {
                let first = plan.step::<$first>(*request);
                let second = plan.step::<$second>(&first);
                Ok((*request, plan.step::<$third>(&second)))
            }
        }
    };
}

kind!(
    /// Three steps that do nothing.
    Happy, "bench.happy", Nothing, Nothing, Nothing
);
kind!(
    /// The third step fails; the second and the first are undone.
    Rollback, "bench.rollback", Nothing, Nothing, Fails
);
kind!(
    /// The second step waits at the barrier.
    Held, "bench.held", Nothing, Waits, Nothing
);

/// As many steps that do nothing as are asked for.
#[derive(Debug)]
pub struct Long;

#[async_trait]
impl Kind for Long {
    const NAME: &'static str = "bench.long";
    type Request = u16;
    type Metadata = u16;
    type Response = u64;

    async fn plan(&self, steps: &u16, plan: &mut PlanBuilder) -> Planned<Self> {
        let mut last = plan.step::<Nothing>(0);
        for _ in 1..*steps {
            last = plan.step::<Nothing>(&last);
        }
        Ok((*steps, last))
    }
}

/// Submits so many, from 256 callers.
pub async fn submit_all<K: Kind<Request = u64>>(engine: &Engine, count: u64) -> Result<()> {
    let call = Call::by(Caller::new("bench")?);
    let mut tasks = Vec::new();
    for task in 0..CALLERS {
        let (engine, call) = (engine.clone(), call.clone());
        let share = count / CALLERS + u64::from(task < count % CALLERS);
        tasks.push(tokio::spawn(async move {
            for number in 0..share {
                engine.submit::<K>(&number, call.clone()).await?;
            }
            Ok::<_, anyhow::Error>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// Registers all of them.
pub fn register(builder: EngineBuilder, barrier: &Barrier) -> EngineBuilder {
    let builder = builder.kind(Happy).kind(Rollback).kind(Held).kind(Long);
    builder.step(Nothing).step(Fails).step(Waits(barrier.clone()))
}
