//! The methods of the service, in domain terms. One file for each theme.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod access;
mod collect;
mod create;
mod damage;
mod delete;
mod limits;
mod lists;
mod operations;
mod update;
