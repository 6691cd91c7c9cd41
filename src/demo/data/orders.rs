//! The order system's exports: one CSV file a week, in the order in which rows arrived.

use chrono::{DateTime, Duration, NaiveTime, Utc};

use super::random::Random;
use super::shop::{self, Click, Customer};
use super::{DAYS, first_day};

const HEADER: &str =
    "order_id,customer_id,order_date,status,channel,country,items,amount,discount,updated_at";
const ORDERS_PER_DAY: f64 = 80.0;
/// Rows that no reader can take as they stand: (file, the row before which they stand, the row).
const BROKEN: [(usize, usize, &str); 6] = [
    (1, 40, "O990001,C0102,{day},placed,web,CH,2,39.80"),
    (3, 200, "O990002,C0033,{day},placed,store,DE,two,58.40,,{day}T11:20:00Z"),
    (4, 17, "O990003,C0250,{day},shipped,web,AT,1,n/a,,{day}T09:05:31Z"),
    (7, 301, "O990004,C0411,{day},placed,phone,CH,3,71.70,,{day}T15:44:10Z,extra,columns"),
    (10, 88, "O990005,C0007"),
    (12, 120, "O990006,C0518,{day},placed,web,FR,1,19.90,ten,{day}T18:02:59Z"),
];

struct Order {
    id: String,
    customer: Option<usize>,
    placed: DateTime<Utc>,
    channel: &'static str,
    country: &'static str,
    items: i64,
    cents: i64,
}

/// Returns (file name, text) of each weekly export.
pub fn exports(seed: u64, customers: &[Customer], clicks: &[Click]) -> Vec<(String, String)> {
    let end = shop::day(DAYS).and_time(NaiveTime::MIN).and_utc();
    let mut rows: Vec<(DateTime<Utc>, String)> = Vec::new();
    for order in orders(seed, customers, clicks) {
        let number: u64 = order.id[1..].parse().unwrap_or(0);
        rows.extend(lines(&mut Random::stream(seed ^ 0x000D_E72A, number), &order, customers));
    }
    rows.retain(|(arrived, _)| *arrived < end);
    rows.sort();
    let weeks = usize::try_from((DAYS + 6) / 7).unwrap_or(0);
    (0..weeks).map(|week| (format!("orders-{:02}.csv", week + 1), file(week, &rows))).collect()
}

fn file(week: usize, rows: &[(DateTime<Utc>, String)]) -> String {
    let monday = first_day() + Duration::weeks(week as i64);
    let of_week = rows.iter().filter(|(at, _)| {
        let days = (at.date_naive() - first_day()).num_days();
        usize::try_from(days / 7).is_ok_and(|index| index == week)
    });
    let mut text = format!("{HEADER}\n");
    for (index, (_, row)) in of_week.enumerate() {
        for (_, _, broken) in BROKEN.iter().filter(|(file, at, _)| *file == week + 1 && *at == index) {
            text.push_str(&broken.replace("{day}", &monday.to_string()));
            text.push('\n');
        }
        text.push_str(row);
        text.push('\n');
    }
    text
}

/// Web purchases become orders; shop floor and telephone fill the day up to its season.
fn orders(seed: u64, customers: &[Customer], clicks: &[Click]) -> Vec<Order> {
    let mut all: Vec<Order> = clicks
        .iter()
        .filter_map(|click| Some((click, click.cents?)))
        .map(|(click, cents)| Order {
            id: String::new(),
            customer: Some(click.customer),
            placed: click.at,
            channel: if click.customer.is_multiple_of(3) { "app" } else { "web" },
            country: customers[click.customer].country,
            items: click.items,
            cents,
        })
        .collect();
    for offset in 0..DAYS {
        let date = shop::day(offset);
        let mut random = Random::stream(seed ^ 0x0005_70BE, offset as u64);
        let online = all.iter().filter(|order| order.placed.date_naive() == date).count() as i64;
        let target = (ORDERS_PER_DAY * shop::season(date)) as i64 + random.range(-6, 7);
        for _ in online..target {
            let customer = usize::try_from(random.range(0, customers.len() as i64)).unwrap_or(0);
            let (items, cents) = shop::basket(&mut random, shop::shift_on(offset));
            all.push(Order {
                id: String::new(),
                customer: (!random.chance(0.06)).then_some(customer),
                placed: date.and_time(opening_hours(&mut random)).and_utc(),
                channel: ["store", "phone", ""][random.weighted(&[0.85, 0.13, 0.02])],
                country: customers[customer].country,
                items,
                cents,
            });
        }
    }
    all.sort_by(|a, b| {
        (a.placed, a.customer, a.cents, a.items).cmp(&(b.placed, b.customer, b.cents, b.items))
    });
    for (index, order) in all.iter_mut().enumerate() {
        order.id = format!("O{:06}", index + 1);
    }
    all
}

fn opening_hours(random: &mut Random) -> NaiveTime {
    let second = u32::try_from(random.range(8 * 3600, 20 * 3600)).unwrap_or(0);
    NaiveTime::from_num_seconds_from_midnight_opt(second, 0).unwrap_or(NaiveTime::MIN)
}

/// The rows one order leaves in the exports, each with its time of arrival.
fn lines(random: &mut Random, order: &Order, customers: &[Customer]) -> Vec<(DateTime<Utc>, String)> {
    let discount = random.chance(0.12).then(|| order.cents * random.range(5, 21) / 100);
    // A till that was offline hands its orders in up to two days later.
    let delay = if order.channel == "store" && random.chance(0.02) {
        Duration::seconds(random.range(20 * 3600, 48 * 3600))
    } else {
        Duration::seconds(random.range(1, 90))
    };
    let mut arrived = order.placed + delay;
    let mut rows = vec![(arrived, row(order, customers, "placed", discount, arrived))];
    if random.chance(0.20) {
        let status =
            ["shipped", "delivered", "cancelled", "returned"][random.weighted(&[0.4, 0.3, 0.2, 0.1])];
        let latest = (order.placed + Duration::hours(48) - arrived).num_seconds();
        if latest > 1800 {
            arrived += Duration::seconds(random.range(1800, latest));
            rows.push((arrived, row(order, customers, status, discount, arrived)));
        }
    }
    if random.chance(0.005)
        && let Some(last) = rows.last().cloned()
    {
        rows.push(last);
    }
    rows
}

fn row(
    order: &Order,
    customers: &[Customer],
    status: &str,
    discount: Option<i64>,
    at: DateTime<Utc>,
) -> String {
    let customer = order.customer.map_or("", |index| customers[index].id.as_str());
    let discount = discount.map(super::money).unwrap_or_default();
    format!(
        "{},{customer},{},{status},{},{},{},{},{discount},{}",
        order.id,
        order.placed.date_naive(),
        order.channel,
        order.country,
        order.items,
        super::money(order.cents),
        super::stamp(at),
    )
}
