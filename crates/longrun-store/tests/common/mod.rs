//! Helpers of several test files.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use longrun_core::{Execution, Fence, OperationId};
use longrun_store::conformance::sample::{Draft, Live};
use longrun_store::conformance::{begin, verify_indexes, wait};
use longrun_store::faulty::{Faults, FaultyKv, Fired};
use longrun_store::{Commit, CommitError, KvStore, MemoryKv, Store};

pub type Kv = Arc<FaultyKv<MemoryKv>>;

/// A store whose backend fails on demand.
pub struct Bench {
    pub store: KvStore,
    pub kv: Kv,
    pub faults: Faults,
    pub fence: Fence,
}

impl Bench {
    /// With a committer thread.
    pub fn threaded() -> Self {
        Self::open(|kv| KvStore::open(kv).unwrap())
    }

    /// Without.
    pub fn inline() -> Self {
        Self::open(|kv| KvStore::open_inline(kv, [7; 32]).unwrap())
    }

    fn open(open: impl FnOnce(Kv) -> KvStore) -> Self {
        let (kv, faults) = FaultyKv::new(MemoryKv::new());
        let kv = Arc::new(kv);
        let store = open(Arc::clone(&kv));
        let fence = wait(store.take_over()).unwrap();
        Self { store, kv, faults, fence }
    }

    pub fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        wait(self.store.commit(commit))
    }

    #[track_caller]
    pub fn accept(&self, draft: Draft) -> Live {
        let (live, commit) = draft.accept(self.fence);
        self.commit(commit).unwrap();
        live
    }

    #[track_caller]
    pub fn load(&self, id: OperationId) -> Option<Execution> {
        wait(self.store.load(id)).unwrap()
    }

    pub fn fired(&self) -> Fired {
        self.faults.fired()
    }

    /// Every index agrees with every record.
    #[track_caller]
    pub fn verify(&self) {
        verify_indexes(self.kv.inner()).unwrap();
    }
}

pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Calls and does not wait: what is asked for stands in the queue.
#[track_caller]
pub fn queued<'a, T>(future: impl Future<Output = T> + Send + 'a) -> Pending<'a, T> {
    let mut future: Pending<'a, T> = Box::pin(future);
    assert!(begin(&mut future).is_none(), "it was answered at once");
    future
}
