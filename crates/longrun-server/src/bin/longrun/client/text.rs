//! Text: what a server says, made fit for a terminal, and what people write.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use longrun_api::well_known::Timestamp;

/// Whether a character may change what a terminal shows beside itself: control characters, and those that turn the
/// direction of writing.
fn is_active(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

/// Text that does nothing to a terminal but stand in it, in one line.
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_active) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_active(character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// JSON that does nothing to a terminal but stand in it. Outside of strings it has line ends only, as the serializer writes
/// no other control character there.
pub(super) fn escape_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        if character != '\n' && is_active(character) {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                // Writing into a String cannot fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// At most so many characters, the last one an ellipsis if some were cut.
pub(super) fn shorten(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        None => Cow::Borrowed(text),
        Some(_) => {
            let kept: String = text.chars().take(most.saturating_sub(1)).collect();
            Cow::Owned(kept + "…")
        }
    }
}

/// Bytes for people.
pub(super) fn bytes(bytes: i64) -> String {
    u64::try_from(bytes).map_or_else(|_| "?".to_owned(), |bytes| indicatif::BinaryBytes(bytes).to_string())
}

/// An instant in RFC 3339; empty if there is none.
pub(super) fn time(instant: Option<Timestamp>) -> String {
    let Some(instant) = instant else { return String::new() };
    match serde_json::to_value(instant) {
        Ok(serde_json::Value::String(text)) => text,
        _ => "?".to_owned(),
    }
}

/// An instant to the second, for tables.
pub(super) fn second(instant: Option<Timestamp>) -> String {
    time(instant.map(|instant| Timestamp { nanos: 0, ..instant }))
}

/// A share of a whole in percent, rounded down.
pub(super) fn percent(done: i64, total: i64) -> Option<i64> {
    let share = i128::from(done.clamp(0, total.max(0))) * 100;
    share.checked_div(i128::from(total)).and_then(|percent| i64::try_from(percent).ok())
}

/// Reads a duration: a whole number and one of `ms`, `s`, `m`, `h`; seconds if there is none. Not zero.
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    const SHAPE: &str = "must be a whole number above 0 and a unit, such as 500ms, 30s, 5m or 2h";
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| SHAPE)?;
    let millis = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(SHAPE),
    };
    number.checked_mul(millis).filter(|millis| *millis > 0).map(Duration::from_millis).ok_or(SHAPE)
}

/// A duration for people, as [`duration`] reads it.
pub(super) fn span(duration: Duration) -> String {
    match duration.as_millis() {
        millis if millis % 1000 != 0 => format!("{millis}ms"),
        millis => format!("{}s", millis / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_a_cursor_or_turns_the_writing_is_left() {
        let hostile = "a\u{1b}[2Jb\rc\nd\u{9b}e\u{7f}f\u{202e}g\u{2066}h";
        assert_eq!(escape(hostile), r"a\u{1b}[2Jb\rc\nd\u{9b}e\u{7f}f\u{202e}g\u{2066}h");
        assert!(matches!(escape("ordinary, имя, 名前"), Cow::Borrowed(_)));
    }

    #[test]
    fn escaped_json_says_the_same() {
        let value = serde_json::json!({ "a": "\u{1b}[2J\u{9b}\u{202e}\u{7f}\n", "b": ["имя", "😀"] });
        let json = serde_json::to_string_pretty(&value).unwrap();
        let escaped = escape_json(&json);
        assert!(!escaped.contains(|c: char| c != '\n' && is_active(c)), "{escaped:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }

    #[test]
    fn durations_are_read_and_shown() {
        for (text, millis) in
            [("500ms", 500), ("30s", 30_000), ("30", 30_000), ("5m", 300_000), ("2h", 7_200_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "0", "0s", "s", "1d", "-1s", "1.5s", "1 s", "99999999999999999999s", "18446744073709551615h"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(span(Duration::from_millis(1500)), "1500ms");
        assert_eq!(span(Duration::from_secs(90)), "90s");
    }

    #[test]
    fn sizes_times_and_shares() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(256 << 20), "256.00 MiB");
        assert_eq!(bytes(-1), "?");
        let instant = Timestamp { seconds: 1_535_567_475, nanos: 311_000_000 };
        assert_eq!(time(Some(instant)), "2018-08-29T18:31:15.311Z");
        assert_eq!(second(Some(instant)), "2018-08-29T18:31:15Z");
        assert_eq!(time(None), "");
        assert_eq!(time(Some(Timestamp { seconds: i64::MAX, nanos: 0 })), "?");
        assert_eq!((percent(1, 3), percent(5, 0), percent(9, 3)), (Some(33), None, Some(100)));
        assert_eq!(percent(i64::MAX, i64::MAX), Some(100));
        assert_eq!(percent(-1, -1), Some(0));
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        assert_eq!(shorten("имя", 3), "имя");
        assert_eq!(shorten("имена", 3), "им…");
    }
}
