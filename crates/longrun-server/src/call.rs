//! What every call has, whichever face it comes through: an id, a caller, an idempotency key.

use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use longrun::{Caller, IdempotencyKey};
use longrun_api::ApiError;

use crate::limits::REQUEST_ID_CHARS_MAX;

/// The id of a request, in requests and answers.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The same under the name by which some clients look for it in answers.
pub(crate) const SERVER_TRACE_ID: HeaderName = HeaderName::from_static("x-server-trace-id");
const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-client-request-id");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The id by which a request is found in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    /// The one that the client gave, if it is a plain word, or a new one.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let given = |name| headers.get(name).filter(|value| is_plain_word(value));
        given(REQUEST_ID).or_else(|| given(CLIENT_REQUEST_ID)).map_or_else(Self::new, |id| Self(id.clone()))
    }

    fn new() -> Self {
        // Of chance enough for one process: to draw it for each request would cost more than most else that is done for one.
        // Without any, ids of two processes may be the same: then requests are harder to find in the log, and nothing else.
        static PROCESS: LazyLock<u64> = LazyLock::new(|| getrandom::u64().unwrap_or_default());
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = format!("{:016x}{:016x}", *PROCESS, NEXT.fetch_add(1, Ordering::Relaxed));
        // Hexadecimal digits are a value that a header may have.
        Self(HeaderValue::from_maybe_shared(Bytes::from(id)).unwrap_or(HeaderValue::from_static("-")))
    }

    pub(crate) fn as_str(&self) -> &str {
        // It is one, see `is_plain_word`.
        self.0.to_str().unwrap_or_default()
    }

    /// Puts the id into the headers of an answer.
    pub(crate) fn put(&self, headers: &mut HeaderMap) {
        headers.insert(SERVER_TRACE_ID, self.0.clone());
        headers.insert(REQUEST_ID, self.0.clone());
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A value that can go to a log and back to the client as it is.
fn is_plain_word(value: &HeaderValue) -> bool {
    let plain = |byte: &u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/' | b'=' | b'+')
    };
    (1..=REQUEST_ID_CHARS_MAX).contains(&value.len()) && value.as_bytes().iter().all(plain)
}

/// A call that came in and was let in.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    pub(crate) caller: Caller,
    #[cfg_attr(
        not(feature = "snapshot"),
        expect(dead_code, reason = "only changes of snapshots have keys here")
    )]
    pub(crate) key: Option<Result<IdempotencyKey, ApiError>>,
}

impl Incoming {
    pub(crate) fn new(caller: Caller, headers: &HeaderMap) -> Self {
        Self { caller, key: headers.get(IDEMPOTENCY_KEY).map(parse_key) }
    }

    #[cfg(feature = "snapshot")]
    /// The call for the engine. For a change: the key counts. Reads ignore it, right or wrong.
    pub(crate) fn into_change(self) -> Result<longrun::Call, ApiError> {
        let call = longrun::Call::by(self.caller);
        match self.key.transpose()? {
            Some(key) => Ok(call.key(key)),
            None => Ok(call),
        }
    }
}

fn parse_key(value: &HeaderValue) -> Result<IdempotencyKey, ApiError> {
    // Bytes that are no text are no key: nor is the empty text.
    let text = value.to_str().unwrap_or_default();
    IdempotencyKey::new(text).map_err(|invalid| ApiError::violation("idempotency_key", invalid.rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_a_plain_word_is_kept_and_others_are_not() {
        let with = |value: &[u8]| {
            let value = HeaderValue::from_bytes(value).unwrap();
            RequestId::of(&HeaderMap::from_iter([(REQUEST_ID, value)]))
        };
        assert_eq!(with(b"2f6a-1").as_str(), "2f6a-1");
        let long = "x".repeat(REQUEST_ID_CHARS_MAX);
        assert_eq!(with(long.as_bytes()).as_str(), long);
        for bad in [b"".as_slice(), b"a b", b"\xff", b"a\tb", (long + "x").as_bytes()] {
            let id = with(bad);
            assert_eq!(id.as_str().len(), 32, "{id}");
            assert_ne!(id, with(bad), "each its own");
        }
    }

    #[test]
    fn b21_a_key_that_is_none_counts_for_changes_only() {
        let caller = || Caller::new("c").unwrap();
        for bad in ["", &"x".repeat(129)] {
            let headers = HeaderMap::from_iter([(IDEMPOTENCY_KEY, bad.parse().unwrap())]);
            let call = Incoming::new(caller(), &headers);
            assert_eq!(call.into_change().unwrap_err().code(), longrun::Code::InvalidArgument);
        }
        let headers = HeaderMap::from_iter([(IDEMPOTENCY_KEY, "x".repeat(128).parse().unwrap())]);
        assert!(Incoming::new(caller(), &headers).into_change().unwrap().has_key());
        assert!(!Incoming::new(caller(), &HeaderMap::new()).into_change().unwrap().has_key());
    }
}
