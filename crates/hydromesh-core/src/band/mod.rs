//! What is usual of a partition: the range in which its rows, or the nulls of a column, lay before.
//!
//! Only partitions that come earlier in the data's own time are looked at, whenever they were computed. So computing an
//! old one again compares it with what was there before it, and a backfill says nothing about newer ones.

#![expect(clippy::cast_precision_loss, reason = "statistics of counts of rows, which stay far below 2^53")]

mod usual;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{Quality, QualityCheck, Season, Usual, UsualOf};
use crate::time::{Grain, Partition};

pub use usual::{LEAST_ALIKE, LEAST_IN_ALL, usual};

/// The most partitions that are looked back at: more make a job large and its band no better.
pub const MOST_HISTORY: u32 = 5_000;

/// What is known of one published partition.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Earlier {
    /// Its rows.
    pub rows: u64,
    /// Percentage of its rows in which a column is null, for columns with a rule about that.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nulls: BTreeMap<String, f64>,
}

/// Published partitions by key, in the order of the data's time. Publications of a whole table have keys that sort as
/// they followed each other.
pub type History = BTreeMap<String, Earlier>;

/// What is usual of a number, and from how much that is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// Earlier partitions that count.
    pub alike: u32,
    /// How many it takes.
    pub needed: u32,
    /// The range; `None` when there is too little to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usual: Option<Range>,
}

/// A range of usual numbers, ends included: rows, or a percentage of all rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// The least.
    pub low: f64,
    /// The middle one.
    pub middle: f64,
    /// The most.
    pub high: f64,
}

/// What kind of number is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number of rows.
    Rows,
    /// A share, 0 to 1, of so many rows.
    Share {
        /// Rows that it is a share of.
        rows: u64,
    },
}

impl Band {
    /// Returns whether a number is usual; `None` when that is unknown.
    #[must_use]
    pub fn holds(&self, measure: f64) -> Option<bool> {
        self.usual.map(|range| range.low <= measure && measure <= range.high)
    }

    /// Returns the range for people, to follow "wanted": `812 to 1210, as 8 like it before`.
    #[must_use]
    pub fn spoken(&self, percent: bool) -> String {
        let unit = if percent { " %" } else { "" };
        match self.usual {
            Some(Range { low, high, .. }) => {
                format!("{} to {}{unit}, as {} like it before", rounded(low), rounded(high), self.alike)
            }
            None => {
                format!(
                    "what is usual, which is unknown with {} of {} like it before",
                    self.alike, self.needed
                )
            }
        }
    }
}

/// Returns a number with at most two decimals: what is usual is not known more exactly.
fn rounded(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Returns the band of a rule for a partition (`None`: a whole table) of so many rows.
///
/// A percentage of nulls is compared as a share and told in percent.
#[must_use]
pub fn band(
    rule: &Usual,
    column: Option<&str>,
    partition: Option<Partition>,
    rows: u64,
    history: &History,
) -> Band {
    let grain = partition.map(Partition::grain);
    let most = usize::try_from(reach(rule, grain)).unwrap_or(usize::MAX);
    let season = |partition: Option<Partition>| match (rule.season, partition) {
        (Season::Week, Some(partition)) => match partition.grain() {
            Grain::Hour => partition.index().rem_euclid(24 * 7),
            Grain::Day => partition.index().rem_euclid(7),
            Grain::Week | Grain::Month => 0,
        },
        _ => 0,
    };
    let before: Box<dyn DoubleEndedIterator<Item = (&String, &Earlier)>> = match partition {
        Some(partition) => Box::new(history.range(..partition.to_string())),
        None => Box::new(history.iter()),
    };
    let numbers = before.rev().take(most).filter_map(|(key, earlier)| {
        let season = season(grain.and_then(|grain| Partition::parse(grain, key).ok()));
        let number = match rule.of {
            UsualOf::RowCount => earlier.rows as f64,
            // A partition without rows has no nulls to compare with.
            UsualOf::NullValues if earlier.rows == 0 => return None,
            UsualOf::NullValues => earlier.nulls.get(column?)? / 100.0,
        };
        Some((season, number))
    });
    let kind = match rule.of {
        UsualOf::RowCount => Kind::Rows,
        UsualOf::NullValues => Kind::Share { rows },
    };
    let mut band = usual(&numbers.collect::<Vec<_>>(), season(partition), kind, rule);
    if let (UsualOf::NullValues, Some(range)) = (rule.of, &mut band.usual) {
        *range = Range { low: range.low * 100.0, middle: range.middle * 100.0, high: range.high * 100.0 };
    }
    band
}

/// Returns how many partitions a rule looks back at: eight weeks of hours, twelve of days, half a year of weeks, two
/// years of months, thirty publications of a whole table, unless it says otherwise.
#[must_use]
pub fn reach(rule: &Usual, grain: Option<Grain>) -> u32 {
    let own = match grain {
        Some(Grain::Hour) => 8 * 7 * 24,
        Some(Grain::Day) => 12 * 7,
        Some(Grain::Week) => 26,
        Some(Grain::Month) => 24,
        None => 30,
    };
    rule.history.unwrap_or(own).min(MOST_HISTORY)
}

/// Returns how many partitions the rules of a contract look back at; 0 when none does.
#[must_use]
pub fn furthest(rules: &[Quality], grain: Option<Grain>) -> u32 {
    let reaches = rules.iter().filter_map(|rule| match &rule.check {
        QualityCheck::Usual(usual) => Some(reach(usual, grain)),
        _ => None,
    });
    reaches.max().unwrap_or(0)
}

/// Returns the median, which sorts the numbers; that of none is `NaN`.
fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    let half = numbers.len() / 2;
    match (numbers.get(half), numbers.len() % 2) {
        (None, _) => f64::NAN,
        (Some(middle), 1) => *middle,
        (Some(above), _) => f64::midpoint(numbers[half - 1], *above),
    }
}

#[cfg(test)]
mod tests;
