//! What there is to do, from durable state alone.

use super::{Execution, StepState};
use crate::id::StepIndex;
use crate::time::Timestamp;

/// What a driver has to see to. It keeps what it has begun; whatever is named here and not yet begun, it begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Next {
    /// Runs that are on record as started. When rolling back, they are to be told to stop.
    pub run: Vec<StepIndex>,
    /// Undos to perform now. Never more than may run at the same time.
    pub undo: Vec<StepIndex>,
    /// Rolling back: runs in `run` must end, no step may start.
    pub stop: bool,
    /// When something more comes to do by itself: a wait ends, the deadline passes.
    pub wake_at: Option<Timestamp>,
}

impl Execution {
    /// What there is to do at the time `now`. Nothing, for an operation that is done.
    pub fn next(&self, now: Timestamp) -> Next {
        let Some(work) = self.work() else { return Next::default() };
        let mut next = Next {
            run: work.sets.running.iter().copied().collect(),
            stop: work.rollback.is_some(),
            ..Next::default()
        };
        let mut wake = |at: Timestamp| next.wake_at = Some(next.wake_at.map_or(at, |other| other.min(at)));
        if next.stop {
            for &step in &work.sets.undoing {
                match work.steps[step.place()].undo.again_at {
                    Some(at) if !self.header.has_come(at, now) => wake(at),
                    _ if next.undo.len() < usize::from(work.plan.parallel()) => next.undo.push(step),
                    _ => {}
                }
            }
        } else {
            // Without room for another run, the end of a run is what to wait for.
            if work.has_room() {
                for &step in &work.sets.waiting_again {
                    if let StepState::Again(at) = work.steps[step.place()].state {
                        // The time of the acceptance stands for "at once", and may be later than the clock shows.
                        wake(if self.header.has_come(at, now) { at.min(now) } else { at });
                    }
                }
            }
            if let Some(deadline) = self.header.deadline.filter(|_| !work.is_past_no_return()) {
                wake(deadline);
            }
        }
        next
    }
}
