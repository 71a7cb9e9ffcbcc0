//! Yandex Cloud's dialect: `error` is shown as soon as the operation rolls back, before `done` (C3).

use longrun_core::Operation;

use crate::types::Types;
use crate::yandex::cloud::operation as wire;

/// The operation as it is at this moment.
pub fn operation(operation: &Operation, types: &Types) -> wire::Operation {
    let error = operation.error().map(|error| wire::operation::Result::Error(types.status(error)));
    let response =
        || operation.response().map(|response| wire::operation::Result::Response(types.any(response)));
    wire::Operation {
        id: operation.id().to_string(),
        description: operation.description().to_owned(),
        created_at: Some(operation.created_at().into()),
        created_by: operation.created_by().to_string(),
        modified_at: Some(operation.modified_at().into()),
        done: operation.done(),
        metadata: Some(types.any(operation.metadata())),
        result: error.or_else(response),
    }
}
