//! YAML 1.2 text to nodes that know where they stand.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Error, Location, Spanned};

use super::plain;
use crate::diag::{Code, Diagnostic, Spot, codes};

/// A manifest is written by hand; the largest contracts known have 200 KiB.
const MAX_BYTES: usize = 1024 * 1024;
/// Twice the nesting of any known contract. Reading recurses: 64 levels overflow a stack of 2 MiB in the dev profile.
pub(super) const MAX_DEPTH: usize = 32;
/// Aliases are rare in manifests; many of them multiply.
const MAX_ALIASES: usize = 64;

/// A value and where it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value.
    pub value: NodeKind,
    /// Where it starts.
    pub at: Spot,
    /// A plain scalar as written, so that `1.10` as a version stays `1.10`; empty otherwise.
    pub raw: String,
}

/// A key of a mapping and where it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub text: String,
    /// Where it starts.
    pub at: Spot,
}

/// The kinds of values. Dates are texts.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeKind {
    /// Nothing, `null`, `~`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A whole number of 64 bits.
    Int(i64),
    /// Any other finite number.
    Float(f64),
    /// Text.
    Str(String),
    /// A list.
    Seq(Vec<Node>),
    /// A mapping in the order of the file.
    Map(Vec<(Key, Node)>),
}

impl Node {
    /// Returns the entries of a mapping; of anything else, none.
    #[must_use]
    pub fn entries(&self) -> &[(Key, Node)] {
        match &self.value {
            NodeKind::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Returns the value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(name, _)| name.text == key).map(|(_, value)| value)
    }

    /// Returns the items of a list; of anything else, none.
    #[must_use]
    pub fn items(&self) -> &[Node] {
        match &self.value {
            NodeKind::Seq(items) => items,
            _ => &[],
        }
    }

    /// Returns a scalar as its author wrote it; `None` for nothing, lists and mappings.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match &self.value {
            NodeKind::Str(text) => Some(text.clone()),
            NodeKind::Bool(_) | NodeKind::Int(_) | NodeKind::Float(_) => Some(self.raw.clone()),
            NodeKind::Null | NodeKind::Seq(_) | NodeKind::Map(_) => None,
        }
    }

    /// Returns a number.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match &self.value {
            NodeKind::Float(value) => Some(*value),
            #[expect(
                clippy::cast_precision_loss,
                reason = "manifests hold counts and percentages, far below 2^53"
            )]
            NodeKind::Int(value) => Some(*value as f64),
            _ => None,
        }
    }

    /// Returns what the value is, for messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.value {
            NodeKind::Null => "nothing",
            NodeKind::Bool(_) => "true or false",
            NodeKind::Int(_) | NodeKind::Float(_) => "a number",
            NodeKind::Str(_) => "text",
            NodeKind::Seq(_) => "a list",
            NodeKind::Map(_) => "a mapping",
        }
    }
}

/// Returns the documents of a YAML text and what is wrong with it.
///
/// A text with a syntax error yields no document at all: half a manifest could mean something else than the whole.
#[must_use]
pub fn parse(file: &str, text: &str) -> (Vec<Node>, Vec<Diagnostic>) {
    let mut found = Vec::new();
    let mut text = text;
    if let Some(rest) = text.strip_prefix('\u{feff}') {
        text = rest;
        found.push(Diagnostic::new(
            codes::BYTE_ORDER_MARK,
            file,
            Spot::new(1, 1),
            "the file starts with a byte order mark",
        ));
    }
    if text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes, the limit is {MAX_BYTES}", text.len());
        found.push(Diagnostic::new(codes::YAML_LIMIT, file, Spot::FILE, message));
        return (Vec::new(), found);
    }
    if let Some(documents) = plain::documents(text) {
        return (documents, found);
    }
    match with_library(text) {
        Ok(documents) if documents.is_empty() => {
            found.push(Diagnostic::new(codes::EMPTY_FILE, file, Spot::FILE, "the file holds no document"));
            (Vec::new(), found)
        }
        Ok(documents) => (documents, found),
        Err(error) => {
            found.push(diagnose(file, text, &error));
            (Vec::new(), found)
        }
    }
}

/// Returns what a text means, or what is wrong with it.
fn with_library(text: &str) -> Result<Vec<Node>, Error> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH, max_aliases: MAX_ALIASES, max_nodes: 200_000 },
        strict_booleans: true,
        with_snippet: false,
    };
    let documents = serde_saphyr::from_multiple_with_options::<Raw>(text, options)?;
    Ok(documents.into_iter().map(|raw| raw.node(text)).collect())
}

fn diagnose(file: &str, text: &str, error: &Error) -> Diagnostic {
    let error = error.without_snippet();
    let mut at = error.location().map_or(Spot::FILE, spot);
    let code: Code = match error {
        Error::DuplicateMappingKey { .. } => codes::DUPLICATE_KEY,
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => codes::YAML_LIMIT,
        // The parser counts as well, and says so in its own words.
        _ if ["recursion limit", "budget breached"].iter().any(|it| error.to_string().contains(it)) => {
            codes::YAML_LIMIT
        }
        _ => match tab_indent(text) {
            Some(line) if at.line == 0 || line <= at.line => {
                at = Spot::new(line, 1);
                codes::TAB
            }
            _ => codes::YAML_SYNTAX,
        },
    };
    if at.line == 0 {
        // What ends too early has no place of its own; its last line is where the author must look.
        at = Spot::new(u32::try_from(text.lines().count().max(1)).unwrap_or(u32::MAX), 1);
    }
    let mut message =
        if code == codes::TAB { "a tab indents this line".to_owned() } else { error.to_string() };
    if let Some(position) = message.find(": at line").or_else(|| message.find(" at line ")) {
        message.truncate(position);
    }
    Diagnostic::new(
        code,
        file,
        at,
        message.lines().next().unwrap_or_default().trim_end_matches(':').to_owned(),
    )
}

/// The first line whose indentation holds a tab.
fn tab_indent(text: &str) -> Option<u32> {
    let indented = |line: &str| {
        let content = line.trim_start();
        !content.is_empty() && line[..line.len() - content.len()].contains('\t')
    };
    text.lines().position(indented).and_then(|index| u32::try_from(index + 1).ok())
}

fn spot(location: Location) -> Spot {
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    Spot::new(small(location.line()), small(location.column()))
}

/// A node before the plain scalars got their spelling back.
struct Raw(Spanned<Value>);

enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Seq(Vec<Raw>),
    Map(Vec<(Spanned<String>, Raw)>),
}

impl Raw {
    fn node(self, text: &str) -> Node {
        let Spanned { value, referenced, defined } = self.0;
        let written = || {
            let span = defined.span();
            let start = usize::try_from(span.byte_offset()?).ok()?;
            let end = start.checked_add(usize::try_from(span.byte_len()?).ok()?)?;
            Some(text.get(start..end)?.trim().to_owned())
        };
        let mut raw = String::new();
        let mut scalar = |fallback: String, parses: fn(&str) -> bool| {
            raw = written().filter(|text| parses(text)).unwrap_or(fallback);
        };
        let value = match value {
            Value::Null => NodeKind::Null,
            Value::Bool(it) => {
                scalar(it.to_string(), |text| {
                    text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false")
                });
                NodeKind::Bool(it)
            }
            Value::Int(it) => {
                scalar(it.to_string(), |text| {
                    text.starts_with(|c: char| c.is_ascii_digit() || "+-".contains(c))
                });
                NodeKind::Int(it)
            }
            Value::Float(it) => {
                scalar(it.to_string(), |text| {
                    text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
                });
                NodeKind::Float(it)
            }
            Value::Str(it) => NodeKind::Str(it),
            Value::Seq(items) => NodeKind::Seq(items.into_iter().map(|item| item.node(text)).collect()),
            Value::Map(entries) => NodeKind::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| (Key { text: key.value, at: spot(key.referenced) }, value.node(text)))
                    .collect(),
            ),
        };
        Node { value, at: spot(referenced), raw }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::<Value>::deserialize(deserializer).map(Raw)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a YAML value")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Int(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "a number beyond 64 bits is kept as its spelling too"
                )]
                Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Int))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
                Ok(Value::Float(value))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
                Ok(Value::Str(value.to_owned()))
            }

            fn visit_string<E: de::Error>(self, value: String) -> Result<Value, E> {
                Ok(Value::Str(value))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = access.next_element::<Raw>()? {
                    items.push(item);
                }
                Ok(Value::Seq(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = access.next_key::<Spanned<String>>()? {
                    entries.push((key, access.next_value::<Raw>()?));
                }
                Ok(Value::Map(entries))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(text: &str) -> Node {
        let (mut documents, found) = parse("f", text);
        assert!(found.is_empty(), "{found:?}");
        assert_eq!(documents.len(), 1);
        documents.remove(0)
    }

    fn fault(text: &str) -> (&'static str, u32) {
        let (documents, found) = parse("f", text);
        assert!(documents.is_empty(), "{documents:?}");
        (found[0].code.id(), found[0].line)
    }

    /// Scalars, some of which only look like what they are not.
    fn scalar() -> impl Strategy<Value = String> {
        prop_oneof![
            prop::sample::select(vec![
                "",
                "~",
                "null",
                "Null",
                "true",
                "FALSE",
                "yes",
                "0",
                "-0",
                "007",
                "-7",
                "42",
                "+1",
                "1.10",
                "-0.5",
                "0.50",
                "00.5",
                "1.2.3",
                ".5",
                "5.",
                "1e3",
                "1_000",
                "0x1F",
                "0o17",
                "0b1",
                "0x",
                ".inf",
                "-.inf",
                ".nan",
                "inf",
                "2026-08-01",
                "2026-08-01T00:00:00Z",
                "12:30",
                "7d",
                "30m",
                "10 GB",
                "1d2",
                "1e",
                "1f32",
                "2d",
                "-x",
                "--x",
                "- x",
                "-",
                "<<",
                "=",
                "*a",
                "&a x",
                "!!str 1",
                "! 1",
                "'q'",
                "\"d\\n\"",
                "a: b",
                "a #b",
                "#c",
                "|",
                "@x",
                "9223372036854775807",
                "9223372036854775808",
                "123456789012345678",
                "0.1234567890123456789",
                "1.5s",
                "3h",
            ])
            .prop_map(str::to_owned),
            "[0-9]{1,4}[-.:_ edhmwxob/]{0,2}[0-9a-f]{0,3}",
            "-?[0-9]{0,17}\\.?[0-9]{0,17}",
            "[a-z][a-z0-9 _./-]{0,8}",
        ]
    }

    /// Texts of the shape of manifests, right and wrong ones.
    fn manifest() -> impl Strategy<Value = String> {
        let line = prop_oneof![
            (0usize..4, "[a-c]|'[a-c]'|1|true|null|NULL|~|<<|\\? a", scalar())
                .prop_map(|(deep, key, value)| format!("{}{key}: {value}\n", "  ".repeat(deep))),
            (0usize..4, scalar()).prop_map(|(deep, value)| format!("{}- {value}\n", "  ".repeat(deep))),
            (0usize..3, "[a-c]").prop_map(|(deep, key)| format!("{}{key}:\n", "  ".repeat(deep))),
            (0usize..3, "[a-c]", scalar(), scalar()).prop_map(|(deep, key, one, two)| format!(
                "{}{key}: {{x: {one}, y: [{two}, z]}}\n",
                "  ".repeat(deep)
            )),
            (0usize..3, "[a-c]", "[|>][-+]?").prop_map(|(deep, key, sign)| format!(
                "{0}{key}: {sign}\n{0}    some text\n\n{0}    more\n",
                "  ".repeat(deep)
            )),
            prop::sample::select(vec!["---\n", "...\n", "# note\n", "\n", "%YAML 1.2\n---\n", "\t\n"])
                .prop_map(str::to_owned),
        ];
        prop::collection::vec(line, 0..8).prop_map(|lines| lines.concat())
    }

    /// Texts as people write manifests.
    fn usual() -> impl Strategy<Value = String> {
        let value = prop::sample::select(vec![
            "orders",
            "2026-08-01",
            "7d",
            "1.10",
            "1.2.3",
            "42",
            "true",
            "null",
            "'quoted: text'",
            "\"a\\tb\"",
            "v1 # note",
            "[a, b]",
            "{by: day, every: 1}",
            "mara@example.com",
            "0.95",
            "-3",
            "some words, and more",
        ]);
        prop::collection::vec(value, 3..9).prop_map(|values| {
            let mut text = "# A manifest.\nversion: 1.10\nitems:\n".to_owned();
            for (number, value) in values.iter().enumerate() {
                text += &format!("  - name: {value}\n    key_{number}: {value}\n    deep:\n      select: |\n        SELECT 1\n        FROM x\n");
            }
            text + "---\nkind: second\n"
        })
    }

    #[test]
    fn every_value_knows_its_place() {
        let node = one("a: 1\nb:\n  - {c: x, d: [true, ~]}\n");
        let list = node.get("b").expect("b");
        let inner = &list.items()[0];
        assert_eq!(inner.get("c").expect("c").at, Spot::new(3, 9));
        assert_eq!(inner.entries()[1].0.at, Spot::new(3, 12));
        assert_eq!(inner.get("d").expect("d").items()[1].value, NodeKind::Null);
    }

    #[test]
    fn scalars_keep_their_spelling() {
        let node =
            one("version: 1.10\nday: 2026-08-01\nyes: yes\nsign: -0x1F\nexp: 1e3\nold: 0o17\nzero: 007\n");
        let text = |key: &str| node.get(key).and_then(Node::text).expect("scalar");
        assert_eq!(text("version"), "1.10");
        assert_eq!(node.get("day").expect("day").value, NodeKind::Str("2026-08-01".into()));
        assert_eq!(node.get("yes").expect("yes").value, NodeKind::Str("yes".into()));
        assert_eq!((text("exp"), text("zero")), ("1e3".to_owned(), "007".to_owned()));
    }

    #[test]
    fn a_number_that_no_64_bits_hold_is_refused() {
        // JSON, in which the ledger keeps what is deployed, has no such number.
        for text in ["1e400", "-1e999", ".inf", "-.inf", ".NaN"] {
            assert_eq!(fault(&format!("a: 1\nb: {text}\n")), ("HM-Y001", 2), "{text}");
        }
        assert_eq!(one("a: 1e-400\n").get("a").and_then(Node::number), Some(0.0));
        assert_eq!(one("a: '1e400'\n").get("a").and_then(Node::text), Some("1e400".into()));
    }

    #[test]
    fn an_alias_stands_where_it_is_used() {
        let node = one("a: &x {k: 1.50}\nb: *x\n");
        let alias = node.get("b").expect("b");
        assert_eq!(alias.at, Spot::new(2, 4));
        assert_eq!(alias.get("k").and_then(Node::text), Some("1.50".into()));
    }

    #[test]
    fn documents_are_counted_and_empty_ones_skipped() {
        let (documents, found) = parse("f", "a: 1\n---\nb: 2\n---\n");
        assert!(found.is_empty());
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[1].entries()[0].0.at.line, 3);
    }

    #[test]
    fn faults_are_coded_and_placed() {
        assert_eq!(fault("a: {b: 1\nc: 2\n").0, "HM-Y001");
        assert_eq!(fault("a: \"b\nc: 2\n").0, "HM-Y001");
        assert_eq!(fault("a: 1\nb: 2\na: 3\n"), ("HM-Y003", 3));
        assert_eq!(fault("a:\n\tb: 1\n"), ("HM-Y005", 2));
        assert_eq!(fault("# nothing\n"), ("HM-Y011", 0));
        assert_eq!(fault(&"a: [".repeat(100)).0, "HM-Y004");
        assert_eq!(fault(&format!("a: \"{}\"", "x".repeat(MAX_BYTES))), ("HM-Y004", 0));
        let bomb = (0..70).fold("x: &x 1\nl: [".to_owned(), |text, _| text + "*x, ") + "]";
        assert_eq!(fault(&bomb).0, "HM-Y004");
        assert_eq!(fault("? [a, b]\n: 1\n").0, "HM-Y001");
        let (documents, found) = parse("f", "\u{feff}a: 1\n");
        assert_eq!((documents.len(), found[0].code.id()), (1, "HM-Y006"));
    }

    #[test]
    fn messages_carry_no_place_of_their_own() {
        let (_, found) = parse("f", "a: 1\nb: 2\na: 3\n");
        assert!(!found[0].message.contains("line"), "{}", found[0].message);
    }

    #[test]
    fn texts_that_attack_the_reader_end_soon_and_leave_the_process_alive() {
        let laughs = (1..30).fold("l0: &l0 [x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, n| {
            let inner = vec![format!("*l{}", n - 1); 9].join(", ");
            text + &format!("l{n}: &l{n} [{inner}]\n")
        });
        // Few aliases, each of something large: the product counts.
        let wide = format!("a: &a [{}]\nb: [{}]\n", "x, ".repeat(50_000), "*a, ".repeat(60));
        let ladder =
            (0..10_000).fold(String::new(), |text, n| text + &" ".repeat(n % 1_000) + "- - - - - - - -\n");
        for (name, text, code) in [
            ("a flow 10,000 deep", "[".repeat(10_000), "HM-Y004"),
            ("a flow 10,000 deep and closed", "[".repeat(10_000) + &"]".repeat(10_000), "HM-Y004"),
            ("mappings 10,000 deep", "{a: ".repeat(10_000) + &"}".repeat(10_000), "HM-Y004"),
            ("a flow as deep as the file is long", "[".repeat(MAX_BYTES - 1), "HM-Y004"),
            ("blocks 10,000 deep", "- ".repeat(10_000) + "x", "HM-Y004"),
            ("billion laughs", laughs, "HM-Y004"),
            ("a wide alias", wide, "HM-Y004"),
            ("an anchor in itself", "a: &a [*a]\n".to_owned(), "HM-Y001"),
            ("64 MB of one scalar", "a: ".to_owned() + &"x".repeat(64 << 20), "HM-Y004"),
            ("a merge key", "a: &a {x: 1}\nb: {<<: *a}\n".to_owned(), ""),
            ("a ladder", ladder, "HM-Y00"),
            ("UTF-16 read as text", "\u{0}a\u{0}:\u{0} \u{0}1\u{0}\n".to_owned(), "HM-Y001"),
        ] {
            let (documents, found) = parse("f", &text);
            let told = found.first().map_or("", |it| it.code.id());
            assert!(told.starts_with(code), "{name}: {found:?}");
            assert_eq!(documents.is_empty(), !told.is_empty(), "{name}");
            assert!(found.iter().all(|it| it.message.chars().count() < 2_000), "{name}: a long message");
        }
        let thousand = "a: 1\n---\n".repeat(1_000);
        assert_eq!(parse("f", &thousand).0.len(), 1_000);
    }

    #[test]
    fn nothing_is_included_and_no_tag_makes_an_object() {
        let (documents, found) = parse("f", "a: !include /etc/passwd\nb: !!python/object:os.system [id]\n");
        let text = format!("{documents:?}{found:?}");
        assert!(!text.contains("root:"), "{text}");
        // Words of older YAML are words.
        let node = one("a: no\nb: on\nc: 0777\nd: 1_000\ne: y\n");
        for (key, text) in [("a", "no"), ("b", "on"), ("e", "y")] {
            assert_eq!(node.get(key).expect("a key").value, NodeKind::Str(text.into()), "{key}");
        }
        assert_eq!(node.get("c").and_then(Node::text), Some("0777".into()));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-c:\\[\\]{}&*!|>'\"#%@`,?\\-~ \t\n0-9]{0,80}") {
            let _ = parse("f", &text);
        }

        #[test]
        fn what_is_read_straight_is_what_the_library_reads(text in manifest()) {
            let library = with_library(&text);
            if let Some(straight) = plain::documents(&text) {
                prop_assert_eq!(Some(straight), library.ok());
            }
        }

        #[test]
        fn usual_texts_are_read_straight(text in usual()) {
            prop_assert_eq!(plain::documents(&text), with_library(&text).ok());
        }

        #[test]
        fn no_prefix_of_a_manifest_makes_it_panic(cut in 0usize..200) {
            let text = "apiVersion: hydromesh/v1\nkind: BatchPipeline\npartition: {by: d, every: day, start: 2026-08-01}\nselect: |\n  SELECT 1\n";
            let (documents, found) = parse("f", &text[..cut.min(text.len())]);
            prop_assert!(!documents.is_empty() || !found.is_empty());
        }
    }
}
