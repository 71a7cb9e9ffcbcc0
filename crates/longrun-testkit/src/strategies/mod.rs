//! Strategies for [proptest](https://docs.rs/proptest): plans, calls, sequences of commands, and lists. Feature `proptest`.
//!
//! - [`plans`]: shapes of valid plans: which step feeds on which, which waits for which, how many run at the same time, and from where
//!   on there is no way back.
//! - [`calls`]: who calls, with which idempotency key. There are few of each, so that they meet.
//! - [`commands`]: what clients and fate do to an engine, one after the other: submit, cancel, wait, list, crash, let time pass, forget.
//! - [`lists`] and [`page_sizes`]: what to list, in which order, in pages of which size.
//! - [`bodies`]: JSON values for requests, metadata and resources.
//!
//! All of them shrink towards what is short and plain: fewer steps, no order between them, the first caller, no key, the first
//! operation.
//!
//! A property of plans: whatever is generated is accepted, and its steps can be gone through.
//!
//! ```
//! use longrun::core::Plan;
//! use longrun_testkit::strategies::plans;
//! use proptest::prelude::*;
//!
//! proptest! {
//!     # #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
//!     # /*
//!     #[test]
//!     # */
//!     fn every_plan_is_accepted(shape in plans(8)) {
//!         let plan = Plan::new(shape.parts("step")).unwrap();
//!         prop_assert_eq!(plan.steps().len(), shape.steps.len());
//!     }
//! }
//! # every_plan_is_accepted();
//! ```
//!
//! A plan for an engine is built by a kind whose request has the shape: see [`PlanShape`]. A sequence of commands is applied to an
//! engine and to a model of it, one by one, and what both say is compared; `tests/properties` of this crate does that with the whole
//! engine.

mod call;
mod command;
mod list;
mod plan;

pub use call::{CallShape, bodies, calls};
pub use command::{Command, Which, commands};
pub use list::{ListShape, lists, page_sizes};
pub use plan::{PlanShape, StepShape, plans};
