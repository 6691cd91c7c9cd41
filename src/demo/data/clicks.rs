//! Click events as messages: the seed of the topic `raw-clicks`, and live ones for any moment.

use chrono::{DateTime, Duration, Timelike, Utc};
use serde_json::{Map, Value};

use super::random::Random;
use super::shop::{self, Click, Customer};
use super::{SEED, Shift};

/// Messages that no parser can take: (the place in the stream, the message).
const MALFORMED: [(usize, &str); 6] = [
    (1_200, "{\"event_id\":\"e900001\",\"customer_id\":\"C0044\",\"session_id\":"),
    (4_321, "GET /product/4711 HTTP/1.1"),
    (
        7_007,
        "{\"event_id\":\"e900003\",\"customer_id\":\"C0301\",\"session_id\":\"s0\",\"ts\":\"yesterday\",\"page\":\"home\"}",
    ),
    (9_870, "{\"customer_id\":\"C0020\",\"session_id\":\"s0\",\"page\":\"home\"}"),
    (12_345, "[]"),
    (
        15_015,
        "{\"event_id\":\"e900006\",\"customer_id\":\"C0100\",\"session_id\":\"s0\",\"ts\":null,\"page\":\"purchase\",\"amount\":\"12 francs\"}",
    ),
];

/// The history as JSON lines in the order of arrival: about 1 % late by up to two days, five events later than
/// that, 0.5 % delivered twice, a few without a customer or a country.
pub fn seed_lines(seed: u64, customers: &[Customer], clicks: &[Click]) -> Vec<String> {
    let end = shop::day(super::DAYS).and_hms_opt(0, 0, 0).unwrap_or_default().and_utc();
    let mut arrivals: Vec<(DateTime<Utc>, usize, String)> = Vec::new();
    for (index, click) in clicks.iter().enumerate() {
        let mut random = Random::stream(seed ^ 0x000A_2217, index as u64);
        let delay = if index % 4_000 == 3_999 {
            Duration::hours(random.range(60, 90))
        } else if random.chance(0.01) {
            Duration::seconds(random.range(600, 46 * 3600))
        } else {
            Duration::seconds(random.range(0, 3))
        };
        let id = format!("e{:06}", index + 1);
        let anonymous = click.cents.is_none() && random.chance(0.015);
        let customer = (!anonymous).then(|| customers[click.customer].id.as_str());
        let country = (!random.chance(0.01)).then_some(customers[click.customer].country);
        let line = message(&id, customer, country, click);
        // What has not arrived when the history ends would be news to the reader of a finished file.
        if click.at + delay >= end {
            arrivals.push((click.at, index, line));
            continue;
        }
        if random.chance(0.005) {
            arrivals.push((click.at + delay + Duration::seconds(random.range(1, 20)), index, line.clone()));
        }
        arrivals.push((click.at + delay, index, line));
    }
    arrivals.sort();
    let mut lines: Vec<String> = arrivals.into_iter().map(|(_, _, line)| line).collect();
    for (at, text) in MALFORMED {
        lines.insert(at.min(lines.len()), text.to_owned());
    }
    lines
}

fn message(id: &str, customer: Option<&str>, country: Option<&str>, click: &Click) -> String {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| {
        fields.insert(name.to_owned(), value);
    };
    put("event_id", id.into());
    if let Some(customer) = customer {
        put("customer_id", customer.into());
    }
    put("session_id", click.session.as_str().into());
    put("ts", super::stamp(click.at).into());
    put("page", click.page.into());
    if let Some(cents) = click.cents {
        put("amount", (cents as f64 / 100.0).into());
    }
    if let Some(country) = country {
        put("country", country.into());
    }
    Value::Object(fields).to_string()
}

/// One live event: its event time, the key it is produced under, and the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveClick {
    pub at: DateTime<Utc>,
    pub key: String,
    pub json: String,
}

/// Live traffic as a pure function of the clock: asking for a span in one piece or in many gives the same
/// events, so a demo that was killed goes on without doubling or losing one.
#[derive(Debug, Clone)]
pub struct LiveClicks {
    customers: Vec<Customer>,
    pace: f64,
}

/// Sessions of an ordinary day in the history, from which live traffic takes its pace.
const SESSIONS_PER_DAY: f64 = 74.0;
/// No session lasts longer: six views of at most 95 s each.
const LONGEST_SESSION_MINUTES: i64 = 10;

impl LiveClicks {
    /// Traffic of the example's customers, `pace` times as dense as in the history.
    pub fn new(pace: f64) -> Self {
        Self { customers: shop::customers(SEED), pace: pace.max(0.0) }
    }

    /// Returns the events with `from <= at < to`, in event time.
    pub fn between(
        &self,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
        shift: Shift,
    ) -> impl Iterator<Item = LiveClick> + use<> {
        let first = from.timestamp().div_euclid(60) - LONGEST_SESSION_MINUTES;
        let last = to.timestamp().div_euclid(60);
        let mut events: Vec<LiveClick> = (first..=last)
            .flat_map(|minute| self.minute(minute, shift))
            .filter(|event| from <= event.at && event.at < to)
            .collect();
        events.sort_by(|a, b| (a.at, &a.json).cmp(&(b.at, &b.json)));
        events.into_iter()
    }

    /// The events of all sessions that start in one minute (counted from the Unix epoch).
    fn minute(&self, minute: i64, shift: Shift) -> Vec<LiveClick> {
        let Some(start) = DateTime::from_timestamp(minute.saturating_mul(60), 0) else { return Vec::new() };
        let expected = SESSIONS_PER_DAY / 1440.0
            * self.pace
            * shop::hour_factor(start.hour())
            * shop::season(start.date_naive());
        let mut random = Random::stream(SEED ^ 0x0011_7E00, minute.unsigned_abs());
        let sessions = expected as u64 + u64::from(random.chance(expected % 1.0));
        let weights: Vec<f64> = self.customers.iter().map(|customer| customer.pace).collect();
        let mut events = Vec::new();
        for number in 0..sessions {
            let customer = random.weighted(&weights);
            let id = format!("L{minute:x}-{number}");
            let begin = start + Duration::seconds(random.range(0, 60));
            for (step, click) in shop::session(&mut random, customer, &id, begin, shift).iter().enumerate() {
                let person = &self.customers[customer];
                let json = message(&format!("{id}-{step}"), Some(&person.id), Some(person.country), click);
                events.push(LiveClick { at: click.at, key: person.id.clone(), json });
            }
        }
        events
    }
}
