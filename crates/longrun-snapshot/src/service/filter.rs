//! Filters on the names of snapshots.

use std::collections::BTreeSet;
use std::fmt;

use super::text::{Cursor, is_white};
use super::validate::Limits;

/// Which snapshots a list is to hold, said by their names.
///
/// ```text
/// filter    = [ condition { "AND" condition } ]
/// condition = "name" ( "=" | "!=" ) value
///           | "name" [ "NOT" ] "IN" "(" value { "," value } ")"
/// value     = "..." | '...' | bare word        in quotes, \" \' and \\ are a quote, a quote and a backslash
/// ```
///
/// White space may stand between any two of these and must stand between two words. Keywords may be in either case. A
/// value must be a possible name, so that nobody can ask for snapshots without one. A text without conditions is the
/// filter that lets everything pass.
///
/// However many conditions a filter has, what it lets pass is either a set of names or everything but a set of names;
/// that is how it is kept, so that a look at one name is one search. Filters that let pass the same are equal, and
/// print the same text, which parses to the same filter again; it can be longer than the text that was parsed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Filter(Passing);

/// The names of one condition, or of all of them together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Passing {
    Only(BTreeSet<String>),
    AllBut(BTreeSet<String>),
}

/// No snapshot has these two names. Any two names would do, but the text of a filter must not depend on the day.
const NEVER: &str = r#"name = "nothing" AND name != "nothing""#;

impl Default for Filter {
    fn default() -> Self {
        Self(Passing::AllBut(BTreeSet::new()))
    }
}

impl Filter {
    /// Reads a filter: each character is looked at once, then the names are put in order. How long the text may be is a
    /// rule of the request that carries it.
    pub fn parse(text: &str, limits: Limits) -> Result<Self, FilterError> {
        let mut parser = Parser { cursor: Cursor::new(text), limits };
        parser.filter()
    }

    /// Whether a snapshot of this name passes.
    pub fn matches(&self, name: &str) -> bool {
        match &self.0 {
            Passing::Only(names) => names.contains(name),
            Passing::AllBut(names) => !names.contains(name),
        }
    }

    /// Whether every snapshot passes.
    pub fn is_everything(&self) -> bool {
        matches!(&self.0, Passing::AllBut(names) if names.is_empty())
    }

    /// Whether no snapshot passes, as with `name = abc AND name = abd`.
    pub fn is_nothing(&self) -> bool {
        matches!(&self.0, Passing::Only(names) if names.is_empty())
    }

    /// The name, if only snapshots of one name pass: whoever keeps them by name need not look at others.
    pub fn exact_name(&self) -> Option<&str> {
        match &self.0 {
            Passing::Only(names) if names.len() == 1 => names.first().map(String::as_str),
            Passing::Only(_) | Passing::AllBut(_) => None,
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (names, one, many) = match &self.0 {
            Passing::Only(names) if names.is_empty() => return f.write_str(NEVER),
            Passing::Only(names) => (names, "name = ", "name IN "),
            Passing::AllBut(names) => (names, "name != ", "name NOT IN "),
        };
        // Names have no character that would have to be escaped.
        let quoted: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
        match quoted.as_slice() {
            [] => Ok(()),
            [name] => write!(f, "{one}{name}"),
            names => write!(f, "{many}({})", names.join(", ")),
        }
    }
}

/// Why a text is no filter, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {position}: {problem}")]
pub struct FilterError {
    /// Where, in characters from the beginning, the first being 1. One more than there are characters if the text ends
    /// too soon.
    pub position: usize,
    /// Why.
    pub problem: FilterProblem,
}

/// Why a text is no filter. Nothing of the text is repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterProblem {
    /// A condition has to begin here, with the one field.
    #[error("expected the field name")]
    ExpectedField,
    /// No operator, or an unknown one.
    #[error("expected =, !=, IN or NOT IN")]
    ExpectedOperator,
    /// `NOT` without `IN`.
    #[error("expected IN")]
    ExpectedIn,
    /// A list has to begin here.
    #[error("expected ( and a list of values")]
    ExpectedList,
    /// A list without values.
    #[error("expected a value: the list is empty")]
    EmptyList,
    /// Something else than a value, or nothing.
    #[error("expected a value")]
    ExpectedValue,
    /// A quote that is opened here and not closed.
    #[error("expected a closing quote for the one here")]
    UnclosedQuote,
    /// A backslash before something else.
    #[error("expected \\\", \\' or \\\\")]
    UnknownEscape,
    /// A value that no snapshot can have for a name.
    #[error("expected a name: {rule}")]
    NotAName {
        /// What a name must be.
        rule: String,
    },
    /// A list has to go on or to end here.
    #[error("expected , or )")]
    ExpectedCommaOrEnd,
    /// Something after a condition.
    #[error("expected AND or the end")]
    ExpectedAndOrEnd,
}

impl FilterProblem {
    const fn at(self, position: usize) -> FilterError {
        FilterError { position, problem: self }
    }
}

struct Parser<'a> {
    cursor: Cursor<'a>,
    limits: Limits,
}

impl Parser<'_> {
    fn filter(&mut self) -> Result<Filter, FilterError> {
        self.cursor.skip_white();
        if self.cursor.at_end() {
            return Ok(Filter::default());
        }
        let (mut only, mut but) = (None, BTreeSet::new());
        loop {
            // A condition costs no more than its own names, however many there were before it.
            match self.condition()? {
                Passing::AllBut(names) => but.extend(names),
                Passing::Only(mut names) => {
                    if let Some(before) = &only {
                        names.retain(|name| BTreeSet::contains(before, name));
                    }
                    only = Some(names);
                }
            }
            if !self.and()? {
                break;
            }
        }
        Ok(Filter(match only {
            None => Passing::AllBut(but),
            Some(mut names) => {
                names.retain(|name| !but.contains(name));
                Passing::Only(names)
            }
        }))
    }

    /// Whether another condition follows. If not, nothing follows.
    fn and(&mut self) -> Result<bool, FilterError> {
        self.cursor.skip_white();
        if self.cursor.at_end() {
            return Ok(false);
        }
        self.keyword("AND", FilterProblem::ExpectedAndOrEnd)?;
        Ok(true)
    }

    fn condition(&mut self) -> Result<Passing, FilterError> {
        self.cursor.skip_white();
        let position = self.cursor.position();
        if self.cursor.word() != "name" {
            return Err(FilterProblem::ExpectedField.at(position));
        }
        self.cursor.skip_white();
        let position = self.cursor.position();
        if self.cursor.eat('=') {
            return Ok(Passing::Only(self.one_value()?));
        }
        if self.cursor.eat('!') {
            if !self.cursor.eat('=') {
                return Err(FilterProblem::ExpectedOperator.at(position));
            }
            return Ok(Passing::AllBut(self.one_value()?));
        }
        let word = self.cursor.word();
        if word.eq_ignore_ascii_case("IN") {
            return Ok(Passing::Only(self.list()?));
        }
        if word.eq_ignore_ascii_case("NOT") {
            self.cursor.skip_white();
            self.keyword("IN", FilterProblem::ExpectedIn)?;
            return Ok(Passing::AllBut(self.list()?));
        }
        Err(FilterProblem::ExpectedOperator.at(position))
    }

    fn keyword(&mut self, keyword: &str, problem: FilterProblem) -> Result<(), FilterError> {
        let position = self.cursor.position();
        if self.cursor.word().eq_ignore_ascii_case(keyword) { Ok(()) } else { Err(problem.at(position)) }
    }

    fn list(&mut self) -> Result<BTreeSet<String>, FilterError> {
        self.cursor.skip_white();
        if !self.cursor.eat('(') {
            return Err(FilterProblem::ExpectedList.at(self.cursor.position()));
        }
        self.cursor.skip_white();
        if self.cursor.peek() == Some(')') {
            return Err(FilterProblem::EmptyList.at(self.cursor.position()));
        }
        let mut names = self.one_value()?;
        loop {
            self.cursor.skip_white();
            if self.cursor.eat(')') {
                return Ok(names);
            }
            if !self.cursor.eat(',') {
                return Err(FilterProblem::ExpectedCommaOrEnd.at(self.cursor.position()));
            }
            names.insert(self.value()?);
        }
    }

    fn one_value(&mut self) -> Result<BTreeSet<String>, FilterError> {
        Ok(BTreeSet::from([self.value()?]))
    }

    fn value(&mut self) -> Result<String, FilterError> {
        self.cursor.skip_white();
        let position = self.cursor.position();
        let value = match self.cursor.peek() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote)?,
            Some(_) | None => self.cursor.run(is_bare).to_owned(),
        };
        // Nothing between quotes is a value too, though no name; nothing at all is none.
        if self.cursor.position() == position {
            return Err(FilterProblem::ExpectedValue.at(position));
        }
        if !self.limits.is_name(&value) {
            return Err(FilterProblem::NotAName { rule: self.limits.name_rule() }.at(position));
        }
        Ok(value)
    }

    /// What is between two quotes, the first of which is next.
    fn quoted(&mut self, quote: char) -> Result<String, FilterError> {
        let opened = self.cursor.position();
        self.cursor.next();
        let mut value = String::new();
        loop {
            value.push_str(self.cursor.run(|next| next != quote && next != '\\'));
            let position = self.cursor.position();
            match self.cursor.next() {
                None => return Err(FilterProblem::UnclosedQuote.at(opened)),
                Some('\\') => match self.cursor.next() {
                    Some(escaped @ ('"' | '\'' | '\\')) => value.push(escaped),
                    Some(_) => return Err(FilterProblem::UnknownEscape.at(position)),
                    None => return Err(FilterProblem::UnclosedQuote.at(opened)),
                },
                Some(_) => return Ok(value),
            }
        }
    }
}

/// What a value without quotes is made of: everything that does not mean something else.
const fn is_bare(character: char) -> bool {
    !(is_white(character) || matches!(character, '"' | '\'' | '(' | ')' | ',' | '=' | '!'))
}
