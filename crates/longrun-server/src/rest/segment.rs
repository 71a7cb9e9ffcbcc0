//! [`Segment`]: the part of a path that is an id.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::response::Response;
use longrun_api::ApiError;

use super::answer::refused;
use crate::call::RequestId;

/// The part of a path that is an id, decoded. One that does not decode is refused like any other bad request; axum's own
/// answer would be no Status.
pub(super) struct Segment(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let segment = Path::<String>::from_request_parts(parts, state).await;
        segment.map(|Path(id)| Self(id)).map_err(|_| {
            let error = ApiError::violation("path", "must be percent-encoded UTF-8");
            refused(&RequestId::of(&parts.headers), &error)
        })
    }
}
