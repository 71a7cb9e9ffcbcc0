//! What the model knows of a snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use longrun::{Operation, OperationId, ResourceId, ResourceStatus};
use longrun_snapshot::Snapshot;

/// Where a snapshot stands, as far as the model has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Creating(OperationId),
    Ready,
    Deleting(OperationId),
    Gone,
}

/// A snapshot, and the disk as it was when it was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) folder: String,
    pub(crate) disk: String,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) image: Arc<Vec<u8>>,
    pub(crate) state: State,
}

impl Known {
    /// The operation that works on it, if one may.
    pub(crate) const fn holder(&self) -> Option<OperationId> {
        match self.state {
            State::Creating(id) | State::Deleting(id) => Some(id),
            State::Ready | State::Gone => None,
        }
    }

    /// Takes note of what has come of the operation that works on it.
    pub(crate) fn learn(&mut self, operation: &Operation) {
        assert_eq!(self.holder(), Some(operation.id()));
        if !operation.done() {
            assert!(operation.response().is_none());
            return;
        }
        assert_ne!(operation.response().is_some(), operation.error().is_some());
        self.state = match (self.state, operation.error()) {
            (State::Creating(_), None) | (State::Deleting(_), Some(_)) => State::Ready,
            _ => State::Gone,
        };
    }

    /// Whether what the service shows can be this snapshot.
    pub(crate) fn check(&self, id: &ResourceId, shown: &Snapshot) {
        let strings = [&shown.name, &shown.description, &shown.source_disk_id];
        assert_eq!(strings, [&self.name, &self.description, &self.disk], "{id}");
        assert_eq!((&shown.id, shown.folder_id.as_str()), (id, self.folder.as_str()));
        assert_eq!((&shown.labels, &shown.damage), (&self.labels, &None), "{id}");
        assert_eq!(shown.disk_size, self.image.len() as u64);
        let possible: &[_] = match self.state {
            State::Creating(_) => {
                &[ResourceStatus::Creating, ResourceStatus::Ready, ResourceStatus::Deleting]
            }
            State::Ready => &[ResourceStatus::Ready],
            // A cancel may have been in time.
            State::Deleting(_) => &[ResourceStatus::Deleting, ResourceStatus::Ready],
            State::Gone => &[],
        };
        assert!(possible.contains(&shown.status), "{id} is {:?} and shows {}", self.state, shown.status);
    }
}
