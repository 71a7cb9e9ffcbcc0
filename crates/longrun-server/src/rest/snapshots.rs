//! The paths of snapshots.

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{MethodRouter, get, patch, post};
use longrun_api::yandex::cloud::compute::v1 as compute;

use super::answer::answer;
use super::read::{Source, set_id};
use super::segment::Segment;
use super::with_body;
use crate::faces::Faces;

/// Each path with its methods.
pub(super) fn routes() -> [(&'static str, MethodRouter<Faces>); 3] {
    [
        ("/compute/v1/snapshots", get(list_snapshots).merge(with_body(post(create_snapshot)))),
        (
            "/compute/v1/snapshots/{id}",
            get(get_snapshot).delete(delete_snapshot).merge(with_body(patch(update_snapshot))),
        ),
        ("/compute/v1/snapshots/{id}/operations", get(list_snapshot_operations)),
    ]
}

async fn get_snapshot(State(faces): State<Faces>, Segment(snapshot): Segment, request: Request) -> Response {
    let id =
        |request: &mut compute::GetSnapshotRequest| set_id("snapshot_id", &mut request.snapshot_id, snapshot);
    answer(faces, request, Source::Query, id, Faces::get_snapshot).await
}

async fn list_snapshots(State(faces): State<Faces>, request: Request) -> Response {
    let no_id = |_: &mut compute::ListSnapshotsRequest| Ok(());
    answer(faces, request, Source::Query, no_id, Faces::list_snapshots).await
}

async fn create_snapshot(State(faces): State<Faces>, request: Request) -> Response {
    let no_id = |_: &mut compute::CreateSnapshotRequest| Ok(());
    answer(faces, request, Source::Body, no_id, Faces::create_snapshot).await
}

async fn update_snapshot(
    State(faces): State<Faces>,
    Segment(snapshot): Segment,
    request: Request,
) -> Response {
    let id = |request: &mut compute::UpdateSnapshotRequest| {
        set_id("snapshot_id", &mut request.snapshot_id, snapshot)
    };
    answer(faces, request, Source::Body, id, Faces::update_snapshot).await
}

async fn delete_snapshot(
    State(faces): State<Faces>,
    Segment(snapshot): Segment,
    request: Request,
) -> Response {
    let id = |request: &mut compute::DeleteSnapshotRequest| {
        set_id("snapshot_id", &mut request.snapshot_id, snapshot)
    };
    answer(faces, request, Source::Query, id, Faces::delete_snapshot).await
}

async fn list_snapshot_operations(
    State(faces): State<Faces>,
    Segment(snapshot): Segment,
    request: Request,
) -> Response {
    let id = |request: &mut compute::ListSnapshotOperationsRequest| {
        set_id("snapshot_id", &mut request.snapshot_id, snapshot)
    };
    answer(faces, request, Source::Query, id, Faces::list_snapshot_operations).await
}
