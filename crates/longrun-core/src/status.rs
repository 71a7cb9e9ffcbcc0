//! `google.rpc.Code` and `google.rpc.Status`, as values.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Invalid;
use crate::limits::{STATUS_DETAILS_BYTES_MAX, STATUS_MESSAGE_BYTES_MAX};
use crate::payload::Payload;

/// Declares [`Code`] once: variant, number, name.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// The canonical error codes of `google.rpc.Code`, without OK: an error is never OK.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Code {
            /// Every code, by number.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in upper case, as the protocol writes it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

codes! {
    /// Cancelled by a caller.
    Cancelled = 1, "CANCELLED";
    /// Something failed and said no more.
    Unknown = 2, "UNKNOWN";
    /// The request itself is wrong.
    InvalidArgument = 3, "INVALID_ARGUMENT";
    /// The time ran out.
    DeadlineExceeded = 4, "DEADLINE_EXCEEDED";
    /// The thing is not there.
    NotFound = 5, "NOT_FOUND";
    /// The thing is there already.
    AlreadyExists = 6, "ALREADY_EXISTS";
    /// The caller may not.
    PermissionDenied = 7, "PERMISSION_DENIED";
    /// A quota, a rate or a disk is full.
    ResourceExhausted = 8, "RESOURCE_EXHAUSTED";
    /// The system is not in the state that the request needs.
    FailedPrecondition = 9, "FAILED_PRECONDITION";
    /// Another operation is in the way.
    Aborted = 10, "ABORTED";
    /// Past the valid range.
    OutOfRange = 11, "OUT_OF_RANGE";
    /// Not supported here.
    Unimplemented = 12, "UNIMPLEMENTED";
    /// A fault of the service.
    Internal = 13, "INTERNAL";
    /// Try again later.
    Unavailable = 14, "UNAVAILABLE";
    /// Data is damaged or lost.
    DataLoss = 15, "DATA_LOSS";
    /// The caller is not known.
    Unauthenticated = 16, "UNAUTHENTICATED";
}

impl Code {
    /// The number in the protocol.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The code of a number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.number() == number)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.number())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u8::deserialize(deserializer)?;
        Self::from_number(number).ok_or_else(|| serde::de::Error::custom("code: must be 1 to 16"))
    }
}

/// Why something failed: `google.rpc.Status`.
///
/// Always within its limits: a longer message is cut and details beyond the limit are left out, because
/// an error must never fail to be recorded for being too large.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Unbounded")]
pub struct Status {
    code: Code,
    message: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Payload>,
}

/// A status as others send it. It is within its limits once it is a [`Status`].
#[derive(Deserialize)]
#[serde(rename = "Status")]
struct Unbounded {
    code: Code,
    message: String,
    #[serde(default)]
    details: Vec<Payload>,
}

impl From<Unbounded> for Status {
    fn from(Unbounded { code, message, details }: Unbounded) -> Self {
        details.into_iter().fold(Self::new(code, message), Self::with_detail)
    }
}

impl Status {
    /// A status without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > STATUS_MESSAGE_BYTES_MAX {
            message.truncate(message.floor_char_boundary(STATUS_MESSAGE_BYTES_MAX));
        }
        Self { code, message, details: Vec::new() }
    }

    /// Adds a detail, if it fits the limit.
    #[must_use]
    pub fn with_detail(mut self, detail: Payload) -> Self {
        let held: usize = self.details.iter().map(Payload::byte_len).sum();
        if held + detail.byte_len() <= STATUS_DETAILS_BYTES_MAX {
            self.details.push(detail);
        }
        self
    }

    /// The code.
    pub const fn code(&self) -> Code {
        self.code
    }

    /// The message, for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Typed details, for programs.
    pub fn details(&self) -> &[Payload] {
        &self.details
    }

    /// Bytes that the status takes.
    pub fn byte_len(&self) -> usize {
        1 + self.message.len() + self.details.iter().map(Payload::byte_len).sum::<usize>()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Status {}

impl From<Invalid> for Status {
    fn from(invalid: Invalid) -> Self {
        Self::new(Code::InvalidArgument, invalid.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_google_rpc() {
        assert_eq!(Code::ALL.len(), 16);
        for (place, code) in Code::ALL.iter().enumerate() {
            assert_eq!(usize::from(code.number()), place + 1);
            assert_eq!(Code::from_number(code.number()), Some(*code));
        }
        assert_eq!(Code::from_number(0), None);
        assert_eq!(Code::from_number(17), None);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let status = Status::new(Code::Internal, "é".repeat(STATUS_MESSAGE_BYTES_MAX));
        assert!(status.message().len() <= STATUS_MESSAGE_BYTES_MAX);
        assert!(status.message().chars().all(|c| c == 'é'));
    }

    #[test]
    fn a_status_from_outside_keeps_its_limits() {
        let detail = |bytes: usize| {
            let text = std::collections::BTreeMap::from([("text", "x".repeat(bytes))]);
            Payload::encode("detail", "type.googleapis.com/test.Detail", &text).unwrap()
        };
        let details = vec![detail(1000), detail(STATUS_DETAILS_BYTES_MAX), detail(1000)];
        let huge = Status { code: Code::Internal, message: "é".repeat(STATUS_MESSAGE_BYTES_MAX), details };
        let read: Status = serde_json::from_str(&serde_json::to_string(&huge).unwrap()).unwrap();
        assert!(read.message().len() <= STATUS_MESSAGE_BYTES_MAX);
        assert_eq!(read.details(), [detail(1000), detail(1000)], "what does not fit is left out");
        // Within its limits it is what it was.
        let read_again: Status = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
        assert_eq!(read_again, read);
        let plain: Status = serde_json::from_str(r#"{"code":5,"message":"gone"}"#).unwrap();
        assert_eq!(plain, Status::new(Code::NotFound, "gone"));
    }
}
