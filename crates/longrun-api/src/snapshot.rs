//! The snapshot service's requests, answers and errors, as wire types and back.

use longrun::{Code, Operation, Page, ResourceStatus};
use longrun_snapshot::Snapshot;
use longrun_snapshot::operations::{CreateSnapshotMetadata, SnapshotMetadata};
use longrun_snapshot::service::{self as domain, ServiceError, Violations};

use crate::dialect::cloud;
use crate::error::{ApiError, Reason};
use crate::types::Types;
use crate::yandex::cloud::compute::v1 as wire;

/// The types of what the snapshot service puts into operations.
pub fn types() -> Types {
    Types::default()
        .with::<CreateSnapshotMetadata, wire::CreateSnapshotMetadata>()
        .with::<SnapshotMetadata, wire::UpdateSnapshotMetadata>()
        .with::<SnapshotMetadata, wire::DeleteSnapshotMetadata>()
        .with::<Snapshot, wire::Snapshot>()
}

impl From<CreateSnapshotMetadata> for wire::CreateSnapshotMetadata {
    fn from(metadata: CreateSnapshotMetadata) -> Self {
        Self { snapshot_id: metadata.snapshot_id.to_string(), disk_id: metadata.disk_id }
    }
}

impl From<SnapshotMetadata> for wire::UpdateSnapshotMetadata {
    fn from(metadata: SnapshotMetadata) -> Self {
        Self { snapshot_id: metadata.snapshot_id.to_string() }
    }
}

impl From<SnapshotMetadata> for wire::DeleteSnapshotMetadata {
    fn from(metadata: SnapshotMetadata) -> Self {
        Self { snapshot_id: metadata.snapshot_id.to_string() }
    }
}

impl From<Snapshot> for wire::Snapshot {
    fn from(snapshot: Snapshot) -> Self {
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        Self {
            id: snapshot.id.to_string(),
            folder_id: snapshot.folder_id.to_string(),
            created_at: Some(snapshot.created_at.into()),
            name: snapshot.name,
            description: snapshot.description,
            labels: snapshot.labels,
            storage_size: bytes(snapshot.storage_size),
            disk_size: bytes(snapshot.disk_size),
            product_ids: snapshot.product_ids,
            status: status(snapshot.status).into(),
            source_disk_id: snapshot.source_disk_id,
            hardware_generation: None,
            kms_key: None,
        }
    }
}

const fn status(status: ResourceStatus) -> wire::snapshot::Status {
    match status {
        ResourceStatus::Creating => wire::snapshot::Status::Creating,
        ResourceStatus::Ready => wire::snapshot::Status::Ready,
        ResourceStatus::Error => wire::snapshot::Status::Error,
        ResourceStatus::Deleting => wire::snapshot::Status::Deleting,
    }
}

impl From<Page<Snapshot>> for wire::ListSnapshotsResponse {
    fn from(page: Page<Snapshot>) -> Self {
        Self { snapshots: page.items.into_iter().map(Into::into).collect(), next_page_token: page.next_token }
    }
}

/// A page of operations.
pub fn operations(page: &Page<Operation>, types: &Types) -> wire::ListSnapshotOperationsResponse {
    wire::ListSnapshotOperationsResponse {
        operations: page.items.iter().map(|operation| cloud::operation(operation, types)).collect(),
        next_page_token: page.next_token.clone(),
    }
}

impl From<wire::GetSnapshotRequest> for domain::GetSnapshotRequest {
    fn from(request: wire::GetSnapshotRequest) -> Self {
        Self { snapshot_id: request.snapshot_id }
    }
}

impl From<wire::ListSnapshotsRequest> for domain::ListSnapshotsRequest {
    fn from(request: wire::ListSnapshotsRequest) -> Self {
        let wire::ListSnapshotsRequest { folder_id, page_size, page_token, filter, order_by } = request;
        Self { folder_id, page_size, page_token, filter, order_by }
    }
}

impl TryFrom<wire::CreateSnapshotRequest> for domain::CreateSnapshotRequest {
    type Error = ApiError;

    fn try_from(request: wire::CreateSnapshotRequest) -> Result<Self, ApiError> {
        let wire::CreateSnapshotRequest {
            folder_id,
            disk_id,
            name,
            description,
            labels,
            hardware_generation,
        } = request;
        // Better refused than forgotten in silence.
        if hardware_generation.is_some() {
            return Err(ApiError::violation("hardware_generation", "is not supported here"));
        }
        Ok(Self { folder_id, disk_id, name, description, labels })
    }
}

impl From<wire::UpdateSnapshotRequest> for domain::UpdateSnapshotRequest {
    fn from(request: wire::UpdateSnapshotRequest) -> Self {
        let wire::UpdateSnapshotRequest { snapshot_id, update_mask, name, description, labels } = request;
        Self { snapshot_id, update_mask: update_mask.map(|mask| mask.paths), name, description, labels }
    }
}

impl From<wire::DeleteSnapshotRequest> for domain::DeleteSnapshotRequest {
    fn from(request: wire::DeleteSnapshotRequest) -> Self {
        Self { snapshot_id: request.snapshot_id }
    }
}

impl From<wire::ListSnapshotOperationsRequest> for domain::ListSnapshotOperationsRequest {
    fn from(request: wire::ListSnapshotOperationsRequest) -> Self {
        let wire::ListSnapshotOperationsRequest { snapshot_id, page_size, page_token } = request;
        Self { snapshot_id, page_size, page_token }
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Invalid(violations) => violations.into(),
            ServiceError::Submit(error) => error.into(),
            ServiceError::Read(error) => error.into(),
            ServiceError::Command(error) => error.into(),
            ServiceError::Throttled(throttled) => Self::new(Reason::QuotaExceeded, throttled.to_string())
                .with_retry_after(throttled.retry_after),
            // The chunk store, or the machine: none of the caller's business, and none of its faults.
            ServiceError::Data(status) => match status.code() {
                Code::ResourceExhausted => Self::new(Reason::StorageFull, status.message()),
                Code::DataLoss => Self::new(Reason::Damaged, status.message()),
                // Folders were mixed up: trying again does not help, and the operator is told by the log.
                Code::FailedPrecondition => Self::new(Reason::Internal, status.message()),
                _ => Self::new(Reason::Unavailable, status.message()),
            },
            other => other.status().into(),
        }
    }
}

impl From<Violations> for ApiError {
    fn from(violations: Violations) -> Self {
        let error = Self::new(Reason::InvalidRequest, violations.to_string());
        violations
            .iter()
            .fold(error, |error, violation| error.with_violation(&violation.field, &violation.rule))
    }
}
