//! The store keeps every rule of the contract, and those of stores that engines share.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

/// With one owner at a time.
mod store {
    longrun_store::store_conformance!(super::common::fresh);
}

/// With several.
mod cluster {
    longrun_store::cluster_conformance!(super::common::fresh);
}
