//! One value, once.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use shuttle::sync::Mutex;

use crate::lock;

#[derive(Debug)]
struct State<T> {
    value: Option<T>,
    sender_is_gone: bool,
    receiver_is_gone: bool,
    waker: Option<Waker>,
}

/// Sends the value.
#[derive(Debug)]
pub struct Sender<T>(Arc<Mutex<State<T>>>);

/// Receives it.
#[derive(Debug)]
pub struct Receiver<T>(Arc<Mutex<State<T>>>);

/// The sender is gone, and has sent nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecvError;

/// A sender and its receiver.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let state = State { value: None, sender_is_gone: false, receiver_is_gone: false, waker: None };
    let state = Arc::new(Mutex::new(state));
    (Sender(Arc::clone(&state)), Receiver(state))
}

impl<T> Sender<T> {
    /// Sends the value, or gives it back when nobody is there to take it.
    pub fn send(self, value: T) -> Result<(), T> {
        let mut state = lock(&self.0);
        if state.receiver_is_gone {
            return Err(value);
        }
        state.value = Some(value);
        Ok(())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = lock(&self.0);
            state.sender_is_gone = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        lock(&self.0).receiver_is_gone = true;
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, RecvError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = lock(&self.0);
        match state.value.take() {
            Some(value) => Poll::Ready(Ok(value)),
            None if state.sender_is_gone => Poll::Ready(Err(RecvError)),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
