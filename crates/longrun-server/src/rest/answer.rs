//! From a request to a method and back.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use longrun_api::{ApiError, Reason, http_status};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::read::{Source, read};
use crate::call::{Incoming, RequestId};
use crate::faces::{Faces, report};

/// What most answers fit in.
const ANSWER_BYTES: usize = 1024;

/// Answers a request: what it asks is read from its query or body, and from its path by `fill`.
///
/// Who calls is found out first: what a stranger sends is not even read.
pub(super) async fn answer<Q, A, F>(
    faces: Faces,
    request: Request,
    source: Source,
    fill: impl FnOnce(&mut Q) -> Result<(), ApiError> + Send,
    work: impl FnOnce(Faces, Incoming, Q) -> F + Send,
) -> Response
where
    Q: DeserializeOwned + Send,
    A: Serialize,
    F: Future<Output = Result<A, ApiError>> + Send,
{
    let (parts, body) = request.into_parts();
    let id = RequestId::of(&parts.headers);
    let time = faces.time_for_body();
    let caller = match faces.caller(&id, &parts.headers).await {
        Ok(caller) => caller,
        Err(refused) => return finish::<()>(&id, Err(refused)),
    };
    let answer = Faces::counted(&id, async {
        let mut message: Q = read(&parts, body, time, source).await?;
        fill(&mut message)?;
        work(faces, Incoming::new(caller, &parts.headers), message).await
    });
    finish(&id, answer.await)
}

/// A refusal that comes before any method, counted like the others.
pub(super) fn refused(id: &RequestId, error: &ApiError) -> Response {
    report(id, error);
    refuse(id, error)
}

/// An answer or an error, as JSON.
pub(super) fn finish<A: Serialize>(id: &RequestId, answer: Result<A, ApiError>) -> Response {
    let answer = answer.and_then(|answer| {
        let mut json = Vec::with_capacity(ANSWER_BYTES);
        let shown = serde_json::to_writer(&mut json, &answer);
        shown.map_err(|error| ApiError::new(Reason::Internal, error.to_string())).map(|()| json)
    });
    match answer {
        Ok(json) => respond(id, StatusCode::OK, json.into()),
        Err(error) => refuse(id, &error),
    }
}

fn refuse(id: &RequestId, error: &ApiError) -> Response {
    // Plain data: it cannot fail to be shown.
    let json = serde_json::to_vec(&error.to_status(id.as_str())).unwrap_or_default();
    let status = match error.reason() {
        Reason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        reason => {
            StatusCode::from_u16(http_status(reason.code())).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        }
    };
    let mut response = respond(id, status, json.into());
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(delay) = error.retry_after() {
        // Whole seconds, and not too early.
        let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

pub(super) fn respond(id: &RequestId, status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    id.put(response.headers_mut());
    response
}
