//! Keeps readers from seeing what is not durable yet.
//!
//! Between the moment a batch is applied and the moment it is synced, an engine shows it to readers, and a crash would
//! take it back. So a reading that overlaps a batch is given out only when that batch is durable, and is done
//! again if the batch was taken back or the engine was reopened meanwhile (S11).

use tokio::sync::watch;

use crate::error::StoreError;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    /// The outcome of a batch is unknown and the engine is not reopened yet.
    broken: bool,
    /// How often something that was shown may have been taken back: the engine was reopened, or a batch was
    /// refused after all.
    restarts: u64,
}

#[derive(Debug)]
pub(crate) struct Gate {
    /// Batches that were begun.
    begun: AtomicU64,
    /// Those of them that are settled: durable, or certainly not applied. Written after the `state` that goes with it, so
    /// that whoever sees it sees that too.
    settled: AtomicU64,
    /// Readings that wait. Most batches settle without any, and to wake nobody is not free.
    waiting: AtomicUsize,
    state: watch::Sender<State>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        let state = State { broken: false, restarts: 0 };
        let (begun, settled, waiting) = (AtomicU64::new(0), AtomicU64::new(0), AtomicUsize::new(0));
        Self { begun, settled, waiting, state: watch::Sender::new(state) }
    }

    /// A batch is about to be applied. Called by the committer alone.
    pub(crate) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
    }

    /// The batch is settled.
    pub(crate) fn settle(&self) {
        self.settled.store(self.begun.load(Ordering::SeqCst), Ordering::SeqCst);
        // A reading counts itself before it looks at what is settled: it is seen here, or has seen what was just written.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.state.send_modify(|_| {});
        }
    }

    /// The batch is settled: it was not applied. Whoever read meanwhile may have seen it come and go.
    pub(crate) fn refuse(&self) {
        self.state.send_modify(|state| state.restarts += 1);
        self.settle();
    }

    /// The outcome of the batch is unknown.
    pub(crate) fn fail(&self) {
        self.state.send_modify(|state| state.broken = true);
    }

    /// Names the time between two restarts, for [`distrust`](Self::distrust).
    pub(crate) fn restarts(&self) -> u64 {
        self.state.borrow().restarts
    }

    /// A reading says that the engine can no longer be trusted. What it says is old news if the engine was
    /// reopened since the reading began.
    pub(crate) fn distrust(&self, restarts: u64) {
        self.state.send_if_modified(|state| {
            let tells = state.restarts == restarts && !state.broken;
            state.broken |= tells;
            tells
        });
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.state.borrow().broken
    }

    /// The engine was reopened: what it shows now is durable.
    pub(crate) fn reopen(&self) {
        self.state.send_modify(|state| *state = State { broken: false, restarts: state.restarts + 1 });
        self.settle();
    }

    /// Reads, and gives the reading out when all of it is durable. `read` is told whether nothing was written
    /// while it ran, by a second look at [`Reading::is_still`]. [`Broken`] when the engine has to be reopened first.
    pub(crate) async fn read<T>(
        &self,
        mut read: impl FnMut(&Reading<'_>) -> Result<T, StoreError> + Send,
    ) -> Result<Result<T, StoreError>, Broken> {
        loop {
            let before = *self.state.borrow();
            if before.broken {
                return Err(Broken);
            }
            // In this order: if both are equal, nothing was under way when the second was read.
            let settled = self.settled.load(Ordering::SeqCst);
            let reading = Reading { gate: self, begun: self.begun.load(Ordering::SeqCst), settled };
            let result = read(&reading);
            let begun = self.begun.load(Ordering::SeqCst);
            if self.settled.load(Ordering::SeqCst) < begun {
                self.settled_until(begun, before.restarts).await;
            }
            let after = *self.state.borrow();
            if after.broken {
                return Err(Broken);
            }
            if after.restarts == before.restarts {
                return Ok(result);
            }
        }
    }

    /// Waits until so many batches are settled, or there is no use in that.
    async fn settled_until(&self, begun: u64, restarts: u64) {
        let _waiting = Waiting::at(self);
        let mut state = self.state.subscribe();
        let enough = |state: &State| {
            self.settled.load(Ordering::SeqCst) >= begun || state.broken || state.restarts != restarts
        };
        // The sender is ours, so the channel is open.
        _ = state.wait_for(enough).await;
    }
}

/// One who waits, for as long as it does.
struct Waiting<'a>(&'a Gate);

impl<'a> Waiting<'a> {
    fn at(gate: &'a Gate) -> Self {
        gate.waiting.fetch_add(1, Ordering::SeqCst);
        Self(gate)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The engine has to be reopened before anything is read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

/// One reading through the gate.
pub(crate) struct Reading<'a> {
    gate: &'a Gate,
    begun: u64,
    settled: u64,
}

impl Reading<'_> {
    /// True when no batch was under way when the reading began and none has begun since: all that was read is of
    /// one instant.
    pub(crate) fn is_still(&self) -> bool {
        self.begun == self.settled && self.gate.begun.load(Ordering::SeqCst) == self.begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn s11_a_reading_waits_for_the_batch_that_it_overlaps() {
        let gate = Gate::new();
        gate.begin();
        let mut readings = 0;
        let read = gate.read(|_| {
            readings += 1;
            Ok(readings)
        });
        tokio::pin!(read);
        assert!(futures_poll(read.as_mut()).await.is_none());
        gate.settle();
        assert_eq!(read.await.unwrap().unwrap(), 1);
    }

    #[tokio::test]
    async fn s11_a_reading_across_a_batch_that_was_taken_back_is_done_again() {
        let gate = Gate::new();
        gate.begin();
        let mut readings = 0;
        let read = gate.read(|_| {
            readings += 1;
            Ok(readings)
        });
        tokio::pin!(read);
        assert!(futures_poll(read.as_mut()).await.is_none());
        gate.refuse();
        assert_eq!(read.await.unwrap().unwrap(), 2);
    }

    #[test]
    fn distrust_from_before_a_restart_is_old_news() {
        let gate = Gate::new();
        let restarts = gate.restarts();
        gate.distrust(restarts);
        assert!(gate.is_broken());
        gate.reopen();
        gate.distrust(restarts);
        assert!(!gate.is_broken());
    }

    #[tokio::test]
    async fn a_reading_across_a_reopen_is_done_again() {
        let gate = Gate::new();
        gate.begin();
        let mut readings = 0;
        let read = gate.read(|_| {
            readings += 1;
            Ok(readings)
        });
        tokio::pin!(read);
        assert!(futures_poll(read.as_mut()).await.is_none());
        gate.fail();
        gate.reopen();
        assert_eq!(read.await.unwrap().unwrap(), 2);
    }

    #[tokio::test]
    async fn a_broken_store_gives_nothing_out() {
        let gate = Gate::new();
        gate.begin();
        gate.fail();
        assert_eq!(gate.read(|_| Ok(())).await.unwrap_err(), Broken);
        gate.reopen();
        assert!(gate.read(|_| Ok(())).await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn s11_a_reading_is_still_only_if_nothing_was_being_written_from_its_begin_on() {
        let gate = Gate::new();
        let still = |write: fn(&Gate)| {
            gate.read(move |reading| {
                write(reading.gate);
                let still = reading.is_still();
                reading.gate.settle();
                Ok(still)
            })
        };
        assert!(still(|_| {}).await.unwrap().unwrap());
        assert!(!still(Gate::begin).await.unwrap().unwrap(), "one has begun");
        let meanwhile = |gate: &Gate| {
            gate.begin();
            gate.settle();
        };
        assert!(!still(meanwhile).await.unwrap().unwrap(), "one has begun and is settled");
        gate.begin();
        assert!(!still(Gate::settle).await.unwrap().unwrap(), "one was under way");
        assert!(still(|_| {}).await.unwrap().unwrap());
    }

    #[tokio::test]
    async fn s13_a_reading_that_waits_is_told_that_the_batch_has_failed() {
        let gate = Gate::new();
        gate.begin();
        let read = gate.read(|_| Ok(()));
        tokio::pin!(read);
        assert!(futures_poll(read.as_mut()).await.is_none());
        assert_eq!(gate.waiting.load(Ordering::SeqCst), 1);
        gate.fail();
        assert_eq!(read.await.unwrap_err(), Broken);
        assert_eq!(gate.waiting.load(Ordering::SeqCst), 0, "nobody is left who waits");
    }

    /// The result, if it is there at the first look.
    async fn futures_poll<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(cx) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
