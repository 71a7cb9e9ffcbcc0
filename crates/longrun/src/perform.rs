//! Performing one run or one undo: with its timeout, its grace, and its panics caught.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use longrun_core::{
    Applied, Attempt, Code, Execution, Json, Progress, Status, StepIndex, StepName, StepPolicy, StepReport,
};
use tokio::sync::watch;
use tracing::Instrument;

use crate::context::{FencingToken, Shared, Stop};
use crate::engine::Inner;
use crate::registry::AnyStep;
use crate::running::Entry;
use crate::step::{StepError, StepResult, UndoError};

/// How a run or an undo ended.
pub(crate) enum Ended {
    Run { step: StepIndex, attempt: Attempt, report: StepReport },
    Undo { step: StepIndex, failures: u32, result: Result<(), Status> },
}

/// Tells a run or an undo to stop. The first reason stays.
pub(crate) fn tell_to_stop(stop: &watch::Sender<Option<Stop>>, reason: Stop) {
    stop.send_if_modified(|stop| {
        let first = stop.is_none();
        stop.get_or_insert(reason);
        first
    });
}

/// What both need: the code, what it gets to know, and its policy.
struct Job {
    code: Result<Arc<dyn AnyStep>, Status>,
    shared: Arc<Shared>,
    policy: StepPolicy,
}

fn job(
    inner: &Arc<Inner>,
    entry: &Arc<Entry>,
    execution: &Execution,
    step: StepIndex,
    attempt: u32,
    progress: Arc<Mutex<Option<Progress>>>,
) -> Job {
    let spec = execution.plan().and_then(|plan| plan.step(step));
    let code = spec.and_then(|spec| inner.registry.step(&spec.name));
    let shared = Shared {
        header: Arc::clone(execution.header()),
        step,
        step_name: spec.map(|spec| spec.name.clone()).unwrap_or_else(unnamed),
        token: FencingToken { epoch: entry.fence.unwrap_or(inner.fence), attempt },
        store: Arc::clone(&inner.store),
        began_at: inner.now(),
        checkpoint: execution.checkpoint(step).cloned(),
        driver: entry.inbox.clone(),
        progress,
        stop: watch::Sender::new(None),
    };
    let policy = execution.plan().map(|plan| plan.policy(step)).unwrap_or_default();
    // The scheduler lets no plan through whose steps are not registered.
    let code = code.ok_or_else(|| Status::new(Code::Internal, "the step is not registered"));
    Job { code, shared: Arc::new(shared), policy }
}

#[allow(clippy::expect_used)] // A literal that fits its rule; a test would fail otherwise.
fn unnamed() -> StepName {
    StepName::new("unnamed").expect("a valid name")
}

/// Begins a run. Its start is durable.
pub(crate) fn run(
    inner: &Arc<Inner>,
    entry: &Arc<Entry>,
    execution: &Execution,
    step: StepIndex,
) -> (BoxFuture<'static, Ended>, watch::Sender<Option<Stop>>) {
    let attempt = execution.attempt(step);
    let progress = entry.begin_progress(step);
    let Job { code, shared, policy } = job(inner, entry, execution, step, attempt.0, progress);
    let input = execution.input(step).map_err(|error| Status::new(Code::Internal, error.to_string()));
    let stop = shared.stop.clone();
    let span = tracing::debug_span!("step", name = %shared.step_name, %attempt);
    let future = async move {
        metrics::counter!("longrun_step_runs_total").increment(1);
        let rolls_back = *shared.stop.borrow() == Some(Stop::RollingBack);
        let report = match (code, input) {
            // Decided and durable before this was first polled: it has not begun, and must not (C11).
            _ if rolls_back => {
                let error = Status::new(Code::Aborted, "the operation rolled back before the step began");
                StepReport::Failed { error, applied: Applied::No, retryable: false }
            }
            (Ok(code), Ok(input)) => {
                let work = Box::pin(async { code.run(Arc::clone(&shared), input).await });
                let (ended, stopped) = bounded(work, &shared.stop, &policy).await;
                report(ended, stopped, &policy)
            }
            (Err(error), _) | (_, Err(error)) => {
                StepReport::Failed { error, applied: Applied::No, retryable: false }
            }
        };
        Ended::Run { step, attempt, report }
    };
    (Box::pin(future.instrument(span)), stop)
}

/// The number of an undo: above those of all its runs, so that whoever fences by it takes the undo and refuses a run that
/// comes late.
pub(crate) const fn undo_attempt(runs: Attempt, failures: u32) -> u32 {
    runs.0.saturating_add(failures).saturating_add(1)
}

/// Begins an undo. The decision to roll back is durable (C11).
pub(crate) fn undo(
    inner: &Arc<Inner>,
    entry: &Arc<Entry>,
    execution: &Execution,
    step: StepIndex,
) -> (BoxFuture<'static, Ended>, watch::Sender<Option<Stop>>) {
    let failures = execution.undo_failures(step);
    let attempt = undo_attempt(execution.attempt(step), failures);
    // An undo reports none.
    let Job { code, shared, policy } = job(inner, entry, execution, step, attempt, Arc::default());
    let input = execution.input(step).map_err(|error| Status::new(Code::Internal, error.to_string()));
    let outcome = execution.undoable(step);
    let stop = shared.stop.clone();
    let span = tracing::debug_span!("undo", name = %shared.step_name, failures);
    let future = async move {
        metrics::counter!("longrun_undos_total").increment(1);
        let result = match (code, input, outcome) {
            // Nothing ran: nothing to undo.
            (_, _, None) => Ok(()),
            (Err(error), ..) | (_, Err(error), _) => Err(error),
            (Ok(code), Ok(input), Some(outcome)) => {
                let work = Box::pin(async { code.undo(Arc::clone(&shared), input, outcome).await });
                match bounded(work, &shared.stop, &policy).await {
                    (Ending::Returned(result), _) => result.map_err(|UndoError(error)| error),
                    (Ending::Panicked(message), _) => {
                        Err(Status::new(Code::Internal, format!("the undo panicked: {message}")))
                    }
                    (Ending::Dropped, stopped) => Err(dropped("undo", stopped, &policy)),
                }
            }
        };
        Ended::Undo { step, failures, result }
    };
    (Box::pin(future.instrument(span)), stop)
}

fn report(ended: Ending<StepResult<Json>>, stopped: Option<Stop>, policy: &StepPolicy) -> StepReport {
    match ended {
        Ending::Returned(Ok(output)) => StepReport::Done(output),
        Ending::Returned(Err(StepError { status, applied, retryable })) => {
            StepReport::Failed { error: status, applied, retryable }
        }
        // A panic is a bug: running into it again would not help, and what it left behind is not known.
        Ending::Panicked(message) => {
            let error = Status::new(Code::Internal, format!("the step panicked: {message}"));
            StepReport::Failed { error, applied: Applied::Unknown, retryable: false }
        }
        Ending::Dropped => StepReport::Failed {
            error: dropped("step", stopped, policy),
            applied: Applied::Unknown,
            retryable: true,
        },
    }
}

fn dropped(what: &str, stopped: Option<Stop>, policy: &StepPolicy) -> Status {
    match stopped {
        Some(Stop::TimedOut) | None => {
            Status::new(Code::DeadlineExceeded, format!("the {what} took longer than {:?}", policy.timeout))
        }
        Some(_) => Status::new(Code::Aborted, format!("the {what} did not stop within {:?}", policy.grace)),
    }
}

/// How a bounded piece of work came to its end.
enum Ending<T> {
    Returned(T),
    Panicked(String),
    /// It did not stop when it was told to; nobody knows what it did.
    Dropped,
}

/// Lets work go on until it ends by itself, or a grace after it was told to stop or its time was over (C14).
async fn bounded<T>(
    work: Pin<Box<impl Future<Output = T>>>,
    stop: &watch::Sender<Option<Stop>>,
    policy: &StepPolicy,
) -> (Ending<T>, Option<Stop>) {
    let mut work = Some(AssertUnwindSafe(work).catch_unwind());
    let mut told = stop.subscribe();
    let stopped = {
        let Some(work) = work.as_mut() else { return (Ending::Dropped, None) };
        tokio::select! {
            biased;
            result = &mut *work => return (ending(result), *stop.borrow()),
            _ = told.wait_for(Option::is_some) => {}
            () = tokio::time::sleep(policy.timeout) => tell_to_stop(stop, Stop::TimedOut),
        }
        let reason = *stop.borrow();
        tracing::debug!(?reason, "told to stop");
        tokio::select! {
            biased;
            result = &mut *work => return (ending(result), reason),
            () = tokio::time::sleep(policy.grace) => reason,
        }
    };
    // Dropping runs the user's destructors, and these may panic too.
    let dropping = std::panic::catch_unwind(AssertUnwindSafe(|| drop(work.take())));
    if dropping.is_err() {
        tracing::error!("a step panicked while it was dropped");
    }
    (Ending::Dropped, stopped)
}

fn ending<T>(result: Result<T, Box<dyn std::any::Any + Send>>) -> Ending<T> {
    match result {
        Ok(value) => Ending::Returned(value),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Ending::Panicked(text.unwrap_or_else(|| "without a message".to_owned()))
        }
    }
}
