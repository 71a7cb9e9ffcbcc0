//! [`Connections`]: the connections that are open. When there are as many as may be, a new one takes the place of the one
//! that has done nothing for the longest time: those who only sit there lock nobody out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

/// Those that are open, and how many may be.
#[derive(Debug)]
pub(super) struct Connections {
    most: usize,
    state: Mutex<State>,
    /// A slot is free, or a connection has become idle.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    taken: BTreeMap<u64, Arc<Peer>>,
    next: u64,
}

/// What is known of one connection.
#[derive(Debug)]
pub(super) struct Peer {
    requests: AtomicUsize,
    idle_since: Mutex<Instant>,
    /// It is to end when its requests have.
    pub(super) leave: Notify,
    asked_to_leave: AtomicBool,
}

/// A connection's place, as long as it lasts.
#[derive(Debug)]
pub(super) struct Slot {
    connections: Arc<Connections>,
    number: u64,
    pub(super) peer: Arc<Peer>,
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct InFlight {
    connections: Arc<Connections>,
    peer: Arc<Peer>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connections {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: most.max(1), state: Mutex::default(), changed: Notify::new() })
    }

    /// A slot for a new connection. When all are taken, who has been idle the longest is asked to leave; when nobody is idle,
    /// it waits.
    pub(super) async fn slot(self: &Arc<Self>) -> Slot {
        loop {
            // Before the look, so that what changes after it is not missed.
            let changed = self.changed.notified();
            if let Some(slot) = self.take() {
                return slot;
            }
            self.make_room();
            changed.await;
        }
    }

    fn take(self: &Arc<Self>) -> Option<Slot> {
        let mut state = lock(&self.state);
        if state.taken.len() >= self.most {
            return None;
        }
        let peer = Arc::new(Peer {
            requests: AtomicUsize::new(0),
            idle_since: Mutex::new(Instant::now()),
            leave: Notify::new(),
            asked_to_leave: AtomicBool::new(false),
        });
        let number = state.next;
        state.next += 1;
        state.taken.insert(number, Arc::clone(&peer));
        Some(Slot { connections: Arc::clone(self), number, peer })
    }

    /// One at a time: while one is on its way out, the next newcomer waits for it.
    fn make_room(&self) {
        let state = lock(&self.state);
        let leaves = |peer: &Arc<Peer>| peer.asked_to_leave.load(Ordering::SeqCst) && peer.is_idle();
        if state.taken.values().any(leaves) {
            return;
        }
        let idle = state.taken.values().filter(|peer| peer.is_idle());
        if let Some(peer) = idle.min_by_key(|peer| *lock(&peer.idle_since)) {
            tracing::debug!("all connections are taken, the one that was idle the longest makes room");
            peer.ask_to_leave();
        }
    }

    /// Asks everybody to leave, and waits until they have.
    pub(super) async fn close(&self) {
        loop {
            let changed = self.changed.notified();
            {
                let state = lock(&self.state);
                if state.taken.is_empty() {
                    return;
                }
                state.taken.values().for_each(|peer| peer.ask_to_leave());
            }
            changed.await;
        }
    }
}

impl Peer {
    pub(super) fn is_idle(&self) -> bool {
        self.requests.load(Ordering::SeqCst) == 0
    }

    fn ask_to_leave(&self) {
        self.asked_to_leave.store(true, Ordering::SeqCst);
        self.leave.notify_one();
    }
}

impl Slot {
    /// A request begins.
    pub(super) fn begin_request(&self) -> InFlight {
        self.peer.requests.fetch_add(1, Ordering::SeqCst);
        InFlight { connections: Arc::clone(&self.connections), peer: Arc::clone(&self.peer) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        lock(&self.connections.state).taken.remove(&self.number);
        self.connections.changed.notify_one();
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        *lock(&self.peer.idle_since) = Instant::now();
        if self.peer.requests.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.connections.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn pass() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    /// Whether somebody has been asked to leave.
    async fn is_asked(slot: &Slot) -> bool {
        tokio::time::timeout(Duration::ZERO, slot.peer.leave.notified()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn b27_who_is_idle_the_longest_makes_room() {
        let connections = Connections::new(3);
        let (first, second, third) =
            (connections.slot().await, connections.slot().await, connections.slot().await);
        let working = first.begin_request();
        pass().await;
        drop(second.begin_request());
        let newcomer = tokio::spawn({
            let connections = Arc::clone(&connections);
            async move { connections.slot().await }
        });
        pass().await;
        assert!(is_asked(&third).await && !is_asked(&second).await && !is_asked(&first).await);
        assert!(!newcomer.is_finished());
        drop(third);
        let newcomer = newcomer.await.unwrap();
        drop((working, second, newcomer));
    }

    #[tokio::test(start_paused = true)]
    async fn b27_who_works_is_left_alone_and_the_newcomer_waits() {
        let connections = Connections::new(1);
        let slot = connections.slot().await;
        let working = slot.begin_request();
        let newcomer = tokio::spawn({
            let connections = Arc::clone(&connections);
            async move { connections.slot().await }
        });
        pass().await;
        assert!(!is_asked(&slot).await);
        drop(working);
        pass().await;
        assert!(is_asked(&slot).await);
        drop(slot);
        drop(newcomer.await.unwrap());
        connections.close().await;
    }

    #[tokio::test(start_paused = true)]
    async fn everybody_is_asked_when_it_closes() {
        let connections = Connections::new(2);
        let (one, other) = (connections.slot().await, connections.slot().await);
        let closed = tokio::spawn({
            let connections = Arc::clone(&connections);
            async move { connections.close().await }
        });
        pass().await;
        assert!(is_asked(&one).await && is_asked(&other).await);
        drop(one);
        pass().await;
        assert!(!closed.is_finished());
        drop(other);
        closed.await.unwrap();
    }
}
