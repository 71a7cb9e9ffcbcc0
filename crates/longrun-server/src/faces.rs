//! [`Faces`]: what gRPC and REST have in common.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::uri::Authority;
use longrun::{Caller, Operation, PageRequest, ResourceId};
use longrun_api::dialect::{cloud, google};
use longrun_api::google::longrunning;
use longrun_api::yandex::cloud::compute::v1 as compute;
use longrun_api::yandex::cloud::endpoint::{
    ApiEndpoint, GetApiEndpointRequest, ListApiEndpointsRequest, ListApiEndpointsResponse,
};
use longrun_api::yandex::cloud::operation as wire;
use longrun_api::{ApiError, Reason, Types};
use longrun_snapshot::SnapshotService;
use longrun_snapshot::service::{GetSnapshotRequest, ListSnapshotOperationsRequest, ListSnapshotsRequest};
use tokio::sync::watch;

use crate::auth::Authenticator;
use crate::call::{Call, RequestId};
use crate::operations::OperationSource;

/// The longest that one request waits for an operation.
const WAIT_MAX: Duration = Duration::from_secs(5 * 60);
/// How long one waits that does not say.
const WAIT_DEFAULT: Duration = Duration::from_secs(60);

/// Seconds in a duration. Source: protobuf, where it is the time from year 1 to year 10000.
const DURATION_SECONDS_MAX: u64 = 315_576_000_000;

/// How long the body of a request may take to come in, unless said.
const BODY_TIME: Duration = Duration::from_secs(30);

/// The services that clients find at one address. The first five are those that their tables know.
const ENDPOINTS: &[&str] = &["compute", "endpoint", "iam", "operation", "resource-manager", "vpc"];

/// Everything that the faces of an engine have in common. Cheap to clone.
///
/// What a method is asked and answers is in wire types, the same for gRPC and REST.
#[derive(Clone)]
pub struct Faces {
    inner: Arc<Inner>,
    advertised: Option<Arc<str>>,
    listens_at: Option<Arc<str>>,
    body_time: Duration,
}

struct Inner {
    authenticator: Arc<dyn Authenticator>,
    operations: Arc<dyn OperationSource>,
    snapshots: Option<SnapshotService>,
    types: Types,
    draining: watch::Sender<bool>,
}

impl fmt::Debug for Faces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faces")
            .field("types", &self.inner.types)
            .field("advertised", &self.advertised)
            .finish_non_exhaustive()
    }
}

impl Faces {
    /// The faces of a snapshot service and its operations.
    pub fn of_snapshots(snapshots: SnapshotService, authenticator: impl Authenticator) -> Self {
        let operations = Arc::new(snapshots.clone());
        Self::new(operations, Some(snapshots), longrun_api::snapshot::types(), Arc::new(authenticator))
    }

    /// The faces of operations alone, for a service whose resources have faces of their own. `types` has the messages that
    /// its operations' metadata and responses go out as.
    pub fn of_operations(
        operations: impl OperationSource,
        types: Types,
        authenticator: impl Authenticator,
    ) -> Self {
        Self::new(Arc::new(operations), None, types, Arc::new(authenticator))
    }

    fn new(
        operations: Arc<dyn OperationSource>,
        snapshots: Option<SnapshotService>,
        types: Types,
        authenticator: Arc<dyn Authenticator>,
    ) -> Self {
        let draining = watch::Sender::new(false);
        let inner = Inner { authenticator, operations, snapshots, types, draining };
        Self { inner: Arc::new(inner), advertised: None, listens_at: None, body_time: BODY_TIME }
    }

    /// With the address, `host:port`, at which clients that look for services find them. Without one they are told the
    /// address at which they have reached gRPC. For the faces that are made of these from now on.
    #[must_use]
    pub fn advertise(self, address: impl Into<Arc<str>>) -> Self {
        Self { advertised: Some(address.into()), ..self }
    }

    /// With the address of gRPC, for those who look for it over REST when none is [advertised](Self::advertise).
    #[must_use]
    pub fn listens_at(self, address: impl Into<Arc<str>>) -> Self {
        Self { listens_at: Some(address.into()), ..self }
    }

    /// With another time than 30 seconds for the body of a request to come in. For the faces that are made of these from now
    /// on.
    #[must_use]
    pub fn body_time(self, time: Duration) -> Self {
        Self { body_time: time, ..self }
    }

    /// Answers at once whoever waits for an operation, now and from now on: the server is about to end.
    pub fn drain(&self) {
        self.inner.draining.send_replace(true);
    }

    pub(crate) fn time_for_body(&self) -> Duration {
        self.body_time
    }

    pub(crate) fn has_snapshots(&self) -> bool {
        self.inner.snapshots.is_some()
    }

    /// Does the work of one call: finds out who calls, and puts failures of the service on the log, whose cause callers are
    /// not told.
    pub(crate) async fn call<A, F>(
        &self,
        id: &RequestId,
        headers: &HeaderMap,
        work: impl FnOnce(Self, Call) -> F + Send,
    ) -> Result<A, ApiError>
    where
        F: Future<Output = Result<A, ApiError>> + Send,
    {
        let answer = match self.inner.authenticator.authenticate(headers).await {
            Ok(caller) => work(self.clone(), Call::new(caller, headers)).await,
            Err(refused) => Err(refused),
        };
        match &answer {
            Ok(_) => metrics::counter!("longrun_api_calls_total", "code" => "OK").increment(1),
            Err(error) => report(id, error),
        }
        answer
    }

    fn snapshots(&self) -> Result<&SnapshotService, ApiError> {
        let none = || ApiError::new(Reason::NotSupported, "there are no snapshots here");
        self.inner.snapshots.as_ref().ok_or_else(none)
    }

    fn in_cloud_dialect(&self, operation: &Operation) -> wire::Operation {
        cloud::operation(operation, &self.inner.types)
    }

    fn in_google_dialect(&self, operation: &Operation) -> longrunning::Operation {
        google::operation(operation, &self.inner.types)
    }
}

/// Counts a refusal and puts it on the log, where the cause of a failure of the service stays.
pub(crate) fn report(id: &RequestId, error: &ApiError) {
    let (code, reason) = (error.code().name(), error.reason().name());
    metrics::counter!("longrun_api_calls_total", "code" => code, "reason" => reason).increment(1);
    if let Some(cause) = error.internal() {
        tracing::error!(request = %id, reason, cause, "a request failed");
    } else {
        tracing::debug!(request = %id, reason, "a request was refused");
    }
}

/// Snapshots.
impl Faces {
    pub(crate) async fn get_snapshot(
        self,
        call: Call,
        request: compute::GetSnapshotRequest,
    ) -> Result<compute::Snapshot, ApiError> {
        let request = GetSnapshotRequest::from(request);
        Ok(self.snapshots()?.get(&call.caller, &request).await?.into())
    }

    pub(crate) async fn list_snapshots(
        self,
        call: Call,
        request: compute::ListSnapshotsRequest,
    ) -> Result<compute::ListSnapshotsResponse, ApiError> {
        let request = ListSnapshotsRequest::from(request);
        Ok(self.snapshots()?.list(&call.caller, &request).await?.into())
    }

    pub(crate) async fn create_snapshot(
        self,
        call: Call,
        request: compute::CreateSnapshotRequest,
    ) -> Result<wire::Operation, ApiError> {
        let operation = self.snapshots()?.create(call.change()?, &request.try_into()?).await?;
        Ok(self.in_cloud_dialect(&operation))
    }

    pub(crate) async fn update_snapshot(
        self,
        call: Call,
        request: compute::UpdateSnapshotRequest,
    ) -> Result<wire::Operation, ApiError> {
        let operation = self.snapshots()?.update(call.change()?, &request.into()).await?;
        Ok(self.in_cloud_dialect(&operation))
    }

    pub(crate) async fn delete_snapshot(
        self,
        call: Call,
        request: compute::DeleteSnapshotRequest,
    ) -> Result<wire::Operation, ApiError> {
        let operation = self.snapshots()?.delete(call.change()?, &request.into()).await?;
        Ok(self.in_cloud_dialect(&operation))
    }

    pub(crate) async fn list_snapshot_operations(
        self,
        call: Call,
        request: compute::ListSnapshotOperationsRequest,
    ) -> Result<compute::ListSnapshotOperationsResponse, ApiError> {
        let request = ListSnapshotOperationsRequest::from(request);
        let page = self.snapshots()?.list_operations(&call.caller, &request).await?;
        Ok(longrun_api::snapshot::operations(&page, &self.inner.types))
    }
}

/// Operations, in the dialect of Yandex Cloud.
impl Faces {
    pub(crate) async fn get_operation(
        self,
        call: Call,
        request: wire::GetOperationRequest,
    ) -> Result<wire::Operation, ApiError> {
        let id = checked_id("operation_id", &request.operation_id)?;
        let operation = self.inner.operations.get(&call.caller, id).await?;
        Ok(self.in_cloud_dialect(&operation))
    }

    pub(crate) async fn cancel_operation(
        self,
        call: Call,
        request: wire::CancelOperationRequest,
    ) -> Result<wire::Operation, ApiError> {
        let id = checked_id("operation_id", &request.operation_id)?;
        let operation = self.inner.operations.cancel(&call.caller, id).await?;
        Ok(self.in_cloud_dialect(&operation))
    }
}

/// Operations, in the dialect of google.longrunning.
impl Faces {
    pub(crate) async fn longrunning_get(
        self,
        call: Call,
        request: longrunning::GetOperationRequest,
    ) -> Result<longrunning::Operation, ApiError> {
        let id = checked_id("name", google::id_of_name(&request.name))?;
        let operation = self.inner.operations.get(&call.caller, id).await?;
        Ok(self.in_google_dialect(&operation))
    }

    pub(crate) async fn longrunning_cancel(
        self,
        call: Call,
        request: longrunning::CancelOperationRequest,
    ) -> Result<longrun_api::well_known::Empty, ApiError> {
        let id = checked_id("name", google::id_of_name(&request.name))?;
        self.inner.operations.cancel(&call.caller, id).await?;
        Ok(longrun_api::well_known::Empty {})
    }

    pub(crate) async fn longrunning_delete(
        self,
        call: Call,
        request: longrunning::DeleteOperationRequest,
    ) -> Result<longrun_api::well_known::Empty, ApiError> {
        let id = checked_id("name", google::id_of_name(&request.name))?;
        self.inner.operations.delete(&call.caller, id).await?;
        Ok(longrun_api::well_known::Empty {})
    }

    pub(crate) async fn longrunning_wait(
        self,
        call: Call,
        request: longrunning::WaitOperationRequest,
    ) -> Result<longrunning::Operation, ApiError> {
        let id = checked_id("name", google::id_of_name(&request.name))?;
        let timeout = match request.timeout {
            None => WAIT_DEFAULT,
            Some(timeout) => duration(&timeout)?.min(WAIT_MAX),
        };
        let operation = self.wait(&call.caller, id, timeout).await?;
        Ok(self.in_google_dialect(&operation))
    }

    async fn wait(&self, caller: &Caller, id: &str, timeout: Duration) -> Result<Operation, ApiError> {
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
        call: Call,
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

/// Where the services are. Whoever asks need not be known.
impl Faces {
    pub(crate) fn endpoints(
        &self,
        _: &ListApiEndpointsRequest,
        reached_at: Option<&Authority>,
    ) -> ListApiEndpointsResponse {
        let endpoints = ENDPOINTS.iter().map(|id| self.endpoint(id, reached_at)).collect();
        ListApiEndpointsResponse { endpoints, next_page_token: String::new() }
    }

    pub(crate) fn find_endpoint(
        &self,
        request: &GetApiEndpointRequest,
        reached_at: Option<&Authority>,
    ) -> Result<ApiEndpoint, ApiError> {
        let found = ENDPOINTS.iter().find(|id| **id == request.api_endpoint_id);
        let none = || ApiError::new(Reason::NotFound, "the endpoint does not exist");
        found.map(|id| self.endpoint(id, reached_at)).ok_or_else(none)
    }

    /// What is advertised; else where gRPC was reached, which is where it can be reached, whatever lies in between; else
    /// where it listens.
    fn endpoint(&self, id: &str, reached_at: Option<&Authority>) -> ApiEndpoint {
        let reached = || {
            let authority = reached_at?;
            Some(format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(443)))
        };
        let known = |address: &Option<Arc<str>>| address.as_deref().map(str::to_owned);
        let address = known(&self.advertised).or_else(reached).or_else(|| known(&self.listens_at));
        ApiEndpoint { id: id.to_owned(), address: address.unwrap_or_default() }
    }
}

/// The id of an operation, as far as any id has such characters. What is none is a mistake, or worse, and not merely not
/// found.
fn checked_id<'a>(field: &'static str, id: &'a str) -> Result<&'a str, ApiError> {
    match ResourceId::new(id) {
        Ok(_) => Ok(id),
        Err(invalid) => Err(ApiError::violation(field, invalid.rule)),
    }
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

fn page(size: i32, token: String) -> Result<PageRequest, ApiError> {
    use longrun::core::limits::{PAGE_SIZE_MAX, PAGE_TOKEN_CHARS_MAX};
    let in_range = usize::try_from(size).ok().filter(|size| *size <= PAGE_SIZE_MAX);
    let size =
        in_range.ok_or_else(|| ApiError::violation("page_size", format!("must be 0 to {PAGE_SIZE_MAX}")))?;
    if token.chars().nth(PAGE_TOKEN_CHARS_MAX).is_some() {
        let rule = format!("must be at most {PAGE_TOKEN_CHARS_MAX} characters");
        return Err(ApiError::violation("page_token", rule));
    }
    Ok(PageRequest { size, token })
}

fn duration(timeout: &longrun_api::well_known::Duration) -> Result<Duration, ApiError> {
    let rule = || ApiError::violation("timeout", format!("must be 0 to {DURATION_SECONDS_MAX} seconds"));
    let in_range = u64::try_from(timeout.seconds).ok().filter(|seconds| *seconds <= DURATION_SECONDS_MAX);
    let seconds = in_range.ok_or_else(rule)?;
    let nanos = u32::try_from(timeout.nanos).ok().filter(|nanos| *nanos < 1_000_000_000).ok_or_else(rule)?;
    Ok(Duration::new(seconds, nanos))
}
