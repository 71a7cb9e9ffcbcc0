//! Those who wait for the end of an operation.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};

use longrun_core::OperationId;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::engine::lock;

/// Waiters by operation. An entry lives as long as somebody waits.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    ends: Mutex<HashMap<OperationId, Weak<Notify>>>,
}

/// One who waits. An end after this was made is not missed.
pub(crate) struct End<'a> {
    waiters: &'a Waiters,
    id: OperationId,
    /// Holds the only reference that this one has to its entry. There until it is dropped.
    notified: Option<Pin<Box<OwnedNotified>>>,
}

impl Waiters {
    pub(crate) fn register(&self, id: OperationId) -> End<'_> {
        let mut ends = lock(&self.ends);
        let notify = ends.get(&id).and_then(Weak::upgrade).unwrap_or_else(|| {
            let notify = Arc::new(Notify::new());
            ends.insert(id, Arc::downgrade(&notify));
            notify
        });
        drop(ends);
        let mut notified = Box::pin(notify.notified_owned());
        notified.as_mut().enable();
        End { waiters: self, id, notified: Some(notified) }
    }

    /// The operation is done, and that is durable (S11).
    pub(crate) fn wake(&self, id: OperationId) {
        if let Some(notify) = lock(&self.ends).remove(&id).and_then(|end| end.upgrade()) {
            notify.notify_waiters();
        }
    }
}

impl End<'_> {
    pub(crate) async fn notified(mut self) {
        if let Some(notified) = &mut self.notified {
            notified.as_mut().await;
        }
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut ends = lock(&self.waiters.ends);
        // Under the lock: of two that leave at the same time, one is the last, and takes the entry away.
        drop(self.notified.take());
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
        let waiters = Waiters::default();
        let [one, other] =
            ["opr00000000000000000", "opr00000000000000001"].map(|id| OperationId::parse(id).unwrap());
        let (first, second, third) = (waiters.register(one), waiters.register(one), waiters.register(other));
        drop(first);
        assert_eq!(lock(&waiters.ends).len(), 2);
        drop(second);
        assert_eq!(lock(&waiters.ends).len(), 1);
        waiters.wake(other);
        let late = waiters.register(other);
        third.notified().await;
        assert_eq!(lock(&waiters.ends).len(), 1, "the late one is another");
        drop(late);
        assert!(lock(&waiters.ends).is_empty());
    }
}
