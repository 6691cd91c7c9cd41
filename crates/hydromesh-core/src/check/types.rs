//! Which types of a query a contract's types can hold without loss.

use crate::model::{Column, ColumnShape, LogicalType};

/// Whether a query's column fits a contract's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// Every value fits.
    Yes,
    /// It does not; the promised type in words.
    No(String),
}

/// Returns whether every value of a query's column fits the promised type.
///
/// An integer fits a number (both are exact up to 2^53), a date does not fit a timestamp, and text fits nothing else.
/// A decimal of the contract takes a decimal with at most as many digits on either side of the point.
#[must_use]
pub fn fits(column: &ColumnShape, promised: &Column) -> Fit {
    let no = || Fit::No(words(promised));
    // A column of only nulls has no type of its own and is cast when written.
    if column.physical == "Null" {
        return Fit::Yes;
    }
    let Some(found) = &column.logical else { return no() };
    let same = match (found, &promised.logical) {
        (LogicalType::Integer, LogicalType::Number) => true,
        (found, wanted) => found == wanted,
    };
    if !same {
        return no();
    }
    match (decimal(&column.physical), promised.physical.as_deref().and_then(decimal)) {
        (Some((precision, scale)), Some((most, wanted_scale)))
            if scale > wanted_scale
                || precision.saturating_sub(scale) > most.saturating_sub(wanted_scale) =>
        {
            no()
        }
        _ => Fit::Yes,
    }
}

fn words(column: &Column) -> String {
    let logical = match &column.logical {
        LogicalType::String => "string".to_owned(),
        LogicalType::Date => "date".to_owned(),
        LogicalType::Timestamp => "timestamp".to_owned(),
        LogicalType::Time => "time".to_owned(),
        LogicalType::Number => "number".to_owned(),
        LogicalType::Integer => "integer".to_owned(),
        LogicalType::Boolean => "boolean".to_owned(),
        LogicalType::Binary => "binary".to_owned(),
        LogicalType::Vector(dimensions) => format!("vector({dimensions})"),
    };
    match &column.physical {
        Some(physical) if decimal(physical).is_some() => format!("{logical} ({physical})"),
        _ => logical,
    }
}

/// Precision and scale of `DECIMAL(10,2)`, `numeric(10, 2)`, `Decimal128(10, 2)`.
pub fn decimal(text: &str) -> Option<(u32, u32)> {
    let (word, rest) = text.trim().split_once('(')?;
    let word = word.trim().to_lowercase();
    if !(word.starts_with("decimal") || word == "numeric") {
        return None;
    }
    let inner = rest.trim_end().strip_suffix(')')?;
    let (precision, scale) = inner.split_once(',').unwrap_or((inner, "0"));
    Some((precision.trim().parse().ok()?, scale.trim().parse().ok()?))
}
