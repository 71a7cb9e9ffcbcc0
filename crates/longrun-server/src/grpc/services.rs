//! The services of the protocol: each method hands its message to the [`Faces`], and its answer back.

use bytes::Bytes;
use longrun_api::ApiError;
use longrun_api::google::longrunning;
use longrun_api::google::longrunning::operations_server::Operations;
use longrun_api::well_known::Empty;
use longrun_api::yandex::cloud::compute::v1 as compute;
use longrun_api::yandex::cloud::compute::v1::snapshot_service_server::SnapshotService;
use longrun_api::yandex::cloud::endpoint;
use longrun_api::yandex::cloud::endpoint::api_endpoint_service_server::ApiEndpointService;
use longrun_api::yandex::cloud::operation;
use longrun_api::yandex::cloud::operation::operation_service_server::OperationService;
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};

use super::adapt::Arrived;
use crate::call::{Call, RequestId};
use crate::faces::Faces;

/// All services of the protocol.
#[derive(Clone, Debug)]
pub struct Service(pub(super) Faces);

impl Service {
    async fn answer<Q, A, F>(
        &self,
        request: Request<Q>,
        work: impl FnOnce(Faces, Call, Q) -> F + Send,
    ) -> Result<Response<A>, Status>
    where
        Q: Send,
        F: Future<Output = Result<A, ApiError>> + Send,
    {
        let id = arrived(&request).id;
        let (metadata, _, message) = request.into_parts();
        let headers = metadata.into_headers();
        let answer = self.0.call(&id, &headers, |faces, call| work(faces, call, message)).await;
        finish(&id, answer)
    }
}

/// What was learned of the request on its way here.
fn arrived<Q>(request: &Request<Q>) -> Arrived {
    let unknown = || Arrived { id: RequestId::of(request.metadata().as_ref()), reached_at: None };
    request.extensions().get::<Arrived>().cloned().unwrap_or_else(unknown)
}

/// An answer or a status, with the id of the request.
fn finish<A>(id: &RequestId, answer: Result<A, ApiError>) -> Result<Response<A>, Status> {
    let answer = answer.map_err(|error| status(id, &error))?;
    let mut response = Response::new(answer);
    *response.metadata_mut() = metadata(id);
    Ok(response)
}

/// An error with its details, as gRPC says it: trailers alone, for clients lose the code of an error that comes after
/// headers.
pub(super) fn status(id: &RequestId, error: &ApiError) -> Status {
    let details: Bytes = error.to_status(id.as_str()).encode_to_vec().into();
    let code = Code::from_i32(i32::from(error.code().number()));
    Status::with_details_and_metadata(code, error.message(), details, metadata(id))
}

fn metadata(id: &RequestId) -> MetadataMap {
    let mut metadata = http::HeaderMap::new();
    id.put(&mut metadata);
    MetadataMap::from_headers(metadata)
}

#[tonic::async_trait]
impl OperationService for Service {
    async fn get(
        &self,
        request: Request<operation::GetOperationRequest>,
    ) -> Result<Response<operation::Operation>, Status> {
        self.answer(request, Faces::get_operation).await
    }

    async fn cancel(
        &self,
        request: Request<operation::CancelOperationRequest>,
    ) -> Result<Response<operation::Operation>, Status> {
        self.answer(request, Faces::cancel_operation).await
    }
}

#[tonic::async_trait]
impl SnapshotService for Service {
    async fn get(
        &self,
        request: Request<compute::GetSnapshotRequest>,
    ) -> Result<Response<compute::Snapshot>, Status> {
        self.answer(request, Faces::get_snapshot).await
    }

    async fn list(
        &self,
        request: Request<compute::ListSnapshotsRequest>,
    ) -> Result<Response<compute::ListSnapshotsResponse>, Status> {
        self.answer(request, Faces::list_snapshots).await
    }

    async fn create(
        &self,
        request: Request<compute::CreateSnapshotRequest>,
    ) -> Result<Response<operation::Operation>, Status> {
        self.answer(request, Faces::create_snapshot).await
    }

    async fn update(
        &self,
        request: Request<compute::UpdateSnapshotRequest>,
    ) -> Result<Response<operation::Operation>, Status> {
        self.answer(request, Faces::update_snapshot).await
    }

    async fn delete(
        &self,
        request: Request<compute::DeleteSnapshotRequest>,
    ) -> Result<Response<operation::Operation>, Status> {
        self.answer(request, Faces::delete_snapshot).await
    }

    async fn list_operations(
        &self,
        request: Request<compute::ListSnapshotOperationsRequest>,
    ) -> Result<Response<compute::ListSnapshotOperationsResponse>, Status> {
        self.answer(request, Faces::list_snapshot_operations).await
    }
}

#[tonic::async_trait]
impl Operations for Service {
    async fn list_operations(
        &self,
        request: Request<longrunning::ListOperationsRequest>,
    ) -> Result<Response<longrunning::ListOperationsResponse>, Status> {
        self.answer(request, Faces::longrunning_list).await
    }

    async fn get_operation(
        &self,
        request: Request<longrunning::GetOperationRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        self.answer(request, Faces::longrunning_get).await
    }

    async fn delete_operation(
        &self,
        request: Request<longrunning::DeleteOperationRequest>,
    ) -> Result<Response<Empty>, Status> {
        self.answer(request, Faces::longrunning_delete).await
    }

    async fn cancel_operation(
        &self,
        request: Request<longrunning::CancelOperationRequest>,
    ) -> Result<Response<Empty>, Status> {
        self.answer(request, Faces::longrunning_cancel).await
    }

    async fn wait_operation(
        &self,
        request: Request<longrunning::WaitOperationRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        self.answer(request, Faces::longrunning_wait).await
    }
}

/// Clients look for the services before they have anything to show.
#[tonic::async_trait]
impl ApiEndpointService for Service {
    async fn get(
        &self,
        request: Request<endpoint::GetApiEndpointRequest>,
    ) -> Result<Response<endpoint::ApiEndpoint>, Status> {
        let Arrived { id, reached_at } = arrived(&request);
        finish(&id, self.0.find_endpoint(request.get_ref(), reached_at.as_ref()))
    }

    async fn list(
        &self,
        request: Request<endpoint::ListApiEndpointsRequest>,
    ) -> Result<Response<endpoint::ListApiEndpointsResponse>, Status> {
        let Arrived { id, reached_at } = arrived(&request);
        finish(&id, Ok(self.0.endpoints(request.get_ref(), reached_at.as_ref())))
    }
}
