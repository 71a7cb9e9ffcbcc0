//! [`Notify`], as far as it tells all who wait.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use shuttle::sync::Mutex;

use crate::lock;

/// Tells those who wait.
#[derive(Debug, Default)]
pub struct Notify {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How often all were told.
    calls: u64,
    wakers: Vec<Waker>,
}

/// One who waits. It is told of what happens after it was made.
pub struct OwnedNotified {
    notify: Arc<Notify>,
    made_at: u64,
}

impl fmt::Debug for OwnedNotified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedNotified").finish_non_exhaustive()
    }
}

impl Notify {
    /// Waits for the next call of [`notify_waiters`](Self::notify_waiters).
    pub fn notified_owned(self: Arc<Self>) -> OwnedNotified {
        let made_at = lock(&self.state).calls;
        OwnedNotified { notify: self, made_at }
    }

    /// Tells all who wait now, and nobody who comes later.
    pub fn notify_waiters(&self) {
        let wakers = {
            let mut state = lock(&self.state);
            state.calls += 1;
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl OwnedNotified {
    /// Whether it was told already.
    pub fn enable(self: Pin<&mut Self>) -> bool {
        lock(&self.notify.state).calls != self.made_at
    }
}

impl Future for OwnedNotified {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.notify.state);
        if state.calls != self.made_at {
            return Poll::Ready(());
        }
        state.wakers.push(cx.waker().clone());
        Poll::Pending
    }
}
