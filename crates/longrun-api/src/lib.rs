//! The wire: what clients of long-running operations send and get, as protobuf and as JSON.
//!
//! ```text
//! longrun_core::Operation --dialect::cloud--->  yandex.cloud.operation.Operation   error shown while it rolls back
//!                        \--dialect::google-->  google.longrunning.Operation       no result before it is done
//! core, engine and service errors --> ApiError --> google.rpc.Status, gRPC code, HTTP status
//! ```
//!
//! Nothing here waits, reads or writes; the one thing that is kept is the table of message types that an
//! [`Any`](well_known::Any) can show, which only grows. The messages are generated from the files in `proto/`, whose
//! packages, fields and numbers are those of the public APIs, by a compiler in Rust: nothing has to be installed. Their
//! JSON follows the protobuf mapping: lowerCamelCase, 64-bit integers as strings, enums by name, unknown fields refused.
//!
//! What users put into an operation (metadata, response) is JSON of their own. [`Types`] turns it into messages, where
//! these are [registered](Types::with); what is not registered goes out as `google.protobuf.Struct`, so nothing is lost.
//!
//! Features: `grpc` adds clients and servers by tonic; `engine` turns the engine's errors into [`ApiError`]; `snapshot` adds the
//! conversions of the snapshot service.
//!
//! # Example
//!
//! ```
//! use longrun_api::yandex::cloud::compute::v1::ListSnapshotsRequest;
//!
//! let request: ListSnapshotsRequest = serde_json::from_str(r#"{"folderId": "b1g", "pageSize": "50"}"#)?;
//! assert_eq!((request.folder_id.as_str(), request.page_size), ("b1g", 50));
//! assert!(serde_json::from_str::<ListSnapshotsRequest>(r#"{"folder": "b1g"}"#).is_err());
//! # Ok::<(), serde_json::Error>(())
//! ```

#[cfg(feature = "grpc")]
mod codec;
pub mod dialect;
#[cfg(feature = "engine")]
mod engine;
mod error;
mod messages;
#[cfg(feature = "snapshot")]
pub mod snapshot;
mod status;
mod types;
pub mod well_known;

pub use error::{ApiError, DOMAIN, Reason};
pub use messages::{google, longrun, yandex};
pub use status::http_status;
pub use types::Types;

/// The descriptors of every file of the protocol, as a `google.protobuf.FileDescriptorSet`: what server reflection answers
/// with, and what documents are checked against.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
