//! Snapshots of disks: the reference service on the [`longrun`] engine.
//!
//! It shows what a service on the engine consists of: a [resource](Snapshot), a [kind](CreateSnapshot) that plans
//! its steps, the steps themselves, and a [data plane](data) that knows nothing of operations. There is no rollback code
//! for rows, no status machine and no recovery in it: these are the engine's.
//!
//! ```text
//! create:  copy-disk (checkpoints, undo removes what was copied) -> verify-copy -> the snapshot is READY
//! ```

mod create;
pub mod data;
mod plane;
mod snapshot;

pub use create::{CreateSnapshot, CreateSnapshotMetadata, CreateSnapshotRequest};
pub use plane::DataPlane;
pub use snapshot::Snapshot;

use longrun::EngineBuilder;

/// Registers the service's kinds and steps with an engine.
pub fn register(builder: EngineBuilder, plane: &DataPlane) -> EngineBuilder {
    builder
        .kind(CreateSnapshot::new(plane.clone()))
        .step(create::CopyDisk(plane.clone()))
        .step(create::VerifyCopy(plane.clone()))
}
