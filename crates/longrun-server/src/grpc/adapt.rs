//! [`Adapted`]: what a service says about a message that is too large, as gRPC says it.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures_util::future::{FutureExt, Map};
use http::{HeaderValue, Request, Response};
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

/// A service in which a message over the limit is RESOURCE_EXHAUSTED. tonic calls that OUT_OF_RANGE, which nothing here
/// means by itself.
#[derive(Clone, Debug)]
pub struct Adapted<S>(pub(super) S);

impl<S: NamedService> NamedService for Adapted<S> {
    const NAME: &'static str = S::NAME;
}

type Answer = Result<Response<Body>, Infallible>;

impl<S> Service<Request<Body>> for Adapted<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Map<S::Future, fn(Answer) -> Answer>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.call(request).map(adapt as fn(Answer) -> Answer)
    }
}

fn adapt(answer: Answer) -> Answer {
    answer.map(|mut response| {
        if let Some(code) = response.headers_mut().get_mut("grpc-status")
            && code.as_bytes() == b"11"
        {
            *code = HeaderValue::from_static("8");
        }
        response
    })
}
