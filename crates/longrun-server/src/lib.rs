//! The faces of an engine: gRPC by tonic and REST by axum, to be mounted in a server of one's own; and `longrun serve`, which
//! is one.
//!
//! ```text
//! gRPC (grpc)  \
//!                Faces: who calls, what is asked, once for both --> SnapshotService, OperationSource --> engine
//! REST (rest)  /
//! ```
//!
//! [`Faces`] hold everything that both have in common: [who calls](auth), the id of the request, the idempotency key, the
//! wire types and the table of errors. The faces themselves only carry that over. [`listen`] is the server beneath: TLS,
//! limits, and an end in peace.
//!
//! # Example
//!
//! Both faces in one process are in `examples/mount.rs`.

pub mod auth;
mod call;
mod faces;
pub mod grpc;
pub mod listen;
mod operations;
pub mod quota;
pub mod rest;

pub use faces::Faces;
pub use operations::OperationSource;
