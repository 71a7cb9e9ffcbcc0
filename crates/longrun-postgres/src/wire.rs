//! [`Wire`]: a connection that the task turns which uses it.

use std::panic::{self, AssertUnwindSafe};
use std::pin::{Pin, pin};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

type Connection = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The connection of the committer. The driver has it run in a task of its own: then each statement goes to that task and its
/// answer comes back from it, and both wake another thread. Here the task that asks also sends and receives.
#[derive(Default)]
pub(crate) struct Wire(Mutex<Option<Connection>>);

impl Wire {
    /// From now on it is this connection; one that was there before is closed.
    pub(crate) fn lay(&self, connection: impl Future<Output = ()> + Send + 'static) {
        *self.connection() = Some(Box::pin(connection));
    }

    /// Does what uses the connection, and the connection's own work meanwhile.
    pub(crate) async fn carry<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        std::future::poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(done);
            }
            // Sends what was asked just now, and hands over what came; the work is woken for that.
            _ = self.turn(context);
            Poll::Pending
        })
        .await
    }

    /// Waits for the connection to take its leave, once nobody uses it any more.
    pub(crate) async fn end(&self) {
        std::future::poll_fn(|context| self.turn(context)).await;
    }

    fn turn(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut connection = self.connection();
        let Some(open) = connection.as_mut() else { return Poll::Ready(()) };
        // In a task of its own a panic would be a connection that is lost, and it is no more here.
        let turned = panic::catch_unwind(AssertUnwindSafe(|| open.as_mut().poll(context)));
        let turned = turned.unwrap_or(Poll::Ready(()));
        if turned.is_ready() {
            // A statement that waits for its answer learns by this that there will be none.
            *connection = None;
        }
        turned
    }

    fn connection(&self) -> MutexGuard<'_, Option<Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    /// Whoever uses the connection learns that it is lost, and can lay another.
    #[tokio::test]
    async fn a_panic_of_the_connection_is_its_loss_and_nothing_more() {
        let wire = Wire::default();
        let (answer, answered) = oneshot::channel::<()>();
        wire.lay(async move {
            let _answer = answer;
            panic!("this panic is part of the test");
        });
        assert!(wire.carry(answered).await.is_err());
        wire.end().await;
        let (answer, answered) = oneshot::channel();
        wire.lay(async move { _ = answer.send(()) });
        wire.carry(answered).await.unwrap();
    }
}
