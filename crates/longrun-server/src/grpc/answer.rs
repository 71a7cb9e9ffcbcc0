//! What a method is told of its request, and its answer or error as gRPC says it.

use bytes::Bytes;
use http::uri::Authority;
use longrun::Caller;
use longrun_api::ApiError;
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};

use crate::call::RequestId;

/// What a method has to know of its request besides headers and message.
#[derive(Clone, Debug)]
pub(super) struct Arrived {
    pub(super) id: RequestId,
    /// Who calls, where that has to be known.
    pub(super) caller: Option<Caller>,
    /// Where the client thinks that it is.
    pub(super) reached_at: Option<Authority>,
}

/// What was learned of the request on its way here. [`Adapted`](super::Adapted) is always on that way.
pub(super) fn arrived<Q>(request: &Request<Q>) -> Arrived {
    let unknown =
        || Arrived { id: RequestId::of(request.metadata().as_ref()), caller: None, reached_at: None };
    request.extensions().get::<Arrived>().cloned().unwrap_or_else(unknown)
}

/// An answer or a status, with the id of the request.
pub(super) fn finish<A>(id: &RequestId, answer: Result<A, ApiError>) -> Result<Response<A>, Status> {
    let answer = answer.map_err(|error| status(id, &error))?;
    let mut response = Response::new(answer);
    *response.metadata_mut() = metadata(id);
    Ok(response)
}

/// An error with its details, as gRPC says it: trailers alone, for clients lose the code of an error that comes after
/// headers.
pub(super) fn status(id: &RequestId, error: &ApiError) -> Status {
    let details: Bytes = error.to_status(id.as_str()).encode_to_vec().into();
    let code = Code::from_i32(i32::from(error.code().number()));
    Status::with_details_and_metadata(code, error.message(), details, metadata(id))
}

fn metadata(id: &RequestId) -> MetadataMap {
    let mut metadata = http::HeaderMap::new();
    id.put(&mut metadata);
    MetadataMap::from_headers(metadata)
}
