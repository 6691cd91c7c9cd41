//! Five-field crontab schedules in an IANA zone.

use std::fmt;
use std::hash::{Hash, Hasher};

use chrono::DateTime;
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds, Year};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Millis;

/// A schedule: minute, hour, day of month, month, day of week (0 and 7 are Sunday), in a zone.
///
/// When both day fields are restricted, a day that matches either one counts, as in every crontab.
/// Where the clock skips the named time the job runs right after the gap, and where it repeats it the job
/// runs once, unless its minute or hour is a wildcard or step.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Cron {
    text: String,
    zone: Tz,
    schedule: croner::Cron,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    cron: String,
    timezone: String,
}

/// Why a schedule cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CronError {
    /// The number of fields is not five.
    #[error("`{text}` has {found} fields: expected five (minute, hour, day of month, month, day of week)")]
    FieldCount {
        /// What was written.
        text: String,
        /// How many fields it has.
        found: usize,
    },
    /// A field does not follow the crontab syntax.
    #[error("`{text}` is not a crontab schedule: {reason}")]
    Malformed {
        /// What was written.
        text: String,
        /// The reason in the words of the parser.
        reason: String,
    },
    /// No date can match, such as 30 February.
    #[error("`{text}` never comes due")]
    Never {
        /// What was written.
        text: String,
    },
    /// The zone is not in the IANA database.
    #[error("`{name}` is not an IANA time zone: expected a name such as `Europe/Zurich` or `UTC`")]
    UnknownZone {
        /// What was written.
        name: String,
    },
}

impl Cron {
    /// Returns the schedule a crontab line and a zone name describe.
    ///
    /// # Errors
    /// See [`CronError`]. A schedule that can never come due is refused here, so that asking for the next time
    /// only fails at the end of the calendar.
    pub fn parse(text: &str, zone_name: &str) -> Result<Self, CronError> {
        let zone =
            zone_name.parse::<Tz>().map_err(|_| CronError::UnknownZone { name: zone_name.to_owned() })?;
        let found = text.split_whitespace().count();
        if found != 5 {
            return Err(CronError::FieldCount { text: text.to_owned(), found });
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let schedule = parser
            .parse(text)
            .map_err(|error| CronError::Malformed { text: text.to_owned(), reason: error.to_string() })?;
        let cron = Self { text: text.split_whitespace().collect::<Vec<_>>().join(" "), zone, schedule };
        // 2024 is a leap year: every date that exists at all lies within eight years of it.
        let probe = 1_704_067_200_000;
        if cron.next_after(probe).is_none() {
            return Err(CronError::Never { text: text.to_owned() });
        }
        Ok(cron)
    }

    /// Returns the zone.
    pub const fn zone(&self) -> Tz {
        self.zone
    }

    /// Returns the five fields.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the first due instant strictly after `at`; none only at the end of the calendar.
    pub fn next_after(&self, at: Millis) -> Option<Millis> {
        // Schedules live on whole seconds, and the search looks at seconds only.
        let second = at.div_euclid(1000);
        let from = DateTime::from_timestamp(second, 0)?.with_timezone(&self.zone);
        let next = self.schedule.find_next_occurrence(&from, false).ok()?;
        Some(next.timestamp_millis())
    }

    /// Returns the last due instant at or before `at`; none only at the beginning of the calendar.
    pub fn previous_at_or_before(&self, at: Millis) -> Option<Millis> {
        let second = at.div_euclid(1000);
        let from = DateTime::from_timestamp(second, 0)?.with_timezone(&self.zone);
        let previous = self.schedule.find_previous_occurrence(&from, true).ok()?;
        Some(previous.timestamp_millis())
    }
}

impl TryFrom<Stored> for Cron {
    type Error = CronError;

    fn try_from(stored: Stored) -> Result<Self, Self::Error> {
        Self::parse(&stored.cron, &stored.timezone)
    }
}

impl From<Cron> for Stored {
    fn from(cron: Cron) -> Self {
        Self { cron: cron.text, timezone: cron.zone.name().to_owned() }
    }
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.zone == other.zone
    }
}

impl Eq for Cron {}

impl Hash for Cron {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
        self.zone.name().hash(state);
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} ({})", self.text, self.zone.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Millis {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
    }

    fn show(at: Option<Millis>) -> String {
        at.and_then(DateTime::from_timestamp_millis).map_or("never".to_owned(), |at| at.to_rfc3339())
    }

    fn three_after(text: &str, zone: &str, from: &str) -> String {
        let cron = Cron::parse(text, zone).unwrap();
        let mut due = Vec::new();
        let mut now = at(from);
        for _ in 0..3 {
            now = cron.next_after(now).unwrap();
            assert_eq!(cron.previous_at_or_before(now), Some(now));
            assert_eq!(cron.previous_at_or_before(now + 59_999), Some(now));
            due.push(show(Some(now)));
        }
        due.join(" ")
    }

    #[test]
    fn sunday_is_zero_and_seven() {
        // 2026-11-22 is a Sunday.
        for sunday in ["0", "7", "SUN"] {
            let cron = Cron::parse(&format!("0 4 * * {sunday}"), "UTC").unwrap();
            assert_eq!(show(cron.next_after(at("2026-11-20T00:00:00Z"))), "2026-11-22T04:00:00+00:00");
        }
        assert_eq!(
            show(Cron::parse("0 4 * * 1", "UTC").unwrap().next_after(at("2026-11-20T00:00:00Z"))),
            "2026-11-23T04:00:00+00:00"
        );
    }

    #[test]
    fn due_times_follow_the_zone() {
        insta::assert_snapshot!(three_after("15 2 * * *", "Europe/Zurich", "2026-03-27T12:00:00Z"), @"2026-03-28T01:15:00+00:00 2026-03-29T01:00:00+00:00 2026-03-30T00:15:00+00:00");
        insta::assert_snapshot!(three_after("15 2 * * *", "Europe/Zurich", "2026-10-23T12:00:00Z"), @"2026-10-24T00:15:00+00:00 2026-10-25T00:15:00+00:00 2026-10-26T01:15:00+00:00");
        insta::assert_snapshot!(three_after("0 * * * *", "Europe/Zurich", "2026-10-24T23:30:00Z"), @"2026-10-25T00:00:00+00:00 2026-10-25T01:00:00+00:00 2026-10-25T02:00:00+00:00");
        insta::assert_snapshot!(three_after("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z"), @"2028-02-29T00:00:00+00:00 2032-02-29T00:00:00+00:00 2036-02-29T00:00:00+00:00");
        insta::assert_snapshot!(three_after("0 0 13 * 5", "UTC", "2026-11-01T00:00:00Z"), @"2026-11-06T00:00:00+00:00 2026-11-13T00:00:00+00:00 2026-11-20T00:00:00+00:00");
    }

    #[test]
    fn next_is_strictly_after() {
        let cron = Cron::parse("*/15 * * * *", "UTC").unwrap();
        let due = at("2026-08-03T00:15:00Z");
        assert_eq!(cron.next_after(due - 1), Some(due));
        assert_eq!(cron.next_after(due), Some(due + 900_000));
        assert_eq!(cron.previous_at_or_before(due - 1), Some(due - 900_000));
        assert_eq!(cron.next_after(i64::MAX), None);
    }

    #[test]
    fn wrong_schedules_are_typed() {
        insta::assert_snapshot!(Cron::parse("0 0 * *", "UTC").unwrap_err(), @"`0 0 * *` has 4 fields: expected five (minute, hour, day of month, month, day of week)");
        insta::assert_snapshot!(Cron::parse("0 0 30 2 *", "UTC").unwrap_err(), @"`0 0 30 2 *` never comes due");
        insta::assert_snapshot!(Cron::parse("0 0 * * *", "Mars/Base").unwrap_err(), @"`Mars/Base` is not an IANA time zone: expected a name such as `Europe/Zurich` or `UTC`");
        for text in ["61 0 * * *", "0 0 * * 8", "@daily", "0 0 0 * * *", "a b c d e", "0 0 * * MON#9"] {
            assert!(Cron::parse(text, "UTC").is_err(), "{text}");
        }
    }

    #[test]
    fn stored_with_its_zone() {
        let cron = Cron::parse("15  2 * * *", "Europe/Zurich").unwrap();
        let json = serde_json::to_string(&cron).unwrap();
        assert_eq!(json, r#"{"cron":"15 2 * * *","timezone":"Europe/Zurich"}"#);
        assert_eq!(serde_json::from_str::<Cron>(&json).unwrap(), cron);
    }
}
