//! Limits of the API, through the service: at the bound it works and is stored, one beyond it is refused with every rule
//! that is broken, and nothing is stored. The rules themselves are tested where they are pure, in `validation.rs`.

use std::collections::BTreeMap;

use longrun::{Code, OperationQuery};
use longrun_snapshot::service::{
    CreateSnapshotRequest, GetSnapshotRequest, ListSnapshotOperationsRequest, ListSnapshotsRequest,
    ServiceError, UpdateSnapshotRequest,
};

use crate::common::{Lab, call, caller, create_of, get_of, list_of, made};

fn fields(error: ServiceError) -> Vec<String> {
    assert_eq!(error.code(), Code::InvalidArgument);
    let ServiceError::Invalid(violations) = error else { panic!("{error}") };
    violations.iter().map(|violation| violation.field.clone()).collect()
}

fn labels(count: usize, key_chars: usize, value_chars: usize) -> BTreeMap<String, String> {
    let label = |number| (format!("k{number:0>width$}", width = key_chars - 1), "v".repeat(value_chars));
    (0..count).map(label).collect()
}

/// With so much more than what is allowed.
fn create(beyond: usize) -> CreateSnapshotRequest {
    CreateSnapshotRequest {
        name: "n".repeat(63 + beyond),
        description: "я".repeat(256 + beyond),
        labels: labels(64 + beyond, 63, 63),
        ..create_of(&"d".repeat(50 + beyond))
    }
}

#[tokio::test(start_paused = true)]
async fn the_largest_create_and_update_are_stored_and_shown_whole() {
    let lab = Lab::new();
    lab.tiny_disk(&"d".repeat(50), 1);
    let service = lab.start().await;
    let request = CreateSnapshotRequest { folder_id: "f".repeat(50), ..create(0) };
    let snapshot = made(&service, &request).await;
    let shown = service.get(&caller(), &get_of(&snapshot.id)).await.unwrap();
    assert_eq!(
        (&shown.name, &shown.description, &shown.labels),
        (&request.name, &request.description, &request.labels)
    );
    assert_eq!(
        (shown.folder_id.as_str(), &shown.source_disk_id),
        (request.folder_id.as_str(), &request.disk_id)
    );
    let update = UpdateSnapshotRequest {
        snapshot_id: snapshot.id.to_string(),
        name: "m".repeat(63),
        description: "ж".repeat(256),
        labels: labels(64, 62, 0),
        ..UpdateSnapshotRequest::default()
    };
    service.update(call(), &update).await.unwrap();
    let shown = service.get(&caller(), &get_of(&snapshot.id)).await.unwrap();
    assert_eq!(
        (shown.name, shown.description, shown.labels),
        (update.name, update.description, update.labels)
    );
}

#[tokio::test(start_paused = true)]
async fn one_beyond_is_refused_with_all_that_is_wrong_and_nothing_is_stored() {
    let lab = Lab::new();
    lab.tiny_disk("disk-1", 1);
    let service = lab.start().await;
    let request = CreateSnapshotRequest { folder_id: "f".repeat(51), ..create(1) };
    let broken = fields(service.create(call(), &request).await.unwrap_err());
    assert_eq!(broken, ["folder_id", "disk_id", "name", "description", "labels"]);
    let request =
        CreateSnapshotRequest { labels: labels(1, 64, 64), name: "ab".to_owned(), ..create_of("disk-1") };
    let broken = fields(service.create(call(), &request).await.unwrap_err());
    assert_eq!(broken.len(), 3, "{broken:?}");
    let request = UpdateSnapshotRequest {
        snapshot_id: String::new(),
        name: "n".repeat(64),
        description: "я".repeat(257),
        labels: labels(65, 1 + 4, 0),
        ..UpdateSnapshotRequest::default()
    };
    let broken = fields(service.update(call(), &request).await.unwrap_err());
    assert_eq!(broken, ["snapshot_id", "name", "description", "labels"]);
    let all = service.engine().list_operations(&OperationQuery::All, &Default::default()).await.unwrap();
    assert_eq!(all.items, []);
}

#[tokio::test(start_paused = true)]
async fn ids_of_50_characters_are_looked_up_and_longer_ones_refused() {
    let lab = Lab::new();
    let service = lab.start().await;
    let get = |chars| GetSnapshotRequest { snapshot_id: "x".repeat(chars) };
    assert_eq!(service.get(&caller(), &get(50)).await.unwrap_err().code(), Code::NotFound);
    for chars in [0, 51] {
        assert_eq!(fields(service.get(&caller(), &get(chars)).await.unwrap_err()), ["snapshot_id"]);
        assert_eq!(fields(service.verify(&caller(), &get(chars)).await.unwrap_err()), ["snapshot_id"]);
    }
}

#[tokio::test(start_paused = true)]
async fn pages_filters_and_orders_have_bounds() {
    let lab = Lab::new();
    let service = lab.start().await;
    let list = |request: ListSnapshotsRequest| {
        let service = service.clone();
        async move { service.list(&caller(), &request).await }
    };
    let filter = |chars: usize| {
        let name = "n".repeat(63);
        let mut filter = format!("name != {name}");
        while filter.len() + 80 < chars {
            filter = format!("{filter} AND name != {name}");
        }
        format!("{filter}{}", " ".repeat(chars - filter.len()))
    };
    for fits in [
        ListSnapshotsRequest { page_size: 0, ..list_of("f") },
        ListSnapshotsRequest { page_size: 1000, ..list_of(&"f".repeat(50)) },
        ListSnapshotsRequest { filter: filter(1000), ..list_of("f") },
        ListSnapshotsRequest { order_by: format!("name desc{}", " ".repeat(91)), ..list_of("f") },
    ] {
        assert_eq!(list(fits).await.unwrap().items, []);
    }
    let beyond = ListSnapshotsRequest {
        folder_id: "f".repeat(51),
        page_size: 1001,
        page_token: "t".repeat(101),
        filter: filter(1001),
        order_by: format!("name desc{}", " ".repeat(92)),
    };
    let broken = fields(list(beyond).await.unwrap_err());
    assert_eq!(broken, ["folder_id", "page_size", "page_token", "filter", "order_by"]);
    let negative = ListSnapshotsRequest { page_size: -1, ..list_of("f") };
    assert_eq!(fields(list(negative).await.unwrap_err()), ["page_size"]);
    // Of the right length, but nobody gave it out.
    let garbled = ListSnapshotsRequest { page_token: "t".repeat(100), ..list_of("f") };
    assert_eq!(list(garbled).await.unwrap_err().code(), Code::InvalidArgument);
    let operations =
        ListSnapshotOperationsRequest { snapshot_id: "x".to_owned(), page_size: 1001, ..Default::default() };
    assert_eq!(fields(service.list_operations(&caller(), &operations).await.unwrap_err()), ["page_size"]);
}
