//! redb keeps every rule of the contract, as an engine below and as a store.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use longrun_redb::{RedbKv, RedbOptions};
use longrun_store::KvStore;
use longrun_store::conformance::Reopenable;

/// The engine below.
mod kv {
    use super::*;

    fn fresh() -> Reopenable<RedbKv> {
        let folder = tempfile::tempdir().unwrap();
        Reopenable::new(move || RedbKv::open(folder.path(), RedbOptions::default()).unwrap())
    }

    longrun_store::kv_conformance!(fresh);
}

/// With the layer over it, and a committer thread.
mod store {
    use super::*;

    fn fresh() -> Reopenable<KvStore> {
        let folder = tempfile::tempdir().unwrap();
        Reopenable::new(move || {
            KvStore::open(RedbKv::open(folder.path(), RedbOptions::default()).unwrap()).unwrap()
        })
    }

    longrun_store::store_conformance!(fresh);
}
