//! Under construction.
mod kv;
pub use kv::*;
