//! The methods of both services of operations, each in its dialect.

use std::time::Duration;

use longrun::core::limits::PAGE_TOKEN_CHARS_MAX;
use longrun::{Caller, Operation, OperationId, PageRequest, ResourceId};
use longrun_api::dialect::google;
use longrun_api::google::longrunning;
use longrun_api::well_known::{DURATION_SECONDS_MAX, Duration as WireDuration, Empty, time};
use longrun_api::yandex::cloud::operation as wire;
use longrun_api::{ApiError, Reason};

use super::Faces;
use crate::call::Incoming;
use crate::limits::{WAIT_DEFAULT, WAIT_MAX};

/// Operations, in the dialect of Yandex Cloud.
impl Faces {
    pub(crate) async fn get_operation(
        self,
        call: Incoming,
        request: wire::GetOperationRequest,
    ) -> Result<wire::Operation, ApiError> {
        let id = operation_id("operation_id", &request.operation_id)?;
        let operation = self.inner.operations.get(&call.caller, id).await?;
        Ok(self.in_cloud_dialect(&operation))
    }

    pub(crate) async fn cancel_operation(
        self,
        call: Incoming,
        request: wire::CancelOperationRequest,
    ) -> Result<wire::Operation, ApiError> {
        let id = operation_id("operation_id", &request.operation_id)?;
        let operation = self.inner.operations.cancel(&call.caller, id).await?;
        Ok(self.in_cloud_dialect(&operation))
    }
}

/// Operations, in the dialect of google.longrunning.
impl Faces {
    pub(crate) async fn longrunning_get(
        self,
        call: Incoming,
        request: longrunning::GetOperationRequest,
    ) -> Result<longrunning::Operation, ApiError> {
        let id = operation_id("name", google::id_of_name(&request.name))?;
        let operation = self.inner.operations.get(&call.caller, id).await?;
        Ok(self.in_google_dialect(&operation))
    }

    pub(crate) async fn longrunning_cancel(
        self,
        call: Incoming,
        request: longrunning::CancelOperationRequest,
    ) -> Result<Empty, ApiError> {
        let id = operation_id("name", google::id_of_name(&request.name))?;
        self.inner.operations.cancel(&call.caller, id).await?;
        Ok(Empty {})
    }

    pub(crate) async fn longrunning_delete(
        self,
        call: Incoming,
        request: longrunning::DeleteOperationRequest,
    ) -> Result<Empty, ApiError> {
        let id = operation_id("name", google::id_of_name(&request.name))?;
        self.inner.operations.forget(&call.caller, id).await?;
        Ok(Empty {})
    }

    pub(crate) async fn longrunning_wait(
        self,
        call: Incoming,
        request: longrunning::WaitOperationRequest,
    ) -> Result<longrunning::Operation, ApiError> {
        let id = operation_id("name", google::id_of_name(&request.name))?;
        let timeout = match request.timeout {
            None => WAIT_DEFAULT,
            Some(timeout) => checked_time(&timeout)?.min(WAIT_MAX),
        };
        let operation = self.wait(&call.caller, id, timeout).await?;
        Ok(self.in_google_dialect(&operation))
    }

    async fn wait(&self, caller: &Caller, id: OperationId, timeout: Duration) -> Result<Operation, ApiError> {
        let mut draining = self.inner.draining.subscribe();
        let ended = tokio::select! {
            biased;
            operation = self.inner.operations.wait(caller, id, timeout) => Some(operation),
            _ = draining.wait_for(|draining| *draining) => None,
        };
        match ended {
            Some(operation) => operation,
            None => self.inner.operations.get(caller, id).await,
        }
    }

    pub(crate) async fn longrunning_list(
        self,
        call: Incoming,
        request: longrunning::ListOperationsRequest,
    ) -> Result<longrunning::ListOperationsResponse, ApiError> {
        let longrunning::ListOperationsRequest { name, filter, page_size, page_token } = request;
        if !matches!(name.as_str(), "" | "operations") {
            return Err(ApiError::violation("name", "must be operations, or empty"));
        }
        let done = done_filter(&filter)?;
        let page = page(page_size, page_token)?;
        let page = self.inner.operations.list(&call.caller, done, &page).await?;
        Ok(longrunning::ListOperationsResponse {
            operations: page.items.iter().map(|operation| self.in_google_dialect(operation)).collect(),
            next_page_token: page.next_token,
        })
    }
}

/// The id of an operation. Text that can be no id at all is INVALID_ARGUMENT; an id that no operation has, NOT_FOUND.
fn operation_id(field: &'static str, id: &str) -> Result<OperationId, ApiError> {
    OperationId::parse(id).map_err(|_| match ResourceId::new(id) {
        Ok(_) => ApiError::new(Reason::NotFound, "the operation does not exist"),
        Err(invalid) => ApiError::violation(field, invalid.rule),
    })
}

fn done_filter(filter: &str) -> Result<Option<bool>, ApiError> {
    let words: String = filter.split_whitespace().collect();
    match words.as_str() {
        "" => Ok(None),
        "done=true" => Ok(Some(true)),
        "done=false" => Ok(Some(false)),
        _ => Err(ApiError::violation("filter", "must be done = true, done = false, or empty")),
    }
}

/// The page that is asked for. Its size is for the engine to judge.
fn page(size: i32, token: String) -> Result<PageRequest, ApiError> {
    let size = usize::try_from(size).map_err(|_| ApiError::violation("page_size", "must not be negative"))?;
    if token.chars().nth(PAGE_TOKEN_CHARS_MAX).is_some() {
        let rule = format!("must be at most {PAGE_TOKEN_CHARS_MAX} characters");
        return Err(ApiError::violation("page_token", rule));
    }
    Ok(PageRequest { size, token })
}

fn checked_time(timeout: &WireDuration) -> Result<Duration, ApiError> {
    let rule = || ApiError::violation("timeout", format!("must be 0 to {DURATION_SECONDS_MAX} seconds"));
    time(timeout).ok_or_else(rule)
}
