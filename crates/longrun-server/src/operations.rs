//! [`OperationSource`]: operations, as a caller may see them.

use std::time::Duration;

use async_trait::async_trait;
use longrun::{Caller, Engine, Operation, OperationId, OperationQuery, Page, PageRequest};
use longrun_api::ApiError;
#[cfg(feature = "snapshot")]
use longrun_snapshot::SnapshotService;

/// Where the faces find operations, and who decides which a caller may see.
///
/// What a caller may not see does not exist for it. [`Engine`] is a source in which everybody sees and may do everything;
/// a snapshot service is one that asks who may what in the folder. A service with resources of its own implements it likewise.
#[async_trait]
pub trait OperationSource: Send + Sync + 'static {
    /// An operation as it is now.
    async fn get(&self, caller: &Caller, id: OperationId) -> Result<Operation, ApiError>;

    /// Cancels an operation, if it is not too late, and shows it as it is.
    async fn cancel(&self, caller: &Caller, id: OperationId) -> Result<Operation, ApiError>;

    /// Waits until an operation is done, or until the time is over, and shows it as it is then.
    async fn wait(&self, caller: &Caller, id: OperationId, timeout: Duration) -> Result<Operation, ApiError>;

    /// Removes a done operation from the record before its time.
    async fn forget(&self, caller: &Caller, id: OperationId) -> Result<(), ApiError>;

    /// Operations, newest first; only those that are done, or are not, if that is asked for. A page may be short, or empty,
    /// although more follow.
    async fn list(
        &self,
        caller: &Caller,
        done: Option<bool>,
        page: &PageRequest,
    ) -> Result<Page<Operation>, ApiError>;
}

#[async_trait]
impl OperationSource for Engine {
    async fn get(&self, _: &Caller, id: OperationId) -> Result<Operation, ApiError> {
        Ok(Self::get(self, id).await?)
    }

    async fn cancel(&self, caller: &Caller, id: OperationId) -> Result<Operation, ApiError> {
        Ok(Self::cancel(self, id, caller).await?)
    }

    async fn wait(&self, _: &Caller, id: OperationId, timeout: Duration) -> Result<Operation, ApiError> {
        Ok(Self::wait(self, id, timeout).await?)
    }

    async fn forget(&self, _: &Caller, id: OperationId) -> Result<(), ApiError> {
        Ok(Self::forget(self, id).await?)
    }

    async fn list(
        &self,
        _: &Caller,
        done: Option<bool>,
        page: &PageRequest,
    ) -> Result<Page<Operation>, ApiError> {
        let holds = |operation: &Operation| done.is_none_or(|done| operation.done() == done);
        Ok(self.filter_operations(&OperationQuery::All, page, &format!("done {done:?}"), holds).await?)
    }
}

#[cfg(feature = "snapshot")]
#[async_trait]
impl OperationSource for SnapshotService {
    async fn get(&self, caller: &Caller, id: OperationId) -> Result<Operation, ApiError> {
        Ok(self.get_operation(caller, id.as_str()).await?)
    }

    async fn cancel(&self, caller: &Caller, id: OperationId) -> Result<Operation, ApiError> {
        Ok(self.cancel_operation(caller, id.as_str()).await?)
    }

    async fn wait(&self, caller: &Caller, id: OperationId, timeout: Duration) -> Result<Operation, ApiError> {
        let operation = self.get_operation(caller, id.as_str()).await?;
        if operation.done() {
            return Ok(operation);
        }
        Ok(self.engine().wait(operation.id(), timeout).await?)
    }

    async fn forget(&self, caller: &Caller, id: OperationId) -> Result<(), ApiError> {
        Ok(self.forget_operation(caller, id.as_str()).await?)
    }

    async fn list(
        &self,
        caller: &Caller,
        done: Option<bool>,
        page: &PageRequest,
    ) -> Result<Page<Operation>, ApiError> {
        Ok(self.list_all_operations(caller, done, page).await?)
    }
}
