//! The store as the engine has it: its commits, and what it reads, may take their time, or never come.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use longrun::async_trait;
use longrun_core::{Execution, OperationId};
use longrun_store::intercept::Intercept;
use longrun_store::{Commit, CommitError, KvStore, Store, StoreError};

use super::world::Shared;
use crate::panics::lock;
use crate::sim::coverage::{CrashPoint, Fault};

#[derive(Debug)]
pub(super) struct Slow {
    pub(super) store: KvStore,
    pub(super) shared: Arc<Shared>,
    /// Nothing comes through any more.
    pub(super) stalled: AtomicBool,
}

impl Slow {
    /// On the way to the store, or back. What happens meanwhile may be anything, the end of the process too.
    async fn way(&self, fault: Fault) {
        if self.stalled.load(Relaxed) {
            return std::future::pending().await;
        }
        let time = {
            let mut state = lock(&self.shared.state);
            let (rate, most) = state.swarm.slow;
            if !state.goes_wrong(rate) {
                return;
            }
            state.coverage.fault(fault);
            state.rng.below(most)
        };
        tokio::time::sleep(Duration::from_micros(time)).await;
    }
}

impl Slow {
    /// Now and then the store stands still for good, and with it all that waits for it: after a while somebody stops the process.
    async fn stall(&self) {
        let time = {
            let mut state = lock(&self.shared.state);
            let rate = state.swarm.stalls;
            if state.crashes_left == 0 || !state.goes_wrong(rate) || self.stalled.swap(true, Relaxed) {
                return;
            }
            state.coverage.fault(Fault::StoreStalls);
            state.rng.below(20_000_000)
        };
        tokio::time::sleep(Duration::from_micros(time)).await;
        {
            let mut state = lock(&self.shared.state);
            if !state.has_crashed() {
                state.crash(CrashPoint::Stalled);
            }
        }
        self.shared.check_dead();
        std::future::pending::<()>().await;
    }
}

#[async_trait]
impl Intercept for Slow {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    async fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        self.stall().await;
        self.way(Fault::CommitSlow).await;
        let result = self.store.commit(commit).await;
        self.way(Fault::CommitSlow).await;
        result
    }

    async fn load(&self, id: OperationId) -> Result<Option<Execution>, StoreError> {
        let result = self.store.load(id).await;
        self.way(Fault::ReadSlow).await;
        result
    }
}
