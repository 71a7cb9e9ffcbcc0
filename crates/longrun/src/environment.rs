//! Time and randomness, from outside: the one door through which chance enters the engine.

use std::fmt::Debug;
use std::time::{SystemTime, UNIX_EPOCH};

use longrun_core::Timestamp;

/// Where the engine gets the time and its random numbers.
///
/// Waiting is done with tokio's timers. An environment whose `now` follows tokio's paused clock puts the whole
/// engine into virtual time.
pub trait Environment: Debug + Send + Sync + 'static {
    /// The wall clock. May go back; what the engine stores never does (C16).
    fn now(&self) -> Timestamp;

    /// 64 random bits, to tell apart the ids of one millisecond.
    fn random(&self) -> u64;
}

/// The clock and the random generator of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEnvironment;

impl Environment for SystemEnvironment {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::UNIX_EPOCH.saturating_add(since)
    }

    fn random(&self) -> u64 {
        // Without random bits an id may be taken; the commit finds that out and another is drawn.
        getrandom::u64().unwrap_or_else(|_| self.now().unix_micros().unsigned_abs())
    }
}
