//! fjall keeps every rule of the contract, as an engine below and as a store.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use longrun_fjall::{FjallKv, FjallOptions};
use longrun_store::KvStore;
use longrun_store::conformance::Reopenable;

/// The engine below.
mod kv {
    use super::*;

    fn fresh() -> Reopenable<FjallKv> {
        let folder = tempfile::tempdir().unwrap();
        Reopenable::new(move || FjallKv::open(folder.path(), FjallOptions::default()).unwrap())
    }

    longrun_store::kv_conformance!(fresh);
}

/// With the layer over it, and a committer thread.
mod store {
    use super::*;

    fn fresh() -> Reopenable<KvStore> {
        let folder = tempfile::tempdir().unwrap();
        Reopenable::new(move || {
            KvStore::open(FjallKv::open(folder.path(), FjallOptions::default()).unwrap()).unwrap()
        })
    }

    longrun_store::store_conformance!(fresh);
}
