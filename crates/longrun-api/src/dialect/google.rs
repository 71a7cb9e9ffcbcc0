//! The dialect of `google.longrunning`: no result before `done`; until then the error stands in the metadata, as AIP-151 asks.

use longrun_core::execution::Blocked;
use longrun_core::{Operation, OperationId, Phase, Progress, ProgressUnit};

use crate::google::longrunning as wire;
use crate::longrun::v1::{BlockedStep, OperationMetadata, Progress as WireProgress, progress::Unit};
use crate::types::Types;
use crate::well_known::Any;

/// What the names of operations begin with.
const COLLECTION: &str = "operations/";

/// `operations/{id}`.
pub fn name(id: OperationId) -> String {
    format!("{COLLECTION}{id}")
}

/// The id in a name. Whether it is one, its reader finds out. The id alone will do, too.
pub fn id_of_name(name: &str) -> &str {
    name.strip_prefix(COLLECTION).unwrap_or(name)
}

/// The operation as it is at this moment.
pub fn operation(operation: &Operation, types: &Types) -> wire::Operation {
    let result = operation.done().then(|| {
        let error = operation.error().map(|error| wire::operation::Result::Error(types.status(error)));
        let response =
            || operation.response().map(|found| wire::operation::Result::Response(types.any(found)));
        error.or_else(response)
    });
    wire::Operation {
        name: name(operation.id()),
        metadata: Some(Any::pack(&metadata(operation, types))),
        done: operation.done(),
        result: result.flatten(),
    }
}

fn metadata(operation: &Operation, types: &Types) -> OperationMetadata {
    let rolls_back = operation.phase() == Phase::RollingBack;
    OperationMetadata {
        metadata: Some(types.any(operation.metadata())),
        description: operation.description().to_owned(),
        create_time: Some(operation.created_at().into()),
        created_by: operation.created_by().to_string(),
        update_time: Some(operation.modified_at().into()),
        rollback_cause: operation.error().filter(|_| rolls_back).map(|error| types.status(error)),
        progress: operation.progress().map(progress),
        blocked: operation.blocked().iter().map(|step| blocked(step, types)).collect(),
    }
}

fn progress(progress: Progress) -> WireProgress {
    let unit = match progress.unit {
        ProgressUnit::Bytes => Unit::Bytes,
        ProgressUnit::Items => Unit::Items,
        _ => Unit::Unspecified,
    };
    let number = |units: u64| i64::try_from(units).unwrap_or(i64::MAX);
    WireProgress { done: number(progress.done), total: number(progress.total), unit: unit.into() }
}

fn blocked(step: &Blocked, types: &Types) -> BlockedStep {
    BlockedStep {
        name: step.name.to_string(),
        undo: step.undo,
        failures: i32::try_from(step.failures).unwrap_or(i32::MAX),
        error: Some(types.status(&step.error)),
        again_at: step.again_at.map(Into::into),
    }
}
