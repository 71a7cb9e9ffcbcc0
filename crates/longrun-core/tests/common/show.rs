//! One line for each thing, short enough to hold against the contract by eye.

use longrun_core::{Applied, Event, Next, Refusal, RowWrite, StepIndex, Timestamp, Verb};

/// The wait, as the power of two of seconds that jitter shortened it from.
fn wait(now: Timestamp, at: Timestamp) -> String {
    let wait = at.since(now);
    if wait.is_zero() {
        return "now".to_owned();
    }
    let whole = u64::from(wait.subsec_nanos() > 0) + wait.as_secs();
    format!("~{}s", whole.next_power_of_two())
}

const fn effect(may_have_run: bool) -> &'static str {
    if may_have_run { "maybe" } else { "none" }
}

pub fn show_event(event: &Event, now: Timestamp) -> String {
    match event {
        Event::StepStarted { step, attempt } => format!("start {step}#{attempt}"),
        Event::StepDone { step, .. } => format!("done {step}"),
        Event::StepFailedForNow { step, may_have_run, again_at, .. } => {
            format!("again {step} {} {}", effect(*may_have_run), wait(now, *again_at))
        }
        Event::StepFailed { step, may_have_run, .. } => format!("failed {step} {}", effect(*may_have_run)),
        Event::StepInterrupted { step, again_at, .. } => {
            format!("interrupted {step} {}", wait(now, *again_at))
        }
        Event::Checkpoint { step, .. } => format!("saved {step}"),
        Event::RollbackDecided { cause, step: None } => format!("decide {}", cause.code()),
        Event::RollbackDecided { cause, step: Some(step) } => format!("decide {} by {step}", cause.code()),
        Event::Undone { step } => format!("undone {step}"),
        Event::UndoFailed { step, again_at, .. } => format!("undo-failed {step} {}", wait(now, *again_at)),
        Event::UndoInterrupted { step, again_at, .. } => {
            format!("undo-interrupted {step} {}", wait(now, again_at.unwrap_or(now)))
        }
        Event::UndoWaitOver { step } => format!("undo-wait-over {step}"),
        Event::Intervened(intervention) => match intervention.verb {
            Verb::RetryNow => "retry-now".to_owned(),
            Verb::MarkUndone(step) => format!("mark-undone {step}"),
            Verb::SkipUndo(step) => format!("skip-undo {step}"),
            Verb::Abandon => "abandon".to_owned(),
        },
        Event::Succeeded { .. } => "succeeded".to_owned(),
        Event::RolledBack => "rolled-back".to_owned(),
    }
}

pub fn show_events(events: &[Event], now: Timestamp) -> String {
    if events.is_empty() {
        return "-".to_owned();
    }
    events.iter().map(|event| show_event(event, now)).collect::<Vec<_>>().join(", ")
}

pub fn show_refusal(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Stale { step, attempt } => format!("! stale {step}#{attempt}"),
        Refusal::NoSuchStep(step) => format!("! no step {step}"),
        Refusal::Done(_) => "! is done".to_owned(),
        Refusal::NotBlocked(_) => "! not blocked".to_owned(),
        Refusal::Invalid(invalid) => format!("! {}", invalid.field),
        other => format!("! {other}"),
    }
}

fn steps(steps: &[StepIndex]) -> String {
    steps.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// What there is to do, at `now`.
pub fn show_next(next: &Next, now: Timestamp, deadline: Option<Timestamp>) -> String {
    let mut parts = Vec::new();
    if !next.run.is_empty() {
        parts.push(format!("run {}", steps(&next.run)));
    }
    if !next.undo.is_empty() {
        parts.push(format!("undo {}", steps(&next.undo)));
    }
    if next.stop {
        parts.push("stop".to_owned());
    }
    match next.wake_at {
        Some(at) if Some(at) == deadline => parts.push("wake at the deadline".to_owned()),
        Some(at) => parts.push(format!("wake {}", wait(now, at))),
        None => {}
    }
    if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
}

pub fn show_write(write: &RowWrite) -> String {
    let held = |held: bool| if held { "held" } else { "free" };
    let from = write.expect.map_or("absent".to_owned(), |revision| {
        let status = write.replaces.as_ref().map_or("?", |row| row.status.name());
        format!("{status} r{revision} {}", held(write.holder.is_some()))
    });
    let to = write.put.as_ref().map_or("gone".to_owned(), |row| {
        format!("{} r{} {}", row.status, row.revision, held(row.operation.is_some()))
    });
    format!("{}: {from} -> {to}", write.key.id)
}

pub const fn show_applied(applied: Applied) -> &'static str {
    match applied {
        Applied::No => "none",
        Applied::Unknown => "maybe",
    }
}

/// Compares line by line, without regard to indentation, a line that begins with `..` continuing the one before
/// it, and shows the first difference with its neighbours.
#[track_caller]
pub fn assert_text(actual: &str, expected: &str) {
    let lines = |text: &str| -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            match (line.strip_prefix(".."), lines.last_mut()) {
                (Some(rest), Some(last)) => last.push_str(rest),
                _ => lines.push(line.to_owned()),
            }
        }
        lines
    };
    let (actual, expected) = (lines(actual), lines(expected));
    if actual == expected {
        return;
    }
    let place = actual.iter().zip(&expected).take_while(|(a, b)| a == b).count();
    let nothing = String::from("(the end)");
    panic!(
        "line {place} differs\n  expected: {}\n    actual: {}\n--- all of it:\n{}",
        expected.get(place).unwrap_or(&nothing),
        actual.get(place).unwrap_or(&nothing),
        actual.join("\n")
    );
}
