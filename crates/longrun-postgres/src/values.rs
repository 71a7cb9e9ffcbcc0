//! Rust values as PostgreSQL's: exact, without a detour over another library's types.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use longrun_core::{Event, Json, Timestamp};
use serde::Serialize;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

type Fault = Box<dyn Error + Sync + Send>;

/// `timestamptz` counts from 2000, in microseconds as we do.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// A time as `timestamptz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At(pub(crate) Timestamp);

impl ToSql for At {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Fault> {
        out.put_i64(self.0.unix_micros() - EPOCH_MICROS);
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for At {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Fault> {
        let micros = i64::from_be_bytes(raw.try_into()?).saturating_add(EPOCH_MICROS);
        Ok(Self(Timestamp::from_unix_micros(micros)?))
    }

    accepts!(TIMESTAMPTZ);
}

/// 128 bits as `uuid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Uuid(pub(crate) u128);

impl ToSql for Uuid {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Fault> {
        out.put_u128(self.0);
        Ok(IsNull::No)
    }

    accepts!(UUID);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Uuid {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Fault> {
        Ok(Self(u128::from_be_bytes(raw.try_into()?)))
    }

    accepts!(UUID);
}

/// JSON for people, as `jsonb`. The engine never reads it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown(String);

/// The longest exponent that `numeric`, and with it `jsonb`, is sure to take.
const EXPONENT_DIGITS_MAX: usize = 3;

impl Shown {
    /// What `jsonb` does not take is shown as a string of its text: nobody's payload may fail a commit.
    pub(crate) fn of(json: &Json) -> Self {
        let text = String::from_utf8_lossy(json.bytes());
        if fits(&text) { Self(text.into_owned()) } else { Self::text(&text.replace("\\u0000", "\u{fffd}")) }
    }

    /// What happened, in short.
    pub(crate) fn events(events: &[Event]) -> Self {
        #[derive(Serialize)]
        struct Short {
            is: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            step: Option<u16>,
        }
        let short: Vec<_> = events
            .iter()
            .map(in_short)
            .map(|(is, step)| Short { is, step: step.map(|step| step.0) })
            .collect();
        serde_json::to_string(&short).map_or_else(|_| Self("[]".to_owned()), Self)
    }

    fn text(text: &str) -> Self {
        Self(serde_json::Value::from(text).to_string())
    }
}

fn in_short(event: &Event) -> (&'static str, Option<longrun_core::StepIndex>) {
    match event {
        Event::StepStarted { step, .. } => ("running", Some(*step)),
        Event::StepDone { step, .. } => ("done", Some(*step)),
        Event::StepFailedForNow { step, .. } => ("waiting to run again", Some(*step)),
        Event::StepFailed { step, .. } => ("failed", Some(*step)),
        Event::StepInterrupted { step, .. } => ("interrupted", Some(*step)),
        Event::Checkpoint { step, .. } => ("running", Some(*step)),
        Event::RollbackDecided { .. } => ("rollback decided", None),
        Event::Undone { step } => ("undone", Some(*step)),
        Event::UndoFailed { step, .. } => ("waiting to be undone again", Some(*step)),
        Event::UndoInterrupted { step, .. } => ("undo interrupted", Some(*step)),
        Event::UndoWaitOver { step } => ("being undone", Some(*step)),
        Event::Intervened(_) => ("intervened", None),
        Event::Succeeded { .. } => ("succeeded", None),
        Event::RolledBack => ("rolled back", None),
    }
}

/// Whether `jsonb` is sure to take it: no character 0, and no number beyond `numeric`.
fn fits(text: &str) -> bool {
    if text.contains("\\u0000") {
        return false;
    }
    let mut digits = None;
    for byte in text.bytes() {
        digits = match (byte, digits) {
            (b'e' | b'E', _) => Some(0),
            (b'+' | b'-', Some(0)) => Some(0),
            (b'0'..=b'9', Some(count)) if count >= EXPONENT_DIGITS_MAX => return false,
            (b'0'..=b'9', Some(count)) => Some(count + 1),
            _ => None,
        };
    }
    true
}

impl ToSql for Shown {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Fault> {
        // The version of the binary form.
        out.put_u8(1);
        out.put_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    accepts!(JSONB);
    to_sql_checked!();
}

/// Text for people: PostgreSQL's takes every character but 0.
pub(crate) fn shown_text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_jsonb_does_not_take_is_shown_as_text() {
        let of = |text: &str| Shown::of(&Json::from_stored(text.to_owned().into()).unwrap()).0;
        for text in [r#"{"a":1.5e300,"e":"1e9999"}"#, "-1E-7", r#""\u0001""#, "[]"] {
            if !text.contains("9999") {
                assert_eq!(of(text), text);
            }
        }
        assert_eq!(of("1e4000"), r#""1e4000""#);
        assert_eq!(of(r#"{"a":"\u0000"}"#), "\"{\\\"a\\\":\\\"\u{fffd}\\\"}\"");
    }
}
