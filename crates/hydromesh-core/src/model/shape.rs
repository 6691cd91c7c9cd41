//! The shape of a query as plain data: what it yields and what each part of it rests on.
//!
//! Engines describe queries offline, against contract schemas, and hand the description in; core never plans SQL.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::LogicalType;

/// A column of one of the query's input tables.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SourceColumn {
    /// The input table, which is an input port's name.
    pub table: String,
    /// The column.
    pub column: String,
}

/// How a source column reaches an output column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Influence {
    /// Its value, or a function of its value, is in the output.
    Direct,
    /// It decides which rows or groups there are: filter, join, grouping, order, window.
    Indirect,
}

/// One output column of a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnShape {
    /// Its name.
    pub name: String,
    /// Its type, when a contract can express it.
    pub logical: Option<LogicalType>,
    /// The engine's spelling of the type, for messages.
    pub physical: String,
    /// It may be null.
    pub nullable: bool,
    /// The expression over source columns, inlined, independent of formatting, aliases and CTE names.
    pub expression: String,
    /// Source columns whose values reach it.
    pub direct: BTreeSet<SourceColumn>,
    /// All direct paths pass a masking function (a digest, or an aggregate that does not return a value of its input).
    pub masked: bool,
}

/// The shape of one query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryShape {
    /// Output columns in order.
    pub columns: Vec<ColumnShape>,
    /// What decides the rows (filters, joins, groups, limits), canonical, without the output expressions.
    pub rows: String,
    /// Source columns that decide the rows.
    pub indirect: BTreeSet<SourceColumn>,
    /// Input tables read, and how often each is scanned.
    pub tables: BTreeMap<String, u32>,
    /// Calls of functions whose result differs between two runs (`now`, `random`), as written.
    pub volatile: Vec<String>,
}
