//! The methods of the snapshot service.

use longrun_api::yandex::cloud::compute::v1 as compute;
use longrun_api::yandex::cloud::operation as wire;
use longrun_api::{ApiError, Reason};
use longrun_snapshot::SnapshotService;
use longrun_snapshot::service::{GetSnapshotRequest, ListSnapshotOperationsRequest, ListSnapshotsRequest};

use super::Faces;
use crate::call::Incoming;

impl Faces {
    pub(crate) fn has_snapshots(&self) -> bool {
        self.inner.snapshots.is_some()
    }

    fn snapshots(&self) -> Result<&SnapshotService, ApiError> {
        let none = || ApiError::new(Reason::NotSupported, "there are no snapshots here");
        self.inner.snapshots.as_ref().ok_or_else(none)
    }

    pub(crate) async fn get_snapshot(
        self,
        call: Incoming,
        request: compute::GetSnapshotRequest,
    ) -> Result<compute::Snapshot, ApiError> {
        let request = GetSnapshotRequest::from(request);
        Ok(self.snapshots()?.get(&call.caller, &request).await?.into())
    }

    pub(crate) async fn list_snapshots(
        self,
        call: Incoming,
        request: compute::ListSnapshotsRequest,
    ) -> Result<compute::ListSnapshotsResponse, ApiError> {
        let request = ListSnapshotsRequest::from(request);
        Ok(self.snapshots()?.list(&call.caller, &request).await?.into())
    }

    pub(crate) async fn create_snapshot(
        self,
        call: Incoming,
        request: compute::CreateSnapshotRequest,
    ) -> Result<wire::Operation, ApiError> {
        let operation = self.snapshots()?.create(call.into_change()?, &request.try_into()?).await?;
        Ok(self.in_cloud_dialect(&operation))
    }

    pub(crate) async fn update_snapshot(
        self,
        call: Incoming,
        request: compute::UpdateSnapshotRequest,
    ) -> Result<wire::Operation, ApiError> {
        let operation = self.snapshots()?.update(call.into_change()?, &request.into()).await?;
        Ok(self.in_cloud_dialect(&operation))
    }

    pub(crate) async fn delete_snapshot(
        self,
        call: Incoming,
        request: compute::DeleteSnapshotRequest,
    ) -> Result<wire::Operation, ApiError> {
        let operation = self.snapshots()?.delete(call.into_change()?, &request.into()).await?;
        Ok(self.in_cloud_dialect(&operation))
    }

    pub(crate) async fn list_snapshot_operations(
        self,
        call: Incoming,
        request: compute::ListSnapshotOperationsRequest,
    ) -> Result<compute::ListSnapshotOperationsResponse, ApiError> {
        let request = ListSnapshotOperationsRequest::from(request);
        let page = self.snapshots()?.list_operations(&call.caller, &request).await?;
        Ok(longrun_api::snapshot::operations(&page, &self.inner.types))
    }
}
