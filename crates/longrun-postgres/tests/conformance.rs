//! The store keeps every rule of the contract.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::fresh;

longrun_store::store_conformance!(fresh);
