//! `yandex.cloud.compute.v1.SnapshotService`.

use longrun_api::yandex::cloud::compute::v1 as compute;
use longrun_api::yandex::cloud::compute::v1::snapshot_service_server::SnapshotService;
use longrun_api::yandex::cloud::operation;
use tonic::{Request, Response, Status};

use super::services::FacesService;
use crate::faces::Faces;

#[tonic::async_trait]
impl SnapshotService for FacesService {
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
