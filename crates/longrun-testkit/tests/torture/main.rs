//! The torture kit: on the kinds of the first page, of the examples and of the snapshot service, and on kinds with mistakes that it
//! has to find.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bakery;
mod network;
mod planted;
mod provision;
mod references;
mod snapshots;
mod vpc;
