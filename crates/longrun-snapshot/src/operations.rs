//! The kinds of operation: what each makes of its request. Steps and rows are all there is; how to go back is the engine's.

use longrun::core::limits::{DESCRIPTION_CHARS_MAX, PAYLOAD_BYTES_MAX, STATUS_MESSAGE_BYTES_MAX};
use longrun::{
    Code, EMPTY_TYPE, Found, IdPrefix, Invalid, Json, Kind, PlanBuilder, Planned, Resource, ResourceId,
    ResourceStatus, Status, async_trait,
};
use serde::{Deserialize, Serialize};

use crate::data::{BadId, DiskId, SnapshotId};
use crate::plane::DataPlane;
use crate::service::{
    CreateSnapshotRequest, DeleteSnapshotRequest, LABELS_MAX, Limits, UpdateSnapshotRequest,
};
use crate::snapshot::Snapshot;
use crate::steps::{CopyDisk, CopyInput, Grace, RemoveSnapshot, VerifyCopy};

/// What begins the ids of snapshots.
const PREFIX: &str = "fd8";
/// Bytes of a disk's product ids, as JSON. The rest of what a snapshot may hold, labels above all, has room beside them.
const PRODUCT_IDS_BYTES_MAX: usize = 16 * 1024;

// Names, ids and numbers; a description, all of it escaped; labels; damage.
const _: () = assert!(
    PRODUCT_IDS_BYTES_MAX + 1024 + DESCRIPTION_CHARS_MAX * 12 + LABELS_MAX * 140 + STATUS_MESSAGE_BYTES_MAX
        <= PAYLOAD_BYTES_MAX
);

/// What the caller of a create learns at once. Source: the API; the folder is for the service itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateSnapshotMetadata {
    /// The snapshot that is being made.
    pub snapshot_id: ResourceId,
    /// The disk that is copied.
    pub disk_id: String,
    /// The folder of the snapshot: who may see it may see the operation.
    pub folder_id: ResourceId,
}

/// What the caller of an update, a delete or a finding learns at once. Source: the API; the folder is for the service itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotMetadata {
    /// The snapshot.
    pub snapshot_id: ResourceId,
    /// The folder of the snapshot: who may see it may see the operation.
    pub folder_id: ResourceId,
}

/// `compute.snapshot.create`: copy the disk, read the copy back, show it as READY.
#[derive(Clone, Debug)]
pub struct CreateSnapshot {
    pub(crate) plane: DataPlane,
    pub(crate) limits: Limits,
}

#[async_trait]
impl Kind for CreateSnapshot {
    const NAME: &'static str = "compute.snapshot.create";
    const METADATA_TYPE: &'static str = "type.googleapis.com/yandex.cloud.compute.v1.CreateSnapshotMetadata";
    const RESPONSE_TYPE: &'static str = Snapshot::TYPE_URL;
    type Request = CreateSnapshotRequest;
    type Metadata = CreateSnapshotMetadata;
    type Response = Snapshot;

    async fn plan(&self, request: &CreateSnapshotRequest, plan: &mut PlanBuilder) -> Planned<Self> {
        request.check(self.limits)?;
        let folder_id = ResourceId::new(&request.folder_id)?;
        let disk_id: DiskId = request.disk_id.parse().map_err(|_: BadId| no_disk())?;
        let no_such = |status: Status| if status.code() == Code::NotFound { no_disk() } else { status };
        let disk = self.plane.look_at_disk(&disk_id).await.map_err(no_such)?;
        let is_free = disk.folder_id.is_none() && !self.plane.folder_required;
        if !is_free && disk.folder_id.as_ref() != Some(&request.folder_id) {
            return Err(no_disk());
        }
        let ids = Json::encode("product_ids", &disk.product_ids);
        if !ids.is_ok_and(|ids| ids.bytes().len() <= PRODUCT_IDS_BYTES_MAX) {
            let why = format!("the disk has more than {PRODUCT_IDS_BYTES_MAX} bytes of product ids");
            return Err(Status::new(Code::FailedPrecondition, why));
        }
        let id = plan.new_id(IdPrefix::new(PREFIX)?);
        let snapshot = Snapshot {
            id: id.clone(),
            folder_id: folder_id.clone(),
            created_at: plan.now(),
            name: request.name.clone(),
            description: request.description.clone(),
            labels: request.labels.clone(),
            storage_size: 0,
            disk_size: disk.size,
            product_ids: disk.product_ids,
            status: ResourceStatus::Creating,
            source_disk_id: request.disk_id.clone(),
            damage: None,
        };
        plan.describe("Create snapshot");
        let draft = plan.value(&snapshot);
        let copied = plan.step::<CopyDisk>(CopyInput { disk_id, snapshot_id: snapshot_id(&id)? });
        let made = plan.step::<VerifyCopy>((&copied, &draft));
        plan.create(&id, &folder_id, request.name.clone(), &snapshot, &made)?;
        let metadata =
            CreateSnapshotMetadata { snapshot_id: id, disk_id: request.disk_id.clone(), folder_id };
        Ok((metadata, made))
    }
}

/// The same for a disk that is not there and for one of another folder.
fn no_disk() -> Status {
    Status::new(Code::NotFound, "the disk does not exist")
}

/// `compute.snapshot.update`: nothing to do outside, so it is done when it is accepted.
#[derive(Clone, Copy, Debug)]
pub struct UpdateSnapshot {
    pub(crate) limits: Limits,
}

#[async_trait]
impl Kind for UpdateSnapshot {
    const NAME: &'static str = "compute.snapshot.update";
    const METADATA_TYPE: &'static str = "type.googleapis.com/yandex.cloud.compute.v1.UpdateSnapshotMetadata";
    const RESPONSE_TYPE: &'static str = Snapshot::TYPE_URL;
    type Request = UpdateSnapshotRequest;
    type Metadata = SnapshotMetadata;
    type Response = Snapshot;

    async fn plan(&self, request: &UpdateSnapshotRequest, plan: &mut PlanBuilder) -> Planned<Self> {
        let change = request.check(self.limits)?;
        let found = find(plan, &request.snapshot_id).await?;
        plan.describe("Update snapshot");
        let snapshot = change.apply(&found.body);
        let status = found.row.status;
        let changed = plan.value(&Snapshot { status, ..snapshot.clone() });
        plan.update(&found, snapshot.name, status, &changed);
        Ok((metadata(&found), changed))
    }
}

/// `compute.snapshot.delete`: a time to think, and then no way back.
#[derive(Clone, Debug)]
pub struct DeleteSnapshot {
    pub(crate) plane: DataPlane,
}

#[async_trait]
impl Kind for DeleteSnapshot {
    const NAME: &'static str = "compute.snapshot.delete";
    const METADATA_TYPE: &'static str = "type.googleapis.com/yandex.cloud.compute.v1.DeleteSnapshotMetadata";
    const RESPONSE_TYPE: &'static str = EMPTY_TYPE;
    type Request = DeleteSnapshotRequest;
    type Metadata = SnapshotMetadata;
    type Response = Empty;

    async fn plan(&self, request: &DeleteSnapshotRequest, plan: &mut PlanBuilder) -> Planned<Self> {
        request.check()?;
        let found = find(plan, &request.snapshot_id).await?;
        plan.describe("Delete snapshot");
        // A time, and not how long: a restart does not begin it anew.
        plan.step::<Grace>(plan.now().saturating_add(self.plane.delete_grace));
        let removed = plan.step::<RemoveSnapshot>(snapshot_id(&found.row.key.id)?);
        plan.point_of_no_return(&removed);
        plan.delete(&found);
        let empty = plan.value(&Empty {});
        Ok((metadata(&found), empty))
    }
}

/// No value: `google.protobuf.Empty`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// What reading a whole snapshot has shown: see [`FindSnapshot`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The snapshot.
    pub snapshot_id: String,
    /// What is damaged, in words; `None` when nothing is.
    pub damage: Option<String>,
    /// The revision of the snapshot that was read: if it has changed since, the finding counts for nothing.
    pub revision: u64,
    /// What its chunks take in the chunk store, if its manifest could be read.
    pub storage_size: Option<u64>,
}

/// `compute.snapshot.find`: puts on record that a snapshot was found damaged (READY becomes ERROR) or whole (ERROR becomes
/// READY). Not part of the API: the service asks for it itself.
#[derive(Clone, Copy, Debug)]
pub struct FindSnapshot;

#[async_trait]
impl Kind for FindSnapshot {
    const NAME: &'static str = "compute.snapshot.find";
    const RESPONSE_TYPE: &'static str = Snapshot::TYPE_URL;
    type Request = Finding;
    type Metadata = SnapshotMetadata;
    type Response = Snapshot;

    async fn plan(&self, finding: &Finding, plan: &mut PlanBuilder) -> Planned<Self> {
        let found = find(plan, &finding.snapshot_id).await?;
        if found.row.revision.0 != finding.revision {
            return Err(Status::new(Code::Aborted, "the snapshot has changed since it was read"));
        }
        plan.describe(match &finding.damage {
            Some(damage) => format!("Data of the snapshot is damaged: {damage}")
                .chars()
                .take(DESCRIPTION_CHARS_MAX)
                .collect(),
            None => "Data of the snapshot is whole".to_owned(),
        });
        let status = match finding.damage {
            Some(_) => ResourceStatus::Error,
            None => ResourceStatus::Ready,
        };
        let mut damage = finding.damage.clone();
        if let Some(damage) = &mut damage {
            damage.truncate(damage.floor_char_boundary(STATUS_MESSAGE_BYTES_MAX));
        }
        let changed = plan.value(&Snapshot {
            status,
            damage,
            storage_size: finding.storage_size.unwrap_or(found.body.storage_size),
            ..found.body.clone()
        });
        plan.update(&found, found.row.name.clone(), status, &changed);
        Ok((metadata(&found), changed))
    }
}

async fn find(plan: &PlanBuilder, id: &str) -> Result<Found<Snapshot>, Status> {
    // An id that no snapshot can have is the id of no snapshot.
    let Ok(id) = ResourceId::new(id) else { return Err(not_found()) };
    plan.find::<Snapshot>(&id).await?.ok_or_else(not_found)
}

/// The same for every snapshot that is not there, or not for the caller to see.
pub(crate) fn not_found() -> Status {
    Status::new(Code::NotFound, "the snapshot does not exist")
}

fn metadata(found: &Found<Snapshot>) -> SnapshotMetadata {
    SnapshotMetadata { snapshot_id: found.row.key.id.clone(), folder_id: found.row.parent.clone() }
}

fn snapshot_id(id: &ResourceId) -> Result<SnapshotId, Status> {
    id.as_str().parse().map_err(|error: BadId| Invalid::new("snapshot_id", error.to_string()).into())
}
