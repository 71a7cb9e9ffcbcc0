//! The faces of an engine, which are the ways in which clients reach it: gRPC by tonic and REST by axum, to be mounted in a
//! server of one's own; and `longrun serve`, which is one.
//!
//! ```text
//! gRPC (grpc)  \
//!                Faces: who calls, what is asked, once for both --> SnapshotService, OperationSource --> engine
//! REST (rest)  /
//! ```
//!
//! [`Faces`] is every method once: [who calls](auth), the id of the request, the idempotency key, wire types in and out, and the
//! table of errors. [`grpc`] and [`rest`] only carry that over. [`listen`] is the server beneath: TLS, limits, graceful shutdown.
//!
//! ```no_run
//! use longrun::Caller;
//! use longrun_server::auth::Anonymous;
//! use longrun_server::listen::{Limits, Listener};
//! use longrun_server::{Faces, grpc, rest};
//!
//! # async fn serve(engine: longrun::Engine) -> Result<(), Box<dyn std::error::Error>> {
//! let everybody = Anonymous::as_caller(Caller::new("me")?).on_loopback();
//! let faces = Faces::of_operations(engine, longrun_api::Types::default(), everybody);
//! let grpc_listener = Listener::bind("127.0.0.1:50051".parse()?, None, Limits::default()).await?;
//! let rest_listener = Listener::bind("127.0.0.1:8080".parse()?, None, Limits::default()).await?;
//! let (routes, _health) = grpc::routes(&faces).await?;
//! tokio::spawn(grpc_listener.serve(routes, std::future::pending()));
//! rest_listener.serve(rest::router(&faces), std::future::pending()).await;
//! # Ok(())
//! # }
//! ```
//!
//! `examples/mount.rs` mounts both beside routes of one's own.
//!
//! # Features
//!
//! `snapshot` (default): the faces of the snapshot service. `program` (default): the program `longrun`. A service with resources
//! of its own takes neither: `default-features = false`.
//!
//! # Metrics
//!
//! | counter | labels | counts |
//! |---|---|---|
//! | `longrun_api_calls_total` | `code`, `reason` | answers of both faces, refusals included; `code` is `OK` or that of `google.rpc.Code`, `reason` that of `ErrorInfo` |

pub mod auth;
mod call;
mod faces;
pub mod grpc;
pub mod limits;
pub mod listen;
mod operations;
#[cfg(feature = "snapshot")]
pub mod quota;
pub mod rest;

pub use faces::Faces;
pub use operations::OperationSource;
