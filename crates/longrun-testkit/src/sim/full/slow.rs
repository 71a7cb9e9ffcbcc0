//! The store as the engine has it: its commits, and what it reads, may take their time.

use std::sync::Arc;
use std::time::Duration;

use longrun::async_trait;
use longrun_core::{Execution, OperationId};
use longrun_store::intercept::Intercept;
use longrun_store::{Commit, CommitError, KvStore, Store, StoreError};

use super::disk::lock;
use super::world::Shared;
use crate::sim::coverage::Fault;

#[derive(Debug)]
pub(super) struct Slow {
    pub(super) store: KvStore,
    pub(super) shared: Arc<Shared>,
}

impl Slow {
    /// On the way to the store, or back. What happens meanwhile may be anything, the end of the process too.
    async fn way(&self, fault: Fault) {
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

#[async_trait]
impl Intercept for Slow {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    async fn commit(&self, commit: Commit) -> Result<(), CommitError> {
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
