//! [`Turns`]: those who plan by what children a parent has take turns.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use longrun_core::{ResourceId, ResourceKind};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// How many parents may have their turns at the same time, nearly: two may fall on one lock, and then wait for each other.
const LOCKS: usize = 256;

/// The children of one parent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Family {
    pub(crate) kind: ResourceKind,
    pub(crate) parent: ResourceId,
}

/// One request at a time plans on a family, from its look at it until its operation is stored or refused.
///
/// Where a store has one owner, its commits are fenced when another takes over, so turns in memory are enough. Where engines
/// share it, they spare the requests of one engine from being in each other's way, and a
/// [condition](longrun_core::Condition::Children) keeps those of others out. Nobody takes two of them, so nobody waits in a circle.
#[derive(Debug)]
pub(crate) struct Turns(Vec<Arc<Mutex<()>>>);

/// Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) family: Family,
    _guard: OwnedMutexGuard<()>,
}

impl Default for Turns {
    fn default() -> Self {
        Self((0..LOCKS).map(|_| Arc::default()).collect())
    }
}

impl Turns {
    /// Waits for a turn; those who came first are first.
    pub(crate) async fn take(&self, family: Family) -> Turn {
        let mut hasher = DefaultHasher::new();
        family.hash(&mut hasher);
        // The remainder is less than LOCKS.
        let lock = usize::try_from(hasher.finish() % LOCKS as u64).unwrap_or(0);
        Turn { _guard: Arc::clone(&self.0[lock]).lock_owned().await, family }
    }
}
