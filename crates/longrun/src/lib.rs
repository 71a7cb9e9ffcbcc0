//! An embeddable engine for long-running operations.
//!
//! A call that changes something takes long: it copies a disk, makes a database, moves a tenant. `longrun` lets such a call
//! return an [`Operation`] at once and does the work in the background, so that it survives a crash at any instant, and so
//! that a failure or a cancel undoes everything. `done` turns true only when the work is finished, or when the system is
//! wholly back where it was.
//!
//! # A first program
//!
//! An operation of two steps. Each step says what it does and how to reverse it; which step needs what of which other is
//! checked by the compiler. If the process dies at any point, the next start goes on where this one stopped. If the second
//! step fails for good, the first is undone.
//!
//! ```
#![doc = include_str!("../doc/provision.rs")]
//! ```
//!
//! A service with resources, parents and children, explained line by line, is `examples/vpc.rs` in the repository.
//!
//! # The words
//!
//! | word | meaning |
//! |---|---|
//! | operation | the durable record of one mutating call; what clients poll |
//! | kind | a registered type of operation: [`Kind`] |
//! | plan | the steps of one operation, as stored data, made from the request when it is submitted: [`PlanBuilder`] |
//! | step | one side effect with its `run` and its `undo`: [`Step`] |
//! | outcome | what is known of a run: done, not applied, or unknown: [`StepError`] |
//! | undo | reverse one step |
//! | roll back | undo all steps that ran or may have run, newest first |
//! | resource | a row that users see, changed only by operations, in the same commit: [`Resource`] |
//! | before-image | the resource as it was when the operation was accepted |
//! | blocked | rolling back, but an undo keeps failing; retried for ever, visible: [`Operation::blocked`] |
//! | held | this build cannot work on it; kept as it is, others go on: [`Engine::held`] |
//! | store | where everything durable lives: [`Store`] |
//! | fence | the epoch that makes a late writer's commit fail |
//!
//! # What to know when writing steps
//!
//! - **Idempotent, both ways.** A crash can come after an effect and before the engine knows of it. Then `run` is called again
//!   when the operation goes forward, and `undo` when it rolls back. Derive names from [`StepContext::effect_key`], or hand
//!   it to what you call.
//! - **Say what you know of a failure.** `?` means "may have had an effect": safe, but it will be undone.
//!   [`StepError::not_applied`] means "certainly none".
//! - **Long work saves checkpoints** with [`StepContext::save`] and begins from [`StepContext::checkpoint`].
//! - **Stop when told.** [`StepContext::stopped`] resolves on cancel, timeout and shutdown; after a grace the run is
//!   dropped and its outcome is unknown.
//! - **Blocking code belongs on [`tokio::task::spawn_blocking`].** The steps of one operation share a task.
//!
//! # Metrics
//!
//! Through the [`metrics`](https://docs.rs/metrics) facade, counters all:
//!
//! | name | counts |
//! |---|---|
//! | `longrun_operations_accepted_total` | operations accepted |
//! | `longrun_operations_done_total` | operations done; label `outcome`: `response` or `error` |
//! | `longrun_operations_held_total` | times that an operation was found that this build cannot work on |
//! | `longrun_step_runs_total` | runs of steps begun |
//! | `longrun_undos_total` | undos begun |
//! | `longrun_undo_failures_total` | undos that failed and will be tried again |
//! | `longrun_operations_lost_total` | operations that went to another node while this one worked on them |
//! | `longrun_leases_lapsed_total` | times that the node came back after its lease had run out |
//! | `longrun_scheduler_panics_total` | bugs of this crate |
//!
//! Spans of `tracing`: `operation`, `step`, `undo`.
//!
//! # Features
//!
//! - `sled` (default), `fjall`, `redb`: the embedded stores `longrun::sled`, `longrun::fjall`, `longrun::redb`. Without
//!   them the crate pulls in no database.

pub use longrun_core as core;
pub use longrun_store as store;

mod builder;
mod context;
mod driver;
mod engine;
mod environment;
mod error;
mod intercept;
mod kind;
mod lists;
mod node;
mod perform;
mod plan;
mod references;
mod registry;
mod running;
mod scheduler;
mod signal;
mod step;
mod submit;
mod tasks;
mod turns;
mod waiters;

pub use async_trait::async_trait;
pub use builder::EngineBuilder;
pub use context::{EffectKey, FencingToken, StepCheckpoint, StepContext, Stop, UndoContext};
pub use engine::{Engine, Held};
pub use environment::{Environment, SystemEnvironment};
pub use error::{BuildError, CommandError, ReadError, SubmitError};
pub use intercept::{InterceptedRun, InterceptedUndo, Interceptor};
pub use kind::{EMPTY_TYPE, Kind, Planned, Resource, STRUCT_TYPE};
pub use lists::{Page, PageRequest, ResourceList};
pub use longrun_core::{
    Applied, Attempt, Backoff, Blocked, Caller, Code, Fence, IdPrefix, IdempotencyKey, Incarnation,
    Intervention, Invalid, ItemId, ItemKey, Json, KindName, Operation, OperationId, Orphan, Payload, Phase,
    PlanError, Progress, ProgressUnit, Refusal, ResourceId, ResourceKey, ResourceKind, ResourceStatus, Row,
    Status, StepIndex, StepName, StepPolicy, Timestamp, Verb,
};
#[cfg(feature = "fjall")]
pub use longrun_fjall as fjall;
#[cfg(feature = "postgres")]
pub use longrun_postgres as postgres;
#[cfg(feature = "redb")]
pub use longrun_redb as redb;
#[cfg(feature = "sled")]
pub use longrun_sled as sled;
pub use longrun_store::{
    CommitError, KvStore, OpenError, OperationQuery, ResourceOrder, Store, StoreError, StoreId, Taken,
};
pub use plan::{Found, IntoInput, Out, PlanBuilder};
pub use references::{DroppedOfGone, ReferenceError, References};
pub use registry::HoldReason;
pub use step::{Step, StepError, StepResult, UndoError, UndoResult, Undoable, Value};
pub use submit::{Call, Draft};
