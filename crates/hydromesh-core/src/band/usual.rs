//! The range in which a number usually lies, by median and median deviation.

use super::{Band, Kind, Range, median};
use crate::model::Usual;

/// Numbers of the same season that are needed before anything is called unusual.
pub const LEAST_ALIKE: usize = 4;
/// Numbers in all that are needed: the deviations of fewer say too little about the next one.
pub const LEAST_IN_ALL: usize = 12;

/// Makes the median of absolute deviations an estimate of a normal law's standard deviation, 1 / Φ⁻¹(3/4).
const NORMAL: f64 = 1.482_602_218_505_602;

/// Returns the range in which a number of a season usually lies, from earlier ones with their seasons.
///
/// The middle is the median of the same season. The spread is the median absolute deviation, each deviation being taken
/// from its own season's median: with four weeks of days that is 28 deviations and not four, which alone would
/// call one number in twenty unusual that is not. (Median and median deviation: Rousseeuw and Croux, "Alternatives to
/// the median absolute deviation", JASA 88, 1993; that a third of the history may be wrong without moving them far is
/// their point.)
///
/// Rows are compared as ln(1 + rows), so that half and double are equally far away; shares as they are. With `m` the
/// median of the `n` numbers of the season and `S` the spread, the range is `m ± h`, and `h` is the largest of
///
/// * `width · S · sqrt(1 + π / 2n)`: the scatter of the next number, and that of the median itself, whose variance is
///   π/2 times that of a mean. A deviation from the median of `n` numbers is too small by about sqrt(1 - 1/n) and
///   is divided by that;
/// * `width · c`: chance alone. For rows `c = exp(-m / 2)`, the relative deviation of a Poisson count; of
///   `r` rows the binomial `c = sqrt(p (1 - p) / r)` with `p = (m r + 2) / (r + 4)` (Agresti and Coull 1998);
/// * `slack`: ln(1 + slack / 100) for rows, slack / 100 for shares. What is smaller matters to nobody.
///
/// Seasons with fewer than [`LEAST_ALIKE`] numbers are left out. There is no range with fewer than that of the season
/// asked for, with fewer than [`LEAST_IN_ALL`] in all, or for a share of no rows.
#[must_use]
pub fn usual(earlier: &[(i64, f64)], season: i64, kind: Kind, rule: &Usual) -> Band {
    let mut seasons = std::collections::BTreeMap::<i64, Vec<f64>>::new();
    for (season, number) in earlier.iter().filter(|(_, number)| number.is_finite() && *number >= 0.0) {
        seasons.entry(*season).or_default().push(kind.scaled(*number));
    }
    let alike = seasons.get(&season).map_or(0, Vec::len);
    let mut middle = f64::NAN;
    let mut deviations = Vec::new();
    for (key, numbers) in &mut seasons {
        let n = numbers.len();
        if n < LEAST_ALIKE {
            continue;
        }
        let center = median(numbers);
        if *key == season {
            middle = center;
        }
        let unbiased = (n as f64 / (n as f64 - 1.0)).sqrt();
        deviations.extend(numbers.iter().map(|number| (number - center).abs() * unbiased));
    }
    let all = deviations.len();
    let band =
        |alike: usize, needed: usize, usual| Band { alike: count(alike), needed: count(needed), usual };
    if alike < LEAST_ALIKE && seasons.len() > 1 {
        return band(alike, LEAST_ALIKE, None);
    }
    if all < LEAST_IN_ALL || alike < LEAST_ALIKE {
        return band(all.max(alike), LEAST_IN_ALL, None);
    }
    let Some(chance) = kind.chance(middle) else {
        return band(alike, LEAST_ALIKE, None);
    };
    let spread = NORMAL * median(&mut deviations);
    let next = (1.0 + std::f64::consts::FRAC_PI_2 / alike as f64).sqrt();
    let half = (rule.width * spread * next).max(rule.width * chance).max(kind.slack(rule.slack));
    let (low, high) = kind.bounds(middle - half, middle + half);
    band(alike, LEAST_ALIKE, Some(Range { low, middle: kind.unscaled(middle), high }))
}

fn count(numbers: usize) -> u32 {
    u32::try_from(numbers).unwrap_or(u32::MAX)
}

impl Kind {
    fn scaled(self, number: f64) -> f64 {
        match self {
            Self::Rows => number.ln_1p(),
            Self::Share { .. } => number,
        }
    }

    fn unscaled(self, scaled: f64) -> f64 {
        match self {
            Self::Rows => scaled.exp_m1(),
            Self::Share { .. } => scaled,
        }
    }

    /// Returns the deviation that chance alone explains, in the scale of comparison; none for a share of no rows.
    fn chance(self, middle: f64) -> Option<f64> {
        match self {
            Self::Rows => Some((-middle / 2.0).exp()),
            Self::Share { rows: 0 } => None,
            Self::Share { rows } => {
                let rows = rows as f64;
                let share = middle.mul_add(rows, 2.0) / (rows + 4.0);
                Some((share * (1.0 - share) / rows).max(0.0).sqrt())
            }
        }
    }

    fn slack(self, percent: f64) -> f64 {
        match self {
            Self::Rows => (percent / 100.0).ln_1p(),
            Self::Share { .. } => percent / 100.0,
        }
    }

    /// Returns what a number may be: whole for rows, which are counted, and never less than nothing or more than all.
    fn bounds(self, low: f64, high: f64) -> (f64, f64) {
        match self {
            Self::Rows => (low.exp_m1().max(0.0).ceil(), high.exp_m1().floor()),
            Self::Share { .. } => (low.max(0.0), high.min(1.0)),
        }
    }
}
