//! [`Failure`]: what went wrong, in words, and the exit code that goes with it.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::time::Duration;

use longrun::Code;
use longrun::core::with_causes;
use longrun_api::google::rpc;
use longrun_api::well_known::time;
use prost::Message;

use super::text::{escape, span};

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Unreachable = 3,
}

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(super) enum Failure {
    /// The arguments make no sense, or name what is not there.
    Usage(String),
    /// The server could not be reached, or the connection broke.
    Unreachable(String),
    /// The server did not answer, or the operation was not done, in the time that the command has.
    TimeOver(String),
    /// The server answered with an error.
    Refused(Refusal),
    /// An operation that was waited for ended in another way than was hoped for.
    Ended {
        /// The operation, and what it did: `operation opr failed`.
        what: String,
        /// Its error, if it ended in one.
        error: Option<rpc::Status>,
    },
    /// The server's answer makes no sense.
    BadAnswer(String),
    /// The result could not be written.
    Output(io::Error),
}

/// An error that a server answered with.
#[derive(Debug)]
pub(super) struct Refusal {
    status: rpc::Status,
    /// From the headers, for servers that do not put it into the details.
    request_id: Option<String>,
}

impl Failure {
    /// What the program ends with.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Unreachable(_) | Self::TimeOver(_) => Exit::Unreachable,
            Self::Refused(refusal) if refusal.is_no_answer() => Exit::Unreachable,
            // Whoever reads has read enough.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Refused(_) | Self::Ended { .. } | Self::BadAnswer(_) | Self::Output(_) => Exit::Failed,
        }
    }

    /// Whether the same call may succeed when it is repeated.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Refused(refusal) => code(refusal.status.code) == Some(Code::Unavailable),
            _ => false,
        }
    }

    /// How long the server wants to be left alone before the call is repeated.
    pub(super) fn retry_delay(&self) -> Option<Duration> {
        let Self::Refused(refusal) = self else { return None };
        let info = refusal.status.details.iter().find_map(|detail| detail.unpack::<rpc::RetryInfo>())?;
        time(&info.retry_delay?)
    }

    /// What happened, in lines that do nothing to a terminal; the first says the most. Nothing if there is nobody to tell.
    pub(super) fn lines(&self) -> Vec<String> {
        match self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Vec::new(),
            Self::Refused(Refusal { status, request_id }) => {
                let mut lines = status_lines("", status);
                let known = status.details.iter().any(|detail| detail.unpack::<rpc::RequestInfo>().is_some());
                if let Some(id) = request_id.as_ref().filter(|_| !known) {
                    lines.push(format!("  request id: {}", escape(id)));
                }
                lines
            }
            Self::Ended { what, error: Some(error) } => status_lines(&format!("{what}: "), error),
            other => vec![escape(&other.to_string()).into_owned()],
        }
    }

    /// What happened as `google.rpc.Status`, the body of errors of the REST face.
    pub(super) fn status(&self) -> rpc::Status {
        let of = |code: Code| rpc::Status {
            code: i32::from(code.number()),
            message: self.to_string(),
            details: Vec::new(),
        };
        match self {
            Self::Refused(refusal) => refusal.status.clone(),
            Self::Ended { error: Some(error), .. } => error.clone(),
            Self::Ended { error: None, .. } => of(Code::FailedPrecondition),
            Self::Usage(_) => of(Code::InvalidArgument),
            Self::Unreachable(_) => of(Code::Unavailable),
            Self::TimeOver(_) => of(Code::DeadlineExceeded),
            Self::BadAnswer(_) | Self::Output(_) => of(Code::Internal),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Unreachable(text) | Self::TimeOver(text) => f.write_str(text),
            Self::Refused(refusal) => f.write_str(&heading("", &refusal.status)),
            Self::Ended { what, error: Some(error) } => f.write_str(&heading(&format!("{what}: "), error)),
            Self::Ended { what, error: None } => f.write_str(what),
            Self::BadAnswer(text) => write!(f, "the server's answer makes no sense: {text}"),
            Self::Output(error) => write!(f, "cannot write the result: {error}"),
        }
    }
}

impl Refusal {
    /// Whether it leaves open what became of the request.
    fn is_no_answer(&self) -> bool {
        matches!(code(self.status.code), Some(Code::Unavailable | Code::DeadlineExceeded))
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        // A status that the server has sent has no source. One with a source was made here, for a connection that broke.
        if let Some(source) = status.source() {
            return Self::Unreachable(format!("the connection broke: {}", with_causes(source)));
        }
        let from_wire = rpc::Status::decode(status.details()).ok().filter(|found| found.code != 0);
        let request_id = status.metadata().get("x-request-id").and_then(|id| id.to_str().ok());
        let request_id = request_id.map(str::to_owned);
        let plain = || rpc::Status {
            code: i32::from(status.code()),
            message: status.message().to_owned(),
            details: Vec::new(),
        };
        Self::Refused(Refusal { status: from_wire.unwrap_or_else(plain), request_id })
    }
}

/// The code of a status, if it is one that errors have.
pub(super) fn code(number: i32) -> Option<Code> {
    u8::try_from(number).ok().and_then(Code::from_number)
}

/// `CODE: message`.
pub(super) fn summary(status: &rpc::Status) -> String {
    let name = code(status.code).map_or_else(|| format!("code {}", status.code), |code| code.to_string());
    format!("{name}: {}", status.message)
}

fn heading(what: &str, status: &rpc::Status) -> String {
    format!("{what}{}", summary(status))
}

fn status_lines(what: &str, status: &rpc::Status) -> Vec<String> {
    let mut lines = vec![escape(&heading(what, status)).into_owned()];
    lines.extend(details(status).iter().map(|line| format!("  {}", escape(line))));
    lines
}

/// What the details of a status say, each in a line: violations first, as they tell what to do.
fn details(status: &rpc::Status) -> Vec<String> {
    let mut lines = Vec::new();
    for request in status.details.iter().filter_map(|detail| detail.unpack::<rpc::BadRequest>()) {
        let violations = request.field_violations.iter();
        lines.extend(violations.map(|violation| format!("{}: {}", violation.field, violation.description)));
    }
    for detail in &status.details {
        if let Some(info) = detail.unpack::<rpc::ErrorInfo>() {
            lines.push(format!("reason: {}", info.reason));
            lines.extend(info.metadata.iter().map(|(name, value)| format!("{name}: {value}")));
        } else if let Some(delay) = detail.unpack::<rpc::RetryInfo>().and_then(|info| info.retry_delay) {
            let Some(delay) = time(&delay) else { continue };
            lines.push(format!("try again after: {}", span(delay)));
        } else if let Some(info) = detail.unpack::<rpc::RequestInfo>() {
            lines.push(format!("request id: {}", info.request_id));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use longrun_api::{ApiError, Reason};

    use super::*;

    fn refused(error: &ApiError) -> Failure {
        let status = error.to_status("req-1");
        let code = tonic::Code::from(status.code);
        let details = status.encode_to_vec().into();
        tonic::Status::with_details(code, status.message, details).into()
    }

    #[test]
    fn every_code_has_its_exit_code() {
        for code in Code::ALL {
            let unreachable = matches!(code, Code::Unavailable | Code::DeadlineExceeded);
            let expected = if unreachable { Exit::Unreachable } else { Exit::Failed };
            assert_eq!(refused(&ApiError::new(Reason::of(*code), "text")).exit(), expected, "{code}");
            // Without details, as other servers send it.
            let plain = tonic::Status::new(i32::from(code.number()).into(), "text");
            assert_eq!(Failure::from(plain).exit(), expected, "{code}");
            // An operation that has ended is known to have ended, whatever its error.
            let error = ApiError::new(Reason::of(*code), "text").to_status("");
            let ended = Failure::Ended { what: "operation".to_owned(), error: Some(error) };
            assert_eq!(ended.exit(), Exit::Failed, "{code}");
        }
    }

    #[test]
    fn the_exit_codes_are_those_of_the_help() {
        let of = |failure: &Failure| failure.exit() as u8;
        assert_eq!(Exit::Done as u8, 0);
        assert_eq!(of(&Failure::Ended { what: String::new(), error: None }), 1);
        assert_eq!(of(&Failure::BadAnswer(String::new())), 1);
        assert_eq!(of(&Failure::Output(io::ErrorKind::StorageFull.into())), 1);
        assert_eq!(of(&Failure::Output(io::ErrorKind::BrokenPipe.into())), 0);
        assert_eq!(of(&Failure::Usage(String::new())), 2);
        assert_eq!(of(&Failure::Unreachable(String::new())), 3);
        assert_eq!(of(&Failure::TimeOver(String::new())), 3);
    }

    #[test]
    fn a_refusal_shows_every_detail() {
        let error = ApiError::violation("name", "must be short")
            .with_violation("labels[\"K\"]", "must be lower case")
            .with_fact("operation", "opr1")
            .with_retry_after(Duration::from_millis(1500));
        let failure = refused(&error);
        assert_eq!(
            failure.lines(),
            [
                "INVALID_ARGUMENT: invalid request: name: must be short",
                "  name: must be short",
                "  labels[\"K\"]: must be lower case",
                "  reason: INVALID_REQUEST",
                "  operation: opr1",
                "  try again after: 1500ms",
                "  request id: req-1",
            ]
        );
        assert_eq!(failure.retry_delay(), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn a_request_id_in_the_headers_will_do() {
        let mut status = tonic::Status::not_found("gone");
        status.metadata_mut().insert("x-request-id", "req-2".parse().unwrap());
        assert_eq!(Failure::from(status).lines(), ["NOT_FOUND: gone", "  request id: req-2"]);
    }

    #[test]
    fn what_the_server_says_does_nothing_to_a_terminal() {
        let error = ApiError::violation("na\u{1b}[2Jme", "ru\nle").with_fact("k\u{9b}", "v\u{202e}");
        for line in refused(&error).lines() {
            assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let may_pass = |code| Failure::from(tonic::Status::new(code, "")).may_pass();
        assert!(may_pass(tonic::Code::Unavailable));
        assert!(Failure::Unreachable(String::new()).may_pass());
        for code in [tonic::Code::Aborted, tonic::Code::Internal, tonic::Code::ResourceExhausted] {
            assert!(!may_pass(code), "{code:?}");
        }
    }
}
