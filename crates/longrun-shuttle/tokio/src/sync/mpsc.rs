//! A queue with room for so many.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use shuttle::sync::{Condvar, Mutex};

use crate::lock;

#[derive(Debug)]
struct Queue<T> {
    state: Mutex<State<T>>,
    /// For the receiver.
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    values: VecDeque<T>,
    room: usize,
    senders: usize,
    receiver_is_gone: bool,
    /// Senders that wait for room.
    wakers: Vec<Waker>,
}

/// Sends.
#[derive(Debug)]
pub struct Sender<T>(Arc<Queue<T>>);

/// Receives.
#[derive(Debug)]
pub struct Receiver<T>(Arc<Queue<T>>);

/// The receiver is gone. The value comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendError<T>(pub T);

/// Nothing is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// Not yet.
    Empty,
    /// And nothing will be.
    Disconnected,
}

/// A queue with room for `room`.
pub fn channel<T>(room: usize) -> (Sender<T>, Receiver<T>) {
    let values = VecDeque::new();
    let state = State { values, room, senders: 1, receiver_is_gone: false, wakers: Vec::new() };
    let queue = Arc::new(Queue { state: Mutex::new(state), changed: Condvar::new() });
    (Sender(Arc::clone(&queue)), Receiver(queue))
}

impl<T> Sender<T> {
    /// Waits for room, and sends.
    pub async fn send(&self, value: T) -> Result<(), SendError<T>> {
        let mut value = Some(value);
        poll_fn(|cx| {
            let mut state = lock(&self.0.state);
            if state.receiver_is_gone {
                return Poll::Ready(value.take().map_or(Ok(()), |value| Err(SendError(value))));
            }
            if state.values.len() < state.room {
                state.values.extend(value.take());
                drop(state);
                self.0.changed.notify_one();
                return Poll::Ready(Ok(()));
            }
            state.wakers.push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        lock(&self.0.state).senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        lock(&self.0.state).senders -= 1;
        self.0.changed.notify_one();
    }
}

impl<T> Receiver<T> {
    /// What is there.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        let (taken, wakers) = {
            let mut state = lock(&self.0.state);
            let nothing = if state.senders == 0 { TryRecvError::Disconnected } else { TryRecvError::Empty };
            (state.values.pop_front().ok_or(nothing), std::mem::take(&mut state.wakers))
        };
        wakers.into_iter().for_each(Waker::wake);
        taken
    }

    /// Waits for the next. `None` when all senders are gone.
    pub fn blocking_recv(&mut self) -> Option<T> {
        loop {
            match self.try_recv() {
                Ok(value) => return Some(value),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => {}
            }
            let mut state = lock(&self.0.state);
            while state.values.is_empty() && state.senders > 0 {
                state = self.0.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
            }
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let (values, wakers) = {
            let mut state = lock(&self.0.state);
            state.receiver_is_gone = true;
            (std::mem::take(&mut state.values), std::mem::take(&mut state.wakers))
        };
        // By themselves: to drop a value may wake somebody.
        drop(values);
        wakers.into_iter().for_each(Waker::wake);
    }
}
