//! The pure heart of longrun: what a long-running operation is, and what follows from what happens to it.
//!
//! Nothing here runs, waits, reads a clock, draws a random number or touches a disk. Time and randomness come in
//! as arguments, decisions go out as values. The same rules drive a service, a simulation of a million crashes
//! and a test of one transition.
//!
//! ```text
//! command -> Execution::handle(command, now) -> events | refusal
//! events  -> Execution::seal(now)            -> Turn: one commit, made durable by the store
//! durable -> Execution::next(now)            -> { run steps, undo steps, wake at }
//! driver performs it, and its outcome is the next command
//! ```
//!
//! - [`execution`]: the state machine of one operation, and how to call it.
//! - [`plan`]: its steps, as persisted data.
//! - [`operation`]: what clients see of it.
//! - [`resource`]: the rows it creates, changes and deletes, and the table of their statuses.
//! - [`item`]: what lies outside and is shared by resources.
//! - [`retry`], [`status`], [`payload`], [`id`], [`time`], [`limits`]: the values these are made of.
//!
//! The contract that the comments name, C1 to C22, is in the project's ARCHITECTURE.md, each line with its tests.

pub mod error;
pub mod execution;
pub mod id;
pub mod item;
pub mod limits;
pub mod operation;
pub mod payload;
pub mod plan;
pub mod resource;
pub mod retry;
pub mod status;
pub mod time;

pub use error::{Inconsistent, Invalid, PlanError, Refusal, with_causes};
pub use execution::{
    Acceptance, Applied, Attempt, Blocked, Command, Entry, Event, Execution, Finished, Header, Intervention,
    Next, StepReport, Turn, Undoable, Verb,
};
pub use id::{
    Caller, Fence, IdPrefix, IdempotencyKey, KindName, OperationId, ResourceId, ResourceKind, Revision,
    StepIndex, StepName,
};
pub use item::{Incarnation, ItemId, ItemKey, Orphan};
pub use operation::{Operation, Outcome, Phase};
pub use payload::{Json, Payload, Progress, ProgressUnit};
pub use plan::{Input, Plan, PlanParts, Source, StepSpec};
pub use resource::{Claim, Condition, Intent, ResourceKey, ResourceStatus, Row, RowWrite};
pub use retry::{Backoff, StepPolicy};
pub use status::{Code, Status};
pub use time::Timestamp;
