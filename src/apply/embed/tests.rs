//! What a refresh embeds, what it publishes, and what a search then finds, on real tables of both formats.

use std::path::Path;
use std::sync::Mutex;

use hydromesh_core::control::Start;
use hydromesh_core::ledger::{Champion, ErrorKind};
use hydromesh_core::model::{self, InputSource, Loaded, Product};
use hydromesh_core::plan::{PortPrint, Print, StepKey, Work};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::{Blobs, Context, Job, Reporter, table_format};
use super::*;
use crate::clock::Clock;
use crate::engine::{Engine, EngineConfig};
use crate::lake::{Lake, TableFormat};
use crate::repo::FolderSource;
use crate::vector::{Hashing, Hit, Provider, SearchError, VectorIndexes, search};

const NOON: i64 = 1_785_585_600_000;

/// Hashes, and remembers what it was asked for.
struct Counting {
    hashing: Hashing,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Provider for Counting {
    fn id(&self) -> String {
        self.hashing.id()
    }

    fn dimensions(&self) -> usize {
        self.hashing.dimensions()
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, ProviderError> {
        self.asked.lock().expect("a lock").extend(texts.iter().map(|text| (*text).to_owned()));
        self.hashing.embed(texts)
    }
}

struct NoBlobs;

impl Blobs for NoBlobs {
    fn read(&self, _oid: &str) -> std::io::Result<Vec<u8>> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

/// The example's article search over a lake of its own.
struct World {
    _folder: TempDir,
    context: Context,
    job: Job,
    source: PortId,
    asked: Arc<Mutex<Vec<String>>>,
    prefix: String,
    indexes: VectorIndexes,
}

/// What a refresh did.
struct Told {
    result: Result<Done, StepError>,
    facts: Vec<Fact>,
    asked: Vec<String>,
}

impl Told {
    fn published(&self) -> &Published {
        let found = self.facts.iter().find_map(|fact| match fact {
            Fact::Published(published) => Some(published),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("nothing was published: {:?} {:?}", self.result, self.facts))
    }

    fn quarantined(&self) -> (u64, Vec<String>) {
        let found = self.facts.iter().find_map(|fact| match fact {
            Fact::Quarantined { rows, reasons, .. } => Some((*rows, reasons.clone())),
            _ => None,
        });
        found.unwrap_or_default()
    }

    fn error(&self) -> &StepError {
        self.result.as_ref().expect_err("the step fails")
    }
}

fn example() -> model::Mesh {
    let folder = FolderSource::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/mesh-repo-example")))
        .expect("the example");
    let snapshot = folder.snapshot().expect("its files");
    let load = |(path, entry): (&String, &crate::repo::FileEntry)| {
        let text = snapshot.read(path).map_err(|error| error.to_string());
        let text = text.and_then(|bytes| String::from_utf8(bytes).map_err(|error| error.to_string()));
        (path.clone(), Loaded { text, oid: entry.oid.clone() })
    };
    let files: BTreeMap<String, Loaded> = snapshot.files.iter().map(load).collect();
    model::load(&files).mesh
}

impl World {
    async fn new(format: model::TableFormat) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mesh = example();
        let of = |id: &str| -> Product { mesh.products[&id.parse().expect("an id")].clone() };
        let (mut articles, mut searching) = (of("support/articles"), of("support/article-search"));
        for product in [&mut articles, &mut searching] {
            product.outputs.values_mut().for_each(|port| port.format = format);
        }
        let pipeline: hydromesh_core::ids::PipelineId =
            "support/article-search:article-vectors".parse().expect("an id");
        let print = |data: &str| PortPrint {
            data: data.to_owned(),
            rows: String::new(),
            columns: BTreeMap::new(),
            cut: None,
        };
        let output = searching.pipelines[&pipeline.name].output().clone();
        let source: PortId = "support/articles.articles".parse().expect("an address");
        let job = Job {
            start: Start {
                run: "run-1".to_owned(),
                key: StepKey { pipeline, work: Work::Embed },
                attempt: 1,
                generation: 1,
                decision: "decision".to_owned(),
                reason: "nothing embedded yet".to_owned(),
            },
            products: [articles, searching].map(|product| (product.id.clone(), product)).into(),
            print: Print {
                all: String::new(),
                ports: BTreeMap::from([(output, print("data-1"))]),
                reads: BTreeMap::new(),
                aligned: BTreeSet::new(),
            },
            versions: BTreeMap::new(),
            models: Champion::default(),
            altered: 0,
            afresh: false,
            earlier: BTreeMap::new(),
            kept_from: None,
            read_since_ms: None,
            definitions: BTreeMap::new(),
        };
        let context = Context {
            environment: "dev".to_owned(),
            settings: mesh.environments["dev"].clone(),
            state: folder.path().to_owned(),
            lake: Arc::new(Lake::open(folder.path().join("lake")).await.expect("a lake")),
            engine: Engine::new(&EngineConfig { memory_bytes: 64 << 20, spill: folder.path().join("spill") })
                .expect("an engine"),
            online: Arc::default(),
            previews: Arc::new(crate::preview::Offers::of(folder.path())),
            blobs: Arc::new(NoBlobs),
            clock: Clock::fixed(NOON),
            epoch: 1,
        };
        let (asked, indexes) = (Arc::default(), VectorIndexes::new());
        Self { _folder: folder, context, job, source, asked, prefix: String::new(), indexes }
    }

    /// Publishes the articles as the only version that matters.
    async fn articles(&mut self, rows: &[(Option<&str>, Option<&str>)]) {
        let format = table_format(&self.job.products, &self.source).expect("a format");
        let table = self.context.lake.table(&self.source.to_string(), format).expect("a table");
        let output = &self.job.products[&self.source.product].outputs[&self.source.port];
        let schema = arrow_schema(&output.contract.columns);
        let spec = TableSpec { schema, partition_by: None };
        let _ = table.ensure(&spec, self.context.writer()).await.expect("a table");
        let (ids, texts): (Vec<_>, Vec<_>) = rows.iter().copied().unzip();
        let columns: [(&str, ArrayRef); 2] =
            [("article_id", Arc::new(StringArray::from(ids))), ("body", Arc::new(StringArray::from(texts)))];
        let batch =
            RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
                .expect("a batch");
        let stream = futures::stream::iter([Ok(batch.clone())]);
        let meta = self.context.commit(format!("articles {rows:?} {:?}", self.job.versions));
        let staged = table
            .stage(&meta, Box::pin(RecordBatchStreamAdapter::new(batch.schema(), stream)))
            .await
            .expect("staged");
        let published = table.publish(staged, PublishMode::ReplaceAll, &meta).await.expect("published");
        self.job.versions.insert(self.source.clone(), published.version.0);
    }

    async fn texts(&mut self, rows: &[(&str, &str)]) {
        let rows: Vec<_> = rows.iter().map(|(id, text)| (Some(*id), Some(*text))).collect();
        self.articles(&rows).await;
    }

    fn pipeline(&self) -> EmbeddingPipeline {
        match self.job.pipeline() {
            Ok(Pipeline::Embedding(pipeline)) => pipeline.clone(),
            other => panic!("no embedding pipeline: {other:?}"),
        }
    }

    async fn refresh(&self) -> Told {
        self.refresh_until(CancellationToken::new()).await
    }

    async fn refresh_until(&self, cancel: CancellationToken) -> Told {
        self.asked.lock().expect("a lock").clear();
        let provider = Counting { hashing: Hashing::new(384), asked: Arc::clone(&self.asked) };
        let model = Model::new(Arc::new(provider), self.prefix.clone());
        let (to, mut from) = mpsc::channel(64);
        let reporter = Reporter::new(to, cancel);
        let result = refresh(&self.context, &self.job, &reporter, &self.pipeline(), model).await;
        drop(reporter);
        let mut facts = Vec::new();
        while let Some(more) = from.recv().await {
            facts.extend(more);
        }
        Told { result, facts, asked: self.asked.lock().expect("a lock").clone() }
    }

    fn output(&self) -> Table {
        let (port, _) = self.job.output().expect("an output");
        let format = table_format(&self.job.products, &port).expect("a format");
        self.context.lake.table(&port.to_string(), format).expect("a table")
    }

    async fn rows(&self, version: Option<i64>) -> Vec<StoredRow> {
        let layout = Layout { id: "article_id".into(), text: "body".into(), vector: "embedding".into() };
        let provider = self.output().provider(version.map(Version)).await.expect("a table");
        read_rows(provider, &layout).await.expect("rows")
    }

    async fn search(&self, query: &str) -> Result<Vec<Hit>, SearchError> {
        let (port, _) = self.job.output().expect("an output");
        let format: TableFormat = table_format(&self.job.products, &port).expect("a format");
        search(&self.context.lake, format, &port, &self.pipeline(), &self.indexes, query, 3).await
    }
}

const REFUND: &str = "You can get a refund for your order within 30 days of delivery.";
const PARCEL: &str = "To track your parcel, open the link in the confirmation of dispatch.";
const PAN: &str = "A cast-iron pan is dried on the stove. 🍳 Rostflecken gehen mit Salz weg.";

fn ids(rows: &[StoredRow]) -> Vec<(&str, i64)> {
    rows.iter().map(|row| (row.id.as_str(), row.chunk)).collect()
}

#[tokio::test]
async fn what_was_embedded_is_found_at_the_version_that_was_read() {
    let mut world = World::new(model::TableFormat::Delta).await;
    assert!(matches!(world.search("refund").await, Err(SearchError::NotPublished(_))));
    world.texts(&[("A1", REFUND), ("A2", PARCEL), ("A3", PAN)]).await;
    let told = world.refresh().await;
    assert_eq!(told.result.as_ref().expect("a refresh").rows, 3);
    let published = told.published();
    assert_eq!((published.rows, published.data.as_str(), published.data_time_ms), (3, "data-1", Some(NOON)));
    assert_eq!(published.partition, None);
    assert_eq!(published.inputs, world.job.versions);
    assert!(
        told.facts
            .iter()
            .any(|fact| matches!(fact, Fact::Quality { rule, passed: true, .. } if rule == "not-empty"))
    );
    for (query, wanted) in
        [("refund my order", "A1"), ("where is my parcel", "A2"), ("rostflecken", "A3"), ("🍳", "A3")]
    {
        let hits = world.search(query).await.expect("hits");
        assert_eq!(hits[0].id, wanted, "{query}: {hits:?}");
    }
    let again = world.search("refund").await.expect("hits");
    assert_eq!(again, world.search("refund").await.expect("hits"));
}

#[tokio::test]
async fn only_changed_chunks_are_embedded_and_one_commit_swaps_the_index() {
    for format in [model::TableFormat::Delta, model::TableFormat::Iceberg] {
        let mut world = World::new(format).await;
        world.texts(&[("A1", REFUND), ("A2", PARCEL), ("A3", PAN)]).await;
        let first = world.refresh().await.published().version;
        let before = world.rows(None).await;
        // A1 is edited, A2 deleted, A4 added.
        let edited = format!("{REFUND} The postage is yours.");
        world.texts(&[("A1", &edited), ("A3", PAN), ("A4", "Gift cards are valid for five years.")]).await;
        let told = world.refresh().await;
        let after = world.rows(None).await;
        let known: BTreeSet<&str> = before.iter().map(|row| row.content_hash.as_str()).collect();
        let changed = after.iter().filter(|row| !known.contains(row.content_hash.as_str())).count();
        assert_eq!(
            (changed, told.asked.len()),
            (2, 2),
            "embeddings per changed chunk are not 1.00: {:?}",
            told.asked
        );
        assert_eq!(told.result.as_ref().expect("a refresh").rows, 2);
        assert_eq!(ids(&after), [("A1", 0), ("A3", 0), ("A4", 0)]);
        assert_eq!(after[0].text, edited);
        assert_eq!(told.published().version, first + 1, "one commit");
        assert_eq!(world.rows(Some(first)).await, before, "whoever reads the old version sees all of it");
        let hits = world.search("track parcel link dispatch").await.expect("hits");
        assert!(hits.iter().all(|hit| hit.id != "A2"), "{hits:?}");
    }
}

#[tokio::test]
async fn text_that_moves_comes_twice_or_comes_back_is_not_embedded_again() {
    let mut world = World::new(model::TableFormat::Delta).await;
    world.texts(&[("A1", REFUND), ("A2", PARCEL), ("A9", REFUND)]).await;
    let told = world.refresh().await;
    assert_eq!(told.asked.len(), 2, "the same text twice has one vector");
    world.texts(&[("B1", PARCEL), ("B2", REFUND), ("B3", PARCEL)]).await;
    let told = world.refresh().await;
    assert_eq!(told.asked, Vec::<String>::new());
    assert_eq!((told.result.as_ref().expect("a refresh").rows, told.published().rows), (0, 3));
    assert_eq!(ids(&world.rows(None).await), [("B1", 0), ("B2", 0), ("B3", 0)]);
}

#[tokio::test]
async fn a_line_more_in_a_long_text_embeds_few_of_its_chunks() {
    let mut world = World::new(model::TableFormat::Delta).await;
    let line = |n: u32| {
        format!(
            "Line {} tells of case {} and of nothing else; see also {}.\n",
            n,
            n * 7_919 % 1_000,
            n * 31 % 97
        )
    };
    let long: String = (0..2_000).map(line).collect();
    world.texts(&[("A1", &long)]).await;
    let chunks = world.refresh().await.result.expect("a refresh").rows;
    assert!(chunks > 80, "{chunks} chunks");
    let middle = long.len() / 2;
    let at = middle + long[middle..].find('\n').expect("a line") + 1;
    let edited = format!("{}A line that is new.\n{}", &long[..at], &long[at..]);
    world.texts(&[("A1", &edited)]).await;
    let told = world.refresh().await;
    assert!((1..=3).contains(&told.asked.len()), "{} chunks", told.asked.len());
    let rows = world.rows(None).await;
    assert_eq!(rows.iter().map(|row| row.text.as_str()).collect::<String>(), edited);
}

#[tokio::test]
async fn doing_it_again_changes_nothing() {
    for format in [model::TableFormat::Delta, model::TableFormat::Iceberg] {
        let mut world = World::new(format).await;
        world.texts(&[("A1", REFUND), ("A2", PARCEL)]).await;
        let first = world.refresh().await.published().clone();
        // As after a crash between the commit and the ledger: the same step, another attempt.
        let again = world.refresh().await;
        assert_eq!((&first, again.asked.len()), (again.published(), 0));
        // A new version of the source with the same texts: the index rests on it, and stays as it is.
        world.texts(&[("A2", PARCEL), ("A1", REFUND)]).await;
        let told = world.refresh().await;
        assert_eq!(told.published().version, first.version);
        assert_ne!(told.published().inputs, first.inputs);
    }
}

#[tokio::test]
async fn models_never_mix_and_a_way_back_is_a_commit_of_its_own() {
    let mut world = World::new(model::TableFormat::Delta).await;
    world.texts(&[("A1", REFUND), ("A2", PARCEL)]).await;
    let first = world.refresh().await.published().version;
    let before = world.rows(None).await;
    world.prefix = "passage: ".to_owned();
    let told = world.refresh().await;
    assert_eq!(told.asked.len(), 2, "nothing of the other model is used again");
    assert!(told.asked.iter().all(|text| text.starts_with("passage: ")));
    assert!(matches!(world.search("refund").await, Err(SearchError::OtherModel { rows: 2, .. })));
    world.prefix.clear();
    let told = world.refresh().await;
    assert_eq!((told.asked.len(), told.published().version), (2, first + 2));
    assert_eq!(world.rows(None).await, before);
    assert_eq!(world.search("refund").await.expect("hits")[0].id, "A1");
}

#[tokio::test]
async fn rows_without_id_or_text_are_set_aside_and_counted() {
    let mut world = World::new(model::TableFormat::Delta).await;
    let rows = [
        (None, Some(PAN)),
        (Some("A1"), Some(REFUND)),
        (Some("A2"), None),
        (Some("A3"), Some(" \n\t")),
        (Some("A1"), Some("You can see this text twice.")),
    ];
    world.articles(&rows).await;
    let told = world.refresh().await;
    let (count, mut reasons) = told.quarantined();
    reasons.sort();
    assert_eq!(count, 4);
    assert_eq!(
        reasons,
        [
            "row 1: article_id is null",
            "row 3: body is null",
            "row 4: body is blank",
            "row 5: article_id is that of another row"
        ]
    );
    assert_eq!(ids(&world.rows(None).await), [("A1", 0)]);
    assert_eq!(told.published().rows, 1);
}

#[tokio::test]
async fn an_index_that_breaks_its_contract_is_not_published() {
    let mut world = World::new(model::TableFormat::Delta).await;
    world.texts(&[("A1", REFUND)]).await;
    let first = world.refresh().await.published().version;
    world.texts(&[]).await;
    let told = world.refresh().await;
    assert_eq!((told.error().code, told.error().kind), (AUDIT_FAILED, ErrorKind::User));
    assert!(
        told.facts
            .iter()
            .any(|fact| matches!(fact, Fact::Quality { rule, passed: false, .. } if rule == "not-empty"))
    );
    assert!(!told.facts.iter().any(|fact| matches!(fact, Fact::Published(_))));
    assert_eq!(world.rows(None).await, world.rows(Some(first)).await);
    assert_eq!(world.search("refund").await.expect("hits")[0].id, "A1", "the last good index answers");
}

#[tokio::test]
async fn a_cancelled_refresh_publishes_nothing() {
    let mut world = World::new(model::TableFormat::Delta).await;
    world.texts(&[("A1", REFUND)]).await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    let told = world.refresh_until(cancel).await;
    assert_eq!(told.error().code, "HM-X007");
    assert!(matches!(world.search("refund").await, Err(SearchError::NotPublished(_))));
}

#[tokio::test]
async fn a_contract_that_an_embedding_cannot_fill_is_told() {
    let mut world = World::new(model::TableFormat::Delta).await;
    world.texts(&[("A1", REFUND)]).await;
    let id = world.job.start.key.pipeline.product.clone();
    let good = world.job.products[&id].clone();
    let with = |change: fn(&mut Vec<hydromesh_core::model::Column>)| {
        let mut product = good.clone();
        product.outputs.values_mut().for_each(|port| change(&mut port.contract.columns));
        product
    };
    for (product, said) in [
        (with(|columns| columns.retain(|column| column.name != "chunk")), "no column `chunk`"),
        (with(|columns| columns.retain(|column| column.name != "embedding")), "0 columns are vectors"),
        (
            with(|columns| columns.iter_mut().for_each(|column| column.logical = LogicalType::String)),
            "column `chunk`",
        ),
        (
            with(|columns| {
                columns
                    .push(hydromesh_core::model::Column { name: "title".to_owned(), ..columns[0].clone() });
            }),
            "`title` is not filled",
        ),
        (
            with(|columns| {
                columns
                    .iter_mut()
                    .filter(|column| column.name == "embedding")
                    .for_each(|column| column.logical = LogicalType::Vector(12));
            }),
            "promises 12 dimensions",
        ),
    ] {
        world.job.products.insert(id.clone(), product);
        let told = world.refresh().await;
        assert_eq!(told.error().code, BAD_COLUMNS);
        assert!(told.error().message.contains(said), "{}", told.error().message);
    }
}

#[tokio::test]
async fn a_source_that_was_never_published_is_waited_for() {
    let world = World::new(model::TableFormat::Delta).await;
    let told = world.refresh().await;
    assert_eq!((told.error().code, told.error().kind), ("HM-X005", ErrorKind::External));
    let product = world.job.product().expect("a product");
    assert!(product.inputs.values().all(|input| matches!(input.source, InputSource::Port { .. })));
}
