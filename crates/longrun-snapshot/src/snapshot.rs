//! The resource.

use std::collections::BTreeMap;

use longrun::{Found, Resource, ResourceId, ResourceStatus, Timestamp};
use serde::{Deserialize, Serialize};

/// A snapshot, as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// The id.
    pub id: ResourceId,
    /// The folder that it belongs to.
    pub folder_id: ResourceId,
    /// When its creation was accepted.
    pub created_at: Timestamp,
    /// Its name; may be empty, need not be unique.
    #[serde(default)]
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Bytes that its chunks take in the chunk store, each counted once. Chunks that it shares are counted with every snapshot
    /// that has them: what it would take alone.
    #[serde(default)]
    pub storage_size: u64,
    /// The size of the disk when the snapshot was made, in bytes.
    #[serde(default)]
    pub disk_size: u64,
    /// Product ids, inherited from the disk.
    #[serde(default)]
    pub product_ids: Vec<String>,
    /// Where it stands.
    pub status: ResourceStatus,
    /// The disk that it was made from.
    pub source_disk_id: String,
    /// What was found damaged, if its status is ERROR for that reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
}

impl Resource for Snapshot {
    const KIND: &'static str = "compute.snapshot";
    const TYPE_URL: &'static str = "type.googleapis.com/yandex.cloud.compute.v1.Snapshot";
}

impl Snapshot {
    /// The snapshot of a row. Where it stands is what the row says: the engine moves that, not the body.
    pub fn of(found: Found<Self>) -> Self {
        Self { status: found.row.status, ..found.body }
    }
}
