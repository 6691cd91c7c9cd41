//! The data of the example mesh: 90 days of a small retailer of home goods, generated and not recorded.
//!
//! `mesh-repo-example/` ships the bytes this module writes, and a test compares the two. The flaws are deliberate:
//! late rows, duplicates, nulls, rows and messages that cannot be read, a weekly season, and baskets that grow
//! for five days near the end.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "counts of days, customers and cents stay far below every limit"
)]

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

use chrono::{DateTime, NaiveDate, Utc};

#[path = "data/articles.rs"]
mod articles;
#[path = "data/clicks.rs"]
mod clicks;
#[path = "data/labels.rs"]
mod labels;
#[path = "data/orders.rs"]
mod orders;
#[path = "data/random.rs"]
mod random;
#[path = "data/shift.rs"]
mod shift;
#[path = "data/shop.rs"]
mod shop;

pub use clicks::{LiveClick, LiveClicks};
pub use shift::shift_weeks;

/// Length of the history, from [`first_day`].
pub const DAYS: i64 = 90;
/// The days near the end of the history in which baskets are larger.
pub const SHIFTED_DAYS: i64 = 5;
/// Calm days after them: no window of a week still sees the larger baskets when the history ends.
pub const CALM_DAYS: i64 = 9;
const CUSTOMERS: usize = 600;
const SEED: u64 = 0x4859_4452_4F4D_4553;

/// Whether shoppers behave as always, or buy the larger baskets of the injected shift.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shift {
    None,
    Injected,
}

/// The Monday on which the committed history begins.
///
/// # Panics
/// Never: it is a date of the calendar.
#[must_use]
pub fn first_day() -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 8, 3).expect("a date of the calendar")
}

/// Writes all generated files of the example below `root`, and nothing else.
///
/// # Errors
/// When a folder or file cannot be written.
pub fn write_example_data(root: &Path) -> io::Result<()> {
    let customers = shop::customers(SEED);
    let history = shop::clicks(SEED, &customers);
    for (name, text) in orders::exports(SEED, &customers, &history) {
        write(root, &format!("domains/commerce/orders/data/{name}"), &text)?;
    }
    write(root, "domains/customer/customers/data/customers.csv", &customer_file(&customers))?;
    write(root, "domains/support/articles/data/articles.jsonl", &text(&articles::lines(SEED)))?;
    write(
        root,
        "domains/risk/churn-model/data/churn-labels.csv",
        &labels::churn_labels(SEED, &customers, &history),
    )?;
    write(root, "seed/raw-clicks.jsonl", &text(&clicks::seed_lines(SEED, &customers, &history)))
}

fn write(root: &Path, path: &str, text: &str) -> io::Result<()> {
    let path = root.join(path);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)
}

fn text(lines: &[String]) -> String {
    lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}

/// The customer system's full export: every eighth customer is in it twice, once as of the sign-up; two rows are broken.
fn customer_file(customers: &[shop::Customer]) -> String {
    let mut text = String::from("customer_id,full_name,email,phone,country,segment,signup_date,updated_at\n");
    for (index, customer) in customers.iter().enumerate() {
        let phone = customer.phone.as_deref().unwrap_or("");
        // Writing to a string cannot fail.
        let mut row = |segment: &str, phone: &str, updated: DateTime<Utc>| {
            let _ = writeln!(
                text,
                "{},{},{},{phone},{},{segment},{},{}",
                customer.id,
                customer.full_name,
                customer.email,
                customer.country,
                customer.signup,
                stamp(updated),
            );
        };
        let signup = customer.signup.and_hms_opt(8, 0, 0).unwrap_or_default().and_utc();
        let updated = customer.updated_at.and_utc();
        if index % 8 == 5 && signup < updated {
            row("household", "", signup);
        }
        row(customer.segment, phone, updated);
        if index == 210 {
            text.push_str("C9001,Broken Row,broken.row@mail.example\n");
        }
        if index == 433 {
            let _ = writeln!(
                text,
                "C9002,Keller, Anna,anna@mail.example,,CH,household,{0},{0}T08:00:00Z",
                customer.signup
            );
        }
    }
    text
}

fn stamp(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Cents as a decimal number with two places.
fn money(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use chrono::Duration;

    use super::*;

    fn committed() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("mesh-repo-example")
    }

    fn contents(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut open = vec![root.to_owned()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    found.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap());
                }
            }
        }
        found
    }

    #[test]
    fn the_committed_example_is_what_the_generator_writes() {
        let folder = tempfile::tempdir().unwrap();
        write_example_data(folder.path()).unwrap();
        let written = contents(folder.path());
        let committed = contents(&committed());
        for (path, bytes) in &written {
            assert!(committed.get(path) == Some(bytes), "{} differs: run the generator", path.display());
        }
        // The other way round: no data file in the example that the generator does not know.
        for path in committed
            .keys()
            .filter(|path| matches!(path.extension().and_then(|e| e.to_str()), Some("csv" | "jsonl")))
        {
            assert!(written.contains_key(path), "{} is not generated", path.display());
        }
        assert!(committed.values().map(Vec::len).sum::<usize>() < 5_000_000);
    }

    #[test]
    fn a_shift_by_weeks_and_back_restores_every_byte() {
        let folder = tempfile::tempdir().unwrap();
        write_example_data(folder.path()).unwrap();
        // Only products with a `start:` are expected to move.
        let pipeline = "domains/commerce/orders/pipeline.yaml";
        fs::copy(committed().join(pipeline), folder.path().join(pipeline)).unwrap();
        let before = contents(folder.path());
        shift_weeks(folder.path(), 0).unwrap();
        assert!(contents(folder.path()) == before, "a shift by 0 changed something");
        for weeks in [3, -60, 1_000] {
            shift_weeks(folder.path(), weeks).unwrap();
            let moved = contents(folder.path());
            for (path, bytes) in &before {
                assert!(&moved[path] != bytes, "{} did not move", path.display());
                assert_eq!(moved[path].len(), bytes.len());
            }
            shift_weeks(folder.path(), -weeks).unwrap();
            assert!(contents(folder.path()) == before, "back from {weeks} weeks is not where it was");
        }
    }

    #[test]
    fn live_events_do_not_depend_on_how_the_clock_is_cut() {
        let live = LiveClicks::new(20.0);
        let from = first_day().and_hms_opt(18, 0, 0).unwrap().and_utc();
        let to = from + Duration::hours(2);
        let whole: Vec<_> = live.between(from, to, Shift::None).collect();
        let mut pieces = Vec::new();
        let mut at = from;
        for seconds in [1, 59, 60, 7, 3_600, 613].into_iter().cycle() {
            let next = (at + Duration::seconds(seconds)).min(to);
            pieces.extend(live.between(at, next, Shift::None));
            at = next;
            if at == to {
                break;
            }
        }
        assert!(whole.len() > 200, "{}", whole.len());
        assert_eq!(whole, pieces);
        let ids: std::collections::BTreeSet<String> =
            whole.iter().map(|event| field(event, "event_id").to_string()).collect();
        assert_eq!(ids.len(), whole.len(), "an event id came twice");
    }

    #[test]
    fn the_injected_shift_raises_baskets_and_nothing_else() {
        let live = LiveClicks::new(50.0);
        let from = first_day().and_hms_opt(12, 0, 0).unwrap().and_utc();
        let to = from + Duration::hours(6);
        let measure = |shift| {
            let events: Vec<_> = live.between(from, to, shift).collect();
            let amounts: Vec<f64> =
                events.iter().filter_map(|event| field(event, "amount").as_f64()).collect();
            (events.len() as f64, amounts.len() as f64, amounts.iter().sum::<f64>() / amounts.len() as f64)
        };
        let (calm, shifted) = (measure(Shift::None), measure(Shift::Injected));
        assert!(shifted.2 > 1.8 * calm.2, "{calm:?} {shifted:?}");
        assert!((shifted.0 / calm.0 - 1.0).abs() < 0.1, "{calm:?} {shifted:?}");
        assert!((shifted.1 / calm.1 - 1.0).abs() < 0.2, "{calm:?} {shifted:?}");
    }

    fn field(event: &LiveClick, name: &str) -> serde_json::Value {
        let value: serde_json::Value = serde_json::from_str(&event.json).unwrap();
        value[name].clone()
    }

    #[test]
    fn nothing_in_the_history_lies_after_its_end() {
        let customers = shop::customers(SEED);
        let end = shop::day(DAYS).and_hms_opt(0, 0, 0).unwrap().and_utc();
        let history = shop::clicks(SEED, &customers);
        assert!(history.iter().all(|click| click.at < end));
        assert!(end - history.last().unwrap().at < Duration::minutes(30), "the history ends with a gap");
        for line in labels::churn_labels(SEED, &customers, &history).lines().skip(1) {
            assert!(line.split(',').nth(1).unwrap() < stamp(end).as_str());
        }
    }
}
