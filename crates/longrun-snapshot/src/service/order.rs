//! The order of a list of snapshots.

use std::fmt;

use longrun::ResourceOrder;

use super::text::Cursor;

/// What snapshots are ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OrderField {
    /// Their id.
    #[default]
    Id,
    /// Their name.
    Name,
    /// The time of their creation.
    CreatedAt,
}

impl OrderField {
    /// The field of a name, in the spelling of JSON or of protocol buffers.
    fn of(text: &str) -> Option<Self> {
        match text {
            "id" => Some(Self::Id),
            "name" => Some(Self::Name),
            "createdAt" | "created_at" => Some(Self::CreatedAt),
            _ => None,
        }
    }

    /// The name, as JSON spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Name => "name",
            Self::CreatedAt => "createdAt",
        }
    }
}

impl From<OrderField> for ResourceOrder {
    fn from(field: OrderField) -> Self {
        match field {
            OrderField::Id => Self::Id,
            OrderField::Name => Self::Name,
            OrderField::CreatedAt => Self::Creation,
        }
    }
}

/// The order of a list: one field, `asc` or `desc`. By default `id asc`.
///
/// ```text
/// order = [ ( "id" | "name" | "createdAt" | "created_at" ) [ "asc" | "desc" ] ]
/// ```
///
/// Fields are case-sensitive, directions are not. It prints as text that means the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OrderBy {
    /// By what.
    pub field: OrderField,
    /// Whether the greatest comes first.
    pub descending: bool,
}

impl OrderBy {
    /// Reads an order, in time linear in the text.
    pub fn parse(text: &str) -> Result<Self, OrderByError> {
        let mut cursor = Cursor::new(text);
        cursor.skip_white();
        if cursor.at_end() {
            return Ok(Self::default());
        }
        let position = cursor.position();
        let field = OrderField::of(cursor.word()).ok_or(OrderByProblem::UnknownField.at(position))?;
        cursor.skip_white();
        let position = cursor.position();
        let direction = cursor.word();
        let descending = direction.eq_ignore_ascii_case("desc");
        if !(descending || direction.eq_ignore_ascii_case("asc") || cursor.at_end() && direction.is_empty()) {
            return Err(OrderByProblem::ExpectedDirection.at(position));
        }
        cursor.skip_white();
        if !cursor.at_end() {
            return Err(OrderByProblem::TrailingText.at(cursor.position()));
        }
        Ok(Self { field, descending })
    }
}

impl fmt::Display for OrderBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field.as_str(), if self.descending { "desc" } else { "asc" })
    }
}

/// Why a text is no order, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {position}: {problem}")]
pub struct OrderByError {
    /// Where, in characters from the beginning, the first being 1.
    pub position: usize,
    /// Why.
    pub problem: OrderByProblem,
}

/// Why a text is no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderByProblem {
    /// Another field than the three, or none.
    #[error("expected one of the fields id, name, createdAt")]
    UnknownField,
    /// Something else than a direction after the field, such as a second field.
    #[error("expected asc, desc or the end: one field can order a list")]
    ExpectedDirection,
    /// Something after the direction.
    #[error("expected the end: one field can order a list")]
    TrailingText,
}

impl OrderByProblem {
    const fn at(self, position: usize) -> OrderByError {
        OrderByError { position, problem: self }
    }
}
