//! How a program names the columns of a schema.
//!
//! Knows no offsets, and checks nothing before the end.

use super::{Column, ColumnKind, Schema, SchemaError};

/// Names columns one by one.
#[derive(Clone, Debug)]
pub struct SchemaBuilder {
    pub(super) columns: Vec<Column>,
    pub(super) key_limit: usize,
    pub(super) deadlines: bool,
}

impl SchemaBuilder {
    /// Adds a signed 64-bit number.
    #[must_use]
    pub fn int(self, name: &str) -> Self {
        self.column(name, ColumnKind::Int)
    }

    /// Adds a 64-bit float.
    #[must_use]
    pub fn float(self, name: &str) -> Self {
        self.column(name, ColumnKind::Float)
    }

    /// Adds a text of at most `limit` bytes.
    #[must_use]
    pub fn string(self, name: &str, limit: usize) -> Self {
        self.column(name, ColumnKind::Str(limit))
    }

    /// Adds at most `limit` bytes.
    #[must_use]
    pub fn bytes(self, name: &str, limit: usize) -> Self {
        self.column(name, ColumnKind::Bytes(limit))
    }

    /// Adds a counter: one word outside the row's copies.
    #[must_use]
    pub fn counter(self, name: &str) -> Self {
        self.column(name, ColumnKind::Counter)
    }

    /// Limits keys to so many bytes instead of [`DEFAULT_KEY_BYTES`](crate::DEFAULT_KEY_BYTES).
    #[must_use]
    pub fn key_limit(mut self, limit: usize) -> Self {
        self.key_limit = limit;
        self
    }

    /// Gives each row a deadline, one more word a row outside its copies, none at first: see
    /// [`Rows::touch`](crate::Rows::touch), [`Table::set_until`](crate::Table::set_until),
    /// [`Table::sweep`](crate::Table::sweep).
    #[must_use]
    pub fn expires(mut self) -> Self {
        self.deadlines = true;
        self
    }

    /// Checks what was named.
    ///
    /// # Errors
    /// See [`SchemaError`].
    pub fn build(self) -> Result<Schema, SchemaError> {
        Schema::checked(self.columns, self.key_limit, self.deadlines)
    }

    fn column(mut self, name: &str, kind: ColumnKind) -> Self {
        self.columns.push(Column { name: name.to_owned(), kind });
        self
    }
}
