//! Waiting until operations are done.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::failure::Failure;
use super::session::Session;
use super::view::{State, View};

/// For so long a server is asked to wait.
const LONG: Duration = Duration::from_secs(30);
/// The same while somebody watches, who wants to see it move.
const WATCHED: Duration = Duration::from_millis(500);
/// A server that answers sooner than it was asked to is asked again no sooner than this.
const SHORTEST: Duration = Duration::from_millis(200);

/// What waiting for an operation came to.
#[derive(Debug)]
pub(super) struct Waited {
    /// The operation as it was last seen.
    pub(super) last: Option<View>,
    /// Why it is not done, or the error that it ended in.
    pub(super) failure: Option<Failure>,
}

/// Waits until all operations are done, in their order.
pub(super) async fn all_done(session: &Session, ids: &[String]) -> Vec<Waited> {
    join_all(ids.iter().map(|id| until_done(session, id))).await
}

/// Waits until an operation is done, or the command's time is over.
pub(super) async fn until_done(session: &Session, id: &str) -> Waited {
    let mut bar = session.screen.bar(id);
    let mut last: Option<View> = None;
    loop {
        let asked = Instant::now();
        let time = if session.screen.is_watched() { WATCHED } else { LONG };
        let left = session.remaining().unwrap_or(time);
        let view = match session.wait(id, time.min(left)).await {
            Ok(view) => view,
            Err(failure) => return Waited { last, failure: Some(failure) },
        };
        bar.show(&view);
        if view.done() {
            return Waited { failure: verdict(&view), last: Some(view) };
        }
        let left = session.remaining().unwrap_or(Duration::MAX);
        if left.is_zero() {
            let failure = Some(session.time_over(&unfinished(&view)));
            return Waited { last: Some(view), failure };
        }
        last = Some(view);
        tokio::time::sleep(SHORTEST.saturating_sub(asked.elapsed()).min(left)).await;
    }
}

/// The failure of an operation that ended in an error.
fn verdict(view: &View) -> Option<Failure> {
    let words = match view.state() {
        State::Cancelled => "was cancelled",
        State::Failed => "failed",
        _ => return None,
    };
    Some(Failure::Ended { what: format!("operation {} {words}", view.id()), error: view.error().cloned() })
}

fn unfinished(view: &View) -> String {
    let progress = view.progress_words().map(|words| format!(", {words}")).unwrap_or_default();
    format!("operation {} ({}{progress}) is not done", view.id(), view.phase())
}

#[cfg(test)]
mod tests {
    use super::super::failure::Exit;
    use super::super::view::tests::{error, google};
    use super::*;

    #[test]
    fn an_operation_that_ended_in_an_error_is_a_failure_that_says_it() {
        assert!(verdict(&View::from(google(true, None))).is_none());
        for (error, said) in [
            (error(9, "no"), "operation opr1 failed: FAILED_PRECONDITION: no"),
            (error(1, "stop"), "operation opr1 was cancelled: CANCELLED: stop"),
        ] {
            let failure = verdict(&View::from(google(true, Some(error)))).unwrap();
            assert_eq!((failure.to_string().as_str(), failure.exit()), (said, Exit::Failed));
        }
    }

    #[test]
    fn one_that_is_not_done_is_told_with_how_far_it_is() {
        assert_eq!(
            unfinished(&View::from(google(false, None))),
            "operation opr1 (running, 39 %, 100.00 MiB of 256.00 MiB) is not done"
        );
    }
}
