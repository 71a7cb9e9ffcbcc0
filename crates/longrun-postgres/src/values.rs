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

/// The longest exponent, and the most digits of a fraction, that `numeric`, and with it `jsonb`, is sure to take beside each other.
const EXPONENT_DIGITS_MAX: usize = 3;
const FRACTION_DIGITS_MAX: usize = 10_000;
/// The deepest nesting: what the server takes depends on its stack.
const DEPTH_MAX: usize = 256;

impl Shown {
    /// What `jsonb` does not take is shown as a string of its text: nobody's payload may fail a commit.
    pub(crate) fn of(json: &Json) -> Self {
        let text = String::from_utf8_lossy(json.bytes());
        if fits(&text) { Self(text.into_owned()) } else { Self::text(&shown_text(&text)) }
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

/// Whether `jsonb` is sure to take it: JSON that is not nested too deeply, with no character 0, no half of a surrogate pair, and no
/// number beyond `numeric`.
fn fits(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() && parts_fit(text.as_bytes())
}

fn parts_fit(mut rest: &[u8]) -> bool {
    let mut depth = 0_usize;
    while let Some((first, after)) = rest.split_first() {
        match first {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return false;
        }
        let end = match first {
            b'"' => string_end(after),
            b'-' | b'0'..=b'9' => number_end(after),
            _ => Some(after),
        };
        let Some(end) = end else { return false };
        rest = end;
    }
    true
}

/// What follows a string, if that fits.
fn string_end(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        rest = match rest {
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'u', after @ ..] => {
                let (unit, after) = code_unit(after)?;
                match unit {
                    0 | 0xDC00..=0xDFFF => return None,
                    0xD800..=0xDBFF => {
                        let (low, after) = code_unit(after.strip_prefix(b"\\u")?)?;
                        (0xDC00..=0xDFFF).contains(&low).then_some(after)?
                    }
                    _ => after,
                }
            }
            [b'\\', _, after @ ..] | [_, after @ ..] => after,
            [] => return None,
        };
    }
}

fn code_unit(text: &[u8]) -> Option<(u16, &[u8])> {
    let (digits, after) = text.split_at_checked(4)?;
    let unit = u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    Some((unit, after))
}

/// What follows a number, if that fits.
fn number_end(rest: &[u8]) -> Option<&[u8]> {
    let len = rest.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    let (number, after) = rest.split_at(len.unwrap_or(rest.len()));
    let mut parts = number.split(|byte| matches!(byte, b'e' | b'E'));
    let mantissa = parts.next().unwrap_or_default();
    let exponent = parts.next().unwrap_or_default().iter().filter(|byte| byte.is_ascii_digit()).count();
    let fraction = mantissa.iter().skip_while(|byte| **byte != b'.').count();
    (exponent <= EXPONENT_DIGITS_MAX && fraction <= FRACTION_DIGITS_MAX).then_some(after)
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

    fn shown(text: &str) -> String {
        Shown::of(&Json::from_stored(text.to_owned().into()).unwrap()).0
    }

    #[test]
    fn what_jsonb_takes_is_shown_as_it_is() {
        for text in [
            r#"{"a":1.5e300,"b":-1E-7,"c":[]}"#,
            r#""\u0001""#,
            r#""\\u0000""#,
            r#""\ud83d\ude00""#,
            r#"{"release2026":"3e12345-0000","e9999":"1e9999"}"#,
            " [ 1 , 2.50 ] ",
        ] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn what_jsonb_does_not_take_is_shown_as_text() {
        let long = format!("0.{}", "1".repeat(20_000));
        let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
        for text in [
            "1e4000",
            "-1E+0400",
            r#"{"a":"\u0000"}"#,
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud800\ud800""#,
            r#""\ud800x""#,
            &long,
            &deep,
            "not JSON",
            "",
        ] {
            assert_eq!(shown(text), serde_json::Value::from(text).to_string());
        }
        assert_eq!(shown("\0"), "\"\u{fffd}\"");
    }
}
