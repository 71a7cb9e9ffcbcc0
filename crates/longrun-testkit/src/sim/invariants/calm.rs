//! What comes to pass once the faults have stopped.

use std::fmt::Debug;
use std::time::Duration;

use longrun_core::{Operation, Timestamp};
use longrun_store::Due;

use super::{Verdict, demand};

/// Not everything is done yet: it has to be after so long (L1).
pub fn check_time(since: Duration, most: Duration, left: impl FnOnce() -> String) -> Verdict {
    demand(since <= most, "L1", || format!("{} {since:?} after the faults have stopped", left()))
}

/// Whether all that is left waits for a time that no clock shows yet: only a clock that was set back makes it wait for long.
pub fn all_wait(left: &[Due], now: Timestamp) -> bool {
    !left.is_empty() && left.iter().all(|due| due.at > now && !due.is_at_once())
}

/// Not everything is done yet: it has to be after so many of something (L1).
pub fn check_count(count: u32, most: u32, of: &str) -> Verdict {
    demand(count <= most, "L1", || format!("not done after {most} {of}"))
}

/// Either something is left to happen, or all is done (L1).
pub fn check_goes_on(goes_on: bool) -> Verdict {
    demand(goes_on, "L1", || "nothing is left to happen, and an operation is not done".to_owned())
}

/// Everything is over: what is listed is done (L1).
pub fn check_done(listed: &[Operation]) -> Verdict {
    let unfinished = listed.iter().find(|operation| !operation.done());
    unfinished.map_or(Ok(()), |one| demand(false, "L1", || format!("{} is listed as not done", one.id())))
}

/// The limit on unfinished operations holds: of those that are stored none is missing from the count (L7).
pub fn check_counted(counted: u64, stored: usize) -> Verdict {
    demand(counted >= stored as u64, "L7", || {
        format!("{stored} operations are unfinished, and {counted} counted")
    })
}

/// Everything is over: nothing is counted as unfinished (L1). It would take the room of another for ever.
pub fn check_none_counted(counted: u64) -> Verdict {
    demand(counted == 0, "L1", || format!("all is done, and {counted} are counted as unfinished"))
}

/// Everything is over: nothing is held (C18).
pub fn check_held<H: Debug>(held: &[H]) -> Verdict {
    demand(held.is_empty(), "C18", || format!("held at the end: {held:?}"))
}
