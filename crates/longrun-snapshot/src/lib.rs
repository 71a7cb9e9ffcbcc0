//! Snapshots of disks: the reference service on the [`longrun`] engine.
//!
//! It shows what a service on the engine consists of: a [resource](Snapshot), the [kinds](operations) that plan their
//! steps, the steps themselves, a [data plane](data) that knows nothing of operations, and a [face](service) that checks
//! what callers ask. There is no rollback of rows, no status machine and no recovery in it: these are the engine's.
//!
//! ```text
//! create:  copy-disk (checkpoints; undo removes what was copied) -> verify-copy -> READY
//! update:  no steps: done when it is accepted
//! delete:  grace -> | remove-snapshot (no way back)              -> gone
//! find:    no steps: READY <-> ERROR, after the data was read
//! ```
//!
//! Chunks are shared by the snapshots that have them in common. Who refers to which is kept in the engine's store, as
//! [references](longrun::References), and changes under the same conditions as the snapshots' rows.

pub mod data;
pub mod operations;
mod plane;
pub mod service;
mod snapshot;
mod steps;

pub use operations::{CreateSnapshotMetadata, SnapshotMetadata};
pub use plane::DataPlane;
pub use service::SnapshotService;
pub use snapshot::Snapshot;
