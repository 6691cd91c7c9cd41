//! How the site says things: one word per state, numbers a reader can compare.

use chrono::{DateTime, Utc};

use super::model::{DayState, EpisodeState, Kind, ObjectiveKind, Status, Sync};

/// Returns the word for a status.
#[must_use]
pub fn status(status: Status) -> &'static str {
    match status {
        Status::Breaching => "Breaching",
        Status::Degraded => "Degraded",
        Status::Unknown => "Unknown",
        Status::Denied => "Denied",
        Status::Held => "Held",
        Status::Healthy => "Healthy",
    }
}

/// Returns the word for a kind of product.
#[must_use]
pub fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Source => "source",
        Kind::Batch => "batch",
        Kind::Stream => "stream",
        Kind::Feature => "features",
        Kind::Embedding => "embeddings",
        Kind::Training => "model",
    }
}

/// Returns the name of what an objective measures.
#[must_use]
pub fn objective(kind: ObjectiveKind) -> &'static str {
    match kind {
        ObjectiveKind::DataAge => "Data age",
        ObjectiveKind::Deadline => "Deadline",
        ObjectiveKind::Heartbeat => "Publication",
        ObjectiveKind::StreamLag => "Stream lag",
        ObjectiveKind::Completeness => "Completeness",
        ObjectiveKind::Quality => "Quality",
        ObjectiveKind::Availability => "Availability",
        ObjectiveKind::Latency => "Latency",
        ObjectiveKind::Drift => "Drift",
        ObjectiveKind::Coverage => "Coverage",
        ObjectiveKind::ModelAge => "Model age",
    }
}

/// Returns the word for a day.
#[must_use]
pub fn day(state: DayState) -> &'static str {
    match state {
        DayState::Bad => "bad",
        DayState::Degraded => "degraded",
        DayState::Unknown => "unknown",
        DayState::Good => "good",
        DayState::Excluded => "excluded",
    }
}

/// Returns the word for the state of an alert.
#[must_use]
pub fn episode(state: EpisodeState) -> &'static str {
    match state {
        EpisodeState::Firing => "Firing",
        EpisodeState::Acknowledged => "Acknowledged",
        EpisodeState::Held => "Held back",
        EpisodeState::Resolved => "Resolved",
    }
}

/// Returns how the running version relates to the commit, as what follows the word of the state.
#[must_use]
pub fn sync(sync: &Sync) -> String {
    match sync {
        Sync::InSync { commit } | Sync::Pending { commit } => format!("at {}", short(commit)),
        Sync::Held { commit, reason } | Sync::Broken { commit, reason } => {
            format!("at {}: {reason}", short(commit))
        }
        Sync::Denied { commit, rule, reason } => format!("at {} by {rule}: {reason}", short(commit)),
    }
}

/// Returns the first characters of a hash, enough to recognise it.
#[must_use]
pub fn short(hash: &str) -> String {
    hash.chars().take(8).collect()
}

/// Returns an instant to the minute with its zone, never relative to a reader's clock.
#[must_use]
pub fn instant(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M\u{a0}UTC").to_string()
}

/// Returns a fraction as a percentage with two decimals, cut and not rounded, so that 99.996 % never reads as 100 %.
#[must_use]
pub fn percent(fraction: f64) -> String {
    if !fraction.is_finite() {
        return "unknown".into();
    }
    // The nudge undoes the binary error of fractions such as 0.29 (28.999999999999996 when multiplied).
    let hundredths = (fraction * 10_000.0 + 1e-7).floor() / 100.0;
    let text = format!("{hundredths:.2}");
    format!("{}\u{202f}%", text.strip_suffix(".00").unwrap_or(&text))
}

/// Returns the range an indicator lies in; one number if both ends read the same.
#[must_use]
pub fn range(low: Option<f64>, high: Option<f64>) -> String {
    match (low, high) {
        (Some(low), Some(high)) => {
            let (low, high) = (percent(low), percent(high));
            if low == high { low } else { format!("{}–{high}", low.trim_end_matches("\u{202f}%")) }
        }
        (Some(low), None) => format!("at least {}", percent(low)),
        (None, Some(high)) => format!("at most {}", percent(high)),
        (None, None) => "collecting".into(),
    }
}

/// Returns a count with thousands separated by a narrow space.
#[must_use]
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(c);
    }
    out
}

/// Returns a measured value with about four significant digits, and powers of ten only where plain digits would not do.
#[must_use]
pub fn measure(value: f64) -> String {
    if !value.is_finite() {
        return "unknown".into();
    }
    let size = value.abs();
    if size == 0.0 {
        "0".into()
    } else if !(1e-4..1e7).contains(&size) {
        let text = format!("{value:.2e}");
        text.split_once('e')
            .map_or_else(|| text.clone(), |(digits, power)| format!("{}e{power}", trimmed(digits)))
    } else if size >= 1000.0 {
        format!("{value:.0}")
    } else if size >= 1.0 {
        trimmed(&format!("{value:.2}")).into()
    } else {
        trimmed(&format!("{value:.4}")).into()
    }
}

/// Drops zeros that end a decimal fraction.
fn trimmed(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

/// Returns a length of time in its two greatest units.
#[must_use]
pub fn duration(from: DateTime<Utc>, to: DateTime<Utc>) -> String {
    let seconds = (to - from).num_seconds().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, m) if seconds % 60 == 0 => format!("{m} min"),
        (0, 0, m) => format!("{m} min {} s", seconds % 60),
        (0, h, 0) => format!("{h} h"),
        (0, h, m) => format!("{h} h {m} min"),
        (d, 0, _) => format!("{d} d"),
        (d, h, _) => format!("{d} d {h} h"),
    }
}

/// Returns a noun with its count: "1 page", "2 pages".
#[must_use]
pub fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{} {}", self::count(count as u64), if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_cut_and_never_flatter() {
        assert_eq!(percent(0.99996), "99.99\u{202f}%");
        assert_eq!(percent(1.0), "100\u{202f}%");
        assert_eq!(percent(0.29), "29\u{202f}%");
        assert_eq!(percent(-0.125), "-12.50\u{202f}%");
        assert_eq!(range(Some(0.9921), Some(0.996)), "99.21–99.60\u{202f}%");
        assert_eq!(range(Some(1.0), Some(1.0)), "100\u{202f}%");
        assert_eq!(range(None, None), "collecting");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(count(12), "12");
        assert_eq!(measure(0.000_01), "1e-5");
        assert_eq!(measure(3.1e-9), "3.1e-9");
        assert_eq!(measure(100.0), "100");
        assert_eq!(measure(0.61), "0.61");
        assert_eq!(measure(0.8342), "0.8342");
        let at = |s: &str| s.parse::<DateTime<Utc>>().unwrap();
        assert_eq!(duration(at("2026-01-01T00:00:00Z"), at("2026-01-02T03:10:00Z")), "1 d 3 h");
        assert_eq!(duration(at("2026-01-01T00:00:00Z"), at("2026-01-01T00:01:05Z")), "1 min 5 s");
        assert_eq!(duration(at("2026-01-02T00:00:00Z"), at("2026-01-01T00:00:00Z")), "0 s");
    }
}
