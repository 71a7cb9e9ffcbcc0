//! Memory, the reference, keeps every rule: with a committer thread and without.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use longrun_store::conformance::Reopenable;
use longrun_store::{KvStore, MemoryKv};

/// Whoever commits does the work.
mod inline_lane {
    use super::*;

    fn fresh() -> Reopenable<KvStore> {
        let kv = Arc::new(MemoryKv::new());
        Reopenable::new(move || KvStore::open_inline(Arc::clone(&kv), [7; 32]).unwrap())
    }

    longrun_store::store_conformance!(fresh);
}

/// A thread gathers commits.
mod thread_lane {
    use super::*;

    fn fresh() -> Reopenable<KvStore> {
        let kv = Arc::new(MemoryKv::new());
        Reopenable::new(move || KvStore::open(Arc::clone(&kv)).unwrap())
    }

    longrun_store::store_conformance!(fresh);
}

/// Shared by engines.
mod shared {
    use std::time::Duration;

    use async_trait::async_trait;
    use longrun_core::Fence;
    use longrun_store::Store;
    use longrun_store::conformance::StoreFixture;
    use longrun_store::conformance::cluster::ClusterFixture;
    use longrun_store::shared::SharedStore;

    use super::*;

    struct Fixture(Reopenable<SharedStore>);

    #[async_trait]
    impl StoreFixture for Fixture {
        fn store(&self) -> &dyn Store {
            self.0.value()
        }

        async fn reopen(&mut self) {
            self.0.reopen();
        }
    }

    #[async_trait]
    impl ClusterFixture for Fixture {
        async fn expire(&self, node: Fence) {
            self.0.value().expire(node);
        }
    }

    fn fresh() -> Fixture {
        let first = SharedStore::new(Duration::from_secs(3), || Duration::from_secs(100)).unwrap();
        Fixture(Reopenable::new(move || first.another()))
    }

    longrun_store::store_conformance!(fresh);
    longrun_store::cluster_conformance!(fresh);
}

/// The engine below.
mod kv {
    use super::*;

    fn fresh() -> Reopenable<Arc<MemoryKv>> {
        let kv = Arc::new(MemoryKv::new());
        Reopenable::new(move || Arc::clone(&kv))
    }

    longrun_store::kv_conformance!(fresh);
}

/// Without faults the faulty wrapper keeps every rule, so that what it shows is the fault.
mod faulty {
    use super::*;
    use longrun_store::faulty::FaultyKv;

    fn fresh() -> Reopenable<Arc<FaultyKv<MemoryKv>>> {
        let kv = Arc::new(FaultyKv::new(MemoryKv::new()).0);
        Reopenable::new(move || Arc::clone(&kv))
    }

    longrun_store::kv_conformance!(fresh);
}

/// A rule that no macro names would be a rule that nobody runs.
#[test]
fn every_rule_is_run() {
    let suite = include_str!("../src/conformance.rs");
    let modules = [
        ("atomic", include_str!("../src/conformance/atomic.rs")),
        ("cluster", include_str!("../src/conformance/cluster.rs")),
        ("conditions", include_str!("../src/conformance/conditions.rs")),
        ("due", include_str!("../src/conformance/due.rs")),
        ("fencing", include_str!("../src/conformance/fencing.rs")),
        ("kv", include_str!("../src/conformance/kv.rs")),
        ("ledger", include_str!("../src/conformance/ledger.rs")),
        ("lists", include_str!("../src/conformance/lists.rs")),
        ("loading", include_str!("../src/conformance/loading.rs")),
        ("purging", include_str!("../src/conformance/purging.rs")),
        ("races", include_str!("../src/conformance/races.rs")),
        ("resources", include_str!("../src/conformance/resources.rs")),
        ("restart", include_str!("../src/conformance/restart.rs")),
    ];
    let mut rules = 0;
    for (module, source) in modules {
        for line in source.lines() {
            let Some(rest) = line.strip_prefix("pub fn ") else { continue };
            let (rule, _) = rest.split_once('(').unwrap();
            assert!(suite.contains(&format!("{module}::{rule},")), "{module}::{rule} is not run");
            rules += 1;
        }
    }
    assert!(rules >= 120, "{rules}");
}
