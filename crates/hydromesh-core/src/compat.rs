//! Two versions of a contract: what changed, and for whom it breaks.
//!
//! A contract permits a set of data sets. *Forward* is safe when readers of the old version can live with what the new
//! one permits; *backward* is safe when data of the old version is permitted by the new one, so that history need not
//! be made again.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::check::decimal;
use crate::model::{
    Classification, Column, Contract, LogicalType, Quality, QualitySeverity, Sla, SlaKind, Threshold,
};

/// What kind of change it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It was not there before.
    Added,
    /// It is gone.
    Removed,
    /// It permits less than before, or promises more.
    Tightened,
    /// It permits more than before, or promises less.
    Loosened,
    /// It is another thing now.
    Replaced,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Change {
    /// The column that it is about; `None` for the contract as a whole.
    pub column: Option<String>,
    /// What changed: `column`, `type`, `required`, `unique`, `primary_key`, `classification`, `quality ID`, `sla ID`,
    /// `version`, `status`.
    pub field: String,
    /// How.
    pub kind: ChangeKind,
    /// What it was, for people.
    pub old: String,
    /// What it is, for people.
    pub new: String,
    /// Readers of the old version may break.
    pub breaks_forward: bool,
    /// Data of the old version may violate the new one.
    pub breaks_backward: bool,
    /// Someone responsible for privacy must agree, whatever else holds.
    pub needs_approval: bool,
}

/// Returns what changed between two versions of a contract, in order of column and field.
#[must_use]
pub fn compare(old: &Contract, new: &Contract) -> Vec<Change> {
    let mut diff = Diff { changes: Vec::new() };
    diff.columns(old, new);
    diff.keys(old, new);
    diff.quality(old, new);
    diff.slas(old, new);
    if old.status != new.status && new.status == "retired" {
        diff.add(None, "status", ChangeKind::Replaced, &old.status, &new.status, Breaks::Forward);
    }
    diff.version(old, new);
    diff.changes.sort();
    diff.changes
}

/// The part of a version that must rise for a change, as SemVer has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bump {
    /// Nothing that a reader could notice.
    Patch,
    /// Something new.
    Minor,
    /// Readers may break.
    Major,
}

/// Returns the smallest rise of the version that is honest about these changes.
#[must_use]
pub fn bump(changes: &[Change]) -> Bump {
    let of = |change: &Change| {
        if change.field == "version" {
            Bump::Patch
        } else if change.breaks_forward {
            Bump::Major
        } else if change.breaks_backward
            || change.kind != ChangeKind::Replaced && change.field != "classification"
        {
            Bump::Minor
        } else {
            Bump::Patch
        }
    };
    changes.iter().map(of).max().unwrap_or(Bump::Patch)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Breaks {
    Nothing,
    Forward,
    Backward,
    Both,
}

struct Diff {
    changes: Vec<Change>,
}

impl Diff {
    fn add(
        &mut self,
        column: Option<&str>,
        field: &str,
        kind: ChangeKind,
        old: &str,
        new: &str,
        breaks: Breaks,
    ) {
        self.changes.push(Change {
            column: column.map(str::to_owned),
            field: field.to_owned(),
            kind,
            old: old.to_owned(),
            new: new.to_owned(),
            breaks_forward: matches!(breaks, Breaks::Forward | Breaks::Both),
            breaks_backward: matches!(breaks, Breaks::Backward | Breaks::Both),
            needs_approval: false,
        });
    }

    fn columns(&mut self, old: &Contract, new: &Contract) {
        let find = |contract: &Contract, name: &str| contract.columns.iter().position(|it| it.name == name);
        for column in &old.columns {
            match find(new, &column.name) {
                None => {
                    let old = spell(column);
                    self.add(Some(&column.name), "column", ChangeKind::Removed, &old, "", Breaks::Forward);
                }
                Some(index) => self.column(column, &new.columns[index]),
            }
        }
        for column in new.columns.iter().filter(|it| find(old, &it.name).is_none()) {
            // History holds no value for it.
            let breaks = if column.required { Breaks::Backward } else { Breaks::Nothing };
            self.add(Some(&column.name), "column", ChangeKind::Added, "", &spell(column), breaks);
        }
    }

    fn column(&mut self, old: &Column, new: &Column) {
        let name = Some(old.name.as_str());
        let (from, to) = (spell(old), spell(new));
        match type_order(old, new) {
            Some(Ordering::Equal) => {}
            Some(Ordering::Less) => self.add(name, "type", ChangeKind::Loosened, &from, &to, Breaks::Forward),
            Some(Ordering::Greater) => {
                self.add(name, "type", ChangeKind::Tightened, &from, &to, Breaks::Backward);
            }
            None => self.add(name, "type", ChangeKind::Replaced, &from, &to, Breaks::Both),
        }
        for (field, old, new) in
            [("required", old.required, new.required), ("unique", old.unique, new.unique)]
        {
            match (old, new) {
                (false, true) => {
                    self.add(name, field, ChangeKind::Tightened, "false", "true", Breaks::Backward);
                }
                (true, false) => {
                    self.add(name, field, ChangeKind::Loosened, "true", "false", Breaks::Forward);
                }
                _ => {}
            }
        }
        if old.classification != new.classification {
            let (from, to) = (label(old.classification), label(new.classification));
            if new.classification > old.classification {
                self.add(name, "classification", ChangeKind::Tightened, from, to, Breaks::Forward);
            } else {
                self.add(name, "classification", ChangeKind::Loosened, from, to, Breaks::Nothing);
                if let Some(change) = self.changes.last_mut() {
                    change.needs_approval = true;
                }
            }
        }
    }

    fn keys(&mut self, old: &Contract, new: &Contract) {
        let key = |contract: &Contract| {
            let mut names: Vec<&str> =
                contract.columns.iter().filter(|it| it.primary_key).map(|it| it.name.as_str()).collect();
            names.sort_unstable();
            names.join(", ")
        };
        let (from, to) = (key(old), key(new));
        if from != to {
            self.add(None, "primary_key", ChangeKind::Replaced, &from, &to, Breaks::Both);
        }
    }

    fn quality(&mut self, old: &Contract, new: &Contract) {
        // What the schema implies is compared as the schema's own change.
        let stated = |contract: &Contract| -> BTreeMap<String, Quality> {
            let implied =
                |id: &str| id.starts_with("required_") || id.starts_with("unique_") || id == "primary_key";
            contract
                .quality
                .iter()
                .filter(|it| !implied(&it.id))
                .map(|it| (it.id.clone(), it.clone()))
                .collect()
        };
        let (old, new) = (stated(old), stated(new));
        for (id, rule) in &old {
            let field = format!("quality {id}");
            let column = rule.column.as_deref();
            let from = threshold(&rule.threshold);
            let Some(other) = new.get(id) else {
                self.add(column, &field, ChangeKind::Removed, &from, "", Breaks::Forward);
                continue;
            };
            let to = threshold(&other.threshold);
            if rule.check != other.check || rule.column != other.column {
                self.add(column, &field, ChangeKind::Replaced, &from, &to, Breaks::Both);
            } else if rule.threshold != other.threshold {
                let (kind, breaks) = match stricter(&rule.threshold, &other.threshold) {
                    Some(true) => (ChangeKind::Tightened, Breaks::Backward),
                    Some(false) => (ChangeKind::Loosened, Breaks::Forward),
                    None => (ChangeKind::Replaced, Breaks::Both),
                };
                self.add(column, &field, kind, &from, &to, breaks);
            }
            match (rule.severity, other.severity) {
                (QualitySeverity::Error, QualitySeverity::Warning) => {
                    self.add(column, &field, ChangeKind::Loosened, "error", "warning", Breaks::Forward);
                }
                (QualitySeverity::Warning, QualitySeverity::Error) => {
                    self.add(column, &field, ChangeKind::Tightened, "warning", "error", Breaks::Backward);
                }
                _ => {}
            }
        }
        for (id, rule) in new.iter().filter(|(id, _)| !old.contains_key(*id)) {
            let to = threshold(&rule.threshold);
            self.add(
                rule.column.as_deref(),
                &format!("quality {id}"),
                ChangeKind::Added,
                "",
                &to,
                Breaks::Backward,
            );
        }
    }

    #[expect(clippy::float_cmp, reason = "a target stated otherwise is another one, however near")]
    fn slas(&mut self, old: &Contract, new: &Contract) {
        let find = |contract: &Contract, id: &str| contract.slas.iter().find(|it| it.id == id).cloned();
        for sla in &old.slas {
            let field = format!("sla {}", sla.id);
            let Some(other) = find(new, &sla.id) else {
                self.add(None, &field, ChangeKind::Removed, &promise(sla), "", Breaks::Forward);
                continue;
            };
            if sla.kind == other.kind && sla.target == other.target {
                continue;
            }
            let (kind, breaks) = match weaker(sla, &other) {
                Some(false) => (ChangeKind::Tightened, Breaks::Nothing),
                Some(true) => (ChangeKind::Loosened, Breaks::Forward),
                None => (ChangeKind::Replaced, Breaks::Forward),
            };
            self.add(None, &field, kind, &promise(sla), &promise(&other), breaks);
        }
        for sla in new.slas.iter().filter(|it| find(old, &it.id).is_none()) {
            self.add(None, &format!("sla {}", sla.id), ChangeKind::Added, "", &promise(sla), Breaks::Nothing);
        }
    }

    /// A version that rises less than its changes ask for misleads readers; one that falls misleads everyone.
    fn version(&mut self, old: &Contract, new: &Contract) {
        let (Some(from), Some(to)) = (semver(&old.version), semver(&new.version)) else { return };
        let wanted = bump(&self.changes);
        let enough = match wanted {
            _ if self.changes.is_empty() => to >= from,
            Bump::Patch => to >= from,
            Bump::Minor => to[0] > from[0] || to[0] == from[0] && to[1] > from[1],
            // Before 1.0.0 the second number plays the first one's part.
            Bump::Major if from[0] == 0 => to[0] > 0 || to[1] > from[1],
            Bump::Major => to[0] > from[0],
        };
        if !enough {
            self.add(None, "version", ChangeKind::Replaced, &old.version, &new.version, Breaks::Nothing);
        }
    }
}

/// Returns how the sets of values of two types compare: `Less` when the new one is wider, `None` when neither holds the
/// other.
fn type_order(old: &Column, new: &Column) -> Option<Ordering> {
    use LogicalType as T;
    let decimals = (old.physical.as_deref().and_then(decimal), new.physical.as_deref().and_then(decimal));
    match (&old.logical, &new.logical) {
        (T::Number, T::Number) => match decimals {
            (Some(from), Some(to)) => decimal_order(from, to),
            (None, None) => Some(Ordering::Equal),
            // A decimal and a binary float hold different numbers.
            _ => None,
        },
        // 64-bit integers need 19 digits before the point; a double holds them only up to 2^53.
        (T::Integer, T::Number) => match decimals.1 {
            Some((precision, scale)) if precision.saturating_sub(scale) >= 19 => Some(Ordering::Less),
            _ => None,
        },
        (T::Number, T::Integer) => match decimals.0 {
            Some((precision, scale)) if precision.saturating_sub(scale) >= 19 => Some(Ordering::Greater),
            _ => None,
        },
        (T::String, T::String) => match (length(old), length(new)) {
            (None, None) => Some(Ordering::Equal),
            (Some(_), None) => Some(Ordering::Less),
            (None, Some(_)) => Some(Ordering::Greater),
            (Some(from), Some(to)) => Some(from.cmp(&to)),
        },
        (from, to) if from == to => Some(Ordering::Equal),
        _ => None,
    }
}

fn decimal_order(from: (u32, u32), to: (u32, u32)) -> Option<Ordering> {
    let before = |(precision, scale): (u32, u32)| precision.saturating_sub(scale);
    match (before(from).cmp(&before(to)), from.1.cmp(&to.1)) {
        (Ordering::Equal, Ordering::Equal) => Some(Ordering::Equal),
        (Ordering::Less | Ordering::Equal, Ordering::Less | Ordering::Equal) => Some(Ordering::Less),
        (Ordering::Greater | Ordering::Equal, Ordering::Greater | Ordering::Equal) => Some(Ordering::Greater),
        _ => None,
    }
}

/// The longest text that `varchar(10)` holds; unbounded types have none.
fn length(column: &Column) -> Option<u32> {
    let (word, rest) = column.physical.as_deref()?.split_once('(')?;
    let word = word.trim().to_lowercase();
    if !(word.ends_with("char") || word == "character varying") {
        return None;
    }
    rest.trim_end().strip_suffix(')')?.trim().parse().ok()
}

fn spell(column: &Column) -> String {
    let logical = match &column.logical {
        LogicalType::Vector(dimensions) => format!("vector({dimensions})"),
        other => format!("{other:?}").to_lowercase(),
    };
    column.physical.as_ref().map_or(logical.clone(), |physical| format!("{logical} ({physical})"))
}

fn label(classification: Option<Classification>) -> &'static str {
    match classification {
        None => "none",
        Some(Classification::Public) => "public",
        Some(Classification::Internal) => "internal",
        Some(Classification::Confidential) => "confidential",
        Some(Classification::Pii) => "pii",
    }
}

fn threshold(threshold: &Threshold) -> String {
    let operands: Vec<String> = threshold.operands.iter().map(ToString::to_string).collect();
    let unit = if threshold.percent { " percent" } else { "" };
    format!("{} {}{unit}", threshold.operator, operands.join(" and "))
}

/// Returns whether the new threshold permits a part of what the old one did (`Some(true)`), the reverse, or neither.
#[expect(clippy::float_cmp, reason = "a bound stated otherwise is another one, however near")]
fn stricter(old: &Threshold, new: &Threshold) -> Option<bool> {
    if old.percent != new.percent {
        return None;
    }
    let (from, to) = (range(old)?, range(new)?);
    let inside = |inner: &Range, outer: &Range| {
        (inner.low > outer.low || inner.low == outer.low && (outer.closed.0 || !inner.closed.0))
            && (inner.high < outer.high || inner.high == outer.high && (outer.closed.1 || !inner.closed.1))
    };
    match (inside(&to, &from), inside(&from, &to)) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    }
}

struct Range {
    low: f64,
    high: f64,
    closed: (bool, bool),
}

fn range(threshold: &Threshold) -> Option<Range> {
    let first = *threshold.operands.first()?;
    let (low, high, closed) = match threshold.operator.as_str() {
        "mustBe" => (first, first, (true, true)),
        "mustBeGreaterThan" => (first, f64::INFINITY, (false, false)),
        "mustBeGreaterOrEqualTo" => (first, f64::INFINITY, (true, false)),
        "mustBeLessThan" => (f64::NEG_INFINITY, first, (false, false)),
        "mustBeLessOrEqualTo" => (f64::NEG_INFINITY, first, (false, true)),
        "mustBeBetween" => (first, *threshold.operands.get(1)?, (true, true)),
        _ => return None,
    };
    Some(Range { low, high, closed })
}

fn promise(sla: &Sla) -> String {
    let what = match &sla.kind {
        SlaKind::DataAge(span) => format!("data at most {span} old"),
        SlaKind::Heartbeat(span) => format!("published every {span}"),
        SlaKind::QualityPassRate(percent) => format!("{percent} percent of the rules pass"),
        SlaKind::Other { property, value } => format!("{property} {value}"),
    };
    format!("{what} ({} of the time)", sla.target)
}

/// Returns whether the new promise is weaker, or `None` when they cannot be compared.
fn weaker(old: &Sla, new: &Sla) -> Option<bool> {
    let kind = match (&old.kind, &new.kind) {
        (SlaKind::DataAge(from), SlaKind::DataAge(to))
        | (SlaKind::Heartbeat(from), SlaKind::Heartbeat(to)) => to.cmp(from),
        (SlaKind::QualityPassRate(from), SlaKind::QualityPassRate(to)) => from.partial_cmp(to)?,
        (from, to) if from == to => Ordering::Equal,
        _ => return None,
    };
    let target = old.target.partial_cmp(&new.target)?;
    match (kind, target) {
        (Ordering::Greater, Ordering::Greater | Ordering::Equal) | (Ordering::Equal, Ordering::Greater) => {
            Some(true)
        }
        (Ordering::Less, Ordering::Less | Ordering::Equal) | (Ordering::Equal, Ordering::Less) => Some(false),
        _ => None,
    }
}

fn semver(text: &str) -> Option<[u64; 3]> {
    let core = text.trim_start_matches('v').split(['-', '+']).next()?;
    let mut parts = core.split('.').map(|part| part.parse::<u64>().ok());
    let version = [parts.next()??, parts.next().unwrap_or(Some(0))?, parts.next().unwrap_or(Some(0))?];
    parts.next().is_none().then_some(version)
}

#[cfg(test)]
#[path = "compat_tests.rs"]
mod tests;
