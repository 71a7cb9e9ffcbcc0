//! The tasks of an engine, counted, so that a shutdown can wait for the last of them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// All tasks of one engine.
#[derive(Debug)]
pub(crate) struct Tasks {
    runtime: Handle,
    count: Arc<Count>,
}

#[derive(Debug, Default)]
struct Count {
    under_way: AtomicUsize,
    /// Told when nothing is.
    none: Notify,
}

/// Something is under way that a shutdown has to wait for: a task, or what is about to become one.
#[derive(Debug)]
pub(crate) struct Token {
    runtime: Handle,
    count: Arc<Count>,
}

/// A task, and its token. The fields are dropped in this order: when the token is gone, so is everything that the
/// task held, however it came to its end.
struct Counted<F> {
    future: Pin<Box<F>>,
    _token: Token,
}

impl Tasks {
    /// Tasks on this runtime.
    pub(crate) fn on(runtime: Handle) -> Self {
        Self { runtime, count: Arc::default() }
    }

    pub(crate) fn token(&self) -> Token {
        self.count.under_way.fetch_add(1, Ordering::SeqCst);
        Token { runtime: self.runtime.clone(), count: Arc::clone(&self.count) }
    }

    /// Resolves when nothing is under way.
    pub(crate) async fn all_ended(&self) {
        loop {
            // From here on nothing is missed.
            let none = self.count.none.notified();
            let mut none = std::pin::pin!(none);
            none.as_mut().enable();
            if self.count.under_way.load(Ordering::SeqCst) == 0 {
                return;
            }
            none.await;
        }
    }
}

impl Token {
    /// Runs a task that is counted until it is gone.
    pub(crate) fn spawn(self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let runtime = self.runtime.clone();
        runtime.spawn(Counted { future: Box::pin(task), _token: self }).abort_handle()
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if self.count.under_way.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.count.none.notify_waiters();
        }
    }
}

impl<F: Future<Output = ()>> Future for Counted<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.future.as_mut().poll(cx)
    }
}
