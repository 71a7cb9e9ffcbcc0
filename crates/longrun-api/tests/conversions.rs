//! From the domain of snapshots to the wire and back: no field is lost or mixed up.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use longrun::{Page, ResourceId, ResourceStatus, Timestamp};
use longrun_api::well_known::FieldMask;
use longrun_api::yandex::cloud::compute::v1 as wire;
use longrun_snapshot::Snapshot;
use longrun_snapshot::operations::{CreateSnapshotMetadata, SnapshotMetadata};
use longrun_snapshot::service as domain;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

fn id() -> impl Strategy<Value = ResourceId> {
    "[a-zA-Z0-9_-]{1,50}".prop_map(|id| ResourceId::new(id).unwrap())
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(any::<String>(), any::<String>(), 0..4)
}

fn instant() -> impl Strategy<Value = Timestamp> {
    (Timestamp::MIN.unix_micros()..=Timestamp::MAX.unix_micros())
        .prop_map(|micros| Timestamp::from_unix_micros(micros).unwrap())
}

fn status() -> impl Strategy<Value = ResourceStatus> {
    use ResourceStatus::{Creating, Deleting, Error, Ready};
    prop::sample::select(vec![Creating, Ready, Error, Deleting])
}

prop_compose! {
    fn snapshot()(
        (id, folder_id, created_at, status) in (id(), id(), instant(), status()),
        [name, description, source_disk_id] in any::<[String; 3]>(),
        labels in labels(),
        product_ids in vec(any::<String>(), 0..4),
        [storage_size, disk_size] in any::<[u64; 2]>(),
        damage in any::<Option<String>>(),
    ) -> Snapshot {
        Snapshot {
            id, folder_id, created_at, name, description, labels, storage_size, disk_size, product_ids, status,
            source_disk_id, damage,
        }
    }
}

fn same_instant(wire: longrun_api::well_known::Timestamp, instant: Timestamp) -> bool {
    wire.seconds * 1_000_000 + i64::from(wire.nanos) / 1000 == instant.unix_micros() && wire.nanos % 1000 == 0
}

proptest! {
    #[test]
    fn a_snapshot_keeps_its_fields(snapshot in snapshot()) {
        let shown = wire::Snapshot::from(snapshot.clone());
        let status = shown.status().as_str_name().to_owned();
        let wire::Snapshot {
            id, folder_id, created_at, name, description, labels, storage_size, disk_size, product_ids, status: _,
            source_disk_id, hardware_generation, kms_key,
        } = shown;
        prop_assert_eq!((id.as_str(), folder_id.as_str()), (snapshot.id.as_str(), snapshot.folder_id.as_str()));
        prop_assert!(same_instant(created_at.unwrap(), snapshot.created_at));
        prop_assert_eq!((name, description), (snapshot.name, snapshot.description));
        prop_assert_eq!(labels, snapshot.labels);
        let most = u64::try_from(i64::MAX).unwrap();
        prop_assert_eq!(u64::try_from(storage_size).unwrap(), snapshot.storage_size.min(most));
        prop_assert_eq!(u64::try_from(disk_size).unwrap(), snapshot.disk_size.min(most));
        prop_assert_eq!(product_ids, snapshot.product_ids);
        prop_assert_eq!(status, snapshot.status.name());
        prop_assert_eq!(source_disk_id, snapshot.source_disk_id);
        prop_assert!(hardware_generation.is_none() && kms_key.is_none());
    }

    #[test]
    fn a_page_keeps_its_order_and_its_token(items in vec(snapshot(), 0..4), next_token in any::<String>()) {
        let expected: Vec<wire::Snapshot> = items.iter().cloned().map(Into::into).collect();
        let page = wire::ListSnapshotsResponse::from(Page { items, next_token: next_token.clone() });
        prop_assert_eq!(page, wire::ListSnapshotsResponse { snapshots: expected, next_page_token: next_token });
    }

    #[test]
    fn metadata_keeps_its_ids(snapshot in id(), disk_id in any::<String>(), folder_id in id()) {
        let metadata = CreateSnapshotMetadata { snapshot_id: snapshot.clone(), disk_id: disk_id.clone(), folder_id };
        let snapshot_id = snapshot.to_string();
        let expected = wire::CreateSnapshotMetadata { snapshot_id: snapshot_id.clone(), disk_id };
        let folder_id = metadata.folder_id.clone();
        prop_assert_eq!(wire::CreateSnapshotMetadata::from(metadata), expected);
        let metadata = SnapshotMetadata { snapshot_id: snapshot, folder_id };
        let expected = wire::UpdateSnapshotMetadata { snapshot_id: snapshot_id.clone() };
        prop_assert_eq!(wire::UpdateSnapshotMetadata::from(metadata.clone()), expected);
        let expected = wire::DeleteSnapshotMetadata { snapshot_id };
        prop_assert_eq!(wire::DeleteSnapshotMetadata::from(metadata), expected);
    }

    #[test]
    fn requests_keep_their_fields(
        [a, b, c, d] in any::<[String; 4]>(),
        page_size in any::<i64>(),
        labels in labels(),
        mask in any::<Option<Vec<String>>>(),
    ) {
        let list = wire::ListSnapshotsRequest {
            folder_id: a.clone(), page_size, page_token: b.clone(), filter: c.clone(), order_by: d.clone(),
        };
        prop_assert_eq!(domain::ListSnapshotsRequest::from(list), domain::ListSnapshotsRequest {
            folder_id: a.clone(), page_size, page_token: b.clone(), filter: c.clone(), order_by: d.clone(),
        });
        let operations = wire::ListSnapshotOperationsRequest {
            snapshot_id: a.clone(), page_size, page_token: b.clone(),
        };
        prop_assert_eq!(
            domain::ListSnapshotOperationsRequest::from(operations),
            domain::ListSnapshotOperationsRequest { snapshot_id: a.clone(), page_size, page_token: b.clone() }
        );
        let create = wire::CreateSnapshotRequest {
            folder_id: a.clone(), disk_id: b.clone(), name: c.clone(), description: d.clone(), labels: labels.clone(),
            hardware_generation: None,
        };
        let expected = domain::CreateSnapshotRequest {
            folder_id: a.clone(), disk_id: b.clone(), name: c.clone(), description: d, labels: labels.clone(),
        };
        prop_assert_eq!(domain::CreateSnapshotRequest::try_from(create.clone()).unwrap(), expected);
        let generation = Some(wire::HardwareGeneration::default());
        let refused = wire::CreateSnapshotRequest { hardware_generation: generation, ..create };
        prop_assert!(domain::CreateSnapshotRequest::try_from(refused).is_err());
        let update_mask = mask.clone().map(|paths| FieldMask { paths });
        let update = wire::UpdateSnapshotRequest {
            snapshot_id: a.clone(), update_mask, name: b.clone(), description: c.clone(), labels: labels.clone(),
        };
        prop_assert_eq!(domain::UpdateSnapshotRequest::from(update), domain::UpdateSnapshotRequest {
            snapshot_id: a.clone(), update_mask: mask, name: b, description: c, labels,
        });
        let get = wire::GetSnapshotRequest { snapshot_id: a.clone() };
        prop_assert_eq!(domain::GetSnapshotRequest::from(get).snapshot_id, a.as_str());
        let delete = wire::DeleteSnapshotRequest { snapshot_id: a.clone() };
        prop_assert_eq!(domain::DeleteSnapshotRequest::from(delete).snapshot_id, a.as_str());
    }
}
