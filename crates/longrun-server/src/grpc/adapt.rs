//! [`Adapted`]: what tonic itself refuses, refused as everything else is; and a time for the body of a request.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, Request, Response};
use longrun_api::{ApiError, Reason};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::Service;

use super::answer::{Arrived, status};
use super::body::Timed;
use crate::call::RequestId;
use crate::faces::{Faces, report};
use crate::limits::MESSAGE_BYTES_MAX;

/// A service of unary methods in which a request that does not reach its method is refused like one that does: with the
/// code that its sender deserves, a reason and the id of the request, counted and on the log.
///
/// tonic calls a message over the limit OUT_OF_RANGE, and what it cannot decode INTERNAL, as if the server had failed; and
/// it waits for the body of a request as long as the connection lasts.
#[derive(Clone, Debug)]
pub struct Adapted<S> {
    service: S,
    faces: Faces,
    /// Whether strangers may call it.
    is_open: bool,
}

impl<S> Adapted<S> {
    /// A service that has to know its callers.
    pub(super) fn new(service: S, faces: &Faces) -> Self {
        Self { service, faces: faces.clone(), is_open: false }
    }

    /// One that clients ask before they have anything to show.
    pub(super) fn open(service: S, faces: &Faces) -> Self {
        Self { service, faces: faces.clone(), is_open: true }
    }
}

impl<S: NamedService> NamedService for Adapted<S> {
    const NAME: &'static str = S::NAME;
}

type Answer = Result<Response<Body>, Infallible>;

impl<S> Service<Request<Body>> for Adapted<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that was asked whether it is ready does the work.
        let service = self.service.clone();
        let service = std::mem::replace(&mut self.service, service);
        let (faces, is_open) = (self.faces.clone(), self.is_open);
        Box::pin(answer(service, faces, is_open, request))
    }
}

/// Finds out who calls before anything of the message is taken in, and hands the request on.
async fn answer<S>(mut service: S, faces: Faces, is_open: bool, mut request: Request<Body>) -> Answer
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let id = RequestId::of(request.headers());
    let caller = if is_open {
        None
    } else {
        match faces.caller(&id, request.headers()).await {
            Ok(caller) => Some(caller),
            Err(refused) => return Ok(status(&id, &refused).into_http()),
        }
    };
    let reached_at = request.uri().authority().cloned();
    request.extensions_mut().insert(Arrived { id: id.clone(), caller, reached_at });
    let time = faces.time_for_body();
    let response = service.call(request.map(|body| Body::new(Timed::new(body, time)))).await;
    response.map(|response| adapt(id, response))
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
        Code::Internal | Code::Unknown | Code::Cancelled => {
            ApiError::violation("message", "could not be read to its end")
        }
        // tonic refuses nothing so; it is the answer of a service that is not ours, such as health.
        _ => return None,
    })
}
