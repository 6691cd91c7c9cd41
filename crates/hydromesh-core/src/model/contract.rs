//! What an output port promises: schema, quality, service levels, classification. Source: ODCS v3.2.0.

use serde::{Deserialize, Serialize};

use super::program::Program;
use super::read::length;
use crate::time::Span;

/// One data contract; one schema object per port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contract {
    /// The contract's id; by convention the port's address.
    pub id: String,
    /// SemVer.
    pub version: String,
    /// `proposed`, `draft`, `active`, `deprecated`, `retired`.
    pub status: String,
    /// For people.
    pub description: String,
    /// Columns in order.
    pub columns: Vec<Column>,
    /// Quality rules in order, of the object and of its columns.
    pub quality: Vec<Quality>,
    /// Service level promises in order.
    pub slas: Vec<Sla>,
    /// The repository path that it was read from.
    pub file: String,
}

impl Contract {
    /// Returns how old its data may be at most, if it promises that.
    #[must_use]
    pub fn data_age(&self) -> Option<Span> {
        let ages = self.slas.iter().filter_map(|sla| match &sla.kind {
            SlaKind::DataAge(most) => Some(*most),
            _ => None,
        });
        ages.min()
    }

    /// Returns how long its data is kept, if it says (`retention`).
    #[must_use]
    pub fn retention(&self) -> Option<Span> {
        let kept = self.slas.iter().filter_map(|sla| match &sla.kind {
            SlaKind::Other { property, value } if property == "retention" => length(value, None),
            _ => None,
        });
        // What has to be kept for anybody's sake is kept.
        kept.max()
    }
}

/// One column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its logical type.
    pub logical: LogicalType,
    /// The physical type as written, if any; `DECIMAL(p,s)` refines a number.
    pub physical: Option<String>,
    /// NOT NULL.
    pub required: bool,
    /// No duplicates.
    pub unique: bool,
    /// Part of the primary key.
    pub primary_key: bool,
    /// Its classification; `None` when the contract does not say.
    pub classification: Option<Classification>,
    /// For people.
    pub description: String,
    /// Line in the contract's file, 1-based; 0 when inferred.
    pub line: u32,
}

impl Column {
    /// Returns whether anybody may see its values. A column without a classification is not known to be harmless.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.classification == Some(Classification::Public)
    }
}

/// How sensitive a column is, in rising order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Classification {
    /// Anyone may see it.
    Public,
    /// Anyone in the company.
    Internal,
    /// Those who need it. Also spelled `restricted` or `sensitive`.
    Confidential,
    /// Identifies a person.
    Pii,
}

/// ODCS logical types.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogicalType {
    /// UTF-8 text.
    String,
    /// Calendar day.
    Date,
    /// Instant, UTC, microseconds.
    Timestamp,
    /// Time of day.
    Time,
    /// IEEE double, or a decimal when the physical type says so.
    Number,
    /// 64-bit signed integer.
    Integer,
    /// True or false.
    Boolean,
    /// Bytes; not of ODCS, used for encoded tile states.
    Binary,
    /// Embedding of so many dimensions.
    Vector(u32),
}

/// One quality rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Stable within the contract; generated from metric and column when the author gives none.
    pub id: String,
    /// The column that it is about, if one.
    pub column: Option<String>,
    /// What is measured.
    pub check: QualityCheck,
    /// What the measure must satisfy.
    pub threshold: Threshold,
    /// Blocks the publication, or only tells.
    pub severity: QualitySeverity,
    /// Line in the contract's file.
    pub line: u32,
}

/// What a quality rule measures. The measure is a number of rows, or a percentage of all rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QualityCheck {
    /// Rows whose column is null.
    NullValues,
    /// Rows whose column is null or one of these.
    MissingValues(Vec<String>),
    /// Rows whose column is neither null nor one of the values nor matches the pattern.
    InvalidValues {
        /// Allowed values, when given.
        valid: Vec<String>,
        /// Regular expression that a value must match, when given.
        pattern: Option<String>,
    },
    /// Rows beyond the first of each value (of the column, or of these columns together).
    DuplicateValues(Vec<String>),
    /// Number of rows.
    RowCount,
    /// One SELECT that yields one number; `{object}` and `{property}` are replaced.
    Sql(String),
    /// A program of the product's folder, which is shown the rows and says a number.
    Command(Program),
    /// A number that lies where it usually does. The threshold has no operands: they follow from what was published.
    Usual(Usual),
}

/// What is compared with its own history, and how narrowly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Usual {
    /// What is compared.
    pub of: UsualOf,
    /// With which partitions.
    pub season: Season,
    /// How many partitions are looked back at; `None` leaves it to the length of a partition.
    pub history: Option<u32>,
    /// Half the width of what is usual, in standard deviations.
    pub width: f64,
    /// What is never unusual: so many percent more or fewer rows, so many percentage points of nulls.
    pub slack: f64,
}

impl Usual {
    /// Half the width, unless the rule says otherwise. Of four weeks of days without any oddity one in 300 lies
    /// outside; of heavy tails (Student's t with five degrees) one in 100.
    pub const WIDTH: f64 = 5.0;
    /// The slack of rows, percent, unless the rule says otherwise.
    pub const SLACK_OF_ROWS: f64 = 25.0;
    /// The slack of nulls, percentage points, unless the rule says otherwise; the same as for drift.
    pub const SLACK_OF_NULLS: f64 = 5.0;

    /// Returns the rule with nothing said but what is compared.
    #[must_use]
    pub const fn new(of: UsualOf) -> Self {
        let slack = match of {
            UsualOf::RowCount => Self::SLACK_OF_ROWS,
            UsualOf::NullValues => Self::SLACK_OF_NULLS,
        };
        Self { of, season: Season::Week, history: None, width: Self::WIDTH, slack }
    }
}

/// What is compared with its own history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsualOf {
    /// The number of rows.
    RowCount,
    /// The percentage of rows whose column is null.
    NullValues,
}

/// Which partitions are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Season {
    /// Days of the same weekday, hours of the same hour of the week; longer partitions all are.
    Week,
    /// All are.
    None,
}

/// A quality rule's operator and operands; inclusive where ODCS is ambiguous.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// `mustBe`, `mustBeLessThan`, ... as in ODCS.
    pub operator: String,
    /// One operand, or two for the `Between` operators.
    pub operands: Vec<f64>,
    /// Operands are percentages of all rows.
    pub percent: bool,
}

impl Threshold {
    /// Returns whether a measure (in rows, or in percent when `percent`) satisfies the threshold.
    #[must_use]
    #[expect(clippy::float_cmp, reason = "`mustBe` is meant exactly; measures in rows are whole")]
    pub fn holds(&self, measure: f64) -> bool {
        let at = |index: usize| self.operands.get(index).copied().unwrap_or(f64::NAN);
        match self.operator.as_str() {
            "mustBe" => measure == at(0),
            "mustNotBe" => measure != at(0),
            "mustBeGreaterThan" => measure > at(0),
            "mustBeGreaterOrEqualTo" => measure >= at(0),
            "mustBeLessThan" => measure < at(0),
            "mustBeLessOrEqualTo" => measure <= at(0),
            "mustBeBetween" => measure >= at(0) && measure <= at(1),
            "mustNotBeBetween" => measure < at(0) || measure > at(1),
            _ => false,
        }
    }

    /// Returns the threshold for people: `at most 1 %`.
    #[must_use]
    pub fn spoken(&self) -> String {
        let at = |index: usize| self.operands.get(index).map_or_else(|| "?".to_owned(), f64::to_string);
        let (one, two) = (at(0), at(1));
        let mut text = match self.operator.as_str() {
            "mustBe" => format!("exactly {one}"),
            "mustNotBe" => format!("anything but {one}"),
            "mustBeGreaterThan" => format!("more than {one}"),
            "mustBeGreaterOrEqualTo" => format!("at least {one}"),
            "mustBeLessThan" => format!("less than {one}"),
            "mustBeLessOrEqualTo" => format!("at most {one}"),
            "mustBeBetween" => format!("from {one} to {two}"),
            "mustNotBeBetween" => format!("below {one} or above {two}"),
            "usual" => "what is usual".to_owned(),
            other => format!("{other} {one}"),
        };
        if self.percent && self.operator != "usual" {
            text.push_str(" %");
        }
        text
    }
}

/// What a failed quality rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QualitySeverity {
    /// The partition is not published.
    Error,
    /// The partition is published and the owner hears of it.
    Warning,
}

/// One service level promise that Hydromesh evaluates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sla {
    /// Stable within the contract: `id`, else property and element.
    pub id: String,
    /// What is promised.
    pub kind: SlaKind,
    /// Share of time (or of partitions) that it must hold, 0 to 1.
    pub target: f64,
    /// Line in the contract's file.
    pub line: u32,
}

/// What a service level promises.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlaKind {
    /// The newest published data is at most this old (ODCS `latency`, also spelled `freshness`).
    DataAge(Span),
    /// Something is published at least this often (ODCS `frequency`).
    Heartbeat(Span),
    /// At least this percentage of quality rules passes (`qualityPassRate`).
    QualityPassRate(f64),
    /// Kept, shown, not evaluated: property and value as written.
    Other {
        /// The ODCS property.
        property: String,
        /// Value with unit, as text.
        value: String,
    },
}
