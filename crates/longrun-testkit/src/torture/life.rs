//! One life of the process: a store that ends with it, its clock, and what stands around its steps.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use longrun::{
    Caller, Code, EffectKey, Engine, Environment, InterceptedRun, InterceptedUndo, Interceptor, Json,
    OperationId, StepError, StepIndex, StepName, StepResult, Timestamp, UndoError, UndoResult, Undoable,
};
use longrun_store::faulty::{Faults, ReadFault};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::fault::{Act, Fault, Point, Strike};
use crate::panics::lock;
use crate::random::Rng;

/// The wall clock when a trial begins, in microseconds since 1970.
const EPOCH_MICROS: i64 = 1_700_000_000_000_000;

/// So many failures that nobody planned, of one life, and its operation counts as one that does not end. A step that waits for
/// something by failing may fail often.
const FAILURES_MAX: u32 = 200;

/// What planned failures say.
const PLANNED: &str = "planned by torture";

/// Where the operation came to, with the names of the steps.
pub(super) type Seen = BTreeMap<Point, StepName>;

/// How far a trial has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// What has to be there before is made. No fault strikes.
    Preparing,
    /// The operation is being submitted. Its first step waits until its id is known.
    Submitting,
    /// Faults strike at this operation, and at no other.
    Submitted(OperationId),
}

/// What outlives the processes of a trial.
#[derive(Debug)]
pub(super) struct Control {
    /// The faults that have not struck yet.
    pending: Mutex<Vec<Strike>>,
    seen: Mutex<Seen>,
    stage: Mutex<Stage>,
    /// The steps whose policy allows one run only.
    run_once: Mutex<BTreeSet<StepIndex>>,
    /// Wakes those who wait for the stage, in the order in which they came.
    submitted: Notify,
    /// A cancel was accepted.
    cancelled: AtomicBool,
    /// What went wrong with the faults themselves.
    problems: Mutex<Vec<String>>,
    /// Microseconds that earlier lives took.
    before: AtomicU64,
    random: Mutex<Rng>,
}

impl Control {
    pub(super) fn new(planned: &[Strike]) -> Self {
        Self {
            pending: Mutex::new(planned.to_vec()),
            seen: Mutex::default(),
            stage: Mutex::new(Stage::Preparing),
            run_once: Mutex::default(),
            submitted: Notify::new(),
            problems: Mutex::default(),
            cancelled: AtomicBool::new(false),
            before: AtomicU64::new(0),
            random: Mutex::new(Rng::new(1)),
        }
    }

    /// All is prepared.
    pub(super) fn submitting(&self) {
        *lock(&self.stage) = Stage::Submitting;
    }

    /// From now on faults strike.
    pub(super) fn submitted(&self, operation: OperationId, run_once: BTreeSet<StepIndex>) {
        *lock(&self.run_once) = run_once;
        *lock(&self.stage) = Stage::Submitted(operation);
        self.submitted.notify_waiters();
    }

    pub(super) fn problems(&self) -> Vec<String> {
        lock(&self.problems).clone()
    }

    pub(super) fn pending(&self) -> Vec<Strike> {
        lock(&self.pending).clone()
    }

    pub(super) fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }

    fn is_run_once(&self, step: StepIndex) -> bool {
        lock(&self.run_once).contains(&step)
    }

    pub(super) fn was_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// The fault that strikes here.
    async fn strike(&self, act: Act, key: EffectKey, name: &StepName) -> Option<Fault> {
        let stage = loop {
            let mut submitted = pin!(self.submitted.notified());
            submitted.as_mut().enable();
            let stage = *lock(&self.stage);
            if stage != Stage::Submitting {
                break stage;
            }
            submitted.await;
        };
        if stage != Stage::Submitted(key.operation) {
            return None;
        }
        let point = Point { act, step: key.step };
        lock(&self.seen).entry(point).or_insert_with(|| name.clone());
        let mut pending = lock(&self.pending);
        let place = pending.iter().position(|planned| planned.point == point)?;
        Some(pending.remove(place).fault)
    }
}

/// One process.
#[derive(Debug)]
pub(super) struct Life {
    control: Arc<Control>,
    began: Instant,
    /// Ends the store with the process.
    faults: Faults,
    died: Notify,
    /// Runs and undos that failed though nobody planned it, and what they said last.
    failures: Mutex<(u32, String)>,
    endless: Notify,
    /// Until the life ends: the engine holds what holds this.
    engine: Mutex<Option<Engine>>,
}

impl Life {
    /// Begins inside of a runtime, with a store that does as it is told.
    pub(super) fn begin(control: &Arc<Control>, faults: Faults) -> Arc<Self> {
        Arc::new(Self {
            control: Arc::clone(control),
            began: Instant::now(),
            faults,
            died: Notify::new(),
            failures: Mutex::default(),
            endless: Notify::new(),
            engine: Mutex::default(),
        })
    }

    /// Who is asked to cancel.
    pub(super) fn started(&self, engine: &Engine) {
        *lock(&self.engine) = Some(engine.clone());
    }

    /// Resolves when the process dies.
    pub(super) async fn died(&self) {
        self.died.notified().await;
    }

    /// Resolves when so much has failed that it always will.
    pub(super) async fn endless(&self) -> String {
        self.endless.notified().await;
        let (failures, last) = lock(&self.failures).clone();
        format!("runs or undos failed {failures} times that were not planned to, at last with {last}")
    }

    /// Counts a call that nobody planned to fail, unless it succeeds: it may also panic, or be dropped.
    async fn counted<T, E: fmt::Display>(&self, call: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let nothing = "a panic, or with nothing in its time".to_owned();
        let mut attempt = Attempt { life: self, failure: Some(nothing) };
        let result = call.await;
        attempt.failure = result.as_ref().err().map(|error| format!("\"{error}\""));
        result
    }

    /// The life is over, by death or not. Inside of its runtime still.
    pub(super) fn end(&self) {
        self.end_store();
        drop(lock(&self.engine).take());
        let lived = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.control.before.fetch_add(lived, Ordering::Relaxed);
    }

    /// Nothing becomes durable from now on, and nothing is read.
    fn end_store(&self) {
        self.faults.set_disk_full(true);
        self.faults.set_reads(Some(ReadFault::Unavailable));
    }

    /// What is on in the process ends with its runtime, as soon as that is told.
    async fn die(&self) -> ! {
        self.end_store();
        self.died.notify_one();
        std::future::pending().await
    }

    async fn cancel(&self, operation: OperationId) {
        // What is taken up again may come here before the engine that does it is known.
        let engine = loop {
            let engine = lock(&self.engine).clone();
            match engine {
                Some(engine) => break engine,
                None => tokio::task::yield_now().await,
            }
        };
        match engine.cancel(operation, &caller()).await {
            // One that rolled back before, or has passed its point of no return, goes on as it did.
            Ok(answer) => {
                let accepted = answer.error().is_some_and(|error| error.code() == Code::Cancelled);
                self.control.cancelled.fetch_or(accepted, Ordering::Relaxed);
            }
            Err(error) => lock(&self.control.problems).push(format!("a cancel fails: {error}")),
        }
    }

    /// What happens before a run or an undo.
    async fn before(&self, fault: Option<Fault>, operation: OperationId) {
        match fault {
            Some(Fault::CrashBefore) => self.die().await,
            Some(Fault::CancelBefore) => self.cancel(operation).await,
            _ => {}
        }
    }

    /// What happens after it, before anybody learns how it ended.
    async fn after(&self, fault: Option<Fault>, operation: OperationId) {
        match fault {
            Some(Fault::CrashAfter) => self.die().await,
            Some(Fault::CancelAfter) => self.cancel(operation).await,
            Some(Fault::Timeout) => std::future::pending().await,
            // Without a word on standard error: it is planned.
            Some(Fault::Panic) => resume_unwind(Box::new(PLANNED)),
            _ => {}
        }
    }
}

/// A call, and how it fails if it ends now.
struct Attempt<'a> {
    life: &'a Life,
    failure: Option<String>,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let Some(failure) = self.failure.take() else { return };
        let mut failures = lock(&self.life.failures);
        *failures = (failures.0 + 1, failure);
        if failures.0 == FAILURES_MAX {
            self.life.endless.notify_one();
        }
    }
}

/// Who calls.
#[allow(clippy::expect_used)] // A literal that fits its rule; every trial would fail otherwise.
pub(super) fn caller() -> Caller {
    Caller::new("torture").expect("a valid caller")
}

/// What stands around the steps of one life.
pub(super) struct Tormentor(pub(super) Arc<Life>);

#[async_trait]
impl Interceptor for Tormentor {
    async fn run(&self, run: &InterceptedRun<'_>) -> StepResult<Json> {
        let life = &self.0;
        let fault = life.control.strike(Act::Run, run.effect_key(), run.step_name()).await;
        if fault == Some(Fault::Error) {
            return Err(StepError::not_applied(Code::FailedPrecondition, PLANNED).permanent());
        }
        life.before(fault, run.operation_id()).await;
        let mut result = match fault {
            None => life.counted(run.call()).await,
            Some(_) => run.call().await,
        };
        // There is no other run in which it could be repeated.
        let twice = fault == Some(Fault::Repeat) && life.control.is_run_once(run.effect_key().step);
        if twice {
            result = run.call().await;
        }
        life.after(fault, run.operation_id()).await;
        match fault {
            Some(Fault::Unknown) => Err(StepError::unknown(Code::FailedPrecondition, PLANNED).permanent()),
            Some(Fault::Repeat) if !twice => Err(StepError::unknown(Code::Unavailable, PLANNED).retryable()),
            _ => result,
        }
    }

    async fn undo(&self, undo: &InterceptedUndo<'_>) -> UndoResult {
        let life = &self.0;
        let act = match undo.outcome() {
            Undoable::Done(_) => Act::Undo,
            Undoable::MayHaveRun(_) => Act::UndoMayHaveRun,
        };
        let fault = life.control.strike(act, undo.effect_key(), undo.step_name()).await;
        let failed = || Err(UndoError::new(Code::Unavailable, PLANNED));
        if fault == Some(Fault::Error) {
            return failed();
        }
        life.before(fault, undo.operation_id()).await;
        let mut result = match fault {
            None => life.counted(undo.call()).await,
            Some(_) => undo.call().await,
        };
        if fault == Some(Fault::Repeat) {
            result = undo.call().await;
        }
        life.after(fault, undo.operation_id()).await;
        if fault == Some(Fault::Unknown) { failed() } else { result }
    }
}

/// A clock that goes on from life to life.
#[derive(Debug)]
pub(super) struct Clock(pub(super) Arc<Life>);

impl Environment for Clock {
    fn now(&self) -> Timestamp {
        let before = i64::try_from(self.0.control.before.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        let lived = i64::try_from(self.0.began.elapsed().as_micros()).unwrap_or(i64::MAX);
        let micros = EPOCH_MICROS.saturating_add(before).saturating_add(lived);
        Timestamp::from_unix_micros(micros).unwrap_or(Timestamp::MAX)
    }

    fn random(&self) -> u64 {
        lock(&self.0.control.random).bits()
    }
}
