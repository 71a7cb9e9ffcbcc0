//! The tasks of an engine, counted, so that a shutdown can wait for the last of them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// All tasks of one engine.
#[derive(Debug)]
pub(crate) struct Tasks {
    runtime: Handle,
    count: Arc<watch::Sender<usize>>,
}

/// Something is under way that a shutdown has to wait for: a task, or what is about to become one.
#[derive(Debug)]
pub(crate) struct Token {
    runtime: Handle,
    count: Arc<watch::Sender<usize>>,
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
        Self { runtime, count: Arc::new(watch::Sender::new(0)) }
    }

    pub(crate) fn token(&self) -> Token {
        self.count.send_modify(|count| *count += 1);
        Token { runtime: self.runtime.clone(), count: Arc::clone(&self.count) }
    }

    /// Resolves when nothing is under way.
    pub(crate) async fn all_ended(&self) {
        // The sender is ours, so the channel is open.
        _ = self.count.subscribe().wait_for(|count| *count == 0).await;
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
        self.count.send_modify(|count| *count -= 1);
    }
}

impl<F: Future<Output = ()>> Future for Counted<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.future.as_mut().poll(cx)
    }
}
