//! A thread that frees a commit from a wait that sled forgot to end.
//!
//! sled writes the manifest of a batch and its data as two jobs. If the one with the manifest fails last, sled
//! stores the error but wakes nobody, and `flush` waits for ever. A second call of `flush` sees the error,
//! returns it, and wakes the first.

use std::panic::RefUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A commit in flight for longer is looked at. Far more than a sync takes.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Shared {
    /// Raised at the begin and at the end of each commit: odd while one runs.
    edges: AtomicU64,
    asleep: AtomicBool,
    stop: AtomicBool,
}

pub(crate) struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts the thread; it calls `kick` for a commit that lasts too long, again and again until it ends.
    pub(crate) fn start(kick: impl Fn() + Send + RefUnwindSafe + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let watched = Arc::clone(&shared);
        let thread =
            thread::Builder::new().name("longrun-sled".into()).spawn(move || watch(&watched, &kick))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// To be held while a commit runs.
    pub(crate) fn commit(&self) -> impl Drop + use<'_> {
        self.shared.edges.fetch_add(1, SeqCst);
        // A system call only after a pause: while commits follow each other the thread sleeps by the clock.
        if self.shared.asleep.swap(false, SeqCst) {
            self.wake();
        }
        Running(&self.shared)
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.edges.fetch_add(1, SeqCst);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn watch(shared: &Shared, kick: &impl Fn()) {
    while !shared.stop.load(SeqCst) {
        let seen = shared.edges.load(SeqCst);
        if seen % 2 == 1 {
            thread::park_timeout(PATIENCE);
            if shared.edges.load(SeqCst) == seen {
                kick();
            }
            continue;
        }
        shared.asleep.store(true, SeqCst);
        // A commit that began before the line above did not see it: look once more.
        if shared.edges.load(SeqCst) == seen && !shared.stop.load(SeqCst) {
            thread::park();
        }
        shared.asleep.store(false, SeqCst);
    }
}
