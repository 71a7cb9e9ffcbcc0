//! [`Faces`]: the methods, once for gRPC and REST.

mod endpoints;
mod operations;
#[cfg(feature = "snapshot")]
mod snapshots;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use longrun::{Caller, Operation};
use longrun_api::dialect::{cloud, google};
use longrun_api::google::longrunning;
use longrun_api::yandex::cloud::operation as wire;
use longrun_api::{ApiError, Types};
#[cfg(feature = "snapshot")]
use longrun_snapshot::SnapshotService;
use tokio::sync::watch;

use crate::auth::Authenticator;
use crate::call::RequestId;
use crate::limits::BODY_TIME;
use crate::operations::OperationSource;

/// The methods of a service, once for gRPC and REST, on wire types. Cheap to clone.
///
/// [`grpc`](crate::grpc) and [`rest`](crate::rest) are made from it: they carry requests here and answers back, so what is
/// refused, and why, cannot differ between them.
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
    #[cfg(feature = "snapshot")]
    snapshots: Option<SnapshotService>,
    types: Types,
    draining: watch::Sender<bool>,
}

impl Inner {
    fn new(operations: impl OperationSource, types: Types, authenticator: impl Authenticator) -> Self {
        Self {
            authenticator: Arc::new(authenticator),
            operations: Arc::new(operations),
            #[cfg(feature = "snapshot")]
            snapshots: None,
            types,
            draining: watch::Sender::new(false),
        }
    }
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
    #[cfg(feature = "snapshot")]
    pub fn of_snapshots(snapshots: SnapshotService, authenticator: impl Authenticator) -> Self {
        let types = longrun_api::snapshot::types();
        Self::new(Inner { snapshots: Some(snapshots.clone()), ..Inner::new(snapshots, types, authenticator) })
    }

    /// The faces of operations alone, for a service whose resources have faces of their own. `types` has the messages that
    /// its operations' metadata and responses go out as.
    pub fn of_operations(
        operations: impl OperationSource,
        types: Types,
        authenticator: impl Authenticator,
    ) -> Self {
        Self::new(Inner::new(operations, types, authenticator))
    }

    fn new(inner: Inner) -> Self {
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

    /// Who calls. Asked before anything of a request is read but its headers: what a stranger sends is not even kept.
    pub(crate) async fn caller(&self, id: &RequestId, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let caller = self.inner.authenticator.authenticate(headers).await;
        caller.inspect_err(|error| report(id, error))
    }

    /// Counts the answer of a call, and puts failures of the service on the log, whose cause callers are not told.
    pub(crate) async fn counted<A>(
        id: &RequestId,
        work: impl Future<Output = Result<A, ApiError>> + Send,
    ) -> Result<A, ApiError> {
        let answer = work.await;
        match &answer {
            Ok(_) => {
                metrics::counter!("longrun_api_calls_total", "code" => "OK", "reason" => "").increment(1);
            }
            Err(error) => report(id, error),
        }
        answer
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
