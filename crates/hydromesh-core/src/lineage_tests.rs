use proptest::prelude::*;

use super::*;
use crate::model::{ColumnShape, Loaded, LogicalType, load};

fn id(text: &str) -> ProductId {
    text.parse().expect("id")
}

fn graph(pairs: &[(&str, &[&str])]) -> Edges {
    pairs.iter().map(|(from, to)| (id(from), to.iter().map(|it| id(it)).collect())).collect()
}

fn names(ids: impl IntoIterator<Item = ProductId>) -> Vec<String> {
    ids.into_iter().map(|it| it.to_string()).collect()
}

#[test]
fn sources_come_first_and_equals_by_name() {
    let edges = graph(&[("d/z", &[]), ("d/b", &["d/z"]), ("d/a", &["d/z"]), ("d/c", &["d/a", "d/b"])]);
    assert_eq!(names(order(&edges)), ["d/z", "d/a", "d/b", "d/c"]);
    assert_eq!(cycles(&edges), Vec::<Vec<ProductId>>::new());
    assert_eq!(names(downstream(&edges, &id("d/a"))), ["d/c"]);
    assert_eq!(names(downstream(&edges, &id("d/z"))), ["d/a", "d/b", "d/c"]);
}

#[test]
fn a_circle_is_told_once_and_what_is_behind_it_is_not() {
    let edges = graph(&[
        ("d/a", &["d/b"]),
        ("d/b", &["d/c"]),
        ("d/c", &["d/a"]),
        ("d/after", &["d/a"]),
        ("d/self", &["d/self"]),
        ("d/free", &[]),
    ]);
    let told: Vec<Vec<String>> = cycles(&edges).into_iter().map(names).collect();
    assert_eq!(told, [vec!["d/a", "d/b", "d/c"], vec!["d/self"]]);
    assert_eq!(names(order(&edges)), ["d/free"]);
}

proptest! {
    #[test]
    fn every_product_comes_after_what_it_reads(pairs in prop::collection::vec((0u8..12, 0u8..12), 0..40)) {
        let name = |index: u8| id(&format!("d/p{index}"));
        let mut edges: Edges = (0..12).map(|index| (name(index), BTreeSet::new())).collect();
        for (one, other) in pairs {
            // Reading only smaller numbers makes no circle.
            if one > other {
                edges.entry(name(one)).or_default().insert(name(other));
            }
        }
        let sorted = order(&edges);
        prop_assert_eq!(sorted.len(), 12);
        let place = |id: &ProductId| sorted.iter().position(|it| it == id);
        for (reader, upstream) in &edges {
            for other in upstream {
                prop_assert!(place(other) < place(reader));
                prop_assert!(downstream(&edges, other).contains(reader));
            }
        }
        prop_assert!(cycles(&edges).is_empty());
    }
}

fn mesh() -> Mesh {
    let contract = |columns: &str| {
        format!(
            "apiVersion: v3.2.0\nkind: DataContract\nversion: 1.0.0\nschema: [{{name: x, properties: [{columns}]}}]\n"
        )
    };
    let product = "apiVersion: v1.1.0\nkind: DataProduct\n";
    let files: BTreeMap<String, Loaded> = [
        ("mesh.yaml", "apiVersion: hydromesh/v1\nkind: Mesh\nname: m\nenvironments: {dev: {ref: main}}\n".to_owned()),
        ("domains/d/domain.yaml", "apiVersion: hydromesh/v1\nkind: Domain\nowners: [d@example.com]\n".to_owned()),
        (
            "domains/d/people/product.odps.yaml",
            format!("{product}inputPorts: [{{name: raw, customProperties: [{{property: hydromesh.files, value: x.csv}}]}}]\noutputPorts: [{{name: people}}]\n"),
        ),
        ("domains/d/people/raw.odcs.yaml", contract("{name: id}, {name: email, classification: pii}, {name: age, logicalType: integer}")),
        ("domains/d/people/people.odcs.yaml", contract("{name: id}, {name: email}, {name: digest}, {name: age, logicalType: integer}")),
        ("domains/d/people/pipeline.yaml", "apiVersion: hydromesh/v1\nkind: BatchPipeline\n".to_owned()),
        (
            "domains/d/mails/product.odps.yaml",
            format!("{product}inputPorts: [{{name: people, contractId: d/people.people}}]\noutputPorts: [{{name: mails}}]\n"),
        ),
        ("domains/d/mails/mails.odcs.yaml", contract("{name: host}, {name: digest}")),
        ("domains/d/mails/pipeline.yaml", "apiVersion: hydromesh/v1\nkind: BatchPipeline\n".to_owned()),
    ]
    .into_iter()
    .map(|(path, text)| (path.to_owned(), Loaded { text: Ok(text), oid: String::new() }))
    .collect();
    let result = load(&files);
    assert_eq!(result.findings, []);
    result.mesh
}

fn shape(table: &str, columns: &[(&str, &str, bool)], indirect: &str) -> QueryShape {
    let source = |column: &str| SourceColumn { table: table.into(), column: column.into() };
    QueryShape {
        columns: columns
            .iter()
            .map(|(name, from, masked)| ColumnShape {
                name: (*name).into(),
                logical: Some(LogicalType::String),
                physical: "Utf8".into(),
                nullable: true,
                expression: String::new(),
                direct: [source(from)].into(),
                masked: *masked,
            })
            .collect(),
        rows: String::new(),
        indirect: [source(indirect)].into(),
        tables: [(table.to_owned(), 1)].into(),
        volatile: Vec::new(),
    }
}

#[test]
fn labels_follow_values_and_stop_at_masks_and_filters() {
    let mesh = mesh();
    let key = |product: &str, pipeline: &str| (id(product), PipelineName::new(pipeline).expect("name"));
    let people =
        [("id", "id", false), ("email", "email", false), ("digest", "email", true), ("age", "age", false)];
    let shapes: Shapes = [
        (key("d/people", "people"), shape("raw", &people, "email")),
        (
            key("d/mails", "mails"),
            shape("people", &[("host", "email", false), ("digest", "digest", false)], "age"),
        ),
    ]
    .into();
    let edges = column_edges(&mesh, &shapes);
    assert!(edges.iter().any(
        |it| it.from.to_string() == "d/people.people#email" && it.to.to_string() == "d/mails.mails#host"
    ));
    let labels = labels(&mesh, &edges);
    let label = |text: &str| labels.get(&text.parse().expect("column")).copied();
    assert_eq!(label("d/people.raw#email"), Some(Classification::Pii));
    assert_eq!(label("d/people.people#email"), Some(Classification::Pii));
    assert_eq!(label("d/mails.mails#host"), Some(Classification::Pii));
    assert_eq!(label("d/people.people#digest"), None);
    assert_eq!(label("d/mails.mails#digest"), None);
    assert_eq!(label("d/people.people#age"), None);
}
