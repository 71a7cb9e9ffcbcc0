//! A plant: a store whose user says "accepted" before the commit has returned.
//!
//! `crash kill` must find it. If it does not, it cannot see.

use std::sync::Arc;

use longrun::async_trait;
use longrun::core::Revision;
use longrun_store::intercept::Intercept;
use longrun_store::{Commit, CommitError, KvStore, Store};

use super::facts::{Fact, Teller};

#[derive(Debug)]
pub(crate) struct EarlyAck {
    pub(crate) store: Arc<KvStore>,
    pub(crate) teller: Arc<Teller>,
}

#[async_trait]
impl Intercept for EarlyAck {
    fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    async fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        if commit.revision() == Revision::FIRST {
            self.teller.tell(&Fact::Accepted { id: commit.operation_id(), key: "?".to_owned() });
        }
        self.store.commit(commit).await
    }
}
