//! Answers a query from a published index: the nearest chunk of each text, nearest text first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::error::DataFusionError;
use hydromesh_core::ids::PortId;
use hydromesh_core::model::EmbeddingPipeline;
use serde::Serialize;

use super::chunk::{ChunkSizes, split};
use super::exact::{ExactIndex, IndexError, Neighbour, nearest};
use super::hashing::{is_stop_word, words};
use super::provider::{Model, ProviderError};
use super::table::{CONTENT_HASH, Layout, LayoutError, Others, StoredRow, read_rows};
use crate::lake::{Lake, LakeError, TableFormat, TableState, Version};

/// The longest query, in characters: far beyond any question, and cheap to embed.
pub const MAX_QUERY: usize = 8_192;

/// Characters of a chunk that a hit shows.
const SNIPPET: usize = 240;

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// Nothing has been embedded yet.
    #[error("{0} has no index yet")]
    NotPublished(PortId),
    /// The index was made by another model than the definition names. Its vectors mean something else, so that no
    /// answer is better than one from them; the next refresh of the pipeline mends it.
    #[error(
        "the index of {port} was not made by {model}: {rows} of its vectors are of another model or text"
    )]
    OtherModel {
        /// The port.
        port: PortId,
        /// The identity of the definition's model.
        model: String,
        /// How many vectors.
        rows: usize,
    },
    /// Nothing was asked.
    #[error("the query is empty")]
    EmptyQuery,
    /// Too much was asked.
    #[error("the query has more than {MAX_QUERY} characters")]
    LongQuery,
    /// The table is no index.
    #[error("the table is not an index")]
    Layout(#[from] LayoutError),
    /// A vector is none.
    #[error("the index holds a vector that cannot be used")]
    Vector(#[from] IndexError),
    /// The model failed.
    #[error("the query could not be embedded")]
    Provider(#[from] ProviderError),
    /// The table could not be opened.
    #[error("the index could not be opened")]
    Lake(#[from] LakeError),
    /// The table could not be read.
    #[error("the index could not be read")]
    Read(#[from] DataFusionError),
    /// The scan was stopped from outside.
    #[error("the search did not finish")]
    Stopped(#[from] tokio::task::JoinError),
}

/// A text that was found, by its nearest chunk.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hit {
    /// Identifies the text.
    pub id: String,
    /// The nearest chunk, from 0.
    pub chunk: i64,
    /// Cosine similarity of chunk and query, above 0 and at most 1.
    pub score: f32,
    /// The part of the chunk that has most of the query's words.
    pub text: String,
    /// The row's identifying columns by name.
    pub fields: BTreeMap<String, String>,
}

/// One version of an index in memory: immutable, so that a query sees one version whatever is published meanwhile.
#[derive(Debug)]
pub struct LoadedIndex {
    version: Version,
    model: Model,
    id_column: String,
    index: ExactIndex,
    chunks: Vec<LoadedChunk>,
    /// Ids in order; a chunk names its own by number.
    ids: Vec<String>,
}

#[derive(Debug)]
struct LoadedChunk {
    id: usize,
    number: i64,
    text: String,
    content_hash: String,
}

impl LoadedIndex {
    /// Returns the index of a table's rows, which come ordered by id and chunk.
    ///
    /// # Errors
    /// [`SearchError::OtherModel`] unless every row's vector is the model's for the row's text.
    pub fn new(
        port: &PortId,
        layout: &Layout,
        model: Model,
        version: Version,
        rows: Vec<StoredRow>,
    ) -> Result<Self, SearchError> {
        let foreign = rows.iter().filter(|row| row.content_hash != model.address(&row.text)).count();
        if foreign > 0 {
            return Err(SearchError::OtherModel {
                port: port.clone(),
                model: model.id().to_owned(),
                rows: foreign,
            });
        }
        let mut index = ExactIndex::new(model.dimensions());
        let (mut chunks, mut ids) = (Vec::with_capacity(rows.len()), Vec::<String>::new());
        for row in rows {
            index.push(&row.vector)?;
            if ids.last() != Some(&row.id) {
                ids.push(row.id);
            }
            let StoredRow { chunk: number, text, content_hash, .. } = row;
            chunks.push(LoadedChunk { id: ids.len() - 1, number, text, content_hash });
        }
        Ok(Self { version, model, id_column: layout.id.clone(), index, chunks, ids })
    }

    /// Returns the version of the table that it holds.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Returns how many texts it holds.
    #[must_use]
    pub fn texts(&self) -> usize {
        self.ids.len()
    }

    /// Returns how many chunks it holds.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Returns the `k` texts nearest to the query, each by its nearest chunk, ties in order of ids. Texts that have
    /// nothing in common with the query (a cosine of 0 or less) are left out. May block.
    ///
    /// # Errors
    /// [`SearchError`] for an empty or overlong query, or when the model fails.
    pub fn search(&self, query: &str, k: usize) -> Result<Vec<Hit>, SearchError> {
        let query = query.trim();
        if query.is_empty() {
            return Err(SearchError::EmptyQuery);
        }
        if query.chars().nth(MAX_QUERY).is_some() {
            return Err(SearchError::LongQuery);
        }
        let vectors = self.model.embed(&[query])?;
        let scores = vectors.first().map(|vector| self.index.scores(vector)).transpose()?.unwrap_or_default();
        // The first of a text's nearest chunks.
        let mut best: Vec<Option<(usize, f32)>> = vec![None; self.ids.len()];
        for (row, (chunk, score)) in self.chunks.iter().zip(scores).enumerate() {
            let best = &mut best[chunk.id];
            if score > 0.0 && best.is_none_or(|(_, known)| score > known) {
                *best = Some((row, score));
            }
        }
        let found = best.into_iter().flatten().map(|(row, score)| Neighbour { row, score }).collect();
        Ok(nearest(found, k).into_iter().map(|neighbour| self.hit(neighbour, query)).collect())
    }

    fn hit(&self, neighbour: Neighbour, query: &str) -> Hit {
        let chunk = &self.chunks[neighbour.row];
        let id = self.ids[chunk.id].clone();
        let fields = BTreeMap::from([
            (self.id_column.clone(), id.clone()),
            (CONTENT_HASH.to_owned(), chunk.content_hash.clone()),
        ]);
        // Rounding may lift the cosine of equal directions above 1.
        let score = neighbour.score.min(1.0);
        Hit { id, chunk: chunk.number, score, text: snippet(&chunk.text, query), fields }
    }
}

/// Returns the stretch of a chunk that has most of the query's words, on one line.
fn snippet(chunk: &str, query: &str) -> String {
    let chunk = chunk.split_whitespace().collect::<Vec<_>>().join(" ");
    let asked: BTreeSet<String> = words(query).into_iter().filter(|word| !is_stop_word(word)).collect();
    let count = |text: &str| words(text).into_iter().collect::<BTreeSet<_>>().intersection(&asked).count();
    let parts = split(&chunk, ChunkSizes { min: SNIPPET / 4, target: SNIPPET / 2, max: SNIPPET });
    // A stretch is parts of the text that fit together, from each part on.
    let mut best = (0, 0, 0);
    for from in 0..parts.len() {
        let mut length = 0;
        let fitting = parts[from..].iter().take_while(|part| {
            length += part.chars().count();
            length <= SNIPPET
        });
        let to = from + fitting.count();
        let words = count(&parts[from..to].concat());
        if from == 0 || words > best.0 {
            best = (words, from, to);
        }
    }
    let (_, from, to) = best;
    let before = if from > 0 { "… " } else { "" };
    let after = if to < parts.len() { " …" } else { "" };
    format!("{before}{}{after}", parts[from..to].concat().trim())
}

/// Indexes in memory, one per port: the newest version that was asked for.
#[derive(Debug, Default)]
pub struct VectorIndexes {
    loaded: Mutex<BTreeMap<PortId, Arc<LoadedIndex>>>,
}

impl VectorIndexes {
    /// Returns an empty cache.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the newest published index of a port, from memory if its version is there.
    ///
    /// # Errors
    /// [`SearchError`].
    pub async fn load(
        &self,
        lake: &Lake,
        format: TableFormat,
        port: &PortId,
        pipeline: &EmbeddingPipeline,
    ) -> Result<Arc<LoadedIndex>, SearchError> {
        let table = lake.table(&port.to_string(), format)?;
        let TableState::Known(known) = table.state().await? else {
            return Err(SearchError::NotPublished(port.clone()));
        };
        // A table that was only made ready has no rows yet, which is not the same as an empty index.
        if known.last_commit.is_none() {
            return Err(SearchError::NotPublished(port.clone()));
        }
        let model = Model::of(pipeline)?;
        if let Some(index) =
            self.of(port).filter(|it| it.version == known.version && it.model.id() == model.id())
        {
            return Ok(index);
        }
        let layout = Layout::of(&known.schema, pipeline, Others::Ignored)?;
        let rows = read_rows(table.provider(Some(known.version)).await?, &layout).await?;
        let (address, version) = (port.clone(), known.version);
        let make = move || LoadedIndex::new(&address, &layout, model, version, rows);
        let index = Arc::new(tokio::task::spawn_blocking(make).await??);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        // Another query may have loaded a later version meanwhile; that one stays.
        if loaded.get(port).is_none_or(|other| other.version <= version) {
            loaded.insert(port.clone(), Arc::clone(&index));
        }
        Ok(index)
    }

    fn of(&self, port: &PortId) -> Option<Arc<LoadedIndex>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(port).cloned()
    }
}

/// Returns the `k` texts of a port nearest to the query, out of its newest published index.
///
/// # Errors
/// [`SearchError`].
pub async fn search(
    lake: &Lake,
    format: TableFormat,
    port: &PortId,
    pipeline: &EmbeddingPipeline,
    cache: &VectorIndexes,
    query: &str,
    k: usize,
) -> Result<Vec<Hit>, SearchError> {
    let index = cache.load(lake, format, port, pipeline).await?;
    let query = query.to_owned();
    // A scan is milliseconds of arithmetic, and a model may wait for a server.
    tokio::task::spawn_blocking(move || index.search(&query, k)).await?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::hashing::Hashing;
    use super::*;

    fn port() -> PortId {
        "support/article-search.vectors".parse().expect("an address")
    }

    fn index_of(texts: &[(String, String)], sizes: ChunkSizes) -> LoadedIndex {
        let model = Model::new(Arc::new(Hashing::new(384)), "");
        let layout = Layout { id: "article_id".into(), text: "body".into(), vector: "embedding".into() };
        let mut rows = Vec::new();
        for (id, text) in texts {
            for (number, chunk) in split(text, sizes).into_iter().enumerate() {
                rows.push(StoredRow {
                    id: id.clone(),
                    chunk: i64::try_from(number).expect("few chunks"),
                    text: chunk.to_owned(),
                    content_hash: model.address(chunk),
                    vector: model.embed(&[chunk]).expect("hashing never fails").remove(0),
                });
            }
        }
        LoadedIndex::new(&port(), &layout, model, Version(1), rows).expect("an index")
    }

    /// The help articles of the example mesh.
    fn articles() -> Vec<(String, String)> {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/mesh-repo-example/domains/support/articles/data/articles.jsonl"
        );
        let text = std::fs::read_to_string(file).expect("the example's articles");
        let articles = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let field = |article: &serde_json::Value, name: &str| article[name].as_str().map(str::to_owned);
        articles
            .filter_map(|article| Some((field(&article, "article_id")?, field(&article, "body")?)))
            .collect()
    }

    #[test]
    fn questions_find_their_articles_by_a_margin() {
        let articles = articles();
        assert!(articles.len() >= 60);
        let index = index_of(&articles, ChunkSizes::around(800));
        let mut report = String::new();
        for (question, wanted) in [
            ("refund my order", "A001"),
            ("How do I get a refund for my order?", "A001"),
            ("I forgot my password", "A022"),
            ("track my parcel", "A007"),
            ("courier left a card with the neighbours", "A008"),
            ("cancel an order free of charge", "A011"),
            ("change the delivery address", "A009"),
            ("unsubscribe newsletter", "A027"),
            ("delete my personal data", "A025"),
            ("how to descale an espresso machine", "A050"),
            ("rust on my cast iron pan", "A049"),
            ("postage to Switzerland", "A039"),
            ("gift cards valid for years", "A018"),
            ("two-step login code", "A024"),
            ("robot vacuum cleaner brush", "A057"),
            ("pay by invoice within 30 days", "A014"),
            ("discount code in the basket", "A020"),
            ("is there a warranty on kitchen appliances", "A033"),
            ("collect in store", "A031"),
            ("stores open on public holidays", "A032"),
            ("return a parcel in Germany", "A045"),
            ("missing screws in furniture", "A034"),
            ("assemble a wardrobe", "A035"),
            ("old batteries and bulbs", "A036"),
            ("suspicious mail asks for my password", "A038"),
            ("VAT number of business account", "A017"),
            ("club points expire", "A028"),
            ("blunt chefs knife", "A056"),
        ] {
            let hits = index.search(question, 2).expect("hits");
            let margin = hits[0].score - hits[1].score;
            report += &format!(
                "{question}: {} {:.3} before {} {:.3}\n",
                hits[0].id, hits[0].score, hits[1].id, hits[1].score
            );
            let needed = if question.contains("refund my order") { 0.1 } else { 0.03 };
            if hits[0].id != wanted || margin < needed {
                report += &format!("  ^ wanted {wanted}\n");
            }
        }
        assert!(!report.contains("wanted"), "{report}");
    }

    #[test]
    fn a_text_is_one_hit_by_its_nearest_chunk() {
        let filler = "Nothing of interest stands in this sentence at all. ".repeat(20);
        let long = format!("{filler}The zebra crosses the river at dawn. {filler}The zebra sleeps. {filler}");
        let texts = vec![("long".to_owned(), long), ("short".to_owned(), "Noon came.".to_owned())];
        let index = index_of(&texts, ChunkSizes::around(200));
        assert!(index.chunks() > 10 && index.texts() == 2);
        let hits = index.search("zebra crosses the river at noon", 10).expect("hits");
        assert_eq!(hits.iter().filter(|hit| hit.id == "long").count(), 1);
        assert_eq!(hits[0].id, "long");
        assert!(hits[0].chunk > 0 && hits[0].text.contains("zebra crosses"), "{hits:?}");
        assert_eq!(hits[0].fields["article_id"], "long");
    }

    #[test]
    fn a_snippet_shows_where_the_words_are() {
        let filler = "Some words about other things follow here. ".repeat(20);
        let shown = snippet(
            &format!("{filler}\n\nThe  WARRANTY covers two years. {filler}"),
            "how long is the warranty?",
        );
        assert!(shown.starts_with("… ") && shown.ends_with(" …"), "{shown}");
        assert!(
            shown.contains("The WARRANTY covers two years.") && shown.chars().count() <= SNIPPET + 4,
            "{shown}"
        );
        assert_eq!(snippet("Short.", "x"), "Short.");
    }

    #[test]
    fn vectors_of_another_model_are_never_searched() {
        let layout = Layout { id: "article_id".into(), text: "body".into(), vector: "embedding".into() };
        let (old, new) =
            (Model::new(Arc::new(Hashing::new(384)), ""), Model::new(Arc::new(Hashing::new(384)), "query: "));
        let vector = old.embed(&["text"]).expect("hashing never fails").remove(0);
        let row = StoredRow {
            id: "1".into(),
            chunk: 0,
            text: "text".into(),
            content_hash: old.address("text"),
            vector,
        };
        let refused = LoadedIndex::new(&port(), &layout, new, Version(1), vec![row.clone()]);
        assert!(matches!(refused, Err(SearchError::OtherModel { rows: 1, .. })));
        let tampered = StoredRow { text: "other text".into(), ..row };
        let refused = LoadedIndex::new(&port(), &layout, old, Version(1), vec![tampered]);
        assert!(matches!(refused, Err(SearchError::OtherModel { rows: 1, .. })));
    }

    #[test]
    fn queries_that_ask_nothing_or_too_much_are_refused() {
        let index = index_of(&articles(), ChunkSizes::around(800));
        assert!(matches!(index.search(" \n", 3), Err(SearchError::EmptyQuery)));
        assert!(matches!(index.search(&"a ".repeat(MAX_QUERY), 3), Err(SearchError::LongQuery)));
        assert!(index.search("refund", 0).expect("hits").is_empty());
        let none = index_of(&[], ChunkSizes::around(800));
        assert!(none.search("refund", 3).expect("hits").is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_text_is_found_by_itself_and_any_query_is_answered(
            texts in proptest::collection::vec("(?s).{0,400}", 1..6),
            query in "(?s).{0,60}",
            k in 0_usize..9,
        ) {
            let texts: Vec<(String, String)> = texts.into_iter().enumerate().map(|(at, text)| (at.to_string(), text)).collect();
            let index = index_of(&texts, ChunkSizes::around(60));
            match index.search(&query, k) {
                Ok(hits) => prop_assert!(hits.len() <= k),
                Err(error) => prop_assert!(matches!(error, SearchError::EmptyQuery) && query.trim().is_empty()),
            }
            for chunk in &index.chunks {
                if !chunk.text.trim().is_empty() {
                    let hits = index.search(&chunk.text, 1).expect("hits");
                    prop_assert!(hits[0].score > 0.999, "{:?} found {:?}", chunk.text, hits);
                }
            }
        }
    }
}
