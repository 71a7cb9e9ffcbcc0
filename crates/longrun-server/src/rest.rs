//! REST: the same methods in JSON, as a router for axum.
//!
//! Paths, fields and errors are those of the API. Bodies follow the JSON mapping of protobuf; fields and query parameters that
//! are not known are refused, so that a misspelt one does not pass for a default.

mod answer;
mod each_once;
mod read;
mod segment;
#[cfg(feature = "snapshot")]
mod snapshots;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use longrun_api::yandex::cloud::endpoint::GetApiEndpointRequest;
use longrun_api::yandex::cloud::operation::{CancelOperationRequest, GetOperationRequest};
use longrun_api::{ApiError, Reason};
use tower_http::decompression::RequestDecompressionLayer;

use crate::call::RequestId;
use crate::faces::Faces;
use answer::{answer, finish, refused, respond};
use read::{Source, set_id};
use segment::Segment;

/// The document that describes this face, as OpenAPI 3.1.
pub const OPENAPI: &str = include_str!("rest/openapi.json");

/// All paths.
pub fn router(faces: &Faces) -> Router {
    let mut router = Router::new();
    for (path, methods) in routes(faces) {
        router = router.route(path, methods);
    }
    router.fallback(no_path).method_not_allowed_fallback(no_method).with_state(faces.clone())
}

/// The paths that [`router`] serves, as axum spells them, so that a larger router can tell which are taken.
pub fn paths(faces: &Faces) -> Vec<&'static str> {
    routes(faces).into_iter().map(|(path, _)| path).collect()
}

/// Every path with its methods, the one place where they stand.
fn routes(faces: &Faces) -> Vec<(&'static str, MethodRouter<Faces>)> {
    let routes = vec![
        // The router has no paths that end in a verb: `{operationId}:cancel` comes here, too.
        ("/operations/{operation}", get(get_or_cancel_operation).merge(with_body(post(cancel_operation)))),
        ("/endpoints", get(list_endpoints)),
        ("/endpoints/{id}", get(get_endpoint)),
        ("/openapi.json", get(openapi)),
    ];
    routes.into_iter().chain(of_snapshots(faces)).collect()
}

/// For methods that have a body: one that is compressed is read as what it was. Others are spared the layer.
fn with_body(methods: MethodRouter<Faces>) -> MethodRouter<Faces> {
    // An encoding that the layer does not know it would refuse in its own way; `read` does in ours.
    methods.layer(RequestDecompressionLayer::new().pass_through_unaccepted(true))
}

#[cfg(feature = "snapshot")]
fn of_snapshots(faces: &Faces) -> Vec<(&'static str, MethodRouter<Faces>)> {
    if faces.has_snapshots() { snapshots::routes().into() } else { Vec::new() }
}

#[cfg(not(feature = "snapshot"))]
fn of_snapshots(_: &Faces) -> Vec<(&'static str, MethodRouter<Faces>)> {
    Vec::new()
}

/// What ends the path of a cancel.
const CANCEL: &str = ":cancel";

async fn get_or_cancel_operation(
    state: State<Faces>,
    Segment(operation): Segment,
    request: Request,
) -> Response {
    if operation.ends_with(CANCEL) {
        // Whoever only asks for headers, which comes here too, wants nothing done.
        if request.method() == Method::HEAD {
            return no_method(request).await;
        }
        return cancel_operation(state, Segment(operation), request).await;
    }
    let id = |request: &mut GetOperationRequest| set_id("operation_id", &mut request.operation_id, operation);
    answer(state.0, request, Source::Query, id, Faces::get_operation).await
}

async fn cancel_operation(
    State(faces): State<Faces>,
    Segment(operation): Segment,
    request: Request,
) -> Response {
    let Some(operation) = operation.strip_suffix(CANCEL).map(str::to_owned) else {
        return no_method(request).await;
    };
    let source = if request.method() == Method::POST { Source::Body } else { Source::Query };
    let id =
        |request: &mut CancelOperationRequest| set_id("operation_id", &mut request.operation_id, operation);
    answer(faces, request, source, id, Faces::cancel_operation).await
}

async fn list_endpoints(State(faces): State<Faces>, request: Request) -> Response {
    let id = RequestId::of(request.headers());
    finish(&id, Faces::counted(&id, async { Ok(faces.endpoints(None)) }).await)
}

async fn get_endpoint(State(faces): State<Faces>, Segment(endpoint): Segment, request: Request) -> Response {
    let id = RequestId::of(request.headers());
    let found = async { faces.find_endpoint(&GetApiEndpointRequest { api_endpoint_id: endpoint }, None) };
    finish(&id, Faces::counted(&id, found).await)
}

async fn openapi(request: Request) -> Response {
    respond(&RequestId::of(request.headers()), http::StatusCode::OK, Body::from(OPENAPI))
}

async fn no_path(request: Request) -> Response {
    let error = ApiError::new(Reason::NotFound, "there is no such path");
    refused(&RequestId::of(request.headers()), &error)
}

async fn no_method(request: Request) -> Response {
    let error = ApiError::new(Reason::NotSupported, "the path does not have this method");
    let mut response = refused(&RequestId::of(request.headers()), &error);
    *response.status_mut() = http::StatusCode::METHOD_NOT_ALLOWED;
    response
}
