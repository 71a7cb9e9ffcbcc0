//! [`Adapted`]: what tonic itself refuses, refused as everything else is; and a time for the body of a request.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::uri::Authority;
use http::{HeaderMap, Request, Response};
use longrun_api::{ApiError, Reason};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::Service;

use super::MESSAGE_BYTES_MAX;
use super::body::Timed;
use super::services::status;
use crate::call::RequestId;
use crate::faces::{Faces, report};

/// A service of unary methods in which a request that does not reach its method is refused like one that does: with the
/// code that its sender deserves, a reason and the id of the request, counted and on the log.
///
/// tonic calls a message over the limit OUT_OF_RANGE, and what it cannot decode INTERNAL, as if the server had failed; and
/// it waits for the body of a request as long as the connection lasts.
#[derive(Clone, Debug)]
pub struct Adapted<S> {
    service: S,
    faces: Faces,
}

impl<S> Adapted<S> {
    pub(super) fn new(service: S, faces: &Faces) -> Self {
        Self { service, faces: faces.clone() }
    }
}

/// What a method has to know of its request besides headers and message.
#[derive(Clone, Debug)]
pub(super) struct Arrived {
    pub(super) id: RequestId,
    /// Where the client thinks that it is.
    pub(super) reached_at: Option<Authority>,
}

impl<S: NamedService> NamedService for Adapted<S> {
    const NAME: &'static str = S::NAME;
}

type Answer = Result<Response<Body>, Infallible>;

impl<S> Service<Request<Body>> for Adapted<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let id = RequestId::of(request.headers());
        let reached_at = request.uri().authority().cloned();
        // The method answers under the same id.
        request.extensions_mut().insert(Arrived { id: id.clone(), reached_at });
        let time = self.faces.time_for_body();
        let answer = self.service.call(request.map(|body| Body::new(Timed::new(body, time))));
        Box::pin(async move { answer.await.map(|response| adapt(id, response)) })
    }
}

fn adapt(id: RequestId, response: Response<Body>) -> Response<Body> {
    let Some(error) = refused_by_tonic(response.headers()) else { return response };
    report(&id, &error);
    status(&id, &error).into_http()
}

/// What tonic refuses by itself comes as headers alone and has no details; what a method refuses has some.
fn refused_by_tonic(headers: &HeaderMap) -> Option<ApiError> {
    if headers.contains_key("grpc-status-details-bin") {
        return None;
    }
    let refused = Status::from_header_map(headers)?;
    let too_large =
        || ApiError::new(Reason::TooLarge, format!("the message is larger than {MESSAGE_BYTES_MAX} bytes"));
    Some(match refused.code() {
        Code::Ok => return None,
        Code::OutOfRange | Code::ResourceExhausted => too_large(),
        // The codec's own words: they name fields of the protocol and repeat nothing.
        Code::InvalidArgument => ApiError::violation("message", refused.message()),
        Code::DeadlineExceeded => {
            ApiError::new(Reason::DeadlineExceeded, "the message took too long to come")
        }
        Code::Unimplemented => {
            ApiError::new(Reason::NotSupported, "there is no such method, or not with this compression")
        }
        // A frame that is cut, damaged or missing; the connection has ended, or the stream.
        _ => ApiError::violation("message", "could not be read to its end"),
    })
}
