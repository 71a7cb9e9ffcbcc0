//! The services of the protocol: each method hands its message to the [`Faces`], and its answer back.

use longrun_api::google::longrunning;
use longrun_api::google::longrunning::operations_server::Operations;
use longrun_api::well_known::Empty;
use longrun_api::yandex::cloud::endpoint;
use longrun_api::yandex::cloud::endpoint::api_endpoint_service_server::ApiEndpointService;
use longrun_api::yandex::cloud::operation;
use longrun_api::yandex::cloud::operation::operation_service_server::OperationService;
use longrun_api::{ApiError, Reason};
use tonic::{Request, Response, Status};

use super::answer::{Arrived, arrived, finish};
use crate::call::Incoming;
use crate::faces::Faces;

/// All services of the protocol.
#[derive(Clone, Debug)]
pub struct FacesService(pub(super) Faces);

impl FacesService {
    pub(super) async fn answer<Q, A, F>(
        &self,
        request: Request<Q>,
        work: impl FnOnce(Faces, Incoming, Q) -> F + Send,
    ) -> Result<Response<A>, Status>
    where
        Q: Send,
        F: Future<Output = Result<A, ApiError>> + Send,
    {
        let Arrived { id, caller, .. } = arrived(&request);
        let (metadata, _, message) = request.into_parts();
        let unknown = || ApiError::new(Reason::Unauthenticated, "who calls is not known");
        let answer = Faces::counted(&id, async {
            let incoming = Incoming::new(caller.ok_or_else(unknown)?, metadata.as_ref());
            work(self.0.clone(), incoming, message).await
        });
        let answer = answer.await;
        finish(&id, answer)
    }
}

#[tonic::async_trait]
impl OperationService for FacesService {
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
impl Operations for FacesService {
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
impl ApiEndpointService for FacesService {
    async fn get(
        &self,
        request: Request<endpoint::GetApiEndpointRequest>,
    ) -> Result<Response<endpoint::ApiEndpoint>, Status> {
        let Arrived { id, reached_at, .. } = arrived(&request);
        let found = async { self.0.find_endpoint(request.get_ref(), reached_at.as_ref()) };
        finish(&id, Faces::counted(&id, found).await)
    }

    async fn list(
        &self,
        request: Request<endpoint::ListApiEndpointsRequest>,
    ) -> Result<Response<endpoint::ListApiEndpointsResponse>, Status> {
        let Arrived { id, reached_at, .. } = arrived(&request);
        finish(&id, Faces::counted(&id, async { Ok(self.0.endpoints(reached_at.as_ref())) }).await)
    }
}
