//! When drift is told, and how often without cause.

use super::*;

/// Returns the values that an online store would have at a time.
fn current(source: &Source, at: i64) -> BTreeMap<PortId, Vec<Vec<(String, Value)>>> {
    let mut entities: Vec<&str> = source.history.rows.iter().map(|row| row.entity.as_str()).collect();
    entities.sort_unstable();
    entities.dedup();
    let ask: Vec<_> = entities
        .iter()
        .map(|entity| hydromesh_core::tile::SpineRow {
            entity: (*entity).to_owned(),
            event_ms: at,
            known_ms: at,
        })
        .collect();
    let answers =
        hydromesh_core::tile::point_in_time(&source.history.view, &source.history.rows, &ask).unwrap();
    let named = |row: Vec<Value>| {
        source.history.view.columns().iter().map(|column| column.name.clone()).zip(row).collect::<Vec<_>>()
    };
    BTreeMap::from([(port(), answers.into_iter().map(named).collect())])
}

/// Fits on the calm seven weeks, and compares the end of the eighth with them.
fn compared(spend: f64) -> (Vec<String>, bool) {
    let shop = shop(spend);
    let mut labels = shop_labels(&shop, 400);
    labels.labels.retain(|label| label.event_ms < START + 48 * DAY);
    let (model, ..) = train(&shop, &labels);
    assert!(model.reference.instants > 20, "{}", model.reference.instants);
    let now = current(&shop, START + 56 * DAY);
    let (verdicts, drifted) =
        judge_features(&model.features, &model.reference, &now, drift_level(4.0)).unwrap();
    (verdicts.iter().map(|one| format!("{}: {} ({})", one.feature, one.verdict, one.test)).collect(), drifted)
}

#[test]
fn drift_is_told_of_what_moved_and_of_nothing_else() {
    let (calm, drifted) = compared(1.0);
    assert!(!drifted, "{calm:?}");
    let (verdicts, drifted) = compared(2.5);
    assert!(drifted);
    insta::assert_snapshot!(verdicts.join("\n"), @r"
    views_1d: stable (Kolmogorov-Smirnov)
    views_7d: stable (Kolmogorov-Smirnov)
    spend_7d: drifted (Kolmogorov-Smirnov)
    dearest_1d: insufficient_data (Kolmogorov-Smirnov)
    ");
}

#[test]
fn too_few_values_are_no_verdict() {
    let shop = shop(2.5);
    let mut labels = shop_labels(&shop, 400);
    labels.labels.retain(|label| label.event_ms < START + 48 * DAY);
    let (model, ..) = train(&shop, &labels);
    let mut now = current(&shop, START + 56 * DAY);
    now.get_mut(&port()).unwrap().truncate(30);
    for now in [now, BTreeMap::new()] {
        let (verdicts, drifted) = judge_features(&model.features, &model.reference, &now, 0.05).unwrap();
        assert!(!drifted);
        assert_eq!(verdicts.len(), model.features.len());
        assert!(verdicts.iter().all(|one| one.verdict == "insufficient_data"), "{verdicts:?}");
    }
}

#[test]
fn the_level_shares_out_the_false_alarms_of_a_year() {
    near(drift_level(4.0) * 365.25 * 24.0 * 6.0, 4.0, 1e-12);
    assert_eq!(drift_level(1e9), 0.05);
    assert!(drift_level(0.0) > 0.0);
    assert_eq!(drift_level(f64::NAN), 0.05);
}

#[test]
fn false_alarms_are_as_rare_as_declared() {
    let names = ["a_7d", "b_7d", "c_7d", "d_7d", "e_7d"];
    let columns = names.map(|name| FeatureColumn {
        name: name.into(),
        port: port(),
        column: name.into(),
        fill: Fill::Zero,
        window_ms: 7 * DAY,
    });
    let features: Vec<ModelFeature> = columns
        .iter()
        .map(|column| ModelFeature {
            name: column.name.clone(),
            port: port(),
            column: column.column.clone(),
            fill: column.fill,
            window_ms: column.window_ms,
        })
        .collect();
    let mut random = Random(99);
    let mut draw = |rows: usize, shift: f64| -> Vec<Vec<(String, Value)>> {
        let mut value = || if random.next() < 0.3 { 0.0 } else { random.normal() + shift };
        (0..rows)
            .map(|_| names.iter().map(|name| ((*name).to_owned(), Value::Float(value()))).collect())
            .collect()
    };
    let level = 0.05;
    let mut alarms = |rounds: u32, shift: f64| {
        (0..rounds)
            .filter(|_| {
                let before = draw(400, 0.0);
                let profiles = (0..names.len()).map(|feature| {
                    let values: Vec<Value> = before
                        .iter()
                        .map(|row| match &row[feature].1 {
                            Value::Float(0.0) => Value::Null,
                            other => other.clone(),
                        })
                        .collect();
                    hydromesh_core::drift::Profile::build(names[feature], &values).unwrap()
                });
                let reference = Reference { profiles: profiles.collect(), ..Reference::default() };
                let now = BTreeMap::from([(port(), draw(100, shift))]);
                judge_features(&features, &reference, &now, level).unwrap().1
            })
            .count()
    };
    let null = alarms(1_000, 0.0);
    // Three standard deviations of a count of 1,000 at 5 %.
    assert!(null <= 50 + 21, "{null} alarms in 1,000 draws without drift");
    assert!(null >= 5, "{null}: a test that never alarms proves nothing");
    let found = alarms(50, 0.8);
    assert!(found >= 49, "{found} of 50 shifts of 0.8 standard deviations were seen");
}
