//! A story as facts, and what the site says of it.

use std::path::Path;
use std::sync::LazyLock;

use hydromesh_core::control::outbox_id;
use hydromesh_core::ledger::{
    Alert, AlertKind, AlertState, Command, Entry, ErrorKind, Fact, FeatureDrift, Finding, Outcome, Published,
    RunOutcome, Trained, Verb,
};
use hydromesh_core::model::QualitySeverity;

use super::*;
use crate::policy::{PolicySet, SourceSet};
use crate::site::tests::{built, check_links, check_markup, is_markup, text};
use crate::site::{build, model as site};

const FIRST: &str = "1111111111111111111111111111111111111111";
const SECOND: &str = "2222222222222222222222222222222222222222";
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// 2026-11-20T06:00:00Z.
const NOW: i64 = 1_795_154_400_000;
/// Midnight of that day.
const TODAY: i64 = NOW - 6 * HOUR;

/// Ports that are minutes old and not hours.
const LIVE: [&str; 2] = ["commerce/clickstream.clickstream", "customer/activity.features"];

/// What the example asks for; describing its queries takes a while, so once for all tests.
static EXAMPLE: LazyLock<crate::control::Reading> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("mesh-repo-example");
    let snapshot = crate::repo::FolderSource::open(&folder).unwrap().snapshot().unwrap();
    let reading = crate::control::read(&snapshot, FIRST, &BTreeMap::new());
    assert!(!reading.has_errors(), "{:#?}", reading.findings);
    reading
});

fn id(text: &str) -> ProductId {
    text.parse().unwrap()
}

/// Facts in order of time.
struct Story {
    entries: Vec<Entry>,
    at_ms: i64,
}

impl Story {
    /// Everything of the example deployed for ten days.
    fn begin() -> Self {
        let mut story = Self { entries: Vec::new(), at_ms: NOW - 10 * DAY };
        story.tell(Fact::Opened { environment: "dev".into(), epoch: 1, version: "0".into() });
        story.seen(FIRST, "Begin with nine products");
        for (product, print) in EXAMPLE.desired.mesh.products.values().zip(EXAMPLE.desired.prints.values()) {
            let id = product.id.clone();
            story.decided(&id, FIRST, &[]);
            story.tell(Fact::Deployed {
                generation: 1,
                commit: FIRST.into(),
                decision: format!("{id}@{FIRST}"),
                product: Box::new(product.clone()),
                print: print.clone(),
            });
            story.outcome(FIRST, Some(&id), Outcome::Applied, "new product");
        }
        story.outcome(FIRST, None, Outcome::Applied, "new product");
        story
    }

    fn tell(&mut self, fact: Fact) {
        let seq = self.entries.len() as u64 + 1;
        self.entries.push(Entry { seq, at_ms: self.at_ms, fact });
    }

    fn at(&mut self, at_ms: i64) -> &mut Self {
        assert!(at_ms >= self.at_ms, "a ledger grows with time");
        self.at_ms = at_ms;
        self
    }

    fn seen(&mut self, commit: &str, message: &str) {
        let (message, author) = (message.into(), "Ada Keller".into());
        self.tell(Fact::CommitSeen {
            commit: commit.into(),
            r#ref: "refs/heads/main".into(),
            message,
            author,
        });
    }

    fn outcome(&mut self, commit: &str, product: Option<&ProductId>, outcome: Outcome, why: &str) {
        let (commit, product, why) = (commit.into(), product.cloned(), why.into());
        self.tell(Fact::CommitOutcome { commit, product, outcome, why });
    }

    fn decided(&mut self, product: &ProductId, commit: &str, violations: &[(&str, &str)]) {
        let finding = |(rule, message): &(&str, &str)| Finding {
            rule: (*rule).into(),
            message: (*message).into(),
            path: String::new(),
            remediation: String::new(),
            running: false,
        };
        self.tell(Fact::Decided(Decision {
            id: format!("{product}@{commit}"),
            product: product.clone(),
            action: "deploy".into(),
            commit: commit.into(),
            fingerprint: "f".into(),
            allow: violations.is_empty(),
            violations: violations.iter().map(finding).collect(),
            warnings: vec![finding(&("deprecated-status", "leaves in March"))],
            waived: Vec::new(),
            policy_digest: "sha256:p".into(),
            rules: String::new(),
            input_hash: "sha256:feedbeef00".into(),
        }));
    }

    fn published(&mut self, port: &str, partition: Option<&str>, rows: u64, data_time_ms: i64) {
        self.tell(Fact::Published(Published {
            port: port.parse().unwrap(),
            partition: partition.map(Into::into),
            version: self.entries.len() as i64,
            rows,
            data_time_ms: Some(data_time_ms),
            data: "d".into(),
            inputs: BTreeMap::new(),
            run: "run-00000001".into(),
            key: String::new(),
            taken: None,
        }));
    }

    fn quality(&mut self, port: &str, rule: &str, severity: QualitySeverity, measure: f64, passed: bool) {
        self.tell(Fact::Quality {
            port: port.parse().unwrap(),
            partition: Some("2026-11-19".into()),
            run: "run-00000001".into(),
            rule: rule.into(),
            severity,
            passed,
            measure: Some(measure),
            threshold: "less than 10 %".into(),
            column: None,
            rows: None,
            band: None,
        });
    }

    fn finished(&mut self, run: &str, step: &str, outcome: RunOutcome) {
        let step = step.parse().unwrap();
        self.tell(Fact::RunFinished { run: run.into(), step, outcome, took_ms: 90_000 });
    }

    fn alert(&mut self, alert: Alert) {
        self.tell(Fact::Alert(alert));
    }

    /// The facts folded, after what the streams commit all the time.
    fn ledger(&self) -> LedgerState {
        let mut story = Self { entries: self.entries.clone(), at_ms: self.at_ms };
        story.at(story.at_ms.max(NOW - MINUTE));
        let live = if story.entries.len() > 3 { &LIVE[..] } else { &[] };
        for port in live {
            story.published(port, None, 120, NOW - 2 * MINUTE);
        }
        LedgerState::replay(&story.entries)
    }

    fn site(&self) -> SiteModel {
        model(&self.ledger(), Some(&EXAMPLE.desired), &view())
    }
}

fn view() -> View {
    View {
        environment: "dev".into(),
        generated_at_ms: NOW,
        repository: Some("https://git.example.com/mesh.git".into()),
        evaluator_version: "0.1.0".into(),
        lake: "/srv/lake".into(),
        policies: known_rules(&PolicySet::embedded(), &EXAMPLE.policies),
        ..View::default()
    }
}

fn alert(product: &str, kind: AlertKind, subject: &str, state: AlertState, summary: &str) -> Alert {
    Alert {
        episode: format!("{product}:{subject}:{kind:?}"),
        product: id(product),
        kind,
        subject: subject.into(),
        transition: 1,
        state,
        summary: summary.into(),
        details: Vec::new(),
        caused_by: None,
        targets: vec!["oncall@example.com".into()],
    }
}

fn product<'a>(site: &'a SiteModel, id: &str) -> &'a site::Product {
    site.products.iter().find(|product| product.id == id).unwrap_or_else(|| panic!("no {id}"))
}

fn objective<'a>(site: &'a SiteModel, product_id: &str, id: &str) -> &'a site::Objective {
    let product = product(site, product_id);
    product.objectives.iter().find(|objective| objective.id == id).unwrap_or_else(|| {
        panic!("no {id} but {:?}", product.objectives.iter().map(|it| &it.id).collect::<Vec<_>>())
    })
}

/// Publishes every output of the example as of midnight, so that only what a test breaks is broken.
fn all_is_well() -> Story {
    let mut story = Story::begin();
    for at in (0..10).map(|day| TODAY - (9 - day) * DAY) {
        story.at(at + 3 * HOUR);
        for product in EXAMPLE.desired.mesh.products.values() {
            for name in product.outputs.keys() {
                let port = product.port(name).to_string();
                if LIVE.contains(&port.as_str()) {
                    continue;
                }
                for rule in &product.outputs[name].contract.quality {
                    story.quality(&port, &rule.id, rule.severity, 0.0, true);
                }
                let day = instant(at - DAY).format("%Y-%m-%d").to_string();
                let key = port.starts_with("commerce/orders").then_some(day);
                let high = if key.is_some() { at } else { at + 3 * HOUR };
                story.published(&port, key.as_deref(), 120, high);
            }
        }
    }
    story
}

#[test]
fn a_mesh_that_keeps_its_promises_is_healthy() {
    let site = all_is_well().site();
    for product in &site.products {
        assert_eq!(
            (product.status, product.status_reason.as_str()),
            (site::Status::Healthy, ""),
            "{}",
            product.id
        );
        assert_eq!(product.sync, site::Sync::InSync { commit: FIRST.into() });
    }
    assert_eq!(site.products.len(), EXAMPLE.desired.mesh.products.len());
    assert_eq!(site.title, "Larch & Pine data mesh");
    assert_eq!(site.commit, FIRST);
    let orders = product(&site, "commerce/orders");
    assert_eq!(orders.data_through, Some(instant(TODAY)));
    assert_eq!(orders.tier, Some(1));
    let port = &orders.ports[0];
    assert_eq!((port.rows, port.format.as_str()), (Some(1_200), "delta"));
    assert_eq!(port.location, "/srv/lake/commerce/orders.orders");
    assert_eq!(port.terms, [("retention".to_owned(), "10 y".to_owned())]);
    let age = objective(&site, "commerce/orders", "orders.latency:orders.order_date:operational");
    assert_eq!(age.current, "data is 6 h old");
    assert_eq!(age.promise, "data at most 2\u{a0}d old");
    assert_eq!((age.sli_low, age.sli_high, age.budget_remaining), (Some(1.0), Some(1.0), Some(1.0)));
    assert_eq!(age.since, Some(instant(TODAY - 9 * DAY + 3 * HOUR)));
    assert_eq!(age.days.len(), 10, "the days before the first publication are nobody's");
    assert!(age.days.iter().all(|day| day.state == site::DayState::Good));
    // The next partition ends at midnight.
    assert_eq!(product(&site, "commerce/daily-revenue").next_expected, Some(instant(TODAY + DAY)));
    assert_eq!(
        site.changes[0].url.as_deref(),
        Some(&*format!("https://git.example.com/mesh/commit/{FIRST}"))
    );
    assert_eq!(site.changes[0].outcomes.len(), site.products.len());
}

#[test]
fn late_data_breaches_and_its_budget_is_spent() {
    let story = all_is_well();
    // Three days later nothing has come: the promise of two days was broken for one day and six hours before midnight.
    let view = View { generated_at_ms: NOW + 3 * DAY, ..view() };
    let late = model(&story.ledger(), Some(&EXAMPLE.desired), &view);
    let age = objective(&late, "commerce/orders", "orders.latency:orders.order_date:operational");
    assert_eq!(age.status, site::Status::Breaching);
    let broken_ms = NOW + 3 * DAY - (TODAY + 2 * DAY);
    let budget_ms = 0.01 * 30.0 * DAY as f64;
    let left = age.budget_remaining.unwrap();
    assert!((left - (1.0 - broken_ms as f64 / budget_ms)).abs() < 1e-9, "{left}");
    assert_eq!(age.bad_intervals.len(), 1);
    assert_eq!(age.bad_intervals[0].from, instant(TODAY + 2 * DAY));
    assert_eq!(age.bad_intervals[0].to, None);
    assert_eq!(age.days.last().unwrap().state, site::DayState::Bad);
    let orders = product(&late, "commerce/orders");
    assert_eq!(orders.status, site::Status::Breaching);
    assert_eq!(orders.status_reason, "data is 3 d 6 h old, promised: data at most 2\u{a0}d old");
    let pages = built(&late);
    let page = text(&pages, "p/commerce/orders/index.html");
    assert!(page.contains("overspent by"), "the page tells the budget");
}

#[test]
fn reading_history_at_first_breaks_no_promise() {
    let orders = id("commerce/orders");
    let key = "orders.latency:orders.order_date:operational";
    let mut story = Story::begin();
    let deployed_ms = story.at_ms;
    // Oldest first: a month of days within an hour, the first of them far older than the promise of two days.
    for day in 0..30 {
        let end = NOW - 10 * DAY - 6 * HOUR - (29 - day) * DAY;
        story.at(deployed_ms + (day + 1) * MINUTE).published("commerce/orders.orders", Some("x"), 1, end);
    }
    let judged = |story: &Story, now_ms: i64| {
        let view = View { generated_at_ms: now_ms, ..view() };
        model(&LedgerState::replay(&story.entries), Some(&EXAMPLE.desired), &view)
    };
    let site = judged(&story, deployed_ms + HOUR);
    let age = objective(&site, "commerce/orders", key);
    assert_eq!((age.status, age.budget_remaining), (site::Status::Healthy, Some(1.0)));
    assert_eq!(age.bad_intervals, []);

    // Cut in the middle it is neither kept nor broken.
    story.entries.truncate(story.entries.len() - 10);
    let site = judged(&story, deployed_ms + HOUR);
    let reading = product(&site, "commerce/orders");
    assert_eq!(
        (reading.status, reading.status_reason.as_str()),
        (site::Status::Unknown, "its history is being read")
    );
    // Whoever never gets there is late all the same, once alerts would say so.
    let site = judged(&story, deployed_ms + 3 * DAY);
    let age = objective(&site, "commerce/orders", key);
    assert_eq!(age.bad_intervals[0].from, instant(deployed_ms + 2 * DAY));
    assert_eq!(product(&site, &orders.to_string()).status, site::Status::Breaching);
}

#[test]
fn a_rule_that_knows_nothing_usual_is_neither_good_nor_bad() {
    let mut story = all_is_well();
    let before = product(&story.site(), "commerce/orders").status;
    let band = hydromesh_core::band::Band { alike: 2, needed: 4, usual: None };
    story.tell(Fact::Quality {
        port: "commerce/orders.orders".parse().unwrap(),
        partition: Some("2026-11-19".into()),
        run: "run-00000001".into(),
        rule: "channel-mostly-known".into(),
        severity: QualitySeverity::Warning,
        passed: false,
        measure: Some(1.5),
        threshold: band.spoken(true),
        column: None,
        rows: Some(200),
        band: Some(band),
    });
    let site = story.site();
    let orders = product(&site, "commerce/orders");
    assert_eq!(orders.status, before, "{}", orders.status_reason);
    let rule = orders.quality.iter().find(|rule| rule.check == "channel-mostly-known").unwrap();
    assert_eq!(rule.outcome, site::QualityOutcome::Unknown);
    let promise = objective(&site, "commerce/orders", "orders.qualityPassRate");
    assert_eq!(promise.status, site::Status::Healthy, "it is no part of the rate");
    let pages = built(&site);
    let page = text(&pages, "p/commerce/orders/index.html");
    assert!(page.contains("what is usual, which is unknown with 2 of 4 like it before"));
}

#[test]
fn audits_of_before_are_inferred_only_where_they_are_certain() {
    let key = "orders.qualityPassRate";
    let mut story = all_is_well();
    let rules = objective(&story.site(), "commerce/orders", key).clone();
    assert_eq!((rules.sli_low, rules.sli_high), (Some(1.0), Some(1.0)), "no warning ever failed");
    story.quality("commerce/orders.orders", "channel-mostly-known", QualitySeverity::Warning, 12.5, false);
    story.at(NOW - 2 * HOUR);
    story.quality("commerce/orders.orders", "channel-mostly-known", QualitySeverity::Warning, 1.5, true);
    let rules = objective(&story.site(), "commerce/orders", key).clone();
    assert_eq!((rules.status, rules.sli_high), (site::Status::Healthy, Some(1.0)));
    let known = 2.0 * HOUR as f64 / (9.0 * DAY as f64 + 3.0 * HOUR as f64);
    assert!((rules.sli_low.unwrap() - known).abs() < 1e-9, "{rules:?}");
}

#[test]
fn a_denied_commit_leaves_the_old_definition_serving() {
    let mut story = all_is_well();
    story.at(NOW - 30 * MINUTE).seen(SECOND, "Show mail addresses to everyone");
    let customers = id("customer/customers");
    story.decided(&customers, SECOND, &[("pii-exposed", "customers#email is PII and unmasked")]);
    let why = "customer/customers: denied by pii-exposed: customers#email is PII and unmasked";
    story.outcome(SECOND, Some(&customers), Outcome::Denied, why);
    story.outcome(SECOND, None, Outcome::Denied, why);
    let site = story.site();
    let denied = product(&site, "customer/customers");
    assert_eq!(denied.status, site::Status::Denied);
    assert_eq!(denied.deployed_commit.as_deref(), Some(FIRST));
    let (rule, reason) = ("pii-exposed".to_owned(), "customers#email is PII and unmasked".to_owned());
    assert_eq!(denied.sync, site::Sync::Denied { commit: SECOND.into(), rule, reason });
    assert_eq!(denied.decisions[0].verdict, site::Verdict::Deny);
    assert_eq!(site.changes[0].outcome, Some(site::Outcome::Denied));
    assert_eq!(
        site.changes[0].outcomes[0].reason,
        "denied by pii-exposed: customers#email is PII and unmasked"
    );

    let rule = |id: &str| site.policies.iter().find(|rule| rule.id == id).unwrap();
    let exposed = rule("pii-exposed");
    let decisions = EXAMPLE.desired.mesh.products.len() as u64 + 1;
    assert_eq!((exposed.denied, exposed.passed), (1, decisions - 1));
    assert_eq!(exposed.last_denial.as_ref().unwrap().product, "customer/customers");
    assert_eq!(rule("deprecated-status").effect, site::RuleEffect::Warn);
    assert_eq!(rule("deprecated-status").warned, decisions);
    // A domain's rule is asked about that domain alone.
    assert_eq!((rule("known-then").passed, rule("runbook-host").passed), (1, decisions));

    let pages = built(&site);
    let page = text(&pages, "p/customer/customers/index.html");
    assert!(page.contains("pii-exposed denies 22222222: customers#email is PII and unmasked"));
    assert!(page.contains(">feedbeef<"), "the input's digest, without the name of its function");

    // A later commit that takes the change back ends it, without a word about the product.
    let third = "3".repeat(40);
    story.at(NOW - 20 * MINUTE).seen(&third, "Take it back");
    story.outcome(&third, None, Outcome::Applied, "no changes");
    let site = story.site();
    assert_eq!(product(&site, "customer/customers").status, site::Status::Healthy);
    assert!(text(&built(&site), "changes/index.html").contains("Changed no product."));
}

#[test]
fn a_paused_product_says_who_and_why() {
    let mut story = all_is_well();
    let verb =
        Verb::Pause { product: "commerce/daily-revenue".parse().unwrap(), until_ms: None, backfills: false };
    let (id, actor, reason) = ("c1".to_owned(), "ann".to_owned(), "the source is repaired".to_owned());
    story.at(NOW - HOUR).tell(Fact::Command(Command { id: id.clone(), actor, reason, verb }));
    story.tell(Fact::CommandAnswered { id, accepted: true, answer: String::new() });
    let site = story.site();
    let revenue = product(&site, "commerce/daily-revenue");
    let said = (revenue.status, revenue.status_reason.as_str());
    assert_eq!(said, (site::Status::Degraded, "paused by ann: the source is repaired"));
}

#[test]
fn a_failed_audit_and_a_warning_degrade() {
    let mut story = all_is_well();
    let step = "commerce/daily-revenue:daily-revenue@2026-11-19..2026-11-19";
    story.at(NOW - 2 * HOUR).quality(
        "commerce/daily-revenue.daily_revenue",
        "at-least-three-countries",
        QualitySeverity::Error,
        2.0,
        false,
    );
    let message = "at-least-three-countries: measured 2, wanted at least 3";
    let outcome =
        RunOutcome::Failed { kind: ErrorKind::User, code: "HM-Q001".into(), message: message.into() };
    story.finished("run-00000077", step, outcome);
    let summary = format!("{step} failed: {message}");
    let fired =
        alert("commerce/daily-revenue", AlertKind::Quality, "daily-revenue", AlertState::Firing, &summary);
    story.alert(fired.clone());
    let outbox = outbox_id(&fired.episode, 1, "oncall@example.com");
    let (episode, to) = (fired.episode.clone(), "oncall@example.com".to_owned());
    story.at(NOW - HOUR).tell(Fact::Sent { outbox, episode, transition: 1, to, receipt: "ok".into() });
    story.quality("commerce/orders.orders", "channel-mostly-known", QualitySeverity::Warning, 12.5, false);
    story.tell(Fact::RunStarted {
        run: "run-00000099".into(),
        step: step.parse().unwrap(),
        attempt: 2,
        decision: String::new(),
    });
    let site = story.site();

    let revenue = product(&site, "commerce/daily-revenue");
    let without_id = summary.strip_prefix("commerce/daily-revenue:").unwrap();
    assert_eq!((revenue.status, revenue.status_reason.as_str()), (site::Status::Degraded, without_id));
    assert_eq!(revenue.runs[0].outcome, site::RunOutcome::Running);
    assert_eq!(revenue.runs[1].error.as_deref(), Some(&*format!("HM-Q001: {message}")));
    assert_eq!(revenue.runs[1].started_at, Some(instant(NOW - 2 * HOUR - 90_000)));
    let incident = &site.incidents[0];
    assert_eq!(incident.level, site::AlertLevel::Ticket);
    assert_eq!(incident.transitions[0].told, ["oncall@example.com"]);
    // A broken promise of quality is the rule's failure said twice; readers still have the last good partition.
    let rules = objective(&site, "commerce/daily-revenue", "daily_revenue.qualityPassRate");
    assert_eq!((rules.status, rules.current.as_str()), (site::Status::Breaching, "7 of 8 rules hold"));
    let bad = &rules.bad_intervals[0];
    assert_eq!((bad.from, bad.to, bad.cause.as_str()), (instant(NOW - 2 * HOUR), None, summary.as_str()));

    let orders = product(&site, "commerce/orders");
    let warned = orders.quality.iter().find(|rule| rule.check == "channel-mostly-known").unwrap();
    assert_eq!((warned.outcome, warned.observed.as_str()), (site::QualityOutcome::Fail, "12.5\u{202f}%"));

    let pages = built(&site);
    let page = text(&pages, "p/commerce/daily-revenue/index.html");
    assert!(page.contains("HM-Q001: at-least-three-countries: measured 2, wanted at least 3"));
    assert!(page.contains("run-00000077"), "runs are told apart");
}

#[test]
fn a_product_that_waits_for_another_names_it_and_wakes_nobody() {
    let mut story = all_is_well();
    story.at(NOW - HOUR);
    let mut cause =
        alert("commerce/orders", AlertKind::Freshness, "orders", AlertState::Firing, "orders is late");
    cause.details = vec![("Blast radius".into(), "2: commerce/daily-revenue, customer/customer-360".into())];
    let mut held = alert(
        "commerce/daily-revenue",
        AlertKind::Freshness,
        "daily_revenue",
        AlertState::Held,
        "revenue is late",
    );
    held.caused_by = Some(cause.episode.clone());
    story.alert(cause.clone());
    story.alert(held);
    let site = story.site();
    let of = |product: &str| site.incidents.iter().find(|incident| incident.product == product).unwrap();
    let (root, effect) = (of("commerce/orders"), of("commerce/daily-revenue"));
    assert_eq!((root.level, root.state), (site::AlertLevel::Page, site::EpisodeState::Firing));
    assert_eq!(root.blast_radius, ["commerce/daily-revenue", "customer/customer-360"]);
    assert!(
        root.transitions[0].note.ends_with("On its way to oncall@example.com."),
        "sent is what was accepted"
    );
    assert_eq!(effect.state, site::EpisodeState::Held);
    assert!(effect.cause.contains("Explained by commerce/orders"));
    let reason = &product(&site, "commerce/daily-revenue").status_reason;
    assert_eq!(reason, "revenue is late; commerce/orders is the cause");
    assert_eq!(root.objective.as_deref(), Some("orders.latency:orders.order_date:operational"));
    let summary: serde_json::Value =
        serde_json::from_str(text(&built(&site), "api/v1/summary.json")).unwrap();
    assert_eq!(summary["open_incidents"].as_array().unwrap().len(), 1, "one incident, the rest is its reach");

    let resolved =
        Alert { transition: 2, state: AlertState::Resolved, summary: "fresh again".into(), ..cause };
    story.at(NOW - MINUTE).alert(resolved);
    let site = story.site();
    let root = site.incidents.iter().find(|incident| incident.product == "commerce/orders").unwrap();
    assert_eq!((root.state, root.resolved_at), (site::EpisodeState::Resolved, Some(instant(NOW - MINUTE))));
    assert_eq!(root.cause, "orders is late", "what it was about, not that it is over");
}

#[test]
fn models_and_drift_have_their_history() {
    use site::ModelOutcome::{Promoted, Rejected, Retired};
    let mut story = all_is_well();
    let churn = id("risk/churn-model");
    let trained = |version, value, champion_value| {
        Fact::Trained(Trained {
            product: churn.clone(),
            version,
            run: "run-00000005".into(),
            metric: "auc".into(),
            value,
            champion_value,
            metrics: BTreeMap::from([("log_loss".into(), 0.4)]),
            rows: (900, 300),
            inputs: BTreeMap::from([("customer/activity.features".parse().unwrap(), 7)]),
            path: "risk/churn-model/1".into(),
            reason: "no model yet".into(),
            algorithm: (version == 2).then(|| "command: python3 train.py".into()),
        })
    };
    story.at(NOW - 50 * MINUTE).tell(trained(1, 0.81, None));
    story.tell(Fact::Promoted { product: churn.clone(), version: 1, reason: "the first model".into() });
    story.at(NOW - 40 * MINUTE).tell(trained(2, 0.84, Some(0.80)));
    story.tell(Fact::Promoted { product: churn.clone(), version: 2, reason: "better".into() });
    story.at(NOW - 30 * MINUTE).tell(trained(3, 0.70, Some(0.84)));
    for (minutes, statistic, drifted) in [(20, 0.05, false), (10, 0.31, true)] {
        let verdict = if drifted { "drifted" } else { "stable" };
        let feature = "spend_7d".to_owned();
        let drift = FeatureDrift {
            feature,
            test: "KS".into(),
            statistic,
            p_value: 0.001,
            effect: 0.4,
            verdict: verdict.into(),
            samples: (2_000, 400),
        };
        story.at(NOW - minutes * MINUTE);
        story.tell(Fact::Drift { product: churn.clone(), verdicts: vec![drift], drifted });
    }
    let site = story.site();
    let churn = product(&site, "risk/churn-model");
    let card = churn.model.as_ref().unwrap();
    let champion = card.champion.as_ref().unwrap();
    assert_eq!((champion.version.as_str(), champion.metrics["auc"]), ("2", 0.84));
    assert_eq!(champion.algorithm, "command: python3 train.py");
    let fates: Vec<_> = card.history.iter().map(|event| (event.version.as_str(), event.outcome)).collect();
    assert_eq!(fates, [("3", Rejected), ("2", Promoted), ("1", Retired)]);
    assert_eq!(card.gate, "auc at most 0.01 below the champion's on the same held-out rows");
    let drift = &churn.drift[0];
    assert_eq!((drift.verdict, drift.sample_size), (site::DriftVerdict::Drifted, Some(400)));
    assert_eq!(drift.history.iter().map(|point| point.statistic).collect::<Vec<_>>(), [0.05, 0.31]);
}

#[test]
fn what_never_ran_is_shown_with_why() {
    let mut story = Story { entries: Vec::new(), at_ms: NOW - HOUR };
    story.seen(FIRST, "Begin");
    let mut desired = EXAMPLE.desired.clone();
    let lost = id("support/articles");
    desired.mesh.products.remove(&lost);
    desired.prints.remove(&lost);
    desired.broken.insert(lost.clone(), Vec::new());
    let site = model(&story.ledger(), Some(&desired), &view());
    let orders = product(&site, "commerce/orders");
    assert_eq!(
        (orders.status, orders.status_reason.as_str()),
        (site::Status::Unknown, "waits for its first deploy")
    );
    assert_eq!(orders.sync, site::Sync::Pending { commit: FIRST.into() });
    assert_eq!(site.changes[0].outcome, None);
    assert!(text(&built(&site), "changes/index.html").contains("Not decided yet."));

    story.outcome(FIRST, Some(&lost), Outcome::Broken, "HM-C001 pipeline.yaml:3: no column `titel`");
    story.outcome(FIRST, None, Outcome::Broken, "support/articles: HM-C001");
    let site = model(&story.ledger(), Some(&desired), &view());
    let broken = product(&site, "support/articles");
    assert_eq!(broken.status, site::Status::Held);
    let reason = "HM-C001 pipeline.yaml:3: no column `titel`".to_owned();
    assert_eq!(broken.sync, site::Sync::Broken { commit: FIRST.into(), reason });

    // Nothing at all is known: still a site.
    let empty = model(&LedgerState::default(), None, &View { environment: "dev".into(), ..View::default() });
    assert_eq!(empty.title, "dev");
    build(&empty).unwrap();
}

#[test]
fn lineage_is_that_of_what_runs() {
    let story = all_is_well();
    let site = story.site();
    let reads =
        |from: &str, to: &str| site.lineage.products.iter().any(|edge| edge.from == from && edge.to == to);
    assert!(reads("commerce/orders", "commerce/daily-revenue"));
    assert!(reads("customer/activity", "risk/churn-model"), "features of a training are read");
    let revenue: Vec<_> = site
        .lineage
        .columns
        .iter()
        .filter(|edge| edge.to == "commerce/daily-revenue.daily_revenue#revenue")
        .collect();
    let from =
        |column: &str| revenue.iter().find(|edge| edge.from == format!("commerce/orders.orders#{column}"));
    assert_eq!(from("amount").map(|edge| edge.influence), Some(site::Influence::Direct));
    assert_eq!(from("status").map(|edge| edge.influence), Some(site::Influence::FilterOnly));

    // A commit that is not let in does not change what is said of the columns.
    let mut desired = EXAMPLE.desired.clone();
    desired.prints.get_mut(&id("commerce/daily-revenue")).unwrap().all = "another".into();
    let held = model(&story.ledger(), Some(&desired), &view());
    assert!(!held.lineage.columns.iter().any(|edge| edge.to.starts_with("commerce/daily-revenue.")));
    let pending = site::Sync::Pending { commit: FIRST.into() };
    assert_eq!(product(&held, "commerce/daily-revenue").sync, pending);
}

#[test]
fn the_whole_story_makes_sound_pages_and_the_same_ones_twice() {
    let story = all_is_well();
    let (one, other) = (story.site(), story.site());
    assert_eq!(one, other);
    let pages = built(&one);
    assert_eq!(pages, built(&other));
    check_links(&pages);
    for path in pages.keys().filter(|path| is_markup(path)) {
        check_markup(path, text(&pages, path));
    }
}

#[test]
fn rules_are_known_by_the_names_of_their_findings() {
    let rules = known_rules(&PolicySet::embedded(), &EXAMPLE.policies);
    let find = |name: &str| rules.iter().filter(|rule| rule.rule == name).collect::<Vec<_>>();
    for (name, set) in [
        ("pii-exposed", SourceSet::Central),
        ("pii-into-search", SourceSet::Central),
        ("readers-remain", SourceSet::Central),
        ("runbook-host", SourceSet::Mesh),
        ("known-then", SourceSet::Domain),
    ] {
        let found = find(name);
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        assert_eq!((found[0].set, found[0].effect), (set, site::RuleEffect::Deny), "{name}");
        assert!(found[0].metadata.title.is_some(), "{name} has a title");
    }
    // Their packages are named otherwise, and describe more than one rule.
    for name in ["deprecated-status", "waiver-lifetime"] {
        assert_eq!(find(name)[0].effect, site::RuleEffect::Warn, "{name}");
    }
    assert!(find("lib").is_empty(), "helpers judge nobody");
}

#[test]
fn a_thousand_products_with_history_take_a_few_seconds() {
    let template = &EXAMPLE.desired.mesh.products[&id("commerce/orders")];
    let print = &EXAMPLE.desired.prints[&id("commerce/orders")];
    let mut sla = template.outputs.values().next().unwrap().contract.slas[0].clone();
    sla.id = "again".into();
    let mut ledger = LedgerState::default();
    let mut seq = 0;
    for n in 0..1_000 {
        let mut product = template.clone();
        product.id = id(&format!("domain-{}/product-{n}", n % 20));
        for output in product.outputs.values_mut() {
            output.contract.slas.push(sla.clone());
        }
        let port = product.port(product.outputs.keys().next().unwrap());
        let mut tell = |at_ms, fact| {
            seq += 1;
            ledger.apply(&Entry { seq, at_ms, fact });
        };
        let start = NOW - 90 * DAY;
        tell(
            start,
            Fact::Deployed {
                generation: 1,
                commit: FIRST.into(),
                decision: String::new(),
                product: Box::new(product),
                print: print.clone(),
            },
        );
        // One publication in ten comes late, so that there are intervals to judge.
        for day in 0..90 {
            let late = if day % 10 == n % 10 { 50 * HOUR } else { HOUR };
            let at = start + day * DAY + late;
            let published = Published {
                port: port.clone(),
                partition: Some(instant(start + day * DAY).format("%Y-%m-%d").to_string()),
                version: day,
                rows: 10,
                data_time_ms: Some(start + day * DAY),
                data: "d".into(),
                inputs: BTreeMap::new(),
                run: "run-00000001".into(),
                key: String::new(),
                taken: None,
            };
            tell(at.max(start), Fact::Published(published));
        }
    }
    let started = std::time::Instant::now();
    let site = model(&ledger, None, &view());
    let took = started.elapsed();
    assert_eq!(site.products.len(), 1_000);
    assert!(site.products.iter().all(|product| product.objectives.len() == 4));
    // In an unoptimised build on a busy machine; what matters is that no part of it is quadratic.
    assert!(took.as_secs() < 20, "{took:?}");
    println!("1000 products, 4000 objectives: {took:?}");
}
