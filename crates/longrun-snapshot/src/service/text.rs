//! Reading a short text from left to right, each character once.

/// A place in a text. It only moves forward, so whatever is built on it takes time linear in the text.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a str,
    position: usize,
}

impl<'a> Cursor<'a> {
    /// Before the first character.
    pub(super) const fn new(text: &'a str) -> Self {
        Self { rest: text, position: 1 }
    }

    /// The number of the next character, counted from 1; at the end, one more than there are characters.
    pub(super) const fn position(&self) -> usize {
        self.position
    }

    /// The next character, left where it is.
    pub(super) fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// The next character.
    pub(super) fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next()?;
        self.rest = chars.as_str();
        self.position += 1;
        Some(next)
    }

    /// Goes past `wanted` if it is next.
    pub(super) fn eat(&mut self, wanted: char) -> bool {
        let there = self.peek() == Some(wanted);
        if there {
            self.next();
        }
        there
    }

    /// The longest run of characters that fit; may be empty.
    pub(super) fn run(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|next| !fits(next)).unwrap_or(self.rest.len());
        let (run, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.position += run.chars().count();
        run
    }

    /// A run of letters, digits and `_`, as fields and keywords are made of.
    pub(super) fn word(&mut self) -> &'a str {
        self.run(|next| next.is_ascii_alphanumeric() || next == '_')
    }

    /// Goes past white space.
    pub(super) fn skip_white(&mut self) {
        self.run(is_white);
    }

    /// Whether nothing is left.
    pub(super) const fn at_end(&self) -> bool {
        self.rest.is_empty()
    }
}

/// White space between the words of a filter or an order.
pub(super) const fn is_white(character: char) -> bool {
    character.is_ascii_whitespace()
}
