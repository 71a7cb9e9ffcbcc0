//! An embeddable engine for long-running operations.
pub use longrun_core as core;
pub use longrun_store as store;

mod builder;
mod context;
mod driver;
mod engine;
mod environment;
mod error;
mod kind;
mod perform;
mod plan;
mod registry;
mod running;
mod scheduler;
mod step;
mod submit;
mod waiters;

pub use async_trait::async_trait;
pub use builder::EngineBuilder;
pub use context::{EffectKey, FencingToken, StepCheckpoint, StepContext, Stop, UndoContext};
pub use engine::{Engine, Held, Page, PageRequest};
pub use environment::{Environment, SystemEnvironment};
pub use error::{BuildError, CommandError, ReadError, SubmitError};
pub use kind::{Kind, Planned, Resource, STRUCT_TYPE};
pub use longrun_core::{
    Attempt, Backoff, Blocked, Caller, Code, IdPrefix, IdempotencyKey, Invalid, Operation, OperationId,
    Payload, Phase, Progress, ProgressUnit, ResourceId, ResourceKey, ResourceStatus, Row, Status, StepIndex,
    StepPolicy, Timestamp, Verb,
};
#[cfg(feature = "sled")]
pub use longrun_sled as sled;
pub use longrun_store::{KvStore, OperationQuery, Store};
pub use plan::{Found, IntoInput, Out, PlanBuilder};
pub use registry::HoldReason;
pub use step::{Step, StepError, StepResult, UndoError, UndoResult, Undoable, Value};
pub use submit::Call;
