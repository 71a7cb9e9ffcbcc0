//! A value, and those who are told when it changes.

use std::future::poll_fn;
use std::ops::Deref;
use std::sync::Arc;
use std::task::{Poll, Waker};

use shuttle::sync::{Mutex, MutexGuard};

use crate::lock;

#[derive(Debug)]
struct State<T> {
    value: T,
    version: u64,
    wakers: Vec<Waker>,
}

/// Has the value, and changes it.
#[derive(Debug)]
pub struct Sender<T>(Arc<Mutex<State<T>>>);

/// Sees it.
#[derive(Debug)]
pub struct Receiver<T> {
    state: Arc<Mutex<State<T>>>,
    /// The version that it has seen.
    seen: u64,
}

/// The value, which does not change meanwhile.
#[derive(Debug)]
pub struct Ref<'a, T>(MutexGuard<'a, State<T>>);

/// The sender is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecvError;

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> Sender<T> {
    /// A sender without receivers.
    pub fn new(value: T) -> Self {
        Self(Arc::new(Mutex::new(State { value, version: 0, wakers: Vec::new() })))
    }

    /// The value now.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(lock(&self.0))
    }

    /// A receiver that has seen what is there now.
    pub fn subscribe(&self) -> Receiver<T> {
        let seen = lock(&self.0).version;
        Receiver { state: Arc::clone(&self.0), seen }
    }

    /// Changes the value and tells of it.
    pub fn send_modify(&self, modify: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            modify(value);
            true
        });
    }

    /// The same, if `modify` says so.
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let wakers = {
            let mut state = lock(&self.0);
            if !modify(&mut state.value) {
                return false;
            }
            state.version += 1;
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
        true
    }
}

impl<T> Receiver<T> {
    /// Waits for a version that it has not seen.
    pub async fn changed(&mut self) -> Result<(), RecvError> {
        poll_fn(|cx| {
            let mut state = lock(&self.state);
            if state.version != self.seen {
                self.seen = state.version;
                return Poll::Ready(Ok(()));
            }
            state.wakers.push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Waits for a value of this sort. The one that is there may be.
    pub async fn wait_for(&mut self, mut is_it: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, RecvError> {
        loop {
            {
                let state = lock(&self.state);
                self.seen = state.version;
                if is_it(&state.value) {
                    break;
                }
            }
            self.changed().await?;
        }
        Ok(Ref(lock(&self.state)))
    }
}
