//! Bad inputs: what a stranger may send, and what exactly comes of it, over gRPC and over REST.
//!
//! Each test sends its inputs to a server on real sockets and checks the code, the HTTP status, the reason, the field where
//! one is to be named; that what was sent is not repeated, that the server goes on, and that nothing stored has changed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod also;
mod canary;
mod changes;
mod client;
mod connections;
mod damage;
mod ids;
mod lists;
mod log;
mod messages;
mod server;
mod want;
