//! Well-known types of protobuf whose JSON needs care.

mod any;
mod duration;
mod field_mask;
mod json_struct;
mod timestamp;

pub use any::Any;
pub(crate) use any::{MessageType, register};
pub use duration::{DURATION_SECONDS_MAX, duration, time};
pub use field_mask::FieldMask;
pub use json_struct::{Kind, ListValue, Struct, Value};
pub use pbjson_types::{Duration, Empty};
pub use timestamp::Timestamp;
