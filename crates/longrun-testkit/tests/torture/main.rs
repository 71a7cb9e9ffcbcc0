//! The torture kit: on the kinds of the examples and of the snapshot service, and on kinds with mistakes that it has to find.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bakery;
mod planted;
mod snapshots;
mod vpc;
