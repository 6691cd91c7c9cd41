//! The example mesh's churn model, from its own labels and clicks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use arrow::array::AsArray as _;
use arrow::datatypes::Float64Type;
use hydromesh_core::aggregate::Order;
use hydromesh_core::control::Start;
use hydromesh_core::ids::{PipelineId, ProductId};
use hydromesh_core::ledger::{Champion, RunOutcome};
use hydromesh_core::model::{Program, RowsFormat, TrainerCommand};
use hydromesh_core::plan::{StepKey, Work};
use hydromesh_core::tile::{Row, SpineRow, ViewSpec, point_in_time};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::{Blobs, drift};
use super::*;
use crate::clock::Clock;
use crate::control::{Reading, read};
use crate::engine::{Engine, EngineConfig};
use crate::lake::{Lake, TableState};
use crate::repo::FolderSource;
use crate::train::{
    Algorithm, Model, ModelFile, ModelProgram, collect_files, keep_files, read_model, write_model,
};

/// The end of the example's history, and when the injected shift begins in it.
const END: &str = "2026-11-01T00:00:00Z";
const SHIFT: &str = "2026-10-18T00:00:00Z";
/// When they are as before again.
const SHIFT_END: &str = "2026-10-23T00:00:00Z";

fn ms(text: &str) -> i64 {
    chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("mesh-repo-example")
}

fn product() -> ProductId {
    "risk/churn-model".parse().unwrap()
}

/// What is done to the labels on the way.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Labels {
    AsTheyAre,
    /// The newest quarter says the opposite, so that what was learnt is wrong.
    NewestTurned,
}

/// The example's files by path, which is their id in a folder's snapshot too.
struct Files {
    paths: BTreeMap<String, String>,
    labels: Labels,
}

impl Blobs for Files {
    fn read(&self, oid: &str) -> std::io::Result<Vec<u8>> {
        let path = self.paths.get(oid).ok_or(std::io::ErrorKind::NotFound)?;
        let bytes = std::fs::read(example().join(path))?;
        if self.labels == Labels::AsTheyAre || !path.ends_with("churn-labels.csv") {
            return Ok(bytes);
        }
        let text = String::from_utf8(bytes).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let turn = |(number, line): (usize, &&str)| {
            let (head, label) = line.rsplit_once(',').unwrap();
            match label {
                "0" | "1" if number > lines.len() * 3 / 4 => {
                    format!("{head},{}\n", u8::from(label == "0"))
                }
                _ => format!("{line}\n"),
            }
        };
        Ok(lines.iter().enumerate().map(turn).collect::<String>().into_bytes())
    }
}

/// The example's clicks as history, seen as of a time.
struct Clicks {
    view: ViewSpec,
    rows: Vec<Row>,
    now_ms: Mutex<i64>,
}

impl Clicks {
    fn of(reading: &Reading) -> Self {
        let activity = &reading.desired.mesh.products[&"customer/activity".parse().unwrap()];
        let view = activity
            .pipelines
            .values()
            .find_map(|pipeline| match pipeline {
                Pipeline::Feature(feature) => Some(feature.view.clone()),
                _ => None,
            })
            .unwrap();
        let text = std::fs::read_to_string(example().join("seed/raw-clicks.jsonl")).unwrap();
        let mut seen = BTreeSet::new();
        let mut rows = Vec::new();
        for (offset, line) in text.lines().enumerate() {
            let Ok(click) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            let field = |name: &str| click.get(name).and_then(|value| value.as_str()).map(str::to_owned);
            let (Some(entity), Some(session), Some(at), Some(id)) =
                (field("customer_id"), field("session_id"), field("ts"), field("event_id"))
            else {
                continue;
            };
            let Ok(at) = chrono::DateTime::parse_from_rfc3339(&at) else { continue };
            if !seen.insert(id) {
                continue;
            }
            let event_ms = at.timestamp_millis();
            let amount = click.get("amount").and_then(serde_json::Value::as_f64).unwrap_or(0.0);
            let value = |input: &String| match input.as_str() {
                "session_id" => Value::Str(session.clone()),
                "amount" => Value::Float(amount),
                other => panic!("the example aggregates {other}"),
            };
            rows.push(Row {
                values: view.inputs().iter().map(value).collect(),
                entity,
                order: Order { event_ms, partition: 0, offset: i64::try_from(offset).unwrap() },
                available_ms: event_ms + 600_000,
            });
        }
        Self { view, rows, now_ms: Mutex::new(0) }
    }
}

#[async_trait]
impl FeatureHistory for Clicks {
    async fn rows(&self, context: &Context, _: &Job, _: &PortId) -> Result<History, StepError> {
        let now_ms = context.clock.now_ms();
        let versions = BTreeMap::from([("commerce/clickstream.clickstream".parse().unwrap(), 7)]);
        Ok(History {
            entity: "customer_id".into(),
            view: self.view.clone(),
            rows: self.rows.iter().filter(|row| row.available_ms <= now_ms).cloned().collect(),
            assumed_lag_ms: Some(600_000),
            versions,
        })
    }

    async fn current(&self, _: &Context, _: &Job, _: &PortId) -> Result<Current, StepError> {
        let now_ms = *self.now_ms.lock().unwrap();
        let entities: BTreeSet<&String> = self.rows.iter().map(|row| &row.entity).collect();
        let ask =
            |entity: &&String| SpineRow { entity: (*entity).clone(), event_ms: now_ms, known_ms: now_ms };
        let asked: Vec<SpineRow> = entities.iter().map(ask).collect();
        let answers = point_in_time(&self.view, &self.rows, &asked).unwrap();
        let named = |values: Vec<Value>| {
            self.view.columns().iter().map(|column| column.name.clone()).zip(values).collect::<Vec<_>>()
        };
        Ok(entities
            .into_iter()
            .zip(answers)
            .map(|(entity, values)| (entity.clone(), named(values)))
            .collect())
    }
}

/// A lake of its own, a standing clock, and the example as deployed.
struct World {
    folder: tempfile::TempDir,
    context: Context,
    job: Job,
    clicks: Clicks,
}

impl World {
    async fn new(now: &str, labels: Labels) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let snapshot = FolderSource::open(&example()).unwrap().snapshot().unwrap();
        let reading = read(&snapshot, "folder", &BTreeMap::new());
        let mesh = &reading.desired.mesh;
        let id = product();
        let paths = mesh.products[&id].files.iter().map(|(path, oid)| (oid.clone(), path.clone())).collect();
        let spill = folder.path().join("spill");
        let context = Context {
            environment: "dev".into(),
            settings: mesh.environments["dev"].clone(),
            state: folder.path().to_owned(),
            lake: Arc::new(Lake::open(folder.path().join("lake")).await.unwrap()),
            engine: Engine::new(&EngineConfig { memory_bytes: 64 << 20, spill }).unwrap(),
            online: Arc::new(crate::online::Online::new()),
            previews: Arc::new(crate::preview::Offers::of(folder.path())),
            blobs: Arc::new(Files { paths, labels }),
            clock: Clock::fixed(ms(now)),
            epoch: 1,
        };
        let pipeline = PipelineId {
            product: id.clone(),
            name: mesh.products[&id].pipelines.keys().next().unwrap().clone(),
        };
        let start = Start {
            run: "run-1".into(),
            key: StepKey { pipeline, work: Work::Train },
            attempt: 1,
            generation: 1,
            decision: "d".into(),
            reason: "no model yet".into(),
        };
        let job = Job {
            start,
            products: mesh.products.clone(),
            print: reading.desired.prints[&id].clone(),
            versions: BTreeMap::new(),
            models: Champion::default(),
            altered: 0,
            afresh: false,
            earlier: BTreeMap::new(),
            kept_from: None,
            read_since_ms: None,
            definitions: BTreeMap::new(),
        };
        Self { folder, context, job, clicks: Clicks::of(&reading) }
    }

    async fn train(&self) -> Result<Done, StepError> {
        let (to, mut reports) = mpsc::channel(8);
        let done =
            run(&self.context, &self.job, &Reporter::new(to, CancellationToken::new()), &self.clicks).await;
        while reports.recv().await.is_some() {}
        done
    }

    /// Trains, and takes the model for the champion.
    async fn promote(&mut self) -> Trained {
        let done = self.train().await.unwrap();
        let trained = trained(&done);
        self.job.models.champion = Some((trained.version, self.context.clock.now_ms()));
        self.job.models.trained.push((self.context.clock.now_ms(), trained.clone()));
        trained
    }

    async fn drift(&self, at: &str) -> (BTreeMap<String, String>, bool) {
        *self.clicks.now_ms.lock().unwrap() = ms(at);
        let done = drift::run(&self.context, &self.job, &self.clicks).await.unwrap();
        let [Fact::Drift { verdicts, drifted, .. }] = done.facts.as_slice() else { panic!("{done:?}") };
        (verdicts.iter().map(|one| (one.feature.clone(), one.verdict.clone())).collect(), *drifted)
    }

    async fn table(&self) -> TableState {
        let format = crate::lake::TableFormat::Delta;
        self.context.lake.table("risk/churn-model.model", format).unwrap().state().await.unwrap()
    }

    async fn query(&self, sql: &str) -> Vec<RecordBatch> {
        let table =
            self.context.lake.table("risk/churn-model.model", crate::lake::TableFormat::Delta).unwrap();
        let tables = BTreeMap::from([("model".to_owned(), table.provider(None).await.unwrap())]);
        self.context.engine.select(sql, tables).await.unwrap().try_collect().await.unwrap()
    }
}

fn trained(done: &Done) -> Trained {
    done.facts
        .iter()
        .find_map(|fact| match fact {
            Fact::Trained(trained) => Some(trained.clone()),
            _ => None,
        })
        .unwrap()
}

#[tokio::test]
async fn the_example_trains_publishes_and_compares() {
    let mut world = World::new(END, Labels::AsTheyAre).await;
    let done = world.train().await.unwrap();
    let first = trained(&done);
    assert_eq!((first.version, first.champion_value, done.rows), (1, None, 1));
    assert!(first.value > 0.7, "the labels follow from views and spend: {first:?}");
    assert_eq!(first.metrics["auc"], first.value);
    assert_eq!(first.rows.0 + first.rows.1, 1_471);
    #[expect(clippy::cast_precision_loss, reason = "some hundred rows")]
    let share = first.rows.0 as f64 / 1_471.0;
    assert!((share - 0.75).abs() < 0.01);
    assert_eq!(first.inputs, BTreeMap::from([("commerce/clickstream.clickstream".parse().unwrap(), 7)]));
    let kinds: Vec<&str> = done.facts.iter().map(Fact::kind).collect();
    assert_eq!(kinds.last(), Some(&"trained"));
    assert!(kinds.contains(&"published") && kinds.contains(&"quality"), "{kinds:?}");

    let model = read_model(world.context.lake.root(), &first.path).unwrap();
    assert_eq!(model.features.len(), 10);
    assert_eq!(model.manifest.inputs, first.inputs);
    assert_eq!(model.manifest.history_assumed, model.manifest.history_rows);
    for notes in &model.manifest.columns {
        assert_eq!(notes.null_arguments, 0, "a value is missing although there were events: {notes:?}");
    }
    let without =
        |name: &str| model.manifest.columns.iter().find(|one| one.feature == name).unwrap().without_events;
    assert!(without("spend_7d") > 0 && without("spend_7d") < 150, "{}", without("spend_7d"));

    // The same step again, as after a crash before its facts were kept: nothing changes.
    let bytes = std::fs::read(world.context.lake.root().join(&first.path)).unwrap();
    let TableState::Known(before) = world.table().await else { panic!("no table") };
    assert_eq!(trained(&world.train().await.unwrap()), first);
    let TableState::Known(after) = world.table().await else { panic!("no table") };
    assert_eq!(before.version, after.version);
    assert!(bytes == std::fs::read(world.context.lake.root().join(&first.path)).unwrap());

    // A challenger on the same rows is as good as the champion that it repeats.
    world.promote().await;
    world.job.start.run = "run-2".into();
    let second = trained(&world.train().await.unwrap());
    assert_eq!((second.version, second.champion_value), (2, Some(first.value)));
    assert_eq!(second.value, first.value);
    let sql = "SELECT model_version, auc, is_champion FROM model ORDER BY model_version";
    let shown = arrow::util::pretty::pretty_format_batches(&world.query(sql).await).unwrap().to_string();
    let auc = world.query("SELECT auc FROM model LIMIT 1").await[0]
        .column(0)
        .as_primitive::<Float64Type>()
        .value(0);
    assert_eq!(auc, first.value);
    let lines: Vec<&str> = shown.lines().filter(|line| line.contains("v0")).collect();
    assert!(
        lines.len() == 2 && lines[0].ends_with("true        |") && lines[1].ends_with("false       |"),
        "{shown}"
    );
    drop(world.folder);
}

#[tokio::test]
async fn labels_of_the_future_wait_and_drift_follows_the_shift() {
    let mut world = World::new(SHIFT, Labels::AsTheyAre).await;
    let none = world.drift(SHIFT).await;
    assert_eq!(none, (BTreeMap::new(), false), "no champion, no verdict");
    let trained = world.promote().await;
    let model = read_model(world.context.lake.root(), &trained.path).unwrap();
    assert!(model.manifest.in_future > 50, "{:?}", model.manifest);
    assert!(model.manifest.to_ms <= ms(SHIFT));
    for calm in ["2026-10-11T18:00:00Z", "2026-10-15T03:00:00Z", SHIFT, "2026-10-18T12:00:00Z"] {
        let (verdicts, drifted) = world.drift(calm).await;
        assert!(!drifted, "{calm}: {verdicts:?}");
        assert_eq!(verdicts["views_7d"], "stable");
    }
    let (verdicts, drifted) = world.drift(SHIFT_END).await;
    assert!(drifted);
    let moved: Vec<&String> =
        verdicts.iter().filter(|(_, verdict)| *verdict == "drifted").map(|(name, _)| name).collect();
    assert_eq!(moved, ["biggest_basket_7d", "spend_7d"], "baskets grew, visits did not: {verdicts:?}");
    assert_eq!(verdicts["spend_1h"], "insufficient_data", "a handful of values are no verdict");
}

#[tokio::test]
async fn a_model_that_its_rules_refuse_is_not_published() {
    let world = World::new(END, Labels::NewestTurned).await;
    let error = world.train().await.unwrap_err();
    assert_eq!((error.code, error.kind), ("HM-Q001", ErrorKind::User), "{error}");
    assert!(error.message.contains("better-than-a-coin"), "{error}");
    let TableState::Known(table) = world.table().await else { panic!("the table is made before the audit") };
    assert_eq!(table.rows, 0);
}

#[tokio::test]
async fn what_cannot_be_trained_says_so() {
    let mut world = World::new("2026-09-18T00:00:00Z", Labels::AsTheyAre).await;
    let few = world.train().await.unwrap_err();
    assert_eq!((few.code, few.kind), ("HM-T001", ErrorKind::User), "{few}");
    let training = |world: &mut World, change: fn(&mut TrainingPipeline)| {
        let product = world.job.products.get_mut(&product()).unwrap();
        for pipeline in product.pipelines.values_mut() {
            if let Pipeline::Training(training) = pipeline {
                change(training);
            }
        }
    };
    training(&mut world, |training| training.gate.metric = "profit".into());
    assert_eq!(world.train().await.unwrap_err().code, "HM-T011");
    training(&mut world, |training| training.train = Trainer::Builtin("oracle".into()));
    assert_eq!(world.train().await.unwrap_err().code, "HM-T010");

    let mut world = World::new(END, Labels::AsTheyAre).await;
    let first = world.promote().await;
    std::fs::remove_file(world.context.lake.root().join(&first.path)).unwrap();
    let lost = world.train().await.unwrap_err();
    assert_eq!(
        (lost.code, lost.kind),
        ("HM-T007", ErrorKind::External),
        "a lost champion is not passed over: {lost}"
    );

    // An output that asks for what no list of models has.
    let mut world = World::new(END, Labels::AsTheyAre).await;
    let output = world.job.products.get_mut(&product()).unwrap().outputs.values_mut().next().unwrap();
    output.contract.columns[0].name = "shoe_size".into();
    let error = world.train().await.unwrap_err();
    assert_eq!(error.code, "HM-T012");
    assert!(error.message.contains("shoe_size") && error.message.contains("model_version"), "{error}");

    let reporter = Reporter::new(mpsc::channel(1).0, CancellationToken::new());
    let end = super::super::perform(&world.context, &world.job, &reporter).await;
    assert!(matches!(end.outcome, RunOutcome::Failed { .. }), "nothing is followed here");
}

#[tokio::test]
async fn what_is_followed_here_is_what_drift_sees() {
    let mut world = World::new(SHIFT_END, Labels::AsTheyAre).await;
    let port: PortId = "customer/activity.features".parse().unwrap();
    let (context, job) = (&world.context, &world.job);
    let history = Followed.rows(context, job, &port).await.unwrap();
    assert_eq!((history.entity.as_str(), history.assumed_lag_ms), ("customer_id", Some(600_000)));
    assert!(history.rows.is_empty() && history.versions.is_empty(), "nothing is archived yet");
    let unknown = Followed.current(context, job, &port).await.unwrap_err();
    assert_eq!(
        (unknown.code, unknown.kind),
        ("HM-X005", ErrorKind::External),
        "unknown is not nobody: {unknown}"
    );
    let batch: PortId = "commerce/orders.orders".parse().unwrap();
    assert_eq!(Followed.rows(context, job, &batch).await.unwrap_err().code, "HM-T008");

    // Everything that happened, as a follower would have added it by now.
    let values = crate::online::PortValues::new(world.clicks.view.clone(), "customer_id", "d");
    let rows: Vec<_> =
        world.clicks.rows.iter().filter(|row| row.order.event_ms < ms(SHIFT_END)).cloned().collect();
    values.apply(&hydromesh_core::tile::partial(&world.clicks.view, &rows).unwrap()).unwrap();
    world.context.online.install(port, Arc::new(values));
    world.promote().await;
    let done = drift::run(&world.context, &world.job, &Followed).await.unwrap();
    let [Fact::Drift { verdicts, drifted: true, .. }] = done.facts.as_slice() else { panic!("{done:?}") };
    let spend = verdicts.iter().find(|one| one.feature == "spend_7d").unwrap();
    assert_eq!((spend.verdict.as_str(), spend.test.as_str()), ("drifted", "Kolmogorov-Smirnov"));
    assert!(spend.effect > 0.3 && spend.p_value < 1e-8, "{spend:?}");
}

/// Returns a trainer that is a program; nothing here begins one.
fn command(network: bool) -> TrainerCommand {
    let command = vec!["python3".to_owned(), "train.py".to_owned()];
    let (timeout, rows) = ("30m".parse().unwrap(), RowsFormat::Csv);
    TrainerCommand { program: Program { command, timeout, memory_mib: 64, rows }, network }
}

impl World {
    /// Has models fitted by a program.
    fn let_program_train(&mut self, network: bool) {
        let product = self.job.products.get_mut(&product()).unwrap();
        for pipeline in product.pipelines.values_mut() {
            if let Pipeline::Training(training) = pipeline {
                training.train = Trainer::Command(command(network));
            }
        }
    }

    /// Makes the champion one that a program made, which was shown these files.
    fn made_by_program(&self, champion: &Trained, shown: &[(&str, &str)], network: bool) {
        let lake = self.context.lake.root();
        let file = ModelFile { bytes: 4, sha256: "ab".into() };
        let program = ModelProgram {
            trainer: command(network),
            shown: shown.iter().map(|(path, oid)| ((*path).to_owned(), (*oid).to_owned())).collect(),
            key: "model 1".into(),
            folder: "models/risk/churn-model/v0001-0a".into(),
            files: BTreeMap::from([("weights.csv".into(), file)]),
        };
        let model = read_model(lake, &champion.path).unwrap();
        let model = Model { fitted: Algorithm::Program(program), ..model };
        write_model(lake, &champion.path, &model).unwrap();
    }
}

#[tokio::test]
async fn a_trainer_begins_nowhere_that_does_not_grant_what_it_asks_for() {
    let mut world = World::new(END, Labels::AsTheyAre).await;
    world.let_program_train(false);
    let denied = world.train().await.unwrap_err();
    assert_eq!((denied.code, denied.kind), ("HM-T013", ErrorKind::User), "{denied}");
    assert!(denied.message.contains("`allow_commands`"), "{denied}");
    world.context.settings.allow_commands = vec![product().domain];
    world.let_program_train(true);
    let denied = world.train().await.unwrap_err();
    assert_eq!((denied.code, denied.kind), ("HM-T013", ErrorKind::User), "{denied}");
    assert!(denied.message.contains("`allow_network`"), "{denied}");
    assert!(!world.folder.path().join("scratch").exists(), "nothing was laid out");
}

#[tokio::test]
async fn a_champion_of_a_program_is_compared_with_what_it_was_and_drifts_as_any_other() {
    let mut world = World::new(END, Labels::AsTheyAre).await;
    let champion = world.promote().await;
    let calm = world.drift(SHIFT_END).await;
    let known = world.job.products[&product()].files.values().next().unwrap().clone();

    // Where nothing of the domain may run, or its files are gone, it is not compared, and why is said.
    world.made_by_program(&champion, &[("train.py", &known)], false);
    assert_eq!(world.drift(SHIFT_END).await, calm, "drift asks for features and population alone");
    let alone = trained(&world.train().await.unwrap());
    assert_eq!((alone.champion_value, alone.algorithm), (None, None));
    assert!(
        alone.reason.contains("not compared with the champion, which a program made"),
        "{}",
        alone.reason
    );
    world.context.settings.allow_commands = vec![product().domain];
    world.made_by_program(&champion, &[("train.py", &known)], true);
    let alone = trained(&world.train().await.unwrap());
    assert!(alone.reason.contains("`allow_network`"), "{}", alone.reason);
    world.made_by_program(&champion, &[("train.py", "0a1b")], false);
    let gone = trained(&world.train().await.unwrap());
    assert_eq!(gone.champion_value, None);
    assert!(
        gone.reason.contains("which needs train.py as it was: 0a1b is no longer in the repository"),
        "{}",
        gone.reason
    );

    // A file of its own that is lost is an error, as a lost artefact is.
    world.made_by_program(&champion, &[("train.py", &known)], false);
    let lost = world.train().await.unwrap_err();
    assert_eq!((lost.code, lost.kind), ("HM-T007", ErrorKind::External), "{lost}");
    assert!(lost.message.contains("v0001-0a") && lost.message.contains("weights.csv"), "{lost}");
}

#[tokio::test]
async fn a_model_that_an_interrupted_attempt_has_kept_is_not_fitted_again() {
    let mut world = World::new(END, Labels::AsTheyAre).await;
    let built_in = trained(&world.train().await.unwrap());
    world.context.settings.allow_commands = vec![product().domain];
    world.let_program_train(false);
    let lake = world.context.lake.root().to_path_buf();
    let left = world.folder.path().join("left");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("weights.csv"), "1\n").unwrap();
    let files = collect_files(&left).unwrap();
    let folder = keep_files(&lake, &built_in.path, &left, &files).unwrap();
    let key = table::key(&world.job, 1, &built_in.inputs).unwrap();
    let model = read_model(&lake, &built_in.path).unwrap();
    let kept = |key: &str| {
        let (trainer, shown, key) = (command(false), BTreeMap::new(), key.to_owned());
        let program = ModelProgram { trainer, shown, key, folder: folder.clone(), files: files.clone() };
        let model = Model { fitted: Algorithm::Program(program), ..model.clone() };
        write_model(&lake, &built_in.path, &model).unwrap();
    };
    // The binary of tests begins no program, and so its first task fails; which one that is tells what was still to do.
    kept(&key);
    let scored = world.train().await.unwrap_err();
    assert_eq!(scored.code, "HM-T014");
    assert!(scored.message.contains("at its task score"), "{scored}");
    kept("model 1/of something else/");
    let fitted = world.train().await.unwrap_err();
    assert!(fitted.message.contains("at its task train"), "{fitted}");
    // Nor is one taken up that is no longer whole.
    kept(&key);
    std::fs::write(lake.join(&folder).join("weights.csv"), "2\n").unwrap();
    let fitted = world.train().await.unwrap_err();
    assert!(fitted.message.contains("at its task train"), "{fitted}");
}
