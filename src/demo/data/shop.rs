//! The shop behind the example: customers, what they look at, and what they buy.

use chrono::{DateTime, Datelike, Days, Duration, NaiveDate, NaiveDateTime, NaiveTime, Utc};

use super::random::Random;
use super::{CALM_DAYS, CUSTOMERS, DAYS, SHIFTED_DAYS, Shift, first_day};

/// Monday to Sunday: weekends are the busy days of a home-goods shop.
const WEEKDAY: [f64; 7] = [0.90, 0.82, 0.86, 0.94, 1.10, 1.28, 1.10];
/// Relative traffic of the 24 hours of a UTC day, with an evening peak.
const HOUR: [f64; 24] = [
    0.4, 0.2, 0.1, 0.1, 0.1, 0.3, 0.8, 1.2, 1.4, 1.5, 1.6, 1.8, 1.9, 1.6, 1.5, 1.5, 1.7, 2.1, 2.7, 3.0, 2.8,
    2.2, 1.4, 0.8,
];
const COUNTRIES: [&str; 5] = ["CH", "DE", "AT", "FR", "IT"];
const COUNTRY_WEIGHTS: [f64; 5] = [0.42, 0.28, 0.12, 0.11, 0.07];
const FIRST_NAMES: [&str; 30] = [
    "Anna", "Luca", "Mia", "Noah", "Lea", "Elias", "Sofia", "Matteo", "Emma", "Jonas", "Clara", "Louis",
    "Nora", "Leon", "Alice", "Felix", "Giulia", "Paul", "Ines", "David", "Chloe", "Samuel", "Elena", "Tim",
    "Amelie", "Marco", "Hannah", "Theo", "Laura", "Simon",
];
const LAST_NAMES: [&str; 30] = [
    "Keller",
    "Meier",
    "Rossi",
    "Dubois",
    "Gruber",
    "Huber",
    "Weber",
    "Bianchi",
    "Moreau",
    "Schmid",
    "Fischer",
    "Brunner",
    "Favre",
    "Wagner",
    "Costa",
    "Steiner",
    "Lambert",
    "Baumann",
    "Ricci",
    "Hofer",
    "Graf",
    "Girard",
    "Zimmermann",
    "Egger",
    "Roth",
    "Conti",
    "Frei",
    "Leroy",
    "Winkler",
    "Kunz",
];
const SEGMENTS: [&str; 3] = ["household", "business", "staff"];

/// One customer, with the two latent traits that drive the rest of the data.
#[derive(Debug, Clone)]
pub struct Customer {
    pub id: String,
    pub full_name: String,
    pub email: String,
    pub phone: Option<String>,
    pub country: &'static str,
    pub segment: &'static str,
    pub signup: NaiveDate,
    pub updated_at: NaiveDateTime,
    /// Sessions per ordinary day.
    pub pace: f64,
    pub interest: Interest,
}

/// How a customer's interest changes during the history. As many wake as fade, so that the whole stays level.
#[derive(Debug, Clone, Copy)]
pub enum Interest {
    Steady,
    FadesOn(i64),
    WakesOn(i64),
}

impl Interest {
    fn factor(self, offset: i64) -> f64 {
        match self {
            Self::FadesOn(day) if offset >= day => 0.2,
            Self::WakesOn(day) if offset < day => 0.2,
            _ => 1.0,
        }
    }
}

/// One event of the web shop.
#[derive(Debug, Clone)]
pub struct Click {
    pub customer: usize,
    pub session: String,
    pub at: DateTime<Utc>,
    pub page: &'static str,
    /// Cents, on a purchase only.
    pub cents: Option<i64>,
    /// Pieces in the basket, on a purchase only.
    pub items: i64,
}

pub fn customers(seed: u64) -> Vec<Customer> {
    (0..CUSTOMERS).map(|index| customer(seed, index)).collect()
}

fn customer(seed: u64, index: usize) -> Customer {
    let mut random = Random::stream(seed, index as u64);
    let first = *random.pick(&FIRST_NAMES);
    let last = *random.pick(&LAST_NAMES);
    let country = COUNTRIES[random.weighted(&COUNTRY_WEIGHTS)];
    let signup = first_day() - Duration::days(random.range(20, 900));
    let since_signup = (last_day() - signup).num_days();
    let updated = signup + Duration::days(random.range(0, since_signup));
    // Squaring skews the traffic: a few customers come nearly every second day, most of them rarely.
    let eagerness = random.unit();
    Customer {
        id: format!("C{:04}", index + 1),
        full_name: format!("{first} {last}"),
        email: format!("{}.{}{}@mail.example", first.to_lowercase(), last.to_lowercase(), index + 1),
        phone: (!random.chance(0.06)).then(|| {
            format!(
                "+41 00 {:03} {:02} {:02}",
                random.range(100, 999),
                random.range(10, 99),
                random.range(10, 99)
            )
        }),
        country,
        segment: SEGMENTS[random.weighted(&[0.86, 0.12, 0.02])],
        signup,
        updated_at: updated.and_time(time_of_day(&mut random)),
        pace: 0.025 + 0.37 * eagerness * eagerness,
        interest: match random.weighted(&[0.6, 0.2, 0.2]) {
            0 => Interest::Steady,
            1 => Interest::FadesOn(random.range(0, DAYS)),
            _ => Interest::WakesOn(random.range(0, DAYS)),
        },
    }
}

pub fn last_day() -> NaiveDate {
    first_day() + Duration::days(DAYS - 1)
}

/// The day `offset` days into the history.
pub fn day(offset: i64) -> NaiveDate {
    first_day() + Days::new(offset.unsigned_abs())
}

pub fn season(date: NaiveDate) -> f64 {
    WEEKDAY[date.weekday().num_days_from_monday() as usize]
}

/// Traffic of an hour relative to the day's mean.
pub fn hour_factor(hour: u32) -> f64 {
    let mean = HOUR.iter().sum::<f64>() / 24.0;
    HOUR[(hour % 24) as usize] / mean
}

pub fn time_of_day(random: &mut Random) -> NaiveTime {
    let hour = random.weighted(&HOUR) as u32;
    let second = u32::try_from(random.range(0, 3600)).unwrap_or(0);
    NaiveTime::from_num_seconds_from_midnight_opt(hour * 3600 + second, 0).unwrap_or(NaiveTime::MIN)
}

/// Whether the baskets of that day are the larger ones of the days near the end of the history.
pub fn shift_on(offset: i64) -> Shift {
    let end = DAYS - CALM_DAYS;
    if (end - SHIFTED_DAYS..end).contains(&offset) { Shift::Injected } else { Shift::None }
}

/// Draws a basket: (pieces, cents). Under the shift people buy more and dearer things, as before a feast.
pub fn basket(random: &mut Random, shift: Shift) -> (i64, i64) {
    let mut items = 1 + random.weighted(&[0.46, 0.26, 0.14, 0.08, 0.06]) as i64;
    if shift == Shift::Injected {
        items += random.range(1, 4);
    }
    let cents = (0..items).map(|_| price(random, shift)).sum();
    (items, cents)
}

fn price(random: &mut Random, shift: Shift) -> i64 {
    let skewed = random.unit() * random.unit() * random.unit();
    let cents = 690 + (skewed * 18_000.0) as i64;
    // Prices end in .90 or .50, as in the shop.
    let rounded = cents / 100 * 100 + if random.chance(0.7) { 90 } else { 50 };
    if shift == Shift::Injected { rounded + rounded / 4 / 10 * 10 } else { rounded }
}

/// Draws one session: one to seven views, and a purchase at the end of about a quarter of them.
pub fn session(
    random: &mut Random,
    customer: usize,
    id: &str,
    start: DateTime<Utc>,
    shift: Shift,
) -> Vec<Click> {
    const PATH: [&str; 6] = ["home", "search", "product", "product", "cart", "help"];
    let mut at = start;
    let mut clicks = Vec::new();
    let views = 1 + random.weighted(&[0.30, 0.26, 0.18, 0.12, 0.08, 0.06]);
    for step in 0..views {
        let page = if step == 0 && random.chance(0.6) { "home" } else { *random.pick(&PATH) };
        clicks.push(Click { customer, session: id.to_owned(), at, page, cents: None, items: 0 });
        at += Duration::seconds(random.range(4, 95));
    }
    if random.chance(0.26) {
        let (items, cents) = basket(random, shift);
        clicks.push(Click {
            customer,
            session: id.to_owned(),
            at,
            page: "purchase",
            cents: Some(cents),
            items,
        });
    }
    clicks
}

/// All clicks of the history, in event time. Nothing reaches past its last midnight.
pub fn clicks(seed: u64, customers: &[Customer]) -> Vec<Click> {
    let end = day(DAYS).and_time(NaiveTime::MIN).and_utc();
    let mut all = Vec::new();
    let mut sessions = 0_u32;
    for offset in 0..DAYS {
        let date = day(offset);
        for (index, customer) in customers.iter().enumerate() {
            let mut random = Random::stream(seed ^ 0x00C1_1C25, (offset as u64) << 20 | index as u64);
            let pace = customer.pace * season(date) * customer.interest.factor(offset);
            if random.chance(pace) {
                sessions += 1;
                let start = date.and_time(time_of_day(&mut random)).and_utc();
                let id = format!("s{sessions:05}");
                all.extend(session(&mut random, index, &id, start, shift_on(offset)));
            }
        }
    }
    all.retain(|click| click.at < end);
    all.sort_by(|a, b| (a.at, a.customer, &a.session).cmp(&(b.at, b.customer, &b.session)));
    all
}
