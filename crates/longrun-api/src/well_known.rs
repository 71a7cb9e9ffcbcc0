//! Well-known types of protobuf whose JSON needs care.

mod any;
mod field_mask;
mod timestamp;

pub use any::Any;
pub(crate) use any::{MessageType, register};
pub use field_mask::FieldMask;
pub use pbjson_types::{Duration, Empty, Struct};
pub use timestamp::Timestamp;
