//! What Prometheus is told.

use super::*;

async fn scrape(served: &Served) -> String {
    let response = served.client.get(format!("{}/metrics", served.base)).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    response.text().await.unwrap()
}

fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_of_the_dashboard_exists() {
    let mut story = deployed_story();
    story.everything();
    let (served, _commands) = served(story).await;
    served.get("/v1/features/customer/activity?customer_id=c-1").await;
    served.state.metrics.reconciled(Duration::from_millis(12));
    let text = scrape(&served).await;
    let dashboard = include_str!("../../../dashboards/mesh-overview.json");
    let mut names: Vec<&str> = dashboard
        .match_indices("hydromesh_")
        .map(|(at, _)| {
            let rest = &dashboard[at..];
            &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap()]
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    assert!(names.len() >= 12, "{names:?}");
    for name in names {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} is not in\n{text}");
        let family = name.trim_end_matches("_bucket");
        assert!(
            text.contains(&format!("# HELP {family} ")) && text.contains(&format!("# TYPE {family} ")),
            "{family}"
        );
    }
    for (series, wanted) in [
        ("hydromesh_product_health{product=\"commerce/orders\",state=\"breaching\"}", 1.0),
        ("hydromesh_product_health{product=\"commerce/orders\",state=\"healthy\"}", 0.0),
        ("hydromesh_product_sync{product=\"customer/customer-360\",state=\"synced\"}", 1.0),
        ("hydromesh_product_sync{product=\"customer/customer-360\",state=\"held\"}", 0.0),
        ("hydromesh_product_paused{product=\"customer/customer-360\"}", 0.0),
        ("hydromesh_alerts_firing{kind=\"freshness\",product=\"commerce/orders\"}", 1.0),
        ("hydromesh_gate_decisions_total{outcome=\"deny\"}", 1.0),
        ("hydromesh_gate_decisions_total{outcome=\"allow\"}", 0.0),
        ("hydromesh_runs_total{outcome=\"succeeded\",product=\"commerce/orders\"}", 1.0),
        ("hydromesh_slo_data_age_seconds{port=\"customer_360\",product=\"customer/customer-360\"}", 3600.0),
        ("hydromesh_step_last_seconds{pipeline=\"commerce/orders:orders-daily\"}", 0.005),
        ("hydromesh_stream_rows_total{kind=\"quarantined\",pipeline=\"customer/activity:activity\"}", 3.0),
        ("hydromesh_stream_watermark_lag_seconds{pipeline=\"customer/activity:activity\"}", 30.0),
        ("hydromesh_drift_statistic{feature=\"spend_7d\",product=\"risk/churn-model\"}", 0.25),
        ("hydromesh_model_metric{metric=\"auc\",product=\"risk/churn-model\"}", 0.81),
        ("hydromesh_feature_lookup_seconds_count", 1.0),
        ("hydromesh_reconcile_seconds_count", 1.0),
    ] {
        assert_eq!(value(&text, series), Some(wanted), "{series} in\n{text}");
    }
    let budget = text.lines().find(|line| line.starts_with("hydromesh_slo_budget_remaining_ratio{")).unwrap();
    assert!(budget.contains("customer/customer-360") || budget.contains("customer/activity"), "{budget}");
}

#[test]
fn what_is_late_is_breaching_before_anybody_has_told_of_it() {
    let mut story = deployed_story();
    story.everything();
    let metrics = Metrics::new(&story.state);
    let text =
        String::from_utf8(metrics.render(&story.state, "dev", NOW + 400 * 86_400_000).unwrap()).unwrap();
    let series = "hydromesh_product_health{product=\"customer/customer-360\",state=\"breaching\"}";
    assert_eq!(value(&text, series), Some(1.0), "{text}");
}

#[test]
fn counters_count_what_comes_after_the_start_and_nothing_twice() {
    let mut story = deployed_story();
    story.everything();
    let metrics = Metrics::new(&story.state);
    let text = |metrics: &Metrics, story: &Story| {
        String::from_utf8(metrics.render(&story.state, "dev", NOW).unwrap()).unwrap()
    };
    let denied = "hydromesh_gate_decisions_total{outcome=\"deny\"}";
    assert_eq!(value(&text(&metrics, &story), denied), Some(0.0), "an earlier process counted it");
    for n in 0..3_u32 {
        story.tell(NOW + i64::from(n), Fact::Decided(decision(&format!("n{n}"), "commerce/orders", false)));
        let run = format!("later-{n}");
        let step = "commerce/orders:orders-daily@whole".parse().unwrap();
        story.tell(NOW, Fact::RunFinished { run, step, outcome: RunOutcome::Cancelled, took_ms: 1 });
        for _ in 0..2 {
            assert_eq!(value(&text(&metrics, &story), denied), Some(f64::from(n + 1)));
        }
    }
    let cancelled = "hydromesh_runs_total{outcome=\"cancelled\",product=\"commerce/orders\"}";
    assert_eq!(value(&text(&metrics, &story), cancelled), Some(3.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_cannot_grow_the_metrics() {
    let (served, _commands) = served(deployed_story()).await;
    for n in 0..20 {
        served.get(&format!("/v1/features/a{n}/b{n}")).await;
        served.get(&format!("/page-{n}")).await;
        served.get(&format!("/v1/none-{n}")).await;
    }
    let text = scrape(&served).await;
    let series = text.lines().filter(|line| line.starts_with("hydromesh_http_requests_total")).count();
    assert!(series <= 4, "{text}");
}

#[test]
fn a_missed_promise_costs_budget() {
    let mut story = deployed_story();
    // Ten days old data against a promise of hours.
    story.publish("customer/customer-360.customer_360", Some("2026-11-09"), 1, NOW - 10 * 86_400_000);
    let stale = objectives(&story.state, NOW);
    let left = |reports: &[ObjectiveReport]| {
        let of = reports.iter().filter(|it| it.port.to_string() == "customer/customer-360.customer_360");
        of.map(|it| it.budget_remaining).fold(f64::INFINITY, f64::min)
    };
    assert!(left(&stale) < 0.0, "{stale:?}");
    assert!(objectives(&LedgerState::default(), NOW).is_empty());
}
