//! Dialects: the same operation, as different clients expect it.

pub mod cloud;
pub mod google;
