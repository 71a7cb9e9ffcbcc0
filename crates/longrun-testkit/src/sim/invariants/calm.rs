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

/// Virtual time that everything has to end in once the faults have stopped, besides waits that are on record.
const CALM_MAX: Duration = Duration::from_secs(120);

/// Virtual time since the faults stopped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calm {
    /// While something could go on.
    working: Duration,
    /// While all that was left waited for a time on record.
    waiting: Duration,
}

impl Calm {
    /// So much time passed with this left, and the clock that is farthest shows this.
    pub fn pass(&mut self, time: Duration, left: &[Due], now: Timestamp) {
        let spent = if all_wait(left, now) { &mut self.waiting } else { &mut self.working };
        *spent += time;
    }

    /// Not everything is done: neither time may be over its limit (L1). Waits may last longer by `clocks`, by which clocks are off.
    pub fn check(&self, clocks: Duration, left: impl Fn() -> String) -> Verdict {
        check_time(self.working, CALM_MAX, &left)?;
        check_time(self.waiting, CALM_MAX + clocks, &left)
    }
}

/// Whether all that is left waits for a time that no clock shows yet: only a clock that was set back makes it wait for long.
fn all_wait(left: &[Due], now: Timestamp) -> bool {
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
