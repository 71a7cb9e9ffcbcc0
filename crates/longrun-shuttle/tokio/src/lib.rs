//! The part of tokio's `sync` with which longrun's threads meet, written on shuttle, so that their schedules can be tried.
//!
//! The names are tokio's, and so is what is promised, but for this: no sender of a `watch` is ever gone, and a value that `wait_for`
//! gives may have changed since it was found right. Each call is a few steps behind one lock: what tokio does inside of a call is
//! tokio's to test. `shuttle-tokio` has all of tokio, and brings a hundred crates.

mod notify;

pub mod sync {
    //! As in tokio.

    pub mod mpsc;
    pub mod oneshot;
    pub mod watch;

    pub use crate::notify::Notify;

    pub mod futures {
        //! As in tokio.

        pub use crate::notify::OwnedNotified;
    }
}

use std::sync::PoisonError;

use shuttle::sync::{Mutex, MutexGuard};

/// A panic is the end of a schedule: what it leaves behind is not looked at.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
