//! The torture kit: on every kind that is shipped, and on kinds with mistakes that it has to find.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod planted;
mod snapshots;
mod vpc;
