//! [`View`]: an operation as the client shows it, whichever dialect it came in.

use longrun::Code;
use longrun_api::dialect::google::id_of_name;
use longrun_api::google::{longrunning, rpc};
use longrun_api::longrun::v1::{BlockedStep, OperationMetadata, Progress, progress::Unit};
use longrun_api::yandex::cloud::operation as cloud;

use super::failure::{code, summary};
use super::text::{bytes, percent, time};

/// An operation: as JSON in the dialect of Yandex Cloud, and what only Google's dialect tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct View {
    pub(super) operation: cloud::Operation,
    pub(super) progress: Option<Progress>,
    pub(super) blocked: Vec<BlockedStep>,
}

/// Where an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Running,
    RollingBack,
    Blocked,
    Done,
    Failed,
    Cancelled,
}

impl State {
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::RollingBack => "rolling back",
            Self::Blocked => "blocked",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl View {
    pub(super) fn id(&self) -> &str {
        &self.operation.id
    }

    pub(super) const fn done(&self) -> bool {
        self.operation.done
    }

    /// Why it failed, rolls back, or was cancelled.
    pub(super) const fn error(&self) -> Option<&rpc::Status> {
        match &self.operation.result {
            Some(cloud::operation::Result::Error(error)) => Some(error),
            _ => None,
        }
    }

    /// What it has made.
    pub(super) const fn response(&self) -> Option<&longrun_api::well_known::Any> {
        match &self.operation.result {
            Some(cloud::operation::Result::Response(response)) => Some(response),
            _ => None,
        }
    }

    pub(super) fn was_cancelled(&self) -> bool {
        self.error().is_some_and(|error| code(error.code) == Some(Code::Cancelled))
    }

    pub(super) fn state(&self) -> State {
        match (self.done(), self.error()) {
            (true, None) => State::Done,
            (true, Some(_)) if self.was_cancelled() => State::Cancelled,
            (true, Some(_)) => State::Failed,
            (false, _) if !self.blocked.is_empty() => State::Blocked,
            (false, Some(_)) => State::RollingBack,
            (false, None) => State::Running,
        }
    }

    /// Where it stands and why, in one line. As the server says it: not fit for a terminal yet.
    pub(super) fn phase(&self) -> String {
        let words = self.state().words();
        match (self.state(), self.error()) {
            (State::Blocked, _) => {
                let steps: Vec<String> = self.blocked.iter().map(blocked).collect();
                format!("{words}: {}", steps.join("; "))
            }
            (State::RollingBack, Some(_)) if self.was_cancelled() => {
                format!("{words} because it was cancelled")
            }
            (State::RollingBack, Some(error)) => format!("{words} because of {}", summary(error)),
            (State::Failed, Some(error)) => format!("{words}: {}", summary(error)),
            _ => words.to_owned(),
        }
    }

    /// How far it has come, if it tells and goes forward. Of a rollback it would tell what was done before.
    pub(super) fn progress(&self) -> Option<Progress> {
        self.progress.filter(|progress| progress.total > 0 && self.state() == State::Running)
    }

    /// How far it has come, in words.
    pub(super) fn progress_words(&self) -> Option<String> {
        let progress = self.progress()?;
        let percent = percent(progress.done, progress.total).unwrap_or(0);
        let (done, total) = match progress.unit() {
            Unit::Bytes => (bytes(progress.done), bytes(progress.total)),
            Unit::Items | Unit::Unspecified => (progress.done.to_string(), progress.total.to_string()),
        };
        Some(format!("{percent} %, {done} of {total}"))
    }
}

/// A blocked step in words.
fn blocked(step: &BlockedStep) -> String {
    let what = if step.undo { "the undo of " } else { "" };
    let error = step.error.as_ref().map(summary).unwrap_or_default();
    let again = match time(step.again_at) {
        none if none.is_empty() => String::new(),
        time => format!(", again at {time}"),
    };
    format!("{what}{} failed {} times{again}: {error}", step.name, step.failures)
}

impl From<cloud::Operation> for View {
    fn from(operation: cloud::Operation) -> Self {
        Self { operation, progress: None, blocked: Vec::new() }
    }
}

impl From<longrunning::Operation> for View {
    /// Nothing is lost: Google's dialect has every field of the other, some in its metadata.
    fn from(operation: longrunning::Operation) -> Self {
        let longrunning::Operation { name, metadata, done, result } = operation;
        let id = id_of_name(&name).to_owned();
        let result = result.map(|result| match result {
            longrunning::operation::Result::Error(error) => cloud::operation::Result::Error(error),
            longrunning::operation::Result::Response(response) => {
                cloud::operation::Result::Response(response)
            }
        });
        let Some(found) = metadata.as_ref().and_then(|any| any.unpack::<OperationMetadata>()) else {
            // Of a server that is not ours. What it says is shown as it says it.
            return cloud::Operation { id, metadata, done, result, ..Default::default() }.into();
        };
        let OperationMetadata { metadata, description, create_time, created_by, update_time, .. } = found;
        let operation = cloud::Operation {
            id,
            description,
            created_at: create_time,
            created_by,
            modified_at: update_time,
            done,
            metadata,
            result: result.or_else(|| found.rollback_cause.map(cloud::operation::Result::Error)),
        };
        Self { operation, progress: found.progress, blocked: found.blocked }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use longrun_api::well_known::{Any, Timestamp};

    use super::*;

    pub(in super::super) fn error(code: i32, message: &str) -> rpc::Status {
        rpc::Status { code, message: message.to_owned(), details: Vec::new() }
    }

    /// An operation of Google's dialect.
    pub(in super::super) fn google(done: bool, error: Option<rpc::Status>) -> longrunning::Operation {
        let metadata = OperationMetadata {
            description: "Create snapshot".to_owned(),
            create_time: Some(Timestamp { seconds: 1_535_567_475, nanos: 311_000_000 }),
            created_by: "ann".to_owned(),
            update_time: Some(Timestamp { seconds: 1_535_567_480, nanos: 0 }),
            rollback_cause: error.clone().filter(|_| !done),
            progress: Some(Progress { done: 100 << 20, total: 256 << 20, unit: Unit::Bytes.into() }),
            ..OperationMetadata::default()
        };
        longrunning::Operation {
            name: "operations/opr1".to_owned(),
            metadata: Some(Any::pack(&metadata)),
            done,
            result: error.filter(|_| done).map(longrunning::operation::Result::Error),
        }
    }

    #[test]
    fn googles_dialect_turns_into_the_other() {
        let view = View::from(google(false, Some(error(9, "the disk changed"))));
        let json = serde_json::to_value(&view.operation).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "id": "opr1",
                "description": "Create snapshot",
                "createdAt": "2018-08-29T18:31:15.311Z",
                "createdBy": "ann",
                "modifiedAt": "2018-08-29T18:31:20Z",
                "done": false,
                "error": { "code": 9, "message": "the disk changed" },
            })
        );
    }

    #[test]
    fn an_operation_of_another_server_is_shown_as_it_is() {
        let metadata = Some(Any { type_url: "t/strange".to_owned(), value: Default::default() });
        let operation = longrunning::Operation {
            name: "projects/1/operations/2".to_owned(),
            metadata: metadata.clone(),
            done: false,
            result: None,
        };
        let view = View::from(operation);
        assert_eq!((view.id(), view.state()), ("projects/1/operations/2", State::Running));
        assert_eq!(view.operation.metadata, metadata);
    }

    #[test]
    fn phases_in_words() {
        let phase = |done, error| View::from(google(done, error)).phase();
        assert_eq!(phase(false, None), "running");
        assert_eq!(phase(true, None), "done");
        assert_eq!(
            phase(false, Some(error(9, "the disk changed"))),
            "rolling back because of FAILED_PRECONDITION: the disk changed"
        );
        assert_eq!(phase(false, Some(error(1, "cancelled"))), "rolling back because it was cancelled");
        assert_eq!(phase(true, Some(error(1, "cancelled"))), "cancelled");
        assert_eq!(phase(true, Some(error(9, "no"))), "failed: FAILED_PRECONDITION: no");
        assert_eq!(phase(true, Some(error(77, "no"))), "failed: code 77: no");
        let mut view = View::from(google(false, Some(error(9, "no"))));
        view.blocked.push(BlockedStep {
            name: "copy-chunks".to_owned(),
            undo: true,
            failures: 12,
            error: Some(error(14, "the disk is away")),
            again_at: Some(Timestamp { seconds: 1_535_567_475, nanos: 0 }),
        });
        assert_eq!(
            view.phase(),
            "blocked: the undo of copy-chunks failed 12 times, again at 2018-08-29T18:31:15Z: \
             UNAVAILABLE: the disk is away"
        );
    }

    #[test]
    fn progress_in_words_while_it_goes_forward() {
        let view = View::from(google(false, None));
        assert_eq!(view.progress_words().unwrap(), "39 %, 100.00 MiB of 256.00 MiB");
        assert_eq!(View::from(google(true, None)).progress_words(), None);
        assert_eq!(View::from(google(false, Some(error(9, "no")))).progress_words(), None);
        assert_eq!(View::default().progress_words(), None);
    }
}
