//! [`Interceptor`]: what stands around every run and every undo of an engine.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use longrun_core::execution::Undoable as StoredUndoable;
use longrun_core::{Caller, Invalid, Json, KindName, OperationId, Payload, ResourceId, StepName, Timestamp};

use crate::context::{EffectKey, FencingToken, Shared, Stop, shared_methods};
use crate::kind::Resource;
use crate::references::References;
use crate::registry::AnyStep;
use crate::step::{StepResult, UndoResult, Undoable};

/// Stands around every run and every undo, of whatever step: for what all of them need, such as limits and measurements of one's
/// own, and for tests that have them fail.
///
/// What it returns is what the engine takes for the end of the run or undo. The timeout of the step counts for it too, and
/// a panic of it is one of the step.
#[async_trait]
pub trait Interceptor: Send + Sync + 'static {
    /// Around a run, whose start is durable.
    async fn run(&self, run: &InterceptedRun<'_>) -> StepResult<Json> {
        run.call().await
    }

    /// Around an undo.
    async fn undo(&self, undo: &InterceptedUndo<'_>) -> UndoResult {
        undo.call().await
    }
}

/// A run that is about to begin.
pub struct InterceptedRun<'a> {
    step: &'a dyn AnyStep,
    shared: Arc<Shared>,
    input: Json,
}

/// An undo that is about to begin.
pub struct InterceptedUndo<'a> {
    step: &'a dyn AnyStep,
    shared: Arc<Shared>,
    input: Json,
    outcome: StoredUndoable,
}

impl InterceptedRun<'_> {
    shared_methods!();

    /// The input, as it is stored.
    pub const fn input(&self) -> &Json {
        &self.input
    }

    /// Runs the step.
    pub async fn call(&self) -> StepResult<Json> {
        self.step.run(Arc::clone(&self.shared), self.input.clone()).await
    }
}

impl InterceptedUndo<'_> {
    shared_methods!();

    /// The input of the run, as it is stored.
    pub const fn input(&self) -> &Json {
        &self.input
    }

    /// What is known of the run: its output, or its last checkpoint, as they are stored.
    pub fn outcome(&self) -> Undoable<Json, Json> {
        match &self.outcome {
            StoredUndoable::Done(output) => Undoable::Done(output.clone()),
            StoredUndoable::MayHaveRun(checkpoint) => Undoable::MayHaveRun(checkpoint.clone()),
        }
    }

    /// Undoes the step.
    pub async fn call(&self) -> UndoResult {
        self.step.undo(Arc::clone(&self.shared), self.input.clone(), self.outcome.clone()).await
    }
}

impl fmt::Debug for InterceptedRun<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run of {} {}", self.step_name(), self.effect_key())
    }
}

impl fmt::Debug for InterceptedUndo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "undo of {} {}", self.step_name(), self.effect_key())
    }
}

/// A step with what stands around it.
pub(crate) struct Intercepted {
    pub(crate) step: Arc<dyn AnyStep>,
    pub(crate) interceptor: Arc<dyn Interceptor>,
}

#[async_trait]
impl AnyStep for Intercepted {
    fn accepts(&self, version: u32) -> bool {
        self.step.accepts(version)
    }

    async fn run(&self, shared: Arc<Shared>, input: Json) -> StepResult<Json> {
        self.interceptor.run(&InterceptedRun { step: &*self.step, shared, input }).await
    }

    async fn undo(&self, shared: Arc<Shared>, input: Json, outcome: StoredUndoable) -> UndoResult {
        self.interceptor.undo(&InterceptedUndo { step: &*self.step, shared, input, outcome }).await
    }
}
