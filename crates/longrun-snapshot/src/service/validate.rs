//! The rules for single values, and the list of what breaks them.

use std::collections::BTreeMap;
use std::fmt;

use longrun::core::limits::{
    DESCRIPTION_CHARS_MAX, ID_CHARS_MAX, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, PAGE_TOKEN_CHARS_MAX,
    STATUS_MESSAGE_BYTES_MAX,
};
use longrun::{Code, PageRequest, ResourceId, Status};

/// Characters in a filter. Source: the API.
pub const FILTER_CHARS_MAX: usize = 1000;
/// Characters in an order. Source: the API.
pub const ORDER_BY_CHARS_MAX: usize = 100;
/// Labels of a snapshot. Source: the API.
pub const LABELS_MAX: usize = 64;
/// Violations that are kept of one request; those beyond are only counted. Labels within their number cannot reach it
/// (two for each), so this bounds what an absurd request can make us remember.
pub const VIOLATIONS_MAX: usize = 256;

/// Characters in a name, in the key of a label, in its value. Source: the API.
const WORD_CHARS_MAX: usize = 63;
/// Bytes of a caller's text, escaped, that a violation repeats: enough for every key that has only its characters wrong.
const ECHO_BYTES_MAX: usize = 80;
/// Bytes left free in a message for the words that count what did not fit.
const MORE_BYTES: usize = 40;

// Labels within their number cannot crowd other fields out of the list.
const _: () = assert!(2 * LABELS_MAX + 16 <= VIOLATIONS_MAX);

/// Which characters names and labels are made of. Everything else is the same in every profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    name_chars_min: usize,
    /// Allowed inside a name, besides letters and digits.
    name_signs: &'static str,
    /// Allowed in the keys (after the first character) and values of labels, besides letters and digits.
    label_signs: &'static str,
}

impl Default for Limits {
    fn default() -> Self {
        Self::documented()
    }
}

impl Limits {
    /// The documented contract: names `|[a-z][-a-z0-9]{1,61}[a-z0-9]`, keys `[a-z][-_0-9a-z]*`, values `[-_0-9a-z]*`.
    pub const fn documented() -> Self {
        Self { name_chars_min: 3, name_signs: "-", label_signs: "-_" }
    }

    /// What the public service has come to take: names `|[a-z]([-_a-z0-9]{0,61}[a-z0-9])?`, and `.`, `/`, `\` and `@` in
    /// labels. For those who bring such names with them.
    pub const fn today() -> Self {
        Self { name_chars_min: 1, name_signs: "-_", label_signs: "-_./\\@" }
    }

    /// Whether a text that is not empty may be a name.
    pub fn is_name(self, text: &str) -> bool {
        // Every character that fits is one byte long, so that bytes are counted for characters.
        (self.name_chars_min..=WORD_CHARS_MAX).contains(&text.len())
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.ends_with(is_alphanumeric)
            && text.chars().all(|next| is_alphanumeric(next) || self.name_signs.contains(next))
    }

    /// What a name must be, unless it is empty.
    pub(super) fn name_rule(self) -> String {
        let (min, signs) = (self.name_chars_min, spelled(self.name_signs));
        format!(
            "{min} to {WORD_CHARS_MAX} of a-z, 0-9, {signs}, beginning with a letter, ending with a letter or digit"
        )
    }

    fn is_label_key(self, text: &str) -> bool {
        text.starts_with(|first: char| first.is_ascii_lowercase()) && self.is_label_value(text)
    }

    fn is_label_value(self, text: &str) -> bool {
        text.len() <= WORD_CHARS_MAX
            && text.chars().all(|next| is_alphanumeric(next) || self.label_signs.contains(next))
    }
}

const fn is_alphanumeric(character: char) -> bool {
    character.is_ascii_lowercase() || character.is_ascii_digit()
}

/// The signs for people: `'-', '_'`.
fn spelled(signs: &str) -> String {
    let quoted: Vec<_> = signs.chars().map(|sign| format!("'{sign}'")).collect();
    quoted.join(", ")
}

/// A field of a request, and the rule that its value breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct Violation {
    /// The path of the field, such as `name`, `update_mask[2]` or `labels["Key"]`. A key is a stranger's text: it is
    /// escaped to plain ASCII and, if long, cut.
    pub field: String,
    /// The rule. Never repeats the value.
    pub rule: String,
}

/// Everything that is wrong with a request. Never empty.
///
/// Its text lists as many as fit the message of a [`Status`], whole, and counts the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violations {
    listed: Vec<Violation>,
    unlisted: usize,
}

impl Violations {
    /// The violations, in the order of the request's fields; the first [`VIOLATIONS_MAX`] of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Violation> {
        self.listed.iter()
    }

    /// How many there are, with those that were only counted.
    pub const fn total(&self) -> usize {
        self.listed.len() + self.unlisted
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut written, mut shown) = (0, 0);
        for violation in &self.listed {
            let lead = if shown == 0 { "invalid request: " } else { "; " };
            let item = format!("{lead}{violation}");
            written += item.len();
            if written > STATUS_MESSAGE_BYTES_MAX - MORE_BYTES {
                break;
            }
            f.write_str(&item)?;
            shown += 1;
        }
        match self.total() - shown {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl std::error::Error for Violations {}

impl From<Violations> for Status {
    fn from(violations: Violations) -> Self {
        Self::new(Code::InvalidArgument, violations.to_string())
    }
}

/// Goes through a request field by field and notes what is wrong.
#[derive(Debug)]
pub(super) struct Checker {
    limits: Limits,
    listed: Vec<Violation>,
    unlisted: usize,
}

impl Checker {
    pub(super) const fn new(limits: Limits) -> Self {
        Self { limits, listed: Vec::new(), unlisted: 0 }
    }

    pub(super) const fn limits(&self) -> Limits {
        self.limits
    }

    /// `value` if nothing was noted.
    pub(super) fn finish<T>(self, value: T) -> Result<T, Violations> {
        let Self { listed, unlisted, .. } = self;
        if listed.is_empty() { Ok(value) } else { Err(Violations { listed, unlisted }) }
    }

    /// Notes that `field` breaks `rule`.
    pub(super) fn note(&mut self, field: impl Into<String>, rule: impl Into<String>) {
        if self.listed.len() < VIOLATIONS_MAX {
            self.listed.push(Violation { field: field.into(), rule: rule.into() });
        } else {
            self.unlisted += 1;
        }
    }

    /// An id that must be there. One of characters that no id has is a mistake, or worse, and not merely not found.
    pub(super) fn id(&mut self, field: &str, id: &str) {
        if id.is_empty() {
            self.note(field, "must not be empty");
        } else if self.length(field, id, ID_CHARS_MAX) && ResourceId::new(id).is_err() {
            self.note(field, "must be letters, digits, '-' or '_'");
        }
    }

    /// Whether a text is at most so long; counts no further than it has to.
    pub(super) fn length(&mut self, field: &str, text: &str, chars_max: usize) -> bool {
        let fits = text.chars().nth(chars_max).is_none();
        if !fits {
            self.note(field, format!("must be at most {chars_max} characters"));
        }
        fits
    }

    pub(super) fn name(&mut self, name: &str) {
        if !name.is_empty() && !self.limits.is_name(name) {
            self.note("name", format!("must be empty, or {}", self.limits.name_rule()));
        }
    }

    pub(super) fn description(&mut self, description: &str) {
        self.length("description", description, DESCRIPTION_CHARS_MAX);
    }

    pub(super) fn labels(&mut self, labels: &BTreeMap<String, String>) {
        if labels.len() > LABELS_MAX {
            self.note("labels", format!("must be at most {LABELS_MAX}"));
        }
        let signs = spelled(self.limits.label_signs);
        for (key, value) in labels {
            if !self.limits.is_label_key(key) {
                let rule = "the key must be 1 to 63 of a-z, 0-9, ";
                self.note(label_field(key), format!("{rule}{signs}, beginning with a letter"));
            }
            if !self.limits.is_label_value(value) {
                self.note(label_field(key), format!("the value must be at most 63 of a-z, 0-9, {signs}"));
            }
        }
    }

    /// The page that is asked for; the default size filled in.
    pub(super) fn page(&mut self, size: i64, token: &str) -> PageRequest {
        let size = match usize::try_from(size) {
            Ok(0) => PAGE_SIZE_DEFAULT,
            Ok(size) if size <= PAGE_SIZE_MAX => size,
            Ok(_) | Err(_) => {
                self.note("page_size", format!("must be 0 to {PAGE_SIZE_MAX}"));
                PAGE_SIZE_DEFAULT
            }
        };
        let fits = self.length("page_token", token, PAGE_TOKEN_CHARS_MAX);
        PageRequest { size, token: if fits { token.to_owned() } else { String::new() } }
    }
}

/// `labels["KEY"]`: the key escaped to plain ASCII and, if that is long, cut.
fn label_field(key: &str) -> String {
    let mut field = "labels[\"".to_owned();
    let bytes_max = field.len() + ECHO_BYTES_MAX;
    for character in key.chars() {
        let escaped = character.escape_default();
        if field.len() + escaped.len() > bytes_max {
            field.push_str("...");
            break;
        }
        field.extend(escaped);
    }
    field.push_str("\"]");
    field
}
