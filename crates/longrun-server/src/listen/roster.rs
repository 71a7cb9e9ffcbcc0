//! [`Roster`]: the connections that are open. When there are as many as may be, a new one takes the place of the one
//! that has done nothing for the longest time: those who only sit there lock nobody out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

/// All seats.
#[derive(Debug)]
pub(super) struct Roster {
    most: usize,
    seats: Mutex<Seats>,
    /// A seat is free, or one who sits does nothing any more.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Seats {
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
    asked_to_leave: Mutex<bool>,
}

/// A connection's place, as long as it lasts.
#[derive(Debug)]
pub(super) struct Seat {
    roster: Arc<Roster>,
    number: u64,
    pub(super) peer: Arc<Peer>,
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Busy {
    roster: Arc<Roster>,
    peer: Arc<Peer>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Roster {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: most.max(1), seats: Mutex::default(), changed: Notify::new() })
    }

    /// A seat for a new connection. When all are taken, who has been idle the longest is asked to leave; when nobody is idle,
    /// it waits.
    pub(super) async fn seat(self: &Arc<Self>) -> Seat {
        loop {
            // Before the look, so that what changes after it is not missed.
            let changed = self.changed.notified();
            if let Some(seat) = self.take() {
                return seat;
            }
            self.make_room();
            changed.await;
        }
    }

    fn take(self: &Arc<Self>) -> Option<Seat> {
        let mut seats = lock(&self.seats);
        if seats.taken.len() >= self.most {
            return None;
        }
        let peer = Arc::new(Peer {
            requests: AtomicUsize::new(0),
            idle_since: Mutex::new(Instant::now()),
            leave: Notify::new(),
            asked_to_leave: Mutex::default(),
        });
        let number = seats.next;
        seats.next += 1;
        seats.taken.insert(number, Arc::clone(&peer));
        Some(Seat { roster: Arc::clone(self), number, peer })
    }

    /// One at a time: while one is on its way out, the next newcomer waits for it.
    fn make_room(&self) {
        let seats = lock(&self.seats);
        let leaves = |peer: &Arc<Peer>| *lock(&peer.asked_to_leave) && peer.is_idle();
        if seats.taken.values().any(leaves) {
            return;
        }
        let idle = seats.taken.values().filter(|peer| peer.is_idle());
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
                let seats = lock(&self.seats);
                if seats.taken.is_empty() {
                    return;
                }
                seats.taken.values().for_each(|peer| peer.ask_to_leave());
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
        *lock(&self.asked_to_leave) = true;
        self.leave.notify_one();
    }
}

impl Seat {
    /// A request begins.
    pub(super) fn busy(&self) -> Busy {
        Busy::begin(&self.roster, &self.peer)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.roster.seats).taken.remove(&self.number);
        self.roster.changed.notify_one();
    }
}

impl Busy {
    fn begin(roster: &Arc<Roster>, peer: &Arc<Peer>) -> Self {
        peer.requests.fetch_add(1, Ordering::SeqCst);
        Self { roster: Arc::clone(roster), peer: Arc::clone(peer) }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        *lock(&self.peer.idle_since) = Instant::now();
        if self.peer.requests.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.roster.changed.notify_one();
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
    async fn is_asked(seat: &Seat) -> bool {
        tokio::time::timeout(Duration::ZERO, seat.peer.leave.notified()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn b27_who_is_idle_the_longest_makes_room() {
        let roster = Roster::new(3);
        let (first, second, third) = (roster.seat().await, roster.seat().await, roster.seat().await);
        let working = first.busy();
        pass().await;
        drop(second.busy());
        let newcomer = tokio::spawn({
            let roster = Arc::clone(&roster);
            async move { roster.seat().await }
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
        let roster = Roster::new(1);
        let seat = roster.seat().await;
        let working = seat.busy();
        let newcomer = tokio::spawn({
            let roster = Arc::clone(&roster);
            async move { roster.seat().await }
        });
        pass().await;
        assert!(!is_asked(&seat).await);
        drop(working);
        pass().await;
        assert!(is_asked(&seat).await);
        drop(seat);
        drop(newcomer.await.unwrap());
        roster.close().await;
    }

    #[tokio::test(start_paused = true)]
    async fn everybody_is_asked_when_it_closes() {
        let roster = Roster::new(2);
        let (one, other) = (roster.seat().await, roster.seat().await);
        let closed = tokio::spawn({
            let roster = Arc::clone(&roster);
            async move { roster.close().await }
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
