//! Updates: which fields a request writes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::validate::{Checker, Limits, Violations};
use crate::snapshot::Snapshot;

/// Asks for a change of a snapshot's name, description or labels.
///
/// With a mask, exactly the fields that it names are written: one without a value is reset to its default. Without a
/// mask, the fields that carry a value are written and the others stay as they are. A request that writes nothing is a
/// valid one that changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateSnapshotRequest {
    /// The snapshot; required.
    pub snapshot_id: String,
    /// The fields to write, of `name`, `description` and `labels`. A list without entries is no mask, since protocol
    /// buffers cannot tell the two apart.
    #[serde(default)]
    pub update_mask: Option<Vec<String>>,
    /// The new name.
    #[serde(default)]
    pub name: String,
    /// The new description.
    #[serde(default)]
    pub description: String,
    /// The new labels: all of them, nothing is merged.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl UpdateSnapshotRequest {
    /// The change that the request asks for, or everything that is wrong with it. Values that will not be written may be
    /// anything.
    pub fn check(&self, limits: Limits) -> Result<SnapshotChange, Violations> {
        let mut checker = Checker::new(limits);
        checker.id("snapshot_id", &self.snapshot_id);
        let fields = match self.update_mask.as_deref() {
            None | Some([]) => self.fields_with_values(),
            Some(paths) => Fields::named(paths, &mut checker),
        };
        let change = SnapshotChange {
            name: fields.name.then(|| self.name.clone()),
            description: fields.description.then(|| self.description.clone()),
            labels: fields.labels.then(|| self.labels.clone()),
        };
        if let Some(name) = &change.name {
            checker.name(name);
        }
        if let Some(description) = &change.description {
            checker.description(description);
        }
        if let Some(labels) = &change.labels {
            checker.labels(labels);
        }
        checker.finish(change)
    }

    fn fields_with_values(&self) -> Fields {
        Fields {
            name: !self.name.is_empty(),
            description: !self.description.is_empty(),
            labels: !self.labels.is_empty(),
        }
    }
}

/// Which fields are written.
#[derive(Default)]
struct Fields {
    name: bool,
    description: bool,
    labels: bool,
}

impl Fields {
    /// Those that a mask names. A field named twice is written once; the paths are the same in JSON's spelling.
    fn named(paths: &[String], checker: &mut Checker) -> Self {
        let mut fields = Self::default();
        for (place, path) in paths.iter().enumerate() {
            match path.as_str() {
                "name" => fields.name = true,
                "description" => fields.description = true,
                "labels" => fields.labels = true,
                _ => checker.note(format!("update_mask[{place}]"), "must be name, description or labels"),
            }
        }
        fields
    }
}

/// What an update writes: the fields of a checked [`UpdateSnapshotRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotChange {
    name: Option<String>,
    description: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

impl SnapshotChange {
    /// Whether no field is written.
    pub const fn is_empty(&self) -> bool {
        self.name.is_none() && self.description.is_none() && self.labels.is_none()
    }

    /// The snapshot as it is afterwards. A value is written as a whole, so that applying twice is applying once.
    #[must_use]
    pub fn apply(&self, snapshot: &Snapshot) -> Snapshot {
        let mut changed = snapshot.clone();
        if let Some(name) = &self.name {
            changed.name.clone_from(name);
        }
        if let Some(description) = &self.description {
            changed.description.clone_from(description);
        }
        if let Some(labels) = &self.labels {
            changed.labels.clone_from(labels);
        }
        changed
    }
}
