//! [`ApiError`]: why a call was refused, in what every face can say.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use longrun_core::{Code, Status};

use crate::google::rpc;
use crate::well_known::{Any, duration};

/// Whose list of reasons [`Reason`] is: the domain of every `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "longrun";

/// Declares [`Reason`] once: variant, the code it comes with, name.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:ident, $name:literal;)*) => {
        /// Why a call was refused, for programs. Goes out in `google.rpc.ErrorInfo`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name on the wire.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The code that goes with it.
            pub const fn code(self) -> Code {
                match self { $(Self::$variant => Code::$code,)* }
            }
        }
    };
}

reasons! {
    /// Fields break rules; `google.rpc.BadRequest` names all of them.
    InvalidRequest = InvalidArgument, "INVALID_REQUEST";
    /// The page token is not one of this list, or was tampered with.
    InvalidPageToken = InvalidArgument, "INVALID_PAGE_TOKEN";
    /// It is not there, or not for the caller to see.
    NotFound = NotFound, "NOT_FOUND";
    /// What is to be made is there already.
    AlreadyExists = AlreadyExists, "ALREADY_EXISTS";
    /// The idempotency key was used for another request (C15). `operation` names its operation.
    IdempotencyKeyReused = AlreadyExists, "IDEMPOTENCY_KEY_REUSED";
    /// The idempotency key is that of an operation which is no longer kept; the work is not done again (C15).
    IdempotencyKeyOutlived = FailedPrecondition, "IDEMPOTENCY_KEY_OUTLIVED";
    /// The caller may not do this here.
    PermissionDenied = PermissionDenied, "PERMISSION_DENIED";
    /// Who calls is not known.
    Unauthenticated = Unauthenticated, "UNAUTHENTICATED";
    /// An unfinished operation holds the resource. `operation` names it.
    OperationInTheWay = Aborted, "OPERATION_IN_THE_WAY";
    /// It changed while the request was worked on. Repeat the request.
    ConcurrentChange = Aborted, "CONCURRENT_CHANGE";
    /// The system is not in the state that the request needs.
    PreconditionFailed = FailedPrecondition, "PRECONDITION_FAILED";
    /// The caller's folder sends more than its share.
    QuotaExceeded = ResourceExhausted, "QUOTA_EXCEEDED";
    /// The service is at its limit, or its disk is full.
    Overloaded = ResourceExhausted, "OVERLOADED";
    /// The service has no room left to record this.
    StorageFull = ResourceExhausted, "STORAGE_FULL";
    /// A message or body is larger than the limit.
    TooLarge = ResourceExhausted, "TOO_LARGE";
    /// The service, or what it needs, is not there just now. Nothing was done.
    Unavailable = Unavailable, "UNAVAILABLE";
    /// Whether the request was accepted is not known. Repeat it with its idempotency key.
    OutcomeUnknown = Unavailable, "OUTCOME_UNKNOWN";
    /// It took too long.
    DeadlineExceeded = DeadlineExceeded, "DEADLINE_EXCEEDED";
    /// What is stored is damaged.
    Damaged = DataLoss, "DAMAGED";
    /// What is stored was written by a newer version.
    TooNew = Unimplemented, "TOO_NEW";
    /// The method or field is not supported here.
    NotSupported = Unimplemented, "NOT_SUPPORTED";
    /// The call was cancelled.
    Cancelled = Cancelled, "CANCELLED";
    /// Past the valid range.
    OutOfRange = OutOfRange, "OUT_OF_RANGE";
    /// Something failed and said no more.
    Unknown = Unknown, "UNKNOWN";
    /// A fault of the service.
    Internal = Internal, "INTERNAL";
}

impl Reason {
    /// The reason that says no more than the code.
    pub const fn of(code: Code) -> Self {
        match code {
            Code::Cancelled => Self::Cancelled,
            Code::Unknown => Self::Unknown,
            Code::InvalidArgument => Self::InvalidRequest,
            Code::DeadlineExceeded => Self::DeadlineExceeded,
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::AlreadyExists,
            Code::PermissionDenied => Self::PermissionDenied,
            Code::ResourceExhausted => Self::Overloaded,
            Code::FailedPrecondition => Self::PreconditionFailed,
            Code::Aborted => Self::ConcurrentChange,
            Code::OutOfRange => Self::OutOfRange,
            Code::Unimplemented => Self::NotSupported,
            Code::Internal => Self::Internal,
            Code::Unavailable => Self::Unavailable,
            Code::DataLoss => Self::Damaged,
            Code::Unauthenticated => Self::Unauthenticated,
        }
    }

    /// What is told of a failure that is none of the caller's business. Its cause goes to the log.
    const fn public_text(self) -> Option<&'static str> {
        match self {
            Self::Internal | Self::Unknown => {
                Some("the service failed; its log tells more under the request's id")
            }
            Self::Damaged => {
                Some("what is stored is damaged; the service's log tells more under the request's id")
            }
            Self::TooNew => Some("what is stored was written by a newer version of the service"),
            Self::StorageFull => Some("the service has no room to record this now; try again"),
            Self::Unavailable => Some("the service cannot do this now; try again"),
            Self::OutcomeUnknown => {
                Some("whether the request was accepted is not known now; repeat it with its idempotency key")
            }
            _ => None,
        }
    }
}

/// Why a call was refused: code, text for people, and details for programs.
///
/// Of failures of the service itself, callers get a fixed text; [`internal`](Self::internal) has the cause, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    reason: Reason,
    message: String,
    facts: BTreeMap<String, String>,
    violations: Vec<(String, String)>,
    retry_after: Option<Duration>,
    internal: Option<String>,
}

impl ApiError {
    /// An error for a reason.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let message = message.into();
        let (message, internal) = match reason.public_text() {
            Some(text) => (text.to_owned(), Some(message)),
            None => (message, None),
        };
        let retry_after = match reason {
            Reason::Unavailable | Reason::OutcomeUnknown | Reason::Overloaded | Reason::StorageFull => {
                Some(Duration::from_secs(1))
            }
            _ => None,
        };
        Self { reason, message, facts: BTreeMap::new(), violations: Vec::new(), retry_after, internal }
    }

    /// A request of which one field breaks a rule.
    pub fn violation(field: impl Into<String>, rule: impl Into<String>) -> Self {
        let (field, rule) = (field.into(), rule.into());
        Self::new(Reason::InvalidRequest, format!("invalid request: {field}: {rule}"))
            .with_violation(field, rule)
    }

    /// Names a field and the rule that its value breaks.
    #[must_use]
    pub fn with_violation(mut self, field: impl Into<String>, rule: impl Into<String>) -> Self {
        self.violations.push((field.into(), rule.into()));
        self
    }

    /// Adds a fact to the reason, such as which operation is in the way.
    #[must_use]
    pub fn with_fact(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.facts.insert(name.into(), value.into());
        self
    }

    /// After how long the same request may succeed.
    #[must_use]
    pub const fn with_retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// The reason.
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// The code.
    pub const fn code(&self) -> Code {
        self.reason.code()
    }

    /// For people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The cause of a failure of the service itself, for its log and nobody else.
    pub fn internal(&self) -> Option<&str> {
        self.internal.as_deref()
    }

    /// After how long the same request may succeed, if it may.
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// As it goes out, with the id of the request it answers.
    pub fn to_status(&self, request_id: &str) -> rpc::Status {
        let info = rpc::ErrorInfo {
            reason: self.reason.name().to_owned(),
            domain: DOMAIN.to_owned(),
            metadata: self.facts.clone(),
        };
        let mut details = vec![Any::pack(&info)];
        if !self.violations.is_empty() {
            let violation = |(field, rule): &(String, String)| rpc::bad_request::FieldViolation {
                field: field.clone(),
                description: rule.clone(),
            };
            let field_violations = self.violations.iter().map(violation).collect();
            details.push(Any::pack(&rpc::BadRequest { field_violations }));
        }
        if let Some(delay) = self.retry_after {
            details.push(Any::pack(&rpc::RetryInfo { retry_delay: Some(duration(delay)) }));
        }
        let request = rpc::RequestInfo { request_id: request_id.to_owned(), serving_data: String::new() };
        details.push(Any::pack(&request));
        rpc::Status { code: i32::from(self.code().number()), message: self.message.clone(), details }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code(), self.message)
    }
}

impl std::error::Error for ApiError {}

impl From<Status> for ApiError {
    fn from(status: Status) -> Self {
        Self::new(Reason::of(status.code()), status.message())
    }
}

impl From<longrun_core::Invalid> for ApiError {
    fn from(invalid: longrun_core::Invalid) -> Self {
        Self::violation(invalid.field, invalid.rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_that_says_no_more_than_a_code_has_that_code() {
        for code in Code::ALL {
            assert_eq!(Reason::of(*code).code(), *code);
        }
    }

    #[test]
    fn a_failure_of_the_service_tells_nothing_of_its_insides() {
        for reason in Reason::ALL {
            let error = ApiError::new(*reason, "secret");
            let hidden = !error.message().contains("secret");
            let own_fault =
                matches!(error.code(), Code::Internal | Code::Unknown | Code::DataLoss | Code::Unavailable)
                    || matches!(reason, Reason::TooNew | Reason::StorageFull);
            assert_eq!(hidden, own_fault, "{reason:?}");
            assert_eq!(error.internal(), own_fault.then_some("secret"));
            let status = error.to_status("r");
            let shown = serde_json::to_string(&status).unwrap();
            assert_eq!(!shown.contains("secret"), own_fault, "{shown}");
        }
    }

    #[test]
    fn every_violation_and_every_detail_goes_out() {
        let error = ApiError::violation("name", "must be short")
            .with_violation("labels", "must be few")
            .with_fact("operation", "opr")
            .with_retry_after(Duration::from_millis(1500));
        let shown = serde_json::to_value(error.to_status("req-1")).unwrap();
        let of = |name: &str| {
            let url = format!("type.googleapis.com/google.rpc.{name}");
            shown["details"]
                .as_array()
                .unwrap()
                .iter()
                .find(|detail| detail["@type"] == url.as_str())
                .cloned()
        };
        assert_eq!(shown["code"], 3);
        assert_eq!(of("BadRequest").unwrap()["fieldViolations"][1]["field"], "labels");
        assert_eq!(of("ErrorInfo").unwrap()["metadata"]["operation"], "opr");
        assert_eq!(of("ErrorInfo").unwrap()["reason"], "INVALID_REQUEST");
        assert_eq!(of("RetryInfo").unwrap()["retryDelay"], "1.500s");
        assert_eq!(of("RequestInfo").unwrap()["requestId"], "req-1");
    }
}
