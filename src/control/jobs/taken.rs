//! What a step takes over from a preview, and what it computes: jobs as the controller makes them of its ledger, real tables, and
//! the ledger and the lake of a preview over them.

use std::path::Path;
use std::sync::{Arc, Mutex};

use hydromesh_core::ids::PortId;
use hydromesh_core::ledger::{Entry, Fact, Published, RunOutcome};
use hydromesh_core::model::{Loaded, Product, TableFormat, load};
use hydromesh_core::plan::{PortPrint, Print, StepKey};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::ledger::records;
use super::*;
use crate::apply::{Blobs, Context, Reporter, lake_format, perform, testing};
use crate::clock::Clock;
use crate::lake::{Lake, Version};
use crate::preview::{Name, Note, Offers, Shelf};
use crate::store::{OpenMode, Place, Store};

const FIRST: &str = "2026-06-01";
const LAST: &str = "2026-06-05";
const HOUR_MS: i64 = 3_600_000;
/// The column of a vector, with its type.
const VECTOR: (&str, &str) = (
    "embedding",
    "vector, logicalTypeOptions: {dimensions: 64, elementType: float32, distanceMetric: cosine, normalized: true}",
);

/// Amounts by day, which a test may change, as one file.
#[derive(Default)]
struct Amounts(Mutex<[u32; 5]>);

impl Blobs for Amounts {
    fn read(&self, _oid: &str) -> std::io::Result<Vec<u8>> {
        let amounts = *self.0.lock().expect("a lock");
        let rows =
            (1..).zip(amounts).map(|(day, amount)| format!("2026-06-0{day},{amount}\n2026-06-0{day},7\n"));
        Ok(format!("day,amount\n{}", rows.collect::<Vec<_>>().concat()).into_bytes())
    }
}

/// A product of one batch pipeline over another product's port.
fn product(name: &str, input: &str, columns: &[(&str, &str)], pipeline: &str) -> Vec<(String, String)> {
    product_of("BatchPipeline", name, input, columns, pipeline)
}

fn product_of(
    kind: &str,
    name: &str,
    input: &str,
    columns: &[(&str, &str)],
    pipeline: &str,
) -> Vec<(String, String)> {
    let of = |file: &str| format!("domains/shop/{name}/{file}");
    let columns = columns.iter().map(|(name, kind)| format!("  - {{name: {name}, logicalType: {kind}}}\n"));
    let columns = columns.collect::<Vec<_>>().concat();
    vec![
        (
            of("product.odps.yaml"),
            format!(
                "apiVersion: v1.1.0\nkind: DataProduct\ninputPorts:\n{input}outputPorts:\n- {{name: {name}}}\n"
            ),
        ),
        (
            of(&format!("{name}.odcs.yaml")),
            format!(
                "apiVersion: v3.2.0\nkind: DataContract\nversion: 1.0.0\nschema:\n- name: {name}\n  properties:\n{columns}"
            ),
        ),
        (
            of("pipeline.yaml"),
            format!("apiVersion: hydromesh/v1\nkind: {kind}\nname: make\noutput: {name}\n{pipeline}"),
        ),
    ]
}

/// Visits by day, which are read from a file; their sums by day, and of the last three days; all of them; and all of them with the time.
fn products() -> BTreeMap<ProductId, Product> {
    let by_day = "partition: {by: day, every: day, start: 2026-06-01}\n";
    let (day, amount) = (("day", "date"), ("amount", "integer"));
    let visits = "- {name: visits, contractId: shop/visits.visits}\n";
    let daily = "- {name: daily, contractId: shop/daily.daily}\n";
    let raw = "- name: raw\n  customProperties:\n  - {property: hydromesh.files, value: '*.csv'}\n";
    let mut files = vec![
        (
            "mesh.yaml".to_owned(),
            "apiVersion: hydromesh/v1\nkind: Mesh\nname: m\nenvironments: {dev: {ref: main}}\n".to_owned(),
        ),
        (
            "domains/shop/domain.yaml".to_owned(),
            "apiVersion: hydromesh/v1\nkind: Domain\nowners: [a@example.com]\n".to_owned(),
        ),
        (
            "domains/shop/visits/raw.odcs.yaml".to_owned(),
            "apiVersion: v3.2.0\nkind: DataContract\nversion: 1.0.0\nschema:\n- name: raw\n  properties:\n  - {name: day, logicalType: date}\n  - {name: amount, logicalType: integer}\n".to_owned(),
        ),
        ("domains/shop/visits/raw.csv".to_owned(), "day,amount\n".to_owned()),
    ];
    let sql = |sql: &str| format!("sql: {sql}\n");
    let select = sql("SELECT day, amount FROM raw");
    files.extend(product("visits", raw, &[day, amount], &format!("{select}{by_day}")));
    let sums = sql("SELECT day, CAST(sum(amount) AS BIGINT) AS amount FROM visits GROUP BY day");
    files.extend(product("daily", visits, &[day, amount], &format!("{sums}{by_day}")));
    let days = "(VALUES (DATE '2026-06-01'), (DATE '2026-06-02'), (DATE '2026-06-03'), (DATE '2026-06-04'), (DATE '2026-06-05')) AS p(day)";
    let moving = sql(&format!(
        "SELECT p.day, v.amount FROM {days} CROSS JOIN (SELECT CAST(sum(amount) AS BIGINT) AS amount FROM visits) v"
    ));
    let window = "inputs: {visits: {partitions: {from: -2d}}}\n";
    files.extend(product("moving", visits, &[day, amount], &format!("{moving}{by_day}{window}")));
    let total = sql("SELECT CAST(sum(amount) AS BIGINT) AS amount FROM daily");
    files.extend(product("total", daily, &[amount], &total));
    let stamped = sql("SELECT CAST(sum(amount) AS BIGINT) AS amount, now() AS at FROM daily");
    files.extend(product("stamped", daily, &[amount, ("at", "timestamp")], &stamped));
    let phrases =
        sql("SELECT DISTINCT 'a' || amount AS id, 'there were ' || amount || ' visits' AS text FROM visits");
    files.extend(product("phrases", visits, &[("id", "string"), ("text", "string")], &phrases));
    let vectors = "source: {port: phrases, id: id, text: text}\nmodel: {provider: hashing, dimensions: 64}\n";
    let columns =
        [("id", "string"), ("chunk", "integer"), ("text", "string"), ("content_hash", "string"), VECTOR];
    let phrases = "- {name: phrases, contractId: shop/phrases.phrases}\n";
    files.extend(product_of("EmbeddingPipeline", "vectors", phrases, &columns, vectors));
    let loaded = |(path, text)| (path, Loaded { text: Ok(text), oid: "1".to_owned() });
    let loaded = load(&files.into_iter().map(loaded).collect());
    assert_eq!(loaded.findings, []);
    loaded.mesh.products
}

/// An environment, or a preview: ledger, lake, and what steps use.
struct Environment {
    context: Context,
    entries: Vec<Entry>,
    ledger: LedgerState,
    runs: u32,
}

impl Environment {
    fn new(context: Context) -> Self {
        Self { context, entries: Vec::new(), ledger: LedgerState::default(), runs: 0 }
    }

    fn tell(&mut self, at_ms: i64, fact: Fact) {
        let entry = Entry { seq: self.ledger.seq + 1, at_ms, fact };
        self.ledger.apply(&entry);
        self.entries.push(entry);
    }

    /// Deploys a product whose data has this fingerprint.
    fn deploy(&mut self, name: &str, data: &str, format: TableFormat) {
        let mut product = products().remove(&id(name)).expect("there");
        product.outputs.values_mut().for_each(|output| output.format = format);
        let print =
            PortPrint { data: data.to_owned(), rows: data.to_owned(), columns: BTreeMap::new(), cut: None };
        let ports: BTreeMap<_, _> =
            product.outputs.keys().map(|port| (port.clone(), print.clone())).collect();
        let visits: PortId = "shop/visits.visits".parse().expect("a port");
        let aligned = if name == "daily" {
            ports.keys().map(|port| (port.clone(), visits.clone())).collect()
        } else {
            BTreeSet::new()
        };
        let print = Print { all: data.to_owned(), ports, reads: BTreeMap::new(), aligned };
        let (commit, decision) = ("c".to_owned(), "d".to_owned());
        let generation = self.ledger.generations.get(&id(name)).map_or(1, |before| before + 1);
        self.tell(
            self.context.clock.now_ms(),
            Fact::Deployed { generation, commit, decision, product: Box::new(product), print },
        );
    }

    /// Computes what is asked of a product, in one step; returns what it published.
    async fn step(&mut self, name: &str, work: Work) -> Vec<Published> {
        self.runs += 1;
        let run = format!("run-{}", self.runs);
        let key = StepKey { pipeline: format!("shop/{name}:make").parse().expect("an id"), work };
        let generation = self.ledger.deployed[&id(name)].generation;
        let (decision, reason) = ("d".to_owned(), "a test".to_owned());
        let start = Start { run: run.clone(), key: key.clone(), attempt: 1, generation, decision, reason };
        let job = job(start, &self.ledger).expect("it is deployed");
        // As a worker process gets it.
        let text = serde_json::to_string(&job).expect("a job can be written down");
        let job: Job = serde_json::from_str(&text).expect("and read again");
        let now_ms = self.context.clock.now_ms();
        let (decision, step) = (String::new(), key.clone());
        self.tell(now_ms, Fact::RunStarted { run: run.clone(), step, attempt: 1, decision });
        let (send, mut receive) = mpsc::channel(1_024);
        let end = perform(&self.context, &job, &Reporter::new(send, CancellationToken::new())).await;
        assert!(matches!(end.outcome, RunOutcome::Succeeded { .. }), "{name}: {:?}", end.outcome);
        let mut published = Vec::new();
        while let Some(facts) = receive.recv().await {
            for fact in facts {
                if let Fact::Published(it) = &fact {
                    published.push(it.clone());
                }
                self.tell(now_ms, fact);
            }
        }
        self.tell(now_ms, Fact::RunFinished { run, step: key, outcome: end.outcome, took_ms: 1 });
        published
    }

    async fn days(&mut self, name: &str, from: &str, to: &str) -> Vec<Published> {
        self.step(name, Work::Partitions { from: from.to_owned(), to: to.to_owned() }).await
    }

    /// Returns a hash of the rows that a product shows.
    async fn hash(&self, name: &str) -> String {
        let address: PortId = format!("shop/{name}.{name}").parse().expect("an address");
        let format = self.ledger.deployed[&id(name)].product.outputs[&address.port].format;
        let table = self.context.lake.table(&address.to_string(), lake_format(format)).expect("an address");
        let version = Version(self.ledger.ports[&address].version);
        table.content_hash(Some(version), &[]).await.expect("hashed")
    }
}

fn id(name: &str) -> ProductId {
    format!("shop/{name}").parse().expect("an id")
}

/// Returns the days that were taken over, and those that were computed.
fn told(published: &[Published]) -> (Vec<&str>, Vec<&str>) {
    let days = |taken: bool| {
        let of = published.iter().filter(|it| it.taken.is_some() == taken);
        of.map(|it| it.partition.as_deref().map_or("whole", |key| &key["2026-06-".len()..])).collect()
    };
    (days(true), days(false))
}

/// An environment that has published visits, and a branch's preview of it.
struct World {
    _folder: TempDir,
    amounts: Arc<Amounts>,
    format: TableFormat,
    dev: Environment,
}

impl World {
    async fn new(format: TableFormat) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let amounts = Arc::new(Amounts(Mutex::new([10, 20, 30, 40, 50])));
        let context = testing::context(folder.path(), Arc::clone(&amounts) as Arc<dyn Blobs>).await;
        let mut world = Self { _folder: folder, amounts, format, dev: Environment::new(context) };
        world.dev.deploy("visits", "visits", format);
        assert_eq!(world.dev.days("visits", FIRST, LAST).await.len(), 5);
        world
    }

    fn shelf(&self) -> Shelf {
        Shelf::of(&self.dev.context.state)
    }

    fn folder(&self, name: &str) -> std::path::PathBuf {
        self.shelf().folder(&Name::of_folder(name).expect("a name"))
    }

    /// Begins a preview an hour after the environment stands, and lets it live for another.
    async fn preview(&self, name: &str) -> Environment {
        let now_ms = testing::NOW + HOUR_MS;
        let named = Name::of_folder(name).expect("a name");
        let note = Note::new(named.clone(), self.dev.context.environment.clone(), "lake".into(), now_ms);
        let note = Note { expires_ms: now_ms + HOUR_MS, ..note };
        self.shelf().keep(&note, now_ms, true).expect("begun");
        let folder = self.folder(name);
        let lake = Lake::open(folder.join("lake")).await.expect("a lake").over(self.dev.context.lake.root());
        let context = Context {
            environment: named.to_string(),
            state: folder.clone(),
            lake: Arc::new(lake),
            previews: Arc::new(Offers::of(&folder)),
            clock: Clock::fixed(now_ms),
            ..self.dev.context.clone()
        };
        let mut preview = Environment::new(context);
        for (at_ms, fact) in self.dev.ledger.bequest("dev") {
            preview.tell(at_ms, fact);
        }
        preview
    }

    /// A preview of a branch with everything that reads the visits, built.
    async fn built(&self, name: &str) -> Environment {
        let mut preview = self.preview(name).await;
        deploy(&mut preview, self.format);
        for name in ["daily", "moving"] {
            assert_eq!(
                told(&preview.days(name, FIRST, LAST).await),
                (vec![], vec!["01", "02", "03", "04", "05"])
            );
        }
        for name in ["total", "stamped"] {
            assert_eq!(told(&preview.step(name, Work::Whole).await), (vec![], vec!["whole"]));
        }
        save(&preview).await;
        preview
    }

    /// Asserts that products show what they show once they are computed here, without any preview.
    async fn assert_as_computed(&mut self, names: &[&str]) {
        self.dev.context.previews = Arc::new(Offers::of(&self.dev.context.state.join("nowhere")));
        for name in names {
            let shown = self.dev.hash(name).await;
            // Under a generation of its own, so that what is there does not answer for it.
            self.dev.deploy(name, "computed", self.format);
            let work = if *name == "total" { Work::Whole } else { days() };
            let published = self.dev.step(name, work).await;
            assert!(published.iter().all(|it| it.taken.is_none()), "{published:?}");
            assert_eq!(self.dev.hash(name).await, shown, "{name} on {:?}", self.format);
        }
    }
}

fn deploy(environment: &mut Environment, format: TableFormat) {
    for name in ["daily", "moving", "total", "stamped"] {
        environment.deploy(name, name, format);
    }
}

/// Writes the ledger of a preview where its own is.
async fn save(preview: &Environment) {
    let store = Store::open_at(&Place::in_folder(&preview.context.state), OpenMode::ReadWrite).await;
    let store = store.expect("a store");
    let now_ms = store.lease_clock_ms().await.expect("a time");
    let lease = store.lease("a test", now_ms, HOUR_MS).await.expect("a lease");
    let known = usize::try_from(store.head().await.expect("a head")).expect("small");
    let facts = records(&preview.entries[known..]).expect("written down");
    store.append(lease.epoch, preview.context.clock.now_ms(), &facts).await.expect("appended");
    store.release(lease).await.expect("released");
    store.close().await;
}

const ALL: [&str; 5] = ["01", "02", "03", "04", "05"];

fn days() -> Work {
    Work::Partitions { from: FIRST.to_owned(), to: LAST.to_owned() }
}

async fn everything_that_stands_is_taken_over(format: TableFormat) {
    let mut world = World::new(format).await;
    let preview = world.built("north").await;
    let before = (preview.hash("daily").await, preview.hash("total").await);
    deploy(&mut world.dev, format);
    for name in ["daily", "moving"] {
        let published = world.dev.days(name, FIRST, LAST).await;
        assert_eq!(told(&published), (ALL.to_vec(), vec![]), "{name}");
        let taken = published[0].taken.clone().expect("taken over");
        assert_eq!((taken.from.as_str(), taken.computed_ms), ("preview/north", testing::NOW + HOUR_MS));
        assert!(taken.version > hydromesh_core::ledger::OWN_ABOVE, "{taken:?}");
        let run = world.dev.ledger.runs.back().expect("a run");
        let over = run.taken.clone().expect("the run says so");
        assert_eq!((over.from.as_str(), over.partitions), ("preview/north", 5));
    }
    // What was taken over is the same input to whatever reads it whole.
    assert_eq!(told(&world.dev.step("total", Work::Whole).await), (vec!["whole"], vec![]));
    // A query that asks for the time says another thing each time.
    assert_eq!(told(&world.dev.step("stamped", Work::Whole).await), (vec![], vec!["whole"]));
    // Nothing of the preview has moved, and without it nothing is missing.
    assert_eq!((preview.hash("daily").await, preview.hash("total").await), before);
    world.shelf().drop(&Name::of_folder("north").expect("a name")).expect("dropped");
    assert_eq!(world.dev.hash("daily").await, before.0);
    // Once more it finds its own commits, and what they say of where it is from.
    let again = world.dev.days("daily", FIRST, LAST).await;
    assert_eq!(told(&again), (ALL.to_vec(), vec![]));
    assert!(!world.folder("north").exists(), "nobody made it anew");
    world.assert_as_computed(&["daily", "moving", "total"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_that_stands_is_taken_over_on_delta() {
    Box::pin(everything_that_stands_is_taken_over(TableFormat::Delta)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_that_stands_is_taken_over_on_iceberg() {
    Box::pin(everything_that_stands_is_taken_over(TableFormat::Iceberg)).await;
}

/// Deploys phrases and their vectors, by a definition, and computes both; returns what was published of the vectors, and how many texts
/// were embedded.
async fn embedded(environment: &mut Environment, definition: &str, format: TableFormat) -> (Published, u64) {
    environment.deploy("phrases", "phrases", format);
    environment.deploy("vectors", definition, format);
    environment.step("phrases", Work::Whole).await;
    let published = environment.step("vectors", Work::Embed).await.pop().expect("published");
    match environment.ledger.runs.back().expect("a run").outcome {
        RunOutcome::Succeeded { rows } => (published, rows),
        ref other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn vectors_are_taken_over_text_by_text() {
    for format in [TableFormat::Delta, TableFormat::Iceberg] {
        let mut world = World::new(format).await;
        let mut preview = world.preview("north").await;
        let (_, rows) = embedded(&mut preview, "vectors", format).await;
        assert_eq!(rows, 6, "five amounts, and seven");
        save(&preview).await;
        let (published, rows) = embedded(&mut world.dev, "vectors", format).await;
        assert_eq!((published.rows, rows), (6, 0));
        assert_eq!(published.taken.expect("taken over").from, "preview/north");
        assert_eq!(world.dev.hash("vectors").await, preview.hash("vectors").await);

        // Where the environment has other rows by now, what is new of them is embedded and nothing else.
        let mut world = World::new(format).await;
        let mut preview = world.preview("north").await;
        embedded(&mut preview, "vectors", format).await;
        save(&preview).await;
        world.amounts.0.lock().expect("a lock")[2] = 31;
        world.dev.deploy("visits", "later", format);
        world.dev.days("visits", FIRST, LAST).await;
        let (published, rows) = embedded(&mut world.dev, "vectors", format).await;
        assert_eq!((published.rows, rows, published.taken), (6, 1, None));

        // Vectors of another definition are nobody's.
        let mut world = World::new(format).await;
        let mut preview = world.preview("north").await;
        embedded(&mut preview, "others", format).await;
        save(&preview).await;
        let (published, rows) = embedded(&mut world.dev, "vectors", format).await;
        assert_eq!((published.rows, rows, published.taken), (6, 6, None));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_reads_other_rows_is_computed() {
    for format in [TableFormat::Delta, TableFormat::Iceberg] {
        let mut world = World::new(format).await;
        world.built("north").await;
        // The environment's visits of one day are others than those that the preview read, by the same definition.
        world.amounts.0.lock().expect("a lock")[3] = 41;
        world.dev.deploy("visits", "visits", format);
        assert_eq!(world.dev.days("visits", "2026-06-04", "2026-06-04").await.len(), 1);
        deploy(&mut world.dev, format);
        let published = world.dev.days("daily", FIRST, LAST).await;
        assert_eq!(told(&published), (vec!["01", "02", "03", "05"], vec!["04"]), "{format:?}");
        let published = world.dev.days("moving", FIRST, LAST).await;
        assert_eq!(told(&published), (vec!["01", "02", "03"], vec!["04", "05"]), "{format:?}");
        assert_eq!(told(&world.dev.step("total", Work::Whole).await), (vec![], vec!["whole"]));
        world.assert_as_computed(&["daily", "moving", "total"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_that_were_computed_once_more_are_the_same_input() {
    let format = TableFormat::Delta;
    let mut world = World::new(format).await;
    world.built("north").await;
    world.dev.deploy("visits", "visits", format);
    let published = world.dev.days("visits", FIRST, LAST).await;
    assert_eq!(published.len(), 5);
    deploy(&mut world.dev, format);
    assert_eq!(told(&world.dev.days("daily", FIRST, LAST).await), (ALL.to_vec(), vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_differs_in_the_least_is_computed() {
    type Edit<'a> = (&'a str, &'a dyn Fn(&mut World));
    let format = TableFormat::Delta;
    let computed = (vec![], ALL.to_vec());
    let note = |world: &World, edit: &dyn Fn(&mut Note)| {
        let folder = world.folder("north");
        let mut note = Note::read(&folder).expect("a note");
        edit(&mut note);
        note.write(&folder).expect("written");
    };
    let now_ms = testing::NOW;
    let edits: [Edit<'_>; 6] = [
        ("another definition", &|world| world.dev.deploy("daily", "daily, corrected", format)),
        ("an input of another definition", &|world| world.dev.deploy("visits", "visits, corrected", format)),
        ("a preview that has expired", &|world| note(world, &|note| note.expires_ms = now_ms)),
        ("a preview of another environment", &|world| note(world, &|note| note.parent = "prod".to_owned())),
        ("a preview over another lake", &|world| note(world, &|note| note.lake = "previews".into())),
        ("a preview without its lake", &|world| {
            std::fs::remove_dir_all(world.folder("north").join("lake")).expect("removed");
        }),
    ];
    for (what, edit) in edits {
        let mut world = World::new(format).await;
        world.built("north").await;
        deploy(&mut world.dev, format);
        edit(&mut world);
        assert_eq!(told(&world.dev.days("daily", FIRST, LAST).await), computed, "{what}");
    }
    let mut world = World::new(format).await;
    world.built("north").await;
    deploy(&mut world.dev, format);
    assert_eq!(told(&world.dev.days("daily", FIRST, LAST).await).0, ALL, "and unchanged it is taken over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_torn_file_of_a_preview_is_computed_and_the_others_are_taken_over() {
    for format in [TableFormat::Delta, TableFormat::Iceberg] {
        let mut world = World::new(format).await;
        let preview = world.built("north").await;
        let table = preview.context.lake.table("shop/daily.daily", lake_format(format)).expect("an address");
        let torn = parquet_files(table.location()).into_iter().find(|path| path.contains("=2026-06-02/"));
        let torn = torn.expect("there is one");
        let bytes = std::fs::read(&torn).expect("read");
        std::fs::write(&torn, &bytes[..bytes.len() - 9]).expect("written");
        deploy(&mut world.dev, format);
        let published = world.dev.days("daily", FIRST, LAST).await;
        assert_eq!(told(&published), (vec!["01", "03", "04", "05"], vec!["02"]), "{format:?}");
        world.assert_as_computed(&["daily"]).await;
    }
}

fn parquet_files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(parquet_files(&path));
        } else if path.extension().is_some_and(|it| it == "parquet") {
            found.push(path.to_string_lossy().into_owned());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_preview_publishes_later_is_seen_and_the_newest_one_is_asked_first() {
    let format = TableFormat::Delta;
    let mut world = World::new(format).await;
    let mut preview = world.preview("north").await;
    deploy(&mut preview, format);
    preview.days("daily", "2026-06-01", "2026-06-02").await;
    save(&preview).await;
    deploy(&mut world.dev, format);
    let published = world.dev.days("daily", FIRST, "2026-06-03").await;
    assert_eq!(told(&published), (vec!["01", "02"], vec!["03"]));
    preview.days("daily", "2026-06-04", "2026-06-04").await;
    save(&preview).await;
    world.built("south").await;
    // Both have the fourth day, and began at the same time.
    let published = world.dev.days("daily", "2026-06-04", LAST).await;
    assert_eq!(told(&published), (vec!["04", "05"], vec![]));
    let from: Vec<&str> = published.iter().filter_map(|it| Some(it.taken.as_ref()?.from.as_str())).collect();
    assert_eq!(from, ["preview/north", "preview/south"]);
}
