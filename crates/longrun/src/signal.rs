//! [`Signal`]: given once, heard by all who wait for it.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Those who wait hear it in the order in which they began to wait. A `watch` wakes its receivers in an order of chance, and a
/// simulation could not repeat what a shutdown does (L9).
#[derive(Debug, Default)]
pub(crate) struct Signal {
    given: AtomicBool,
    heard: Notify,
}

impl Signal {
    /// For good.
    pub(crate) fn give(&self) {
        self.given.store(true, Ordering::SeqCst);
        self.heard.notify_waiters();
    }

    pub(crate) fn is_given(&self) -> bool {
        self.given.load(Ordering::SeqCst)
    }

    /// Over when it is given, at once if it has been.
    pub(crate) async fn wait(&self) {
        let mut heard = pin!(self.heard.notified());
        // Before the look, so that it is not missed in between.
        heard.as_mut().enable();
        if !self.is_given() {
            heard.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn l9_it_is_heard_in_the_order_of_those_who_wait_and_by_who_comes_late() {
        let signal = Arc::new(Signal::default());
        let order = Arc::new(Mutex::new(Vec::new()));
        let wait = |number: u32| {
            let (signal, order) = (Arc::clone(&signal), Arc::clone(&order));
            tokio::spawn(async move {
                signal.wait().await;
                order.lock().unwrap().push(number);
            })
        };
        let waiting: Vec<_> = (0..20).map(wait).collect();
        tokio::task::yield_now().await;
        assert!(!signal.is_given());
        signal.give();
        for one in waiting {
            one.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
        signal.wait().await;
    }
}
