//! Churn labels: what the customer-care team found out about customers it called.

use std::fmt::Write;

use chrono::{DateTime, Duration, Utc};

use super::random::Random;
use super::shop::{self, Click, Customer};
use super::{DAYS, stamp};

/// Calls; those that would fall after the end of the history are dropped, which leaves about 1,500.
const LABELS: u64 = 1_575;
const LABEL_DAYS: i64 = 45;

/// Returns the CSV text. Whether a customer left depends on the views and the spend of the seven days before the
/// call, and on luck: a model can learn it, and none can learn all of it.
pub fn churn_labels(seed: u64, customers: &[Customer], clicks: &[Click]) -> String {
    let end = shop::day(DAYS).and_hms_opt(0, 0, 0).unwrap_or_default().and_utc();
    let from = end - Duration::days(LABEL_DAYS);
    let recent: Vec<&Click> = clicks.iter().filter(|click| click.at >= from).collect();
    let mut rows: Vec<(DateTime<Utc>, usize, bool)> = Vec::new();
    for number in 0..LABELS {
        let mut random = Random::stream(seed ^ 0x000C_4024, number);
        // Nine in ten calls follow a visit; the others go to anybody, who may have had no event for weeks.
        let (customer, at) = if random.chance(0.9) {
            let click = random.pick(&recent);
            (click.customer, click.at + Duration::seconds(random.range(3_600, 5 * 86_400)))
        } else {
            let customer = usize::try_from(random.range(0, customers.len() as i64)).unwrap_or(0);
            (customer, from + Duration::seconds(random.range(0, LABEL_DAYS * 86_400)))
        };
        if at < end {
            rows.push((at, customer, churned(&mut random, customer, at, clicks)));
        }
    }
    rows.sort();
    let mut text = String::from("customer_id,ts,churned\n");
    for (at, customer, churned) in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{},{},{}", customers[customer].id, stamp(at), u8::from(churned));
    }
    text
}

fn churned(random: &mut Random, customer: usize, at: DateTime<Utc>, clicks: &[Click]) -> bool {
    let week = clicks.iter().filter(|click| {
        click.customer == customer
            && click.at > at - Duration::days(7)
            && click.at <= at - Duration::minutes(10)
    });
    let (mut views, mut cents) = (0.0, 0.0);
    for click in week {
        views += 1.0;
        cents += click.cents.unwrap_or(0) as f64;
    }
    let score = 2.4 - 0.42 * views - 0.000_16 * cents;
    // A sigmoid without the exponential, so that the draw is the same on every machine.
    let probability = 0.5 + 0.5 * score / (0.6 + score.abs());
    random.chance(probability)
}
