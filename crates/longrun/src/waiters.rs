//! Those who wait for the end of an operation.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use longrun_core::OperationId;
use tokio::sync::Notify;

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
    notify: Arc<Notify>,
    notified: std::pin::Pin<Box<tokio::sync::futures::OwnedNotified>>,
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
        let mut notified = Box::pin(Arc::clone(&notify).notified_owned());
        notified.as_mut().enable();
        End { waiters: self, id, notify, notified }
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
        self.notified.as_mut().await;
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut ends = lock(&self.waiters.ends);
        // The last one to leave takes the entry away: this one and its future hold one reference each.
        let is_ours = ends.get(&self.id).is_some_and(|end| end.as_ptr() == Arc::as_ptr(&self.notify));
        if is_ours && Arc::strong_count(&self.notify) <= 2 {
            ends.remove(&self.id);
        }
    }
}
