//! Where threads meet: what the standard library has for it, or, in `longrun-shuttle`, what shuttle has, which tries their schedules.
//! What tokio has for it is replaced there as a whole.

#[cfg(longrun_shuttle)]
pub(crate) use shuttle::{sync::Mutex, sync::atomic, thread};
#[cfg(not(longrun_shuttle))]
pub(crate) use std::{sync::Mutex, sync::atomic, thread};
