//! What a bad input must come to.

use longrun::Code;

use crate::client::{Refusal, Rest, grpc_refusal};

/// A refusal as it must be, over both faces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    pub(crate) code: Code,
    pub(crate) http: u16,
    pub(crate) reason: &'static str,
    /// A field that must be named.
    pub(crate) field: Option<&'static str>,
}

impl Want {
    pub(crate) const fn new(code: Code, http: u16, reason: &'static str) -> Self {
        Self { code, http, reason, field: None }
    }

    /// INVALID_ARGUMENT that names a field.
    pub(crate) const fn invalid(field: &'static str) -> Self {
        Self { code: Code::InvalidArgument, http: 400, reason: "INVALID_REQUEST", field: Some(field) }
    }

    pub(crate) const NOT_FOUND: Self = Self::new(Code::NotFound, 404, "NOT_FOUND");
    pub(crate) const TOO_LARGE: Self = Self::new(Code::ResourceExhausted, 413, "TOO_LARGE");

    /// Checks what came over gRPC. `hush` is what was sent and must not come back.
    #[track_caller]
    pub(crate) fn grpc<A: std::fmt::Debug>(&self, result: Result<A, tonic::Status>, hush: &str) -> Refusal {
        self.check(grpc_refusal(result), hush)
    }

    /// Checks what came over REST.
    #[track_caller]
    pub(crate) fn rest(&self, answer: &Rest, hush: &str) -> Refusal {
        let refusal = self.check(answer.refusal(), hush);
        assert_eq!(refusal.http, Some(self.http), "{refusal:?}");
        refusal
    }

    #[track_caller]
    pub(crate) fn check(&self, refusal: Refusal, hush: &str) -> Refusal {
        assert_eq!(
            (refusal.code, refusal.reason.as_str()),
            (i32::from(self.code.number()), self.reason),
            "{refusal:?}"
        );
        if let Some(field) = self.field {
            assert!(refusal.fields.iter().any(|found| found == field), "{field} is not named: {refusal:?}");
        }
        assert!(hush.is_empty() || !refusal.raw.contains(hush), "{hush} comes back: {refusal:?}");
        refusal
    }
}
