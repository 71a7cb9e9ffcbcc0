//! Putting journal entries together, so that what repeats without end takes room once.
//!
//! A long copy saves a checkpoint every second; an undo that fails is tried for ever; past the point of no return so is a
//! run. Events of these sorts say how things are now, not how they changed: a later one makes earlier ones of its step
//! needless. As long as a turn has only such events, its entry takes the place of the one before, with what is still
//! needed of both.

use super::Event;
use crate::id::StepIndex;

/// Bytes of events that entries are put together up to. Beyond it a new entry begins.
const MERGED_BYTES_MAX: usize = 64 * 1024;

/// True when nothing but such events happened.
pub(super) fn is_mergeable(events: &[Event]) -> bool {
    !events.is_empty() && events.iter().all(|event| subject(event).is_some())
}

/// The events of two entries in one; `None` when they take too much room together.
pub(super) fn merged(earlier: &[Event], later: &[Event]) -> Option<Vec<Event>> {
    let mut events = earlier.to_vec();
    for event in later {
        drop_needless(&mut events, event);
        events.push(event.clone());
    }
    let bytes: usize = events.iter().map(byte_len).sum();
    (bytes <= MERGED_BYTES_MAX).then_some(events)
}

/// The step that such an event is about.
const fn subject(event: &Event) -> Option<StepIndex> {
    match event {
        Event::StepStarted { step, .. }
        | Event::StepFailedForNow { step, .. }
        | Event::StepInterrupted { step, .. }
        | Event::Checkpoint { step, .. }
        | Event::UndoFailed { step, .. }
        | Event::UndoInterrupted { step, .. }
        | Event::UndoWaitOver { step } => Some(*step),
        _ => None,
    }
}

/// Drops what `event` makes needless: the last one of its sort about the same step. When that one ended a run, the start
/// of the run that `event` ends goes with it; the number of that run is in `event`.
fn drop_needless(events: &mut Vec<Event>, event: &Event) {
    if matches!(event, Event::StepStarted { .. }) {
        return;
    }
    let same_sort = |other: &Event| {
        std::mem::discriminant(other) == std::mem::discriminant(event) && subject(other) == subject(event)
    };
    let Some(place) = events.iter().rposition(same_sort) else { return };
    let ends_a_run = matches!(event, Event::StepFailedForNow { .. } | Event::StepInterrupted { .. });
    let starts =
        |other: &Event| matches!(other, Event::StepStarted { .. }) && subject(other) == subject(event);
    if ends_a_run && let Some(after) = events[place..].iter().position(starts) {
        events.remove(place + after);
    }
    events.remove(place);
}

fn byte_len(event: &Event) -> usize {
    32 + match event {
        Event::Checkpoint { checkpoint, .. } => checkpoint.bytes().len(),
        Event::StepFailedForNow { error, .. } | Event::UndoFailed { error, .. } => error.byte_len(),
        _ => 0,
    }
}
