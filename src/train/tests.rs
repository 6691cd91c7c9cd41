//! What a training set may know, what a model learns, and when drift is told.

mod drift;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use hydromesh_core::aggregate::{Order, Value};
use hydromesh_core::ids::{PortId, ProductId};
use hydromesh_core::model::{Program, RowsFormat, TrainerCommand};
use hydromesh_core::tile::{FeatureSpec, Row, Tail, ViewSpec};
use serde::Deserialize;

use super::*;

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
/// Monday, 2026-08-03.
const START: i64 = 1_785_715_200_000;

fn port() -> PortId {
    "customer/activity.features".parse().unwrap()
}

fn product() -> ProductId {
    "risk/churn-model".parse().unwrap()
}

/// Numbers spread like random ones, the same in every run (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, bound: i64) -> i64 {
        (self.next() * bound as f64) as i64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.next()).ln()).sqrt() * (std::f64::consts::TAU * self.next()).cos()
    }
}

fn view(features: &[(&str, &str, &[&str])]) -> ViewSpec {
    let spec = |(name, agg, windows): &(&str, &str, &[&str])| FeatureSpec {
        name: (*name).to_owned(),
        agg: agg.parse().unwrap(),
        windows: windows.iter().map(|window| window.parse().unwrap()).collect(),
        tail: Tail::Exact,
    };
    ViewSpec::new(features.iter().map(spec).collect()).unwrap()
}

fn row(entity: &str, event_ms: i64, lag_ms: i64, values: Vec<Value>) -> Row {
    let order = Order { event_ms, partition: 0, offset: event_ms };
    Row { entity: entity.to_owned(), order, available_ms: event_ms + lag_ms, values }
}

fn source(view: ViewSpec, rows: Vec<Row>) -> Source {
    let history = History {
        entity: "customer".into(),
        view,
        rows,
        assumed_lag_ms: Some(600_000),
        versions: BTreeMap::new(),
    };
    Source { port: port(), history }
}

fn spine(labels: Vec<Label>) -> Spine {
    let mut labels = labels;
    labels.sort();
    Spine {
        labels,
        entities: vec!["customer".into()],
        label: "churned".into(),
        incomplete: 0,
        in_future: 0,
        ignored: vec![],
    }
}

fn label(entity: &str, at: i64, positive: bool) -> Label {
    Label { event_ms: at, known_ms: at, entities: vec![entity.to_owned()], positive }
}

/// 120 customers over eight weeks; how often one comes and spends differs, and `spend` scales the sums from day 49 on.
fn shop(spend: f64) -> Source {
    let mut random = Random(7);
    let mut rows = Vec::new();
    for customer in 0..120 {
        let every = 8 * HOUR + random.below(72 * HOUR);
        let mut at = START + random.below(every);
        while at < START + 56 * DAY {
            let factor = if at >= START + 49 * DAY { spend } else { 1.0 };
            let amount = if random.next() < 0.6 { (5.0 + 40.0 * random.next()) * factor } else { 0.0 };
            rows.push(row(&format!("c{customer:03}"), at, 600_000, vec![Value::Float(amount)]));
            at += 1 + random.below(2 * every);
        }
    }
    let features: &[(&str, &str, &[&str])] = &[
        ("views", "count()", &["1d", "7d"]),
        ("spend", "sum(amount)", &["7d"]),
        ("dearest", "max(amount)", &["1d"]),
    ];
    source(view(features), rows)
}

/// Labels that follow from the views of the week before, and from luck.
fn shop_labels(shop: &Source, count: usize) -> Spine {
    let mut random = Random(11);
    let mut labels = Vec::new();
    while labels.len() < count {
        let (entity, at) = (format!("c{:03}", random.below(120)), START + 8 * DAY + random.below(46 * DAY));
        let week = |row: &&Row| {
            row.entity == entity && row.order.event_ms < at && row.order.event_ms >= at - 7 * DAY
        };
        let views = shop.history.rows.iter().filter(week).count() as f64;
        let chance = 1.0 / (1.0 + (0.9 * views - 3.5).exp());
        labels.push(label(&entity, at, random.next() < chance));
    }
    spine(labels)
}

/// Returns what a model of the trainer that is built in consists of.
fn linear(model: &Model) -> &Fitted {
    match &model.fitted {
        Algorithm::LogisticRegression(fitted) => fitted,
        Algorithm::Program(program) => panic!("a program: {program:?}"),
    }
}

fn scores(model: &Model, set: &TrainingSet, from: usize) -> Vec<f64> {
    linear(model).score(&model.places(set).unwrap(), set, from)
}

fn train(shop: &Source, labels: &Spine) -> (Model, TrainingSet, usize) {
    let set = TrainingSet::assemble(labels, std::slice::from_ref(shop)).unwrap();
    let (fitted, cut) = fit_logistic_regression(&set).unwrap();
    let (from, to) = (set.manifest.from_ms, set.manifest.to_ms);
    let reference = Reference::population(&set.columns, std::slice::from_ref(shop), from, to).unwrap();
    let fitted = Algorithm::LogisticRegression(fitted);
    (Model::new((product(), 1), &set, fitted, cut, reference), set, cut)
}

// Measures and the solver, against scipy and scikit-learn.

#[derive(Deserialize)]
struct Goldens {
    scored: Vec<Scored>,
    fitted: FittedGolden,
}

#[derive(Deserialize)]
struct Scored {
    scores: Vec<f64>,
    labels: Vec<bool>,
    auc: f64,
    log_loss: f64,
    brier: f64,
    positive_rate: f64,
}

#[derive(Deserialize)]
struct FittedGolden {
    features: Vec<Vec<f64>>,
    labels: Vec<bool>,
    means: Vec<f64>,
    scales: Vec<f64>,
    weights: Vec<f64>,
    intercept: f64,
    auc: f64,
}

fn goldens() -> Goldens {
    serde_json::from_str(include_str!("goldens.json")).unwrap()
}

fn near(ours: f64, theirs: f64, within: f64) {
    assert!((ours - theirs).abs() <= within * theirs.abs().max(1.0), "{ours} is not {theirs}");
}

#[test]
fn auc_by_hand() {
    // Pairs (positive, negative): 0.8 beats 0.1 and 0.5; 0.5 beats 0.1 and ties with 0.5: 3.5 of 4.
    assert_eq!(auc(&[0.1, 0.5, 0.5, 0.8], &[false, false, true, true]), Some(0.875));
    assert_eq!(auc(&[0.3; 6], &[true, false, true, false, false, false]), Some(0.5));
    assert_eq!(auc(&[0.9, 0.1], &[false, true]), Some(0.0));
    assert_eq!(auc(&[0.9, 0.1], &[true, true]), None);
    assert_eq!(auc(&[], &[]), None);
    let measures = measure(&[0.25, 0.75], &[false, true]).unwrap();
    assert_eq!((measures.brier, measures.calibration_error, measures.positive_rate), (0.0625, 0.25, 0.5));
    near(measures.log_loss, -(0.75_f64.ln()), 1e-15);
    assert!(measure(&[0.0, 1.0], &[true, false]).unwrap().log_loss.is_finite(), "certain and wrong");
}

#[test]
fn measures_agree_with_scipy_and_scikit_learn() {
    let cases = goldens().scored;
    assert!(cases.len() >= 4);
    for case in cases {
        let ours = measure(&case.scores, &case.labels).unwrap();
        near(ours.auc, case.auc, 1e-14);
        near(ours.log_loss, case.log_loss, 1e-12);
        near(ours.brier, case.brier, 1e-12);
        near(ours.positive_rate, case.positive_rate, 1e-14);
    }
}

#[test]
fn the_fit_agrees_with_scikit_learn() {
    let golden = goldens().fitted;
    let names = ["a", "b", "c"];
    let set = TrainingSet {
        columns: names
            .map(|name| FeatureColumn {
                name: name.into(),
                port: port(),
                column: name.into(),
                fill: Fill::Zero,
                window_ms: DAY,
            })
            .into(),
        rows: golden
            .features
            .iter()
            .zip(&golden.labels)
            .enumerate()
            .map(|(at, (values, positive))| Example {
                event_ms: at as i64,
                values: values.iter().copied().map(Some).collect(),
                positive: *positive,
            })
            .collect(),
        manifest: Manifest::default(),
    };
    let (fitted, cut) = fit_logistic_regression(&set).unwrap();
    assert_eq!(cut, 300);
    for (ours, theirs) in [
        (&fitted.encoding.means, &golden.means),
        (&fitted.encoding.scales, &golden.scales),
        (&fitted.weights, &golden.weights),
    ] {
        assert_eq!(ours.len(), 3);
        ours.iter().zip(theirs).for_each(|(ours, theirs)| near(*ours, *theirs, 1e-5));
    }
    near(fitted.intercept, golden.intercept, 1e-5);
    let fitted = Algorithm::LogisticRegression(fitted);
    let model = Model::new((product(), 1), &set, fitted, cut, Reference::default());
    let labels: Vec<bool> = set.rows[cut..].iter().map(|row| row.positive).collect();
    near(auc(&scores(&model, &set, cut), &labels).unwrap(), golden.auc, 1e-9);
}

#[test]
fn the_frequent_class_does_not_turn_the_sign() {
    for turned in [false, true] {
        let rows = (0..200).map(|at| {
            let x = f64::from(at * 37 % 100);
            Example { event_ms: i64::from(at), values: vec![Some(x)], positive: (x > 70.0) != turned }
        });
        let set = TrainingSet {
            columns: vec![FeatureColumn {
                name: "x".into(),
                port: port(),
                column: "x".into(),
                fill: Fill::Zero,
                window_ms: DAY,
            }],
            rows: rows.collect(),
            manifest: Manifest::default(),
        };
        let (fitted, _) = fit_logistic_regression(&set).unwrap();
        assert_eq!(fitted.weights[0] > 0.0, !turned);
    }
}

// The training set.

#[test]
fn labels_are_read_in_order_and_what_is_no_label_is_counted() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("customer", DataType::Utf8, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("churned", DataType::Int64, true),
        Field::new("note", DataType::Utf8, true),
    ]));
    let batch = |labels: Vec<Option<i64>>| {
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![Some("b"), Some("a"), None, Some("c")])),
            Arc::new(TimestampMicrosecondArray::from(vec![2_000_999, 1_000_000, 3_000_000, 9_000_000])),
            Arc::new(Int64Array::from(labels)),
            Arc::new(StringArray::from(vec!["", "", "", ""])),
        ];
        [RecordBatch::try_new(Arc::clone(&schema), arrays).unwrap()]
    };
    let columns =
        SpineColumns { entities: vec!["customer".into()], event: "ts".into(), knowledge: "ts".into() };
    let read = |labels, columns: &SpineColumns| read_spine(&schema, &batch(labels), columns, 5_000);
    let spine = read(vec![Some(1), Some(0), Some(1), Some(1)], &columns).unwrap();
    assert_eq!(spine.labels, [label("a", 1_000, false), label("b", 2_000, true)]);
    assert_eq!((spine.incomplete, spine.in_future), (1, 1));
    assert_eq!((spine.label.as_str(), spine.ignored.as_slice()), ("churned", ["note".to_owned()].as_slice()));
    let text = |error: TrainError| format!("{}: {error}", error.code());
    insta::assert_snapshot!(
        text(read(vec![Some(2), None, None, None], &columns).unwrap_err()),
        @"HM-T005: the label column `churned` holds 2: labels are 0 and 1, or false and true"
    );
    let without = SpineColumns { knowledge: "known".into(), ..columns.clone() };
    insta::assert_snapshot!(
        text(read(vec![None; 4], &without).unwrap_err()),
        @"HM-T004: the spine has no column `known`; select entity, times and one label column of type boolean or integer"
    );
    let no_time = SpineColumns { event: "note".into(), ..columns.clone() };
    insta::assert_snapshot!(
        text(read(vec![None; 4], &no_time).unwrap_err()),
        @"HM-T004: the spine has a column `note` that is no timestamp; select entity, times and one label column of type boolean or integer"
    );
    let two: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("customer", DataType::Utf8, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Second, Some("UTC".into())), true),
        Field::new("churned", DataType::Boolean, true),
        Field::new("age", DataType::UInt8, true),
    ]));
    insta::assert_snapshot!(
        text(read_spine(&two, &[], &columns, 0).unwrap_err()),
        @"HM-T004: the spine has several columns that could be the label: churned, age; select entity, times and one label column of type boolean or integer"
    );
}

#[test]
fn what_was_known_only_after_the_label_does_not_get_in() {
    // Every customer has a harmless event that was known in time, and one that tells the answer: its amount is the
    // label. It happened before the label but became known an hour after it.
    let (mut rows, mut labels) = (Vec::new(), Vec::new());
    for number in 0..200_i64 {
        let (entity, at, positive) = (format!("c{number:03}"), START + number * HOUR, number % 3 == 0);
        rows.push(row(&entity, at - 3 * HOUR, 60_000, vec![Value::Float(1.0)]));
        let amount = if positive { 100.0 } else { 50.0 };
        rows.push(row(&entity, at - 2 * HOUR, 3 * HOUR, vec![Value::Float(amount)]));
        // And one that lies in the future altogether.
        rows.push(row(&entity, at, 0, vec![Value::Float(amount)]));
        labels.push(label(&entity, at, positive));
    }
    let source = source(view(&[("spend", "sum(amount)", &["1d"])]), rows);
    let honest = TrainingSet::assemble(&spine(labels.clone()), std::slice::from_ref(&source)).unwrap();
    assert!(honest.rows.iter().all(|row| row.values == [Some(1.0)]), "only what was known");
    // The same labels, looked at two hours later, do see it: the test would notice a leak.
    let late =
        labels.into_iter().map(|label| Label { known_ms: label.known_ms + 2 * HOUR, ..label }).collect();
    let leaking = TrainingSet::assemble(&spine(late), &[source]).unwrap();
    assert!(leaking.rows.iter().all(|row| row.values == [Some(if row.positive { 101.0 } else { 51.0 })]));
}

#[test]
fn a_missing_value_is_explained_and_filled() {
    let rows = vec![
        row("a", START, 600_000, vec![Value::Float(5.0), Value::Null]),
        row("b", START, 1_000, vec![Value::Null, Value::Null]),
        row("c", START, 1_000, vec![Value::Float(7.0), Value::Str("x".into())]),
    ];
    let features: &[(&str, &str, &[&str])] = &[
        ("n", "count()", &["1h"]),
        ("spend", "sum(amount)", &["1h"]),
        ("dearest", "max(amount)", &["1h"]),
        ("page", "last(page)", &["1h"]),
    ];
    let source = source(view(features), rows);
    let at = START + HOUR / 2;
    let labels = ["a", "b", "c", "nobody"]
        .map(|entity| label(entity, at, entity == "a"))
        .into_iter()
        .chain([label("a", START, true)]);
    let set = TrainingSet::assemble(&spine(labels.collect()), std::slice::from_ref(&source)).unwrap();
    let notes = |feature: &str, fill, without_events, null_arguments| ColumnNotes {
        feature: feature.into(),
        fill,
        without_events,
        null_arguments,
        // Only the event of `a` has the delay of imported history, and the first label is at its very time.
        assumed: 1,
    };
    let expected = [
        notes("n_1h", Fill::Zero, 0, 0),
        notes("spend_1h", Fill::Zero, 2, 1),
        notes("dearest_1h", Fill::Mean, 2, 1),
    ];
    assert_eq!(set.manifest.columns, expected);
    assert_eq!(set.manifest.history_assumed, 1);
    let why = "is a text: only numbers and truth values can be learnt from".to_owned();
    assert_eq!(set.manifest.left_out, [LeftOut { feature: "page_1h".into(), why }]);
    let values: Vec<_> = set.rows.iter().map(|row| row.values.clone()).collect();
    let (none, five, seven) = ([Some(0.0), None, None], [5.0; 2].map(Some), [7.0; 2].map(Some));
    let one = |rest: [Option<f64>; 2]| [Some(1.0), rest[0], rest[1]];
    assert_eq!(values, [none, one(five), one([None; 2]), one(seven), none]);
    let fills = [Fill::Zero, Fill::Zero, Fill::Mean];
    let rows: Vec<&[Option<f64>]> = set.rows.iter().map(|row| row.values.as_slice()).collect();
    let encoding = Encoding::learn(&fills, &rows);
    assert_eq!(encoding.fills, [0.0, 0.0, 6.0], "the mean of 5 and 7");
    assert_eq!(encoding.indicators, [2]);
    let terms = |row: &[Option<f64>]| {
        let terms = encoding.terms(row);
        terms
            .iter()
            .zip(&encoding.means)
            .zip(&encoding.scales)
            .map(|((t, m), s)| t * s + m)
            .collect::<Vec<_>>()
    };
    for (ours, expected) in terms(&[Some(1.0), None, None]).iter().zip([1.0, 0.0, 6.0, 1.0]) {
        near(*ours, expected, 1e-12);
    }
    let none = TrainingSet::assemble(&spine(vec![label("nobody", at, true)]), &[]).unwrap_err();
    assert_eq!(none.code(), "HM-T003");
}

#[test]
fn columns_of_one_name_are_told_apart_by_their_product() {
    let at = START + HOUR;
    let own = |amount: f64| {
        let rows = vec![row("a", START, 0, vec![Value::Float(amount)])];
        source(view(&[("spend", "sum(amount)", &["1d"])]), rows)
    };
    let other = Source { port: "shop/tills.features".parse().unwrap(), ..own(2.0) };
    let set = TrainingSet::assemble(&spine(vec![label("a", at, true)]), &[own(1.0), other]).unwrap();
    let names: Vec<&str> = set.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["activity.spend_1d", "tills.spend_1d"]);
    assert_eq!(set.rows[0].values, [Some(1.0), Some(2.0)]);
}

#[test]
fn the_split_is_by_time_and_keeps_an_instant_together() {
    assert_eq!(split_at(&[1, 2, 3, 4, 5, 6, 7, 8]), Some(6));
    assert_eq!(split_at(&[1, 2, 3, 4, 4, 4, 4, 4]), Some(3), "all of instant 4 is held out");
    assert_eq!(split_at(&[4, 4, 4, 4, 4, 4, 4, 8]), Some(7), "unless nothing would be left to fit");
    assert_eq!(split_at(&[4, 4, 4]), None);
    assert_eq!(split_at(&[]), None);
}

#[test]
fn too_little_is_said_plainly() {
    let shop = shop(1.0);
    let fit = |labels: Spine| {
        let set = TrainingSet::assemble(&labels, std::slice::from_ref(&shop)).unwrap();
        let error = fit_logistic_regression(&set).unwrap_err();
        format!("{}: {error}", error.code())
    };
    insta::assert_snapshot!(
        fit(shop_labels(&shop, 12)),
        @"HM-T001: there are too few labels: 9 to fit (2 positive) and 3 to hold out (0 positive), at least 5 of each class are needed on both sides; add labels, or wait for more"
    );
    let mut one_class = shop_labels(&shop, 100);
    one_class.labels.iter_mut().for_each(|label| label.positive = true);
    insta::assert_snapshot!(
        fit(one_class),
        @"HM-T002: every one of 100 labels in `churned` is 1: a model needs labels of both classes"
    );
}

// The model.

#[test]
fn a_model_learns_what_is_there_and_nothing_where_nothing_is() {
    let shop = shop(1.0);
    let labels = shop_labels(&shop, 900);
    let (model, set, cut) = train(&shop, &labels);
    let held_out: Vec<bool> = set.rows[cut..].iter().map(|row| row.positive).collect();
    let measures = measure(&scores(&model, &set, cut), &held_out).unwrap();
    assert!(measures.auc > 0.85, "{measures:?}");
    let base = measures.positive_rate;
    assert!(measures.brier < 0.8 * base * (1.0 - base), "better than the rate alone: {measures:?}");
    assert!(measures.calibration_error < 0.1, "{measures:?}");
    let weight = |name: &str| {
        let place = model.features.iter().position(|feature| feature.name == name).unwrap();
        linear(&model).weights[place]
    };
    assert!(weight("views_7d") < -0.5, "{:?}", linear(&model).weights);
    // Labels dealt out by chance: no model can tell them.
    let mut random = Random(5);
    let mut luck = labels;
    luck.labels.iter_mut().for_each(|label| label.positive = random.next() < 0.5);
    let (model, set, cut) = train(&shop, &luck);
    let held_out: Vec<bool> = set.rows[cut..].iter().map(|row| row.positive).collect();
    let auc = auc(&scores(&model, &set, cut), &held_out).unwrap();
    assert!((auc - 0.5).abs() < 0.12, "{auc}");
}

#[test]
fn the_same_training_gives_the_same_bytes_and_reads_back() {
    let lake = tempfile::tempdir().unwrap();
    let bytes = |name: &str, shuffled: bool| {
        let mut shop = shop(1.0);
        let mut labels = shop_labels(&shop, 300);
        if shuffled {
            shop.history.rows.reverse();
            labels.labels.reverse();
            labels.labels.sort();
        }
        let (model, ..) = train(&shop, &labels);
        write_model(lake.path(), name, &model).unwrap();
        (std::fs::read(lake.path().join(name)).unwrap(), model)
    };
    let path = artefact_path(&product(), 1);
    assert_eq!(path, "models/risk/churn-model/v0001.json");
    let (first, model) = bytes(&path, false);
    let (second, _) = bytes("models/risk/churn-model/v0002.json", true);
    assert!(first == second, "the order of rows must not show");
    let read = read_model(lake.path(), &path).unwrap();
    assert_eq!(read.manifest, model.manifest);
    assert_eq!(read.reference, model.reference);
    for at in [None, Some(0.0), Some(3.0)] {
        let row = vec![at; model.features.len()];
        near(linear(&read).predict(&row), linear(&model).predict(&row), 1e-12);
    }
    let names: Vec<_> = std::fs::read_dir(lake.path().join("models/risk/churn-model"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 2, "no temporary file stays: {names:?}");
    let spoil = |from: &str, to: &str| {
        let text = String::from_utf8(first.clone()).unwrap();
        assert!(text.contains(from));
        std::fs::write(lake.path().join("spoilt.json"), text.replacen(from, to, 1)).unwrap();
        read_model(lake.path(), "spoilt.json").unwrap_err().code()
    };
    assert_eq!(spoil("\"format\": 1", "\"format\": 99"), "HM-T007");
    assert_eq!(spoil("\"weights\": [", "\"weights\": [ 0.5,"), "HM-T007");
    assert_eq!(spoil("{", ""), "HM-T007");
    assert_eq!(read_model(lake.path(), "absent.json").unwrap_err().code(), "HM-T007");
}

#[test]
fn a_champion_of_another_definition_is_not_compared() {
    let shop = shop(1.0);
    let (mut model, set, cut) = train(&shop, &shop_labels(&shop, 300));
    assert_eq!(scores(&model, &set, cut).len(), set.rows.len() - cut);
    model.features[0].column = "gone_7d".into();
    model.features[0].name = "gone_7d".into();
    assert_eq!(model.places(&set), Err("gone_7d".to_owned()));
}

#[test]
fn an_artefact_of_an_earlier_version_is_the_same_to_the_byte_and_one_of_a_program_reads_back() {
    /// As it was before programs could train.
    #[derive(serde::Serialize)]
    struct Earlier<'a> {
        format: u32,
        algorithm: &'a str,
        l2: f64,
        product: &'a ProductId,
        version: u64,
        features: &'a [ModelFeature],
        #[serde(flatten)]
        encoding: &'a Encoding,
        weights: &'a [f64],
        intercept: f64,
        manifest: &'a Manifest,
        reference: &'a Reference,
    }

    let lake = tempfile::tempdir().unwrap();
    let shop = shop(1.0);
    let (model, ..) = train(&shop, &shop_labels(&shop, 300));
    let fitted = linear(&model);
    let earlier = Earlier {
        format: 1,
        algorithm: "logistic_regression",
        l2: 1.0,
        product: &model.product,
        version: model.version,
        features: &model.features,
        encoding: &fitted.encoding,
        weights: &fitted.weights,
        intercept: fitted.intercept,
        manifest: &model.manifest,
        reference: &model.reference,
    };
    let earlier = format!("{}\n", serde_json::to_string_pretty(&earlier).unwrap());
    let read = |text: &str| {
        std::fs::write(lake.path().join("m.json"), text).unwrap();
        read_model(lake.path(), "m.json")
    };
    let written = |model: &Model| {
        write_model(lake.path(), "w.json", model).unwrap();
        std::fs::read_to_string(lake.path().join("w.json")).unwrap()
    };
    assert_eq!(written(&model), earlier);
    assert_eq!(written(&read(&earlier).unwrap()), earlier);
    assert_eq!(read(&earlier.replacen("\"intercept\"", "\"intercpt\"", 1)).unwrap_err().code(), "HM-T007");
    assert_eq!(read(&earlier.replacen("logistic_regression", "oracle", 1)).unwrap_err().code(), "HM-T007");

    let command = TrainerCommand {
        program: Program {
            command: vec!["python3".into(), "train.py".into()],
            timeout: "30m".parse().unwrap(),
            memory_mib: 2048,
            rows: RowsFormat::Csv,
        },
        network: true,
    };
    let file = ModelFile { bytes: 4, sha256: "ab".into() };
    let program = ModelProgram {
        trainer: command,
        shown: BTreeMap::from([("train.py".into(), "0a1b".into())]),
        key: "model 2".into(),
        folder: "models/risk/churn-model/v0002-0a".into(),
        files: BTreeMap::from([("weights.csv".into(), file)]),
    };
    let of_program = Model { fitted: Algorithm::Program(program), ..model };
    let text = written(&of_program);
    assert!(text.contains("\"algorithm\": \"command\"") && !text.contains("\"l2\""), "{text}");
    assert_eq!(read(&text).unwrap(), of_program);
    for (from, to) in [
        ("\"weights.csv\"", "\"../weights.csv\""),
        ("\"models/risk/churn-model/v0002-0a\"", "\"/etc\""),
        ("\"command\"", "\"logistic_regression\""),
        ("\"program\"", "\"programme\""),
    ] {
        assert!(text.contains(from), "{from}");
        assert_eq!(read(&text.replacen(from, to, 1)).unwrap_err().code(), "HM-T007", "{from}");
    }
}
