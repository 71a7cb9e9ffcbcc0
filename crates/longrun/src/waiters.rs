//! Those who wait for the end of an operation.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use longrun_core::{Operation, OperationId};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::engine::lock;

/// Waiters by operation, who get it as it is at its end. An entry lives as long as somebody waits.
#[derive(Debug)]
pub(crate) struct Waiters<T = Operation> {
    ends: Mutex<HashMap<OperationId, Weak<Awaited<T>>>>,
}

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        Self { ends: Mutex::default() }
    }
}

/// An end that somebody waits for.
#[derive(Debug)]
struct Awaited<T> {
    notify: Arc<Notify>,
    operation: OnceLock<T>,
}

/// One who waits. An end after this was made is not missed.
pub(crate) struct End<'a, T = Operation> {
    waiters: &'a Waiters<T>,
    id: OperationId,
    notified: Pin<Box<OwnedNotified>>,
    /// The only reference that this one has to its entry. There until it is dropped.
    awaited: Option<Arc<Awaited<T>>>,
}

impl<T> Waiters<T> {
    pub(crate) fn register(&self, id: OperationId) -> End<'_, T> {
        let mut ends = lock(&self.ends);
        let awaited = ends.get(&id).and_then(Weak::upgrade).unwrap_or_else(|| {
            let awaited = Arc::new(Awaited { notify: Arc::default(), operation: OnceLock::new() });
            ends.insert(id, Arc::downgrade(&awaited));
            awaited
        });
        drop(ends);
        let mut notified = Box::pin(Arc::clone(&awaited.notify).notified_owned());
        notified.as_mut().enable();
        End { waiters: self, id, notified, awaited: Some(awaited) }
    }

    /// The operation is done, and that is durable (S11).
    pub(crate) fn wake(&self, id: OperationId, operation: impl FnOnce() -> T) {
        // By itself, so that the lock is not held for what follows.
        let awaited = lock(&self.ends).remove(&id).and_then(|end| end.upgrade());
        if let Some(awaited) = awaited {
            awaited.operation.get_or_init(operation);
            awaited.notify.notify_waiters();
        }
    }
}

impl<T> Waiters<T> {
    /// Those whose ends are awaited.
    pub(crate) fn awaited(&self) -> BTreeSet<OperationId> {
        lock(&self.ends).keys().copied().collect()
    }

    /// Whether somebody waits for the end of this one.
    pub(crate) fn is_awaited(&self, id: OperationId) -> bool {
        lock(&self.ends).contains_key(&id)
    }

    /// Has those who wait look for themselves.
    pub(crate) fn look(&self, id: OperationId) {
        let awaited = lock(&self.ends).remove(&id).and_then(|end| end.upgrade());
        if let Some(awaited) = awaited {
            awaited.notify.notify_waiters();
        }
    }
}

impl<T: Clone> End<'_, T> {
    /// The operation as it is at its end.
    pub(crate) async fn notified(mut self) -> Option<T> {
        self.notified.as_mut().await;
        self.awaited.as_ref().and_then(|awaited| awaited.operation.get().cloned())
    }
}

impl<T> Drop for End<'_, T> {
    fn drop(&mut self) {
        let mut ends = lock(&self.waiters.ends);
        // Under the lock: of two that leave at the same time, one is the last, and takes the entry away.
        drop(self.awaited.take());
        if ends.get(&self.id).is_some_and(|end| end.strong_count() == 0) {
            ends.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn l7_an_entry_goes_with_the_last_who_waits_and_with_the_end() {
        let waiters = Waiters::<u32>::default();
        let [one, other] =
            ["opr00000000000000000", "opr00000000000000001"].map(|id| OperationId::parse(id).unwrap());
        let (first, second, third) = (waiters.register(one), waiters.register(one), waiters.register(other));
        drop(first);
        assert_eq!(lock(&waiters.ends).len(), 2);
        drop(second);
        assert_eq!(lock(&waiters.ends).len(), 1);
        waiters.wake(other, || 7);
        let late = waiters.register(other);
        assert_eq!(third.notified().await, Some(7));
        assert_eq!(lock(&waiters.ends).len(), 1, "the late one is another");
        drop(late);
        assert!(lock(&waiters.ends).is_empty());
    }
}
