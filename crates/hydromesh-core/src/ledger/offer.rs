//! What a preview has made itself, so that its parent may take it over instead of computing it once more.
//!
//! Core says which publication of a preview has the definition that is wanted and which versions of its inputs it was made from.
//! Whether those show the very rows that the parent would read is for whoever can look at the files.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{LedgerState, OWN_ABOVE, PublishedPartition};
use crate::ids::{PortId, ProductId};
use crate::model::{BatchPipeline, InputSource, Product};
use crate::plan::{Mapping, Print};

/// What a preview has published itself, and over which definitions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Offer {
    /// By port, the newest version of its table and what that shows, by partition ("" for a whole table).
    ports: BTreeMap<PortId, (i64, BTreeMap<String, Arc<PublishedPartition>>)>,
    /// Data fingerprints of what these read, as it is deployed in the preview.
    definitions: BTreeMap<PortId, String>,
}

/// What a step is about to compute.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The port.
    pub port: &'a PortId,
    /// The partition; none for a whole table.
    pub partition: Option<&'a str>,
    /// The port's data fingerprint.
    pub data: &'a str,
    /// Versions of the inputs that it would read.
    pub inputs: &'a BTreeMap<PortId, i64>,
    /// Data fingerprints of ports as they are deployed, the inputs among them.
    pub definitions: &'a BTreeMap<PortId, String>,
}

/// A publication of a preview that was made by the definition that is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Offered<'a> {
    /// The newest version of the preview's table.
    pub version: i64,
    /// The publication, which that version shows.
    pub partition: &'a PublishedPartition,
}

impl LedgerState {
    /// Returns what a preview has published itself; nothing of an environment that is no preview.
    ///
    /// What its tables may not show, because somebody else changed them or a run was interrupted, is left out.
    #[must_use]
    pub fn offer(&self) -> Offer {
        let mut offer = Offer::default();
        if self.inherited.is_none() {
            return offer;
        }
        for (port, state) in self.ports.iter().filter(|(_, state)| state.version > OWN_ABOVE) {
            let altered = self.altered.get(port);
            let sound = |key: &str, it: &PublishedPartition| {
                it.published.version > OWN_ABOVE
                    && !it.published.key.is_empty()
                    && !it.unsure
                    && !altered.is_some_and(|altered| altered.contains_key(key))
            };
            let own = state.partitions.iter().filter(|(key, it)| sound(key, it));
            let own: BTreeMap<_, _> = own.map(|(key, it)| (key.clone(), Arc::clone(it))).collect();
            for input in own.values().flat_map(|it| it.published.inputs.keys()) {
                let deployed =
                    self.deployed.get(&input.product).and_then(|it| it.print.ports.get(&input.port));
                if let (Some(print), false) = (deployed, offer.definitions.contains_key(input)) {
                    offer.definitions.insert(input.clone(), print.data.clone());
                }
            }
            if !own.is_empty() {
                offer.ports.insert(port.clone(), (state.version, own));
            }
        }
        offer
    }
}

impl Offer {
    /// Returns whether there is anything of a port.
    #[must_use]
    pub fn has(&self, port: &PortId) -> bool {
        self.ports.contains_key(port)
    }

    /// Returns the publication of a whole port that was made by a definition, whatever its inputs showed.
    #[must_use]
    pub fn made_by(&self, port: &PortId, data: &str) -> Option<Offered<'_>> {
        let (version, partitions) = self.ports.get(port)?;
        let partition = partitions.get("").filter(|it| it.published.data == data)?;
        Some(Offered { version: *version, partition })
    }

    /// Returns the publication of what is wanted, if it was made by the same definition over inputs that are defined alike. The
    /// versions of its inputs are the preview's own, or those that it has from its parent.
    #[must_use]
    pub fn find(&self, wanted: &Wanted<'_>) -> Option<Offered<'_>> {
        let (version, partitions) = self.ports.get(wanted.port)?;
        let partition = partitions.get(wanted.partition.unwrap_or_default())?;
        let published = &partition.published;
        let alike = published.partition.as_deref() == wanted.partition
            && published.data == wanted.data
            && published.inputs.keys().eq(wanted.inputs.keys())
            && wanted.inputs.keys().all(|input| {
                let theirs = self.definitions.get(input);
                theirs.is_some() && theirs == wanted.definitions.get(input)
            });
        alike.then_some(Offered { version: *version, partition })
    }
}

/// Returns the stretches of partitions of an input, first and last, that a partition of a pipeline's output reads; `None` when it
/// may read any. `products` holds the pipeline's product and the input's.
#[must_use]
pub fn partitions_read(
    products: &BTreeMap<ProductId, Product>,
    product: &Product,
    batch: &BatchPipeline,
    print: &Print,
    input: &PortId,
    key: &str,
) -> Option<Vec<(String, String)>> {
    let names = product
        .inputs
        .values()
        .filter(|it| matches!(&it.source, InputSource::Port { port } if port == input))
        .count();
    if print.aligned.contains(&(batch.output.clone(), input.clone())) {
        // By a second name the same port may be read otherwise.
        return (names == 1).then(|| vec![(key.to_owned(), key.to_owned())]);
    }
    let mappings = Mapping::of(product, batch, input, products.get(&input.product)?);
    // A window that has no meaning is none.
    (names > 0 && mappings.len() == names)
        .then(|| mappings.iter().filter_map(|mapping| mapping.keys(key)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Entry, Fact, Inheritance, PortState, Published, RunOutcome, Taken};
    use crate::plan::{StepKey, Work};

    fn port(text: &str) -> PortId {
        text.parse().expect("a port")
    }

    fn published(version: i64) -> PublishedPartition {
        PublishedPartition {
            published: Published {
                port: port("shop/daily.daily"),
                partition: Some("2026-11-01".to_owned()),
                version,
                rows: 2,
                data_time_ms: None,
                data: "new".to_owned(),
                inputs: BTreeMap::from([(port("shop/sales.sales"), 20)]),
                run: "run-1".to_owned(),
                key: "0123456789abcdef".to_owned(),
                taken: None,
            },
            at_ms: 7,
            forced: false,
            rows_version: version,
            unsure: false,
            nulls: BTreeMap::new(),
        }
    }

    /// Returns the ledger of a preview that shows one partition.
    fn preview(partition: PublishedPartition) -> LedgerState {
        let mut ledger = LedgerState::default();
        let version = partition.published.version;
        let parent = "dev".to_owned();
        let inheritance = Inheritance { parent, position: 9, at_ms: 1, ports: BTreeMap::new() };
        ledger.inherited = Some(Arc::new(inheritance));
        let partitions = BTreeMap::from([("2026-11-01".to_owned(), Arc::new(partition))]);
        let state = PortState { version, partitions, ..PortState::default() };
        ledger.ports.insert(port("shop/daily.daily"), Arc::new(state));
        ledger
    }

    /// Returns whether the partition is found as it is wanted, after edits of the offer and of what is wanted.
    fn found(ledger: &LedgerState, data: &str, partition: Option<&str>, sales: Option<&str>) -> bool {
        let mut offer = ledger.offer();
        offer.definitions.insert(port("shop/sales.sales"), "sales".to_owned());
        let inputs = BTreeMap::from([(port("shop/sales.sales"), 31)]);
        let definitions = sales.map(|data| (port("shop/sales.sales"), data.to_owned())).into_iter().collect();
        let port = port("shop/daily.daily");
        let wanted = Wanted { port: &port, partition, data, inputs: &inputs, definitions: &definitions };
        offer.find(&wanted).is_some()
    }

    #[test]
    fn only_the_same_definition_over_the_same_definitions_is_found() {
        let ledger = preview(published(OWN_ABOVE + 3));
        let day = Some("2026-11-01");
        assert!(found(&ledger, "new", day, Some("sales")));
        assert!(!found(&ledger, "old", day, Some("sales")), "made by another definition");
        assert!(!found(&ledger, "new", Some("2026-11-02"), Some("sales")), "another partition");
        assert!(!found(&ledger, "new", None, Some("sales")), "the whole is not a partition");
        assert!(!found(&ledger, "new", day, Some("other")), "an input is defined otherwise");
        assert!(!found(&ledger, "new", day, None), "nobody knows how an input is defined");
        let offer = ledger.offer();
        assert!(offer.has(&port("shop/daily.daily")) && !offer.has(&port("shop/sales.sales")));
        let of = |inputs: BTreeMap<PortId, i64>| {
            let mut offer = offer.clone();
            offer.definitions.insert(port("shop/sales.sales"), "sales".to_owned());
            let definitions = [("shop/sales.sales", "sales"), ("shop/more.more", "more")];
            let definitions = definitions.map(|(of, data)| (port(of), data.to_owned())).into();
            let port = port("shop/daily.daily");
            let wanted = Wanted {
                port: &port,
                partition: day,
                data: "new",
                inputs: &inputs,
                definitions: &definitions,
            };
            offer.find(&wanted).is_some()
        };
        assert!(of([(port("shop/sales.sales"), 1)].into()));
        assert!(!of([(port("shop/sales.sales"), 1), (port("shop/more.more"), 1)].into()), "one input more");
        assert!(!of(BTreeMap::new()), "one input less");
    }

    #[test]
    fn nothing_is_offered_that_a_preview_has_not_made_or_may_not_show() {
        let day = Some("2026-11-01");
        let offers = |ledger: &LedgerState| found(ledger, "new", day, Some("sales"));
        assert!(!offers(&preview(published(20))), "it is the parent's");
        let unsure = PublishedPartition { unsure: true, ..published(OWN_ABOVE + 3) };
        assert!(!offers(&preview(unsure)), "a run was interrupted");
        let mut unnamed = published(OWN_ABOVE + 3);
        unnamed.published.key = String::new();
        assert!(!offers(&preview(unnamed)), "its files cannot be told from others");
        let mut altered = preview(published(OWN_ABOVE + 3));
        let what = BTreeMap::from([("2026-11-01".to_owned(), "rows were deleted".to_owned())]);
        altered.altered.insert(port("shop/daily.daily"), what);
        assert!(!offers(&altered), "somebody else changed it");
        let mut environment = preview(published(OWN_ABOVE + 3));
        environment.inherited = None;
        assert_eq!(environment.offer(), Offer::default(), "an environment is no preview");
    }

    #[test]
    fn a_run_that_took_over_says_so_and_is_no_measure_of_computing() {
        let step: StepKey = StepKey {
            pipeline: "shop/daily:make".parse().expect("a pipeline"),
            work: Work::Partitions { from: "2026-11-01".to_owned(), to: "2026-11-02".to_owned() },
        };
        let mut ledger = LedgerState::default();
        let mut costs = crate::cost::Costs::default();
        let mut tell = |fact: Fact| {
            let entry = Entry { seq: ledger.seq + 1, at_ms: 0, fact };
            costs.enter(&entry, &ledger);
            ledger.apply(&entry);
        };
        for (run, taken) in [("run-1", [true, true]), ("run-2", [false, true]), ("run-3", [false, false])] {
            let (run, step) = (run.to_owned(), step.clone());
            let (decision, attempt) = (String::new(), 1);
            tell(Fact::RunStarted { run: run.clone(), step: step.clone(), attempt, decision });
            for (computed_ms, taken) in (5..).zip(taken) {
                let from = Taken {
                    from: "preview/north".to_owned(),
                    run: "run-9".to_owned(),
                    version: OWN_ABOVE + 3,
                    computed_ms,
                };
                let taken = taken.then_some(from);
                tell(Fact::Published(Published { run: run.clone(), taken, ..published(4).published }));
            }
            let outcome = RunOutcome::Succeeded { rows: 4 };
            tell(Fact::RunFinished { run, step, outcome, took_ms: 100 });
        }
        let taken: Vec<_> = ledger.runs.iter().map(|run| run.taken.clone()).collect();
        let over = |partitions, computed_ms| {
            Some(super::super::TakenOver { from: "preview/north".to_owned(), partitions, computed_ms })
        };
        assert_eq!(taken, [over(2, 6), over(1, 6), None]);
        assert!(ledger.taken_over.is_empty());
        assert_eq!(ledger.took[&step.pipeline], [100], "only what was computed alone");
        let expected = costs.expect(&step.pipeline, 2).map(|it| it.work_ms);
        assert_eq!(expected, Some(100));
        assert_eq!(crate::cost::Costs::of(&ledger).expect(&step.pipeline, 2).map(|it| it.work_ms), expected);
    }

    #[test]
    fn a_publication_of_an_earlier_version_was_computed() {
        let fact = Fact::Published(published(4).published);
        let text = serde_json::to_string(&fact).expect("written");
        assert!(!text.contains("taken"), "and is written as it was: {text}");
        assert_eq!(serde_json::from_str::<Fact>(&text).expect("read"), fact);
    }

    /// Returns the products of a mesh in which sums are made of visits by day, with these inputs and windows.
    fn products(inputs: &str, windows: &str) -> BTreeMap<ProductId, Product> {
        let contract = |name: &str| {
            format!(
                "apiVersion: v3.2.0\nkind: DataContract\nversion: 1.0.0\nschema:\n- name: {name}\n  properties:\n  - {{name: day, logicalType: date}}\n"
            )
        };
        let product = |name: &str, inputs: &str| {
            format!(
                "apiVersion: v1.1.0\nkind: DataProduct\ninputPorts:\n{inputs}outputPorts:\n- {{name: {name}}}\n"
            )
        };
        let pipeline = |name: &str, more: &str| {
            format!(
                "apiVersion: hydromesh/v1\nkind: BatchPipeline\nname: make\noutput: {name}\nsql: SELECT day FROM a\npartition: {{by: day, every: day, start: 2026-06-01}}\n{more}"
            )
        };
        let files = "- name: a\n  customProperties:\n  - {property: hydromesh.files, value: '*.csv'}\n";
        let texts = [
            (
                "mesh.yaml",
                "apiVersion: hydromesh/v1\nkind: Mesh\nname: m\nenvironments: {dev: {ref: main}}\n"
                    .to_owned(),
            ),
            (
                "domains/shop/domain.yaml",
                "apiVersion: hydromesh/v1\nkind: Domain\nowners: [a@example.com]\n".to_owned(),
            ),
            ("domains/shop/visits/product.odps.yaml", product("visits", files)),
            ("domains/shop/visits/a.odcs.yaml", contract("a")),
            ("domains/shop/visits/visits.odcs.yaml", contract("visits")),
            ("domains/shop/visits/pipeline.yaml", pipeline("visits", "")),
            ("domains/shop/visits/raw.csv", "day\n".to_owned()),
            ("domains/shop/sums/product.odps.yaml", product("sums", inputs)),
            ("domains/shop/sums/sums.odcs.yaml", contract("sums")),
            ("domains/shop/sums/pipeline.yaml", pipeline("sums", windows)),
        ];
        let loaded = |(path, text): (&str, String)| {
            (path.to_owned(), crate::model::Loaded { text: Ok(text), oid: "1".to_owned() })
        };
        let loaded = crate::model::load(&texts.into_iter().map(loaded).collect());
        assert_eq!(loaded.findings, []);
        loaded.mesh.products
    }

    #[test]
    fn what_a_partition_reads_is_known_where_the_query_or_the_pipeline_says_so() {
        let visits = port("shop/visits.visits");
        let one = "- {name: a, contractId: shop/visits.visits}\n";
        let two =
            "- {name: a, contractId: shop/visits.visits}\n- {name: b, contractId: shop/visits.visits}\n";
        let read = |inputs: &str, windows: &str, aligned: bool| {
            let products = products(inputs, windows);
            let product = &products[&"shop/sums".parse().expect("a product")];
            let crate::model::Pipeline::Batch(batch) = &product.pipelines.values().next().expect("one")
            else {
                panic!("a batch")
            };
            let aligned = aligned.then(|| (batch.output.clone(), visits.clone())).into_iter().collect();
            let print = Print { all: String::new(), ports: BTreeMap::new(), reads: BTreeMap::new(), aligned };
            partitions_read(&products, product, batch, &print, &visits, "2026-06-09")
        };
        let days = |from: &str, to: &str| (format!("2026-06-{from}"), format!("2026-06-{to}"));
        assert_eq!(read(one, "", true), Some(vec![days("09", "09")]));
        assert_eq!(read(one, "", false), None, "any of them");
        assert_eq!(read(two, "", true), None, "by its other name it may read others");
        let week = "inputs: {a: {partitions: {from: -6d}}}\n";
        assert_eq!(read(one, week, false), Some(vec![days("03", "09")]));
        assert_eq!(read(two, week, false), None, "by its other name all of them");
        let both = "inputs: {a: {partitions: {from: -6d}}, b: {partitions: {from: -1d, to: -1d}}}\n";
        assert_eq!(read(two, both, false), Some(vec![days("03", "09"), days("08", "08")]));
    }
}
