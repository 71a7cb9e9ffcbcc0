//! The contract of the engine (C1 to C22), and what a hostile world makes of it. One file for each theme.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod children;
mod cluster;
mod crashes;
mod held;
mod lists;
mod operators;
mod outages;
mod races;
mod references;
mod rollback;
mod scheduling;
mod shutdown;
mod steps;
mod submit;
