//! A believable mesh for tests: a retailer on the day its churn model drifted and a stream stopped.

use std::collections::BTreeMap;

use chrono::{DateTime, Days, TimeDelta, Utc};

use super::model::*;

const COMMIT: &str = "8f2b1c9d4e7a6053b1f8c2d9e0a7b4c3d2e1f0a9";
const BEFORE: &str = "41d7e0b2a95c8f6e3d1b0a9c8e7f6d5c4b3a2910";

/// Returns the moment the sample speaks of.
pub fn now() -> DateTime<Utc> {
    at("2026-11-20T06:10:00Z")
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().expect("a valid instant")
}

fn ago(hours: i64) -> DateTime<Utc> {
    now() - TimeDelta::hours(hours)
}

fn contact(name: &str, address: &str) -> Contact {
    Contact { name: name.into(), address: Some(address.into()) }
}

/// Ninety days, good but for the given ones (days ago, state, note).
fn days(count: u64, odd: &[(u64, DayState, &str)]) -> Vec<Day> {
    let today = now().date_naive();
    (0..count)
        .rev()
        .map(|back| {
            let (state, note) = odd
                .iter()
                .find(|o| o.0 == back)
                .map_or((DayState::Good, ""), |(_, state, note)| (*state, *note));
            Day { date: today - Days::new(back), state, note: note.into() }
        })
        .collect()
}

fn objective(
    id: &str,
    kind: ObjectiveKind,
    promise: &str,
    target: f64,
    sli: (f64, f64),
    budget: f64,
    current: &str,
) -> Objective {
    Objective {
        id: id.into(),
        kind,
        promise: promise.into(),
        target,
        window_days: 30,
        status: Status::Healthy,
        current: current.into(),
        sli_low: Some(sli.0),
        sli_high: Some(sli.1),
        since: None,
        budget_remaining: Some(budget),
        days: days(90, &[]),
        bad_intervals: Vec::new(),
    }
}

fn column(name: &str, logical_type: &str, class: &str, description: &str) -> Column {
    Column {
        name: name.into(),
        logical_type: logical_type.into(),
        required: name.ends_with("_id") || name.ends_with("_date"),
        classification: (!class.is_empty()).then(|| class.into()),
        description: description.into(),
    }
}

fn port(id: &str, name: &str, format: &str, rows: u64, access: Vec<Access>, columns: Vec<Column>) -> Port {
    Port {
        name: name.into(),
        format: format.into(),
        location: format!("lake/{id}/{name}"),
        query_name: format!("{id}.{name}"),
        description: String::new(),
        rows: Some(rows),
        version: Some("212".into()),
        contract_version: "1.4.0".into(),
        access,
        columns,
        terms: vec![("retention".into(), "3 y".into())],
    }
}

fn run(n: u64, pipeline: &str, trigger: &str, outcome: RunOutcome) -> Run {
    let hours = i64::try_from(n).expect("a small number");
    let started_at = ago(4 + 24 * hours);
    Run {
        id: format!("{:08x}-run", 0x5ea1_0000_u64 + n * 7919),
        pipeline: pipeline.into(),
        trigger: trigger.into(),
        partition: Some((now().date_naive() - Days::new(n + 1)).to_string()),
        outcome,
        started_at: Some(started_at),
        ended_at: Some(started_at + TimeDelta::seconds(48 + 13 * (hours % 4))),
        rows: (outcome == RunOutcome::Succeeded).then_some(1180 + n * 17),
        error: (outcome == RunOutcome::Failed).then(|| {
            "quality rule `amount is never negative` failed on 3 rows; the last good partition stays".into()
        }),
    }
}

fn product(id: &str, title: &str, kinds: &[Kind], tier: u8, description: &str) -> Product {
    let (domain, _) = id.split_once('/').expect("an address");
    Product {
        id: id.into(),
        title: title.into(),
        domain: domain.into(),
        kinds: kinds.to_vec(),
        tier: Some(tier),
        owners: vec![contact(&format!("{domain} data team"), &format!("{domain}-data@example.com"))],
        on_call: Some(format!("{domain}-oncall@example.com")),
        runbook: Some(format!("https://wiki.example.com/runbooks/{id}")),
        description: description.into(),
        status: Status::Healthy,
        status_reason: String::new(),
        sync: Sync::InSync { commit: COMMIT.into() },
        deployed_at: Some(ago(30)),
        deployed_commit: Some(COMMIT.into()),
        data_through: Some(at("2026-11-20T00:00:00Z")),
        next_expected: Some(at("2026-11-21T02:15:00Z")),
        ports: Vec::new(),
        objectives: Vec::new(),
        quality: Vec::new(),
        runs: Vec::new(),
        decisions: vec![Decision {
            at: ago(30),
            action: "deploy".into(),
            verdict: Verdict::Allow,
            rules: Vec::new(),
            input_hash: "b7e23ec29af22b0b4e41da31e868d57226121c84".into(),
            commit: Some(COMMIT.into()),
        }],
        drift: Vec::new(),
        model: None,
        sample: None,
    }
}

fn orders() -> Product {
    let mut p = product(
        "commerce/orders",
        "Orders",
        &[Kind::Source],
        1,
        "Every order of the web shop and the stores, one row an order, as the till and the shop system wrote it.",
    );
    p.ports = vec![port(
        &p.id,
        "orders",
        "delta",
        118_204,
        vec![Access::Table],
        vec![
            column("order_id", "string", "", "Number of the order"),
            column("customer_id", "string", "internal", "Who ordered"),
            column("order_date", "date", "", "Day of the order in shop time"),
            column("amount", "decimal(12,2)", "", "Total including tax, in CHF"),
            column("email", "string", "pii", "Address the receipt went to"),
        ],
    )];
    p.objectives = vec![
        objective(
            "freshness",
            ObjectiveKind::DataAge,
            "data is at most 26 h old",
            0.99,
            (0.9991, 0.9991),
            0.91,
            "6 h 10 min old",
        ),
        objective(
            "quality",
            ObjectiveKind::Quality,
            "every rule of the contract holds",
            0.98,
            (0.9967, 1.0),
            0.84,
            "6 of 6 rules hold",
        ),
    ];
    p.objectives[1].days = days(
        90,
        &[(41, DayState::Degraded, "3 orders without customer"), (64, DayState::Unknown, "no audit ran")],
    );
    p.quality = [
        ("order_id is unique", "order_id", "0 duplicates", "0"),
        ("amount is never negative", "amount", "0 of 1 204 rows", "0"),
    ]
    .map(|(check, column, observed, expected)| QualityResult {
        check: check.into(),
        port: "orders".into(),
        column: Some(column.into()),
        severity: Severity::Error,
        outcome: QualityOutcome::Pass,
        observed: observed.into(),
        expected: expected.into(),
        partition: Some("2026-11-19".into()),
        at: Some(ago(4)),
    })
    .to_vec();
    p.runs = (0..12).map(|n| run(n, "orders-daily", "schedule", RunOutcome::Succeeded)).collect();
    p
}

fn daily_revenue() -> Product {
    let mut p = product(
        "commerce/daily-revenue",
        "Daily revenue",
        &[Kind::Batch],
        1,
        "Revenue by day, channel and country. The finance report of the morning reads it.",
    );
    p.status = Status::Denied;
    p.sync = Sync::Denied {
        commit: COMMIT.into(),
        rule: "pii_needs_consent".into(),
        reason: "column email is classified pii and the port is readable by everyone".into(),
    };
    p.deployed_at = Some(ago(24 * 9));
    p.ports = vec![port(
        &p.id,
        "revenue",
        "iceberg",
        8_120,
        vec![Access::Table],
        vec![
            column("order_date", "date", "", "Day"),
            column("channel", "string", "", "web or store"),
            column("revenue", "decimal(14,2)", "", "Sum of the amounts of the day, CHF"),
            column("orders", "bigint", "", "Number of orders"),
        ],
    )];
    let mut deadline = objective(
        "on-time",
        ObjectiveKind::Deadline,
        "yesterday is there by 06:00 Europe/Zurich",
        0.97,
        (0.9889, 0.9889),
        0.63,
        "ready 03:04 UTC",
    );
    deadline.days =
        days(90, &[(12, DayState::Bad, "2 h 05 min late"), (55, DayState::Degraded, "9 min late")]);
    deadline.bad_intervals = vec![BadInterval {
        from: ago(24 * 12 + 1),
        to: Some(ago(24 * 12 - 1)),
        cause: "orders arrived late from the store system".into(),
        attributed_to: Some("commerce/orders".into()),
    }];
    p.objectives = vec![
        deadline,
        objective(
            "quality",
            ObjectiveKind::Quality,
            "every rule of the contract holds",
            0.98,
            (1.0, 1.0),
            1.0,
            "4 of 4 rules hold",
        ),
    ];
    p.runs = (0..20)
        .map(|n| {
            run(
                n,
                "revenue-daily",
                if n > 14 { "backfill" } else { "schedule" },
                if n == 7 { RunOutcome::Failed } else { RunOutcome::Succeeded },
            )
        })
        .collect();
    p.decisions.insert(
        0,
        Decision {
            at: ago(6),
            action: "deploy".into(),
            verdict: Verdict::Deny,
            rules: vec![RuleHit {
                rule: "pii_needs_consent".into(),
                message: "column email is classified pii and the port is readable by everyone".into(),
            }],
            input_hash: "1f0c44d2ab07e55c9a6d2f1b8e3c7d9a0b1c2d3e".into(),
            commit: Some(COMMIT.into()),
        },
    );
    p
}

fn clickstream() -> Product {
    let mut p = product(
        "commerce/clickstream",
        "Clickstream",
        &[Kind::Stream],
        2,
        "What visitors do in the shop, cleaned and without robots; a topic and its archive.",
    );
    p.status = Status::Breaching;
    p.status_reason = "no event for 1 h 52 min; the promise is 30 min".into();
    p.data_through = Some(at("2026-11-20T04:18:00Z"));
    p.next_expected = None;
    let mut lag = objective(
        "lag",
        ObjectiveKind::StreamLag,
        "events are readable within 30 min",
        0.995,
        (0.9938, 0.9941),
        -0.22,
        "1 h 52 min behind",
    );
    lag.status = Status::Breaching;
    lag.days = days(
        90,
        &[
            (0, DayState::Bad, "stopped at 04:18 UTC"),
            (23, DayState::Degraded, "lag of 38 min during a restart"),
            (24, DayState::Unknown, "the evaluator was down"),
            (71, DayState::Bad, "broker moved, 3 h 10 min"),
            (72, DayState::Degraded, "lag of 41 min"),
        ],
    );
    lag.bad_intervals = vec![
        BadInterval {
            from: at("2026-11-20T04:48:00Z"),
            to: None,
            cause: "the producer sends nothing".into(),
            attributed_to: None,
        },
        BadInterval {
            from: ago(24 * 71),
            to: Some(ago(24 * 71 - 3)),
            cause: "broker moved to a new host".into(),
            attributed_to: None,
        },
    ];
    p.objectives = vec![lag];
    p.ports = vec![port(
        &p.id,
        "clickstream",
        "delta",
        2_410_338,
        vec![Access::Table, Access::Topic { topic: "commerce.clickstream".into() }],
        vec![
            column("event_id", "string", "", "Unique per event"),
            column("customer_id", "string", "internal", "Null for visitors without account"),
            column("session_id", "string", "", ""),
            column("ts", "timestamp", "", "When it happened, by the browser's clock"),
            column("amount", "decimal(12,2)", "", "Value of the basket, CHF"),
        ],
    )];
    p
}

fn activity() -> Product {
    let mut p = product(
        "customer/activity",
        "Customer activity",
        &[Kind::Feature, Kind::Stream],
        1,
        "Sessions and spending of each customer over the last minutes, hours and days, for models and for the shop.",
    );
    p.status = Status::Degraded;
    p.status_reason = "reads a stream that stands still; spend_7d has drifted".into();
    p.data_through = Some(at("2026-11-20T04:18:00Z"));
    p.next_expected = None;
    let mut lag = objective(
        "lag",
        ObjectiveKind::StreamLag,
        "features are at most 15 min behind",
        0.99,
        (0.9912, 0.9955),
        0.12,
        "1 h 52 min behind",
    );
    lag.status = Status::Degraded;
    lag.days = days(
        58,
        &[
            (0, DayState::Degraded, "waits for commerce/clickstream"),
            (24, DayState::Unknown, "the evaluator was down"),
        ],
    );
    p.objectives = vec![lag];
    p.ports = vec![port(
        &p.id,
        "features",
        "delta",
        41_220,
        vec![Access::Table, Access::Lookup { key: "customer_id".into() }],
        vec![
            column("customer_id", "string", "internal", "Whose activity"),
            column("sessions_1h", "bigint", "", "Distinct sessions of the last hour (approximate, 1 %)"),
            column("spend_10m", "double", "", "Sum of basket values, 10 minutes"),
            column("spend_7d", "double", "", "Sum of basket values, 7 days"),
        ],
    )];
    p.sample = Some(FeatureSample {
        entity: "customer_id".into(),
        key: "c-00417".into(),
        as_of: now(),
        values: vec![
            SampleValue {
                name: "sessions_1h".into(),
                value: "3".into(),
                version: "epoch 8812".into(),
                as_of: Some(at("2026-11-20T04:18:00Z")),
            },
            SampleValue {
                name: "spend_7d".into(),
                value: "412.60".into(),
                version: "epoch 8812".into(),
                as_of: Some(at("2026-11-20T04:18:00Z")),
            },
        ],
    });
    let bins = |shift: f64| {
        let share = |centre: f64, i: f64| (-(i - centre).powi(2) / 9.0).exp();
        let total = |centre: f64| (0..12).map(|i| share(centre, f64::from(i))).sum::<f64>();
        (0..12)
            .map(|i| HistogramBin {
                label: format!("{}–{} CHF", i * 50, (i + 1) * 50),
                reference: share(4.0, f64::from(i)) / total(4.0),
                current: share(4.0 + shift, f64::from(i)) / total(4.0 + shift),
            })
            .collect::<Vec<_>>()
    };
    p.drift = [
        ("spend_7d", 0.214, 3.1e-9, 0.61, DriftVerdict::Drifted, 2.6),
        ("sessions_1h", 0.038, 0.41, 0.05, DriftVerdict::Stable, 0.2),
        ("spend_10m", 0.071, 0.03, 0.14, DriftVerdict::Watch, 0.7),
    ]
    .into_iter()
    .map(|(feature, statistic, p_value, effect, verdict, shift)| FeatureDrift {
        feature: feature.into(),
        statistic_name: "KS".into(),
        statistic,
        p_value: Some(p_value),
        effect: Some(effect),
        effect_unit: "standard deviations".into(),
        verdict,
        threshold: Some(0.1),
        sample_size: Some(41_220),
        tested_at: Some(ago(2)),
        history: (0_i32..40)
            .map(|n| DriftPoint {
                at: ago(i64::from(40 - n)),
                statistic: 0.03
                    + 0.012 * (f64::from(n * 7 % 5) / 5.0)
                    + if n > 31 { (statistic - 0.03) * (f64::from(n - 31) / 8.0) } else { 0.0 },
            })
            .collect(),
        histogram: bins(shift),
    })
    .collect();
    p
}

fn churn_model() -> Product {
    let mut p = product(
        "risk/churn-model",
        "Churn model",
        &[Kind::Training],
        2,
        "How likely a customer is to leave within 60 days.",
    );
    p.ports = vec![port(
        &p.id,
        "model",
        "model",
        14_880,
        vec![],
        vec![
            column("customer_id", "string", "internal", ""),
            column("churn", "double", "", "Probability, 0 to 1"),
        ],
    )];
    let mut age = objective(
        "age",
        ObjectiveKind::ModelAge,
        "trained within the last 14 days",
        0.95,
        (1.0, 1.0),
        1.0,
        "trained 1 h 40 min ago",
    );
    age.days = days(58, &[]);
    p.objectives = vec![age];
    p.model = Some(ModelCard {
        name: "churn".into(),
        champion: Some(ModelVersion {
            version: "7".into(),
            trained_at: ago(2),
            algorithm: "logistic regression".into(),
            training_rows: Some(14_880),
            metrics: BTreeMap::from([
                ("auc".into(), 0.8412),
                ("log loss".into(), 0.4127),
                ("brier".into(), 0.1313),
            ]),
            inputs: BTreeMap::from([
                ("customer/activity.features".into(), "epoch 8812".into()),
                ("customer/customer-360.profile".into(), "version 96".into()),
            ]),
        }),
        gate: "auc on held-out rows at most 0.01 below the champion's, and the gate allows".into(),
        history: vec![
            ModelEvent {
                at: ago(2),
                version: "7".into(),
                outcome: ModelOutcome::Promoted,
                metric: "auc".into(),
                challenger: Some(0.8412),
                champion: Some(0.7926),
                reason: "spend_7d drifted".into(),
            },
            ModelEvent {
                at: ago(24 * 8),
                version: "6".into(),
                outcome: ModelOutcome::Rejected,
                metric: "auc".into(),
                challenger: Some(0.7711),
                champion: Some(0.7926),
                reason: "schedule".into(),
            },
        ],
    });
    p
}

fn quiet(
    id: &str,
    title: &str,
    kinds: &[Kind],
    format: &str,
    access: Vec<Access>,
    description: &str,
) -> Product {
    let mut p = product(id, title, kinds, 3, description);
    let name = id.rsplit('/').next().expect("a name").replace('-', "_");
    p.ports = vec![port(
        id,
        &name,
        format,
        41_220,
        access,
        vec![column("customer_id", "string", "internal", ""), column("name", "string", "pii", "Full name")],
    )];
    p.objectives = vec![objective(
        "freshness",
        ObjectiveKind::DataAge,
        "data is at most 26 h old",
        0.99,
        (1.0, 1.0),
        1.0,
        "6 h 10 min old",
    )];
    p.runs = (0..3).map(|n| run(n, "daily", "schedule", RunOutcome::Succeeded)).collect();
    p
}

fn edge(from: &str, to: &str, port: &str) -> ProductEdge {
    ProductEdge { from: from.into(), to: to.into(), ports: vec![port.into()] }
}

fn lineage() -> Lineage {
    let column = |from: &str, to: &str, influence| ColumnEdge { from: from.into(), to: to.into(), influence };
    Lineage {
        products: vec![
            edge("commerce/orders", "commerce/daily-revenue", "orders"),
            edge("commerce/orders", "customer/customer-360", "orders"),
            edge("customer/customers", "customer/customer-360", "customers"),
            edge("commerce/clickstream", "customer/activity", "clickstream"),
            edge("customer/activity", "risk/churn-model", "features"),
            edge("customer/customer-360", "risk/churn-model", "customer_360"),
            edge("support/articles", "support/article-search", "articles"),
        ],
        columns: vec![
            column(
                "commerce/orders.orders#order_date",
                "commerce/daily-revenue.revenue#order_date",
                Influence::Direct,
            ),
            column(
                "commerce/orders.orders#amount",
                "commerce/daily-revenue.revenue#revenue",
                Influence::Direct,
            ),
            column(
                "commerce/orders.orders#order_date",
                "commerce/daily-revenue.revenue#revenue",
                Influence::FilterOnly,
            ),
            column(
                "commerce/clickstream.clickstream#amount",
                "customer/activity.features#spend_7d",
                Influence::Direct,
            ),
            column(
                "commerce/clickstream.clickstream#ts",
                "customer/activity.features#spend_7d",
                Influence::FilterOnly,
            ),
        ],
    }
}

fn incidents() -> Vec<Episode> {
    let step = |at, state, note: &str, told: &[&str]| Transition {
        at,
        state,
        note: note.into(),
        told: told.iter().map(|t| (*t).into()).collect(),
    };
    let stopped = at("2026-11-20T04:48:00Z");
    vec![
        Episode {
            id: "freshness-commerce-clickstream-20261120".into(),
            kind: "freshness".into(),
            level: AlertLevel::Page,
            title: "Clickstream stands still".into(),
            product: "commerce/clickstream".into(),
            objective: Some("lag".into()),
            state: EpisodeState::Acknowledged,
            started_at: stopped,
            resolved_at: None,
            cause: "The producer has sent nothing since 04:18 UTC.".into(),
            blast_radius: vec!["customer/activity".into(), "risk/churn-model".into()],
            transitions: vec![
                step(
                    stopped,
                    EpisodeState::Firing,
                    "lag passed 30 min",
                    &["mail commerce-oncall@example.com"],
                ),
                step(
                    at("2026-11-20T05:02:00Z"),
                    EpisodeState::Acknowledged,
                    "acknowledged by dana: the shop is being deployed",
                    &[],
                ),
            ],
        },
        Episode {
            id: "drift-customer-activity-spend-7d".into(),
            kind: "drift".into(),
            level: AlertLevel::Ticket,
            title: "spend_7d has drifted from its reference".into(),
            product: "customer/activity".into(),
            objective: None,
            state: EpisodeState::Firing,
            started_at: ago(3),
            resolved_at: None,
            cause: "KS 0.214, p 3.1e-9, three of five windows. The churn model was retrained.".into(),
            blast_radius: vec!["risk/churn-model".into()],
            transitions: vec![step(
                ago(3),
                EpisodeState::Firing,
                "confirmed in 3 of 5 windows",
                &["mail customer-data@example.com"],
            )],
        },
        Episode {
            id: "deadline-daily-revenue-20261108".into(),
            kind: "lateness".into(),
            level: AlertLevel::Page,
            title: "Daily revenue was late".into(),
            product: "commerce/daily-revenue".into(),
            objective: Some("on-time".into()),
            state: EpisodeState::Resolved,
            started_at: ago(24 * 12 + 1),
            resolved_at: Some(ago(24 * 12 - 1)),
            cause: "Orders arrived late from the store system.".into(),
            blast_radius: vec![],
            transitions: vec![
                step(
                    ago(24 * 12 + 1),
                    EpisodeState::Firing,
                    "06:00 passed without yesterday's partition",
                    &["mail commerce-oncall@example.com"],
                ),
                step(
                    ago(24 * 12 - 1),
                    EpisodeState::Resolved,
                    "partition published",
                    &["mail commerce-oncall@example.com"],
                ),
            ],
        },
    ]
}

fn policies() -> Vec<PolicyRule> {
    let rule = |id: &str, title: &str, description: &str, source: &str, counts: (u64, u64, u64)| PolicyRule {
        id: id.into(),
        title: title.into(),
        description: description.into(),
        effect: if counts.1 > 0 { RuleEffect::Warn } else { RuleEffect::Deny },
        source: source.into(),
        owner: "data platform".into(),
        window_days: 30,
        passed: counts.0,
        warned: counts.1,
        denied: counts.2,
        last_denial: (counts.2 > 0).then(|| Denial {
            at: ago(6),
            product: "commerce/daily-revenue".into(),
            reason: "column email is classified pii and the port is readable by everyone".into(),
        }),
    };
    vec![
        rule(
            "pii_needs_consent",
            "Personal data needs a named consumer",
            "A port with a column classified pii is readable only by the domains its contract names.",
            "central",
            (41, 0, 1),
        ),
        rule("owner_required", "Every product has an owner who can be reached", "", "central", (42, 0, 0)),
        rule("tier1_needs_runbook", "Tier 1 has a runbook", "", "central", (40, 2, 0)),
        rule(
            "risk_models_explain",
            "Models of risk carry an explanation",
            "A rule of the risk domain's own.",
            "domains/risk/policies",
            (6, 0, 0),
        ),
    ]
}

fn changes() -> Vec<Change> {
    let outcome = |product: &str, outcome, reason: &str| ChangeOutcome {
        product: product.into(),
        outcome,
        reason: reason.into(),
    };
    vec![
        Change {
            commit: COMMIT.into(),
            message: "Send the receipt address along with daily revenue\n\nFinance asked for it.".into(),
            author: "Robin Frei".into(),
            at: ago(6),
            url: Some("https://git.example.com/mesh/pull/42".into()),
            outcome: Some(Outcome::Applied),
            reason: String::new(),
            outcomes: vec![outcome(
                "commerce/daily-revenue",
                Outcome::Denied,
                "pii_needs_consent: column email is classified pii and the port is readable by everyone",
            )],
        },
        Change {
            commit: BEFORE.into(),
            message: "Add spend over 10 minutes to customer activity".into(),
            author: "Dana Keller".into(),
            at: ago(30),
            url: None,
            outcome: Some(Outcome::Denied),
            reason: String::new(),
            outcomes: vec![
                outcome("customer/activity", Outcome::Applied, ""),
                outcome("risk/churn-model", Outcome::Applied, "backfilled 58 partitions"),
            ],
        },
        Change {
            commit: "09c3d4e5f6a7b8c9d0e1f2a3b4c5d6e7f8091a2b".into(),
            message: "Fix a typo in the README".into(),
            author: "Dana Keller".into(),
            at: ago(55),
            url: None,
            outcome: Some(Outcome::Superseded),
            reason: "a newer commit came first".into(),
            outcomes: vec![],
        },
    ]
}

/// Returns the sample.
pub fn model() -> SiteModel {
    let domain = |name: &str, title: &str, description: &str| Domain {
        name: name.into(),
        title: title.into(),
        description: Some(description.into()),
        owners: vec![contact(&format!("{name} data team"), &format!("{name}-data@example.com"))],
        on_call: Some(format!("{name}-oncall@example.com")),
    };
    SiteModel {
        title: "Alpine Retail mesh".into(),
        environment: "prod".into(),
        commit: COMMIT.into(),
        repository: Some("https://git.example.com/mesh".into()),
        generated_at: now(),
        next_build: Some(now() + TimeDelta::minutes(5)),
        evaluator_version: "0.1.0".into(),
        base_url: None,
        api_base: None,
        domains: vec![
            domain("commerce", "Commerce", "Orders, revenue and what happens in the shop."),
            domain("customer", "Customer", "Who our customers are and what they do."),
            domain("support", "Support", "Help articles and how to find them."),
            domain("risk", "Risk", "Models that look ahead."),
        ],
        products: vec![
            orders(),
            daily_revenue(),
            clickstream(),
            quiet(
                "customer/customers",
                "Customers",
                &[Kind::Source],
                "delta",
                vec![Access::Table],
                "Master data of all customers.",
            ),
            quiet(
                "customer/customer-360",
                "Customer 360",
                &[Kind::Batch],
                "delta",
                vec![Access::Table, Access::Lookup { key: "customer_id".into() }],
                "One row a customer with what all domains know.",
            ),
            activity(),
            quiet(
                "support/articles",
                "Help articles",
                &[Kind::Source],
                "delta",
                vec![Access::Table],
                "Texts of the help centre.",
            ),
            quiet(
                "support/article-search",
                "Article search",
                &[Kind::Embedding],
                "delta",
                vec![Access::Search { text: "body".into() }],
                "Finds help articles by meaning.",
            ),
            churn_model(),
        ],
        lineage: lineage(),
        incidents: incidents(),
        policies: policies(),
        waivers: vec![Waiver {
            rule: "tier1_needs_runbook".into(),
            scope: "customer/activity".into(),
            reason: "the runbook is being written".into(),
            approved_by: "platform council".into(),
            expires_at: now() + TimeDelta::days(12),
        }],
        changes: changes(),
    }
}

/// Returns a mesh of many products in layers, for tests of size.
pub fn crowd(products: usize, domains: usize) -> SiteModel {
    let mut mesh = model();
    let id = |n: usize| format!("domain-{:02}/product-{n:04}", n % domains);
    mesh.domains.clear();
    mesh.products = (0..products)
        .map(|n| {
            let mut p = orders();
            p.id = id(n);
            p.title = format!("Product {n}");
            p.domain = format!("domain-{:02}", n % domains);
            p.runs.clear();
            p
        })
        .collect();
    mesh.lineage = Lineage {
        products: (1..products)
            .flat_map(|n| [edge(&id(n / 3), &id(n), "orders"), edge(&id(n / 2), &id(n), "orders")])
            .collect(),
        columns: Vec::new(),
    };
    mesh.incidents.clear();
    mesh.changes.clear();
    mesh
}
