use super::*;

const MARA: &str = "mara@example.com";
const JAN: &str = "jan@example.com";
const EVE: &str = "eve@example.com";
const FILE: &str = "domains/shop/orders/orders.sql";
const OTHER: &str = "domains/risk/scores/scores.sql";
const DOMAIN: &str = "domains/shop/domain.yaml";

fn signers() -> Signers {
    let text = "apiVersion: hydromesh/v1\nkind: Signers\nrules:\n\
                - {paths: domains/shop/**, signers: [mara@example.com]}\n\
                - {paths: [mesh.yaml, 'policies/**'], signers: '*@platform.example.com'}\n";
    let (signers, found) = Signers::parse("signers.yaml", text);
    assert_eq!(found, []);
    signers
}

fn good(name: &str) -> Standing {
    Standing::Good { principals: [name.to_owned()].into() }
}

/// A history in the making: contents are single words, and commits are named by one letter.
#[derive(Default)]
struct Story {
    commits: Vec<Commit>,
    named: BTreeMap<String, Vec<String>>,
    again: BTreeMap<String, Standing>,
    line: Line,
}

impl Story {
    fn new() -> Self {
        Self { line: Line { at: "a".to_owned(), ..Line::default() }, ..Self::default() }
    }

    fn add(
        &mut self,
        id: &str,
        parents: &[&str],
        standing: Standing,
        deltas: &[(&str, Delta)],
    ) -> &mut Commit {
        self.commits.push(Commit {
            id: id.to_owned(),
            parents: parents.iter().map(|it| (*it).to_owned()).collect(),
            author: "Somebody".to_owned(),
            standing,
            vouches: BTreeSet::new(),
            deltas: deltas.iter().map(|(path, delta)| ((*path).to_owned(), delta.clone())).collect(),
        });
        self.commits.last_mut().expect("just added")
    }

    fn verified(&self) -> Verified {
        let paths = self.commits.iter().flat_map(|it| it.deltas.keys().cloned());
        let net = paths.collect();
        let (named, again) = (&self.named, &self.again);
        let look = Look { commits: &self.commits, net: &net, named, again };
        judge(&self.line, &look, &signers()).expect("few refusals")
    }

    /// Tainted paths with the commits to blame.
    fn refused(&self) -> Vec<(String, Vec<String>)> {
        let refused = self.verified().refused;
        let by = |taint: Taint| taint.by.into_iter().map(|it| it.commit).collect();
        refused.into_iter().map(|(path, taint)| (path, by(taint))).collect()
    }
}

fn content(word: &str) -> Content {
    (word != "-").then(|| word.to_owned())
}

fn from(old: &str, now: &str) -> Delta {
    Delta { now: content(now), parents: vec![content(old)], bases: Vec::new() }
}

fn merge(base: &str, one: &str, two: &str, now: &str) -> Delta {
    let parents = vec![content(one), content(two)];
    Delta { now: content(now), parents, bases: vec![content(base)] }
}

fn blamed(path: &str, by: &[&str]) -> (String, Vec<String>) {
    (path.to_owned(), by.iter().map(|it| (*it).to_owned()).collect())
}

#[test]
fn whoever_signs_must_be_allowed_for_the_path() {
    for (standing, fits) in [
        (good(MARA), true),
        (good(EVE), false),
        (Standing::Unsigned, false),
        (Standing::Bad("x".into()), false),
        (Standing::Malformed("x".into()), false),
        (Standing::Unknown("x".into()), false),
        (Standing::Expired("x".into()), false),
        (Standing::Revoked("x".into()), false),
        (Standing::WrongNamespace("file".into()), false),
    ] {
        let mut story = Story::new();
        story.add("b", &["a"], standing.clone(), &[(FILE, from("0", "1"))]);
        assert_eq!(story.refused().is_empty(), fits, "{standing:?}");
        assert_eq!(story.verified().moved, fits);
        assert_eq!(story.verified().signer.is_some(), standing.principals().is_some());
    }
    // The right key, the wrong path; and a path that no rule speaks of.
    let mut story = Story::new();
    story.add(
        "b",
        &["a"],
        good(MARA),
        &[(FILE, from("0", "1")), (OTHER, from("0", "1")), ("mesh.yaml", from("0", "1"))],
    );
    assert_eq!(story.refused(), [blamed(OTHER, &["b"]), blamed("mesh.yaml", &["b"])]);
    assert!(story.verified().moved, "what is hers is accepted");
    let mut story = Story::new();
    story.add(
        "b",
        &["a"],
        good("ops@platform.example.com"),
        &[("mesh.yaml", from("0", "1")), ("README.md", from("0", "1"))],
    );
    assert_eq!(story.refused(), [], "nothing ever reads a README");
}

#[test]
fn a_signature_on_top_makes_nothing_better() {
    let mut story = Story::new();
    story.add("b", &["a"], Standing::Unsigned, &[(FILE, from("0", "1"))]);
    story.add("c", &["b"], good(MARA), &[(FILE, from("1", "2"))]);
    story.add("d", &["c"], good(MARA), &[]);
    assert_eq!(story.refused(), [blamed(FILE, &["b"])]);
    assert_eq!(story.verified().refused[FILE].was, Before::Held("0".into()));
    // Whoever takes responsibility does so by name, and must be somebody who may.
    story.add("e", &["d"], good(EVE), &[]).vouches = ["b".to_owned()].into();
    assert_eq!(story.refused(), [blamed(FILE, &["b"])]);
    story.add("f", &["e"], Standing::Unsigned, &[]).vouches = ["b".to_owned()].into();
    assert_eq!(story.refused(), [blamed(FILE, &["b"])]);
    story.add("g", &["f"], good(MARA), &[]).vouches = ["b".to_owned()].into();
    assert_eq!(story.refused(), []);
}

#[test]
fn what_is_taken_back_is_no_longer_refused() {
    let mut story = Story::new();
    story.add("b", &["a"], good(MARA), &[(FILE, from("0", "1"))]);
    story.add("c", &["b"], Standing::Unsigned, &[(FILE, from("1", "2"))]);
    story.add("d", &["c"], Standing::Unsigned, &[(FILE, from("2", "1"))]);
    assert_eq!(story.refused(), [], "back to what Mara signed");
    // Further back is a change like any other.
    story.commits[2].deltas = BTreeMap::from([(FILE.to_owned(), from("2", "0"))]);
    assert_eq!(story.refused(), [blamed(FILE, &["c", "d"])]);
    let mut story = Story::new();
    story.add("b", &["a"], Standing::Unsigned, &[(FILE, from("0", "-"))]);
    assert_eq!(story.refused(), [blamed(FILE, &["b"])], "a deletion is a change");
}

#[test]
fn a_merge_hides_no_parent() {
    let mut story = Story::new();
    story.add("b", &["a"], good(MARA), &[(FILE, from("0", "1"))]);
    story.add("c", &["a"], Standing::Unsigned, &[(DOMAIN, from("0", "1"))]);
    let both = [(FILE, merge("0", "1", "0", "1")), (DOMAIN, merge("0", "0", "1", "1"))];
    story.add("d", &["b", "c"], good(MARA), &both);
    assert_eq!(story.refused(), [blamed(DOMAIN, &["c"])]);
    // An unsigned merge that does what follows changes nothing itself.
    story.commits[1].standing = good(MARA);
    story.commits[2].standing = Standing::Unsigned;
    assert_eq!(story.refused(), []);
    // One that slips something in does.
    story.commits[2].deltas.insert(FILE.to_owned(), merge("0", "1", "0", "evil"));
    assert_eq!(story.refused(), [blamed(FILE, &["d"])]);
}

#[test]
fn a_merge_brings_nothing_old_back() {
    // Both orders of parents: the tree is what the old side had.
    for (parents, one, two) in [(["b", "x"], "1", "0"), (["x", "b"], "0", "1")] {
        let mut story = Story::new();
        story.add("b", &["a"], good(MARA), &[(FILE, from("0", "1"))]);
        story.add("d", &parents, Standing::Unsigned, &[(FILE, merge("0", one, two, "0"))]);
        assert_eq!(story.refused(), [blamed(FILE, &["d"])], "{parents:?}");
        // By way of a content that counted once: what counts is no longer clear, so nothing returns to it.
        story.add("e", &["d"], Standing::Unsigned, &[(FILE, from("0", "2"))]);
        story.add("f", &["e"], Standing::Unsigned, &[(FILE, from("2", "0"))]);
        assert!(!story.refused().is_empty(), "{parents:?}");
    }
    // A branch on which the old content was the last that counted, in both orders.
    for (parents, one, two) in [(["b", "c"], "1", "2"), (["c", "b"], "2", "1")] {
        let mut story = Story::new();
        story.add("b", &["a"], good(MARA), &[(FILE, from("0", "1"))]);
        story.add("c", &["x"], Standing::Unsigned, &[(FILE, from("0", "2"))]);
        story.add("d", &parents, Standing::Unsigned, &[(FILE, merge("0", one, two, "2"))]);
        story.add("e", &["d"], Standing::Unsigned, &[(FILE, from("2", "0"))]);
        assert!(story.refused().iter().any(|(_, by)| by.contains(&"e".to_owned())), "{:?}", story.refused());
    }
}

#[test]
fn a_mend_on_a_branch_survives_its_merge() {
    let bad = |story: &mut Story| _ = story.add("b", &["a"], Standing::Unsigned, &[(FILE, from("0", "1"))]);
    let mut story = Story::new();
    bad(&mut story);
    story.add("c", &["b"], Standing::Unsigned, &[(FILE, from("1", "0"))]);
    story.add("d", &["b"], good(MARA), &[]);
    story.add("e", &["d", "c"], Standing::Unsigned, &[(FILE, merge("1", "1", "0", "0"))]);
    assert_eq!(story.refused(), []);
    let mut story = Story::new();
    bad(&mut story);
    story.add("c", &["b"], good(MARA), &[]).vouches = ["b".to_owned()].into();
    story.add("d", &["b"], good(MARA), &[]);
    story.add("e", &["d", "c"], Standing::Unsigned, &[]);
    assert_eq!(story.refused(), []);
}

#[test]
fn judging_goes_on_where_it_ended() {
    let mut story = Story::new();
    story.add("b", &["a"], Standing::Unsigned, &[(FILE, from("0", "1"))]);
    story.add("c", &["b"], good(MARA), &[(DOMAIN, from("0", "1"))]);
    let first = story.verified();
    assert!(first.moved);
    let mut next = Story { line: first.line().expect("moved"), ..Story::default() };
    assert_eq!(next.refused(), [blamed(FILE, &["b"])], "nothing new");
    assert!(!next.verified().moved);
    next.add("d", &["c"], good(MARA), &[(FILE, from("1", "2"))]);
    assert_eq!(next.refused(), [blamed(FILE, &["b"])]);
    assert!(!next.verified().moved, "nothing of it was accepted");
    next.add("e", &["d"], good(MARA), &[]).vouches = ["b".to_owned()].into();
    assert_eq!(next.refused(), []);
    assert!(next.verified().moved);
    // A key that was missing is there now.
    let again = BTreeMap::from([("b".to_owned(), good(MARA))]);
    let known = Story { line: first.line().expect("moved"), again, ..Story::default() };
    assert_eq!(known.refused(), []);
    // The ledger keeps it as text.
    let text = serde_json::to_string(&first).expect("JSON");
    assert_eq!(serde_json::from_str::<Verified>(&text).expect("read"), first);
}

#[test]
fn a_change_of_signers_holds_from_the_next_judgement() {
    let mut story = Story::new();
    story.line.signers = BTreeMap::from([("risk".to_owned(), vec![EVE.to_owned()])]);
    story.named = BTreeMap::from([("shop".to_owned(), vec![JAN.to_owned()])]);
    story.add("b", &["a"], good(JAN), &[(DOMAIN, from("0", "1"))]);
    assert_eq!(story.refused(), [blamed(DOMAIN, &["b"])], "nobody lets himself in");
    assert_eq!(story.verified().signers, BTreeMap::new(), "and risk/domain.yaml names nobody any more");
    // Mara lets Jan in; in the same push he may not yet.
    let mut story = Story::new();
    story.named = BTreeMap::from([("shop".to_owned(), vec![JAN.to_owned()])]);
    story.add("b", &["a"], good(MARA), &[(DOMAIN, from("0", "1"))]);
    story.add("c", &["b"], good(JAN), &[(FILE, from("0", "1"))]);
    let first = story.verified();
    assert_eq!(story.refused(), [blamed(FILE, &["c"])]);
    let mut next = Story { line: first.line().expect("moved"), named: story.named, ..Story::default() };
    next.add("d", &["c"], good(JAN), &[]).vouches = ["c".to_owned()].into();
    assert_eq!(next.refused(), []);
    // For his own domain alone.
    next.add("e", &["d"], good(JAN), &[(OTHER, from("0", "1"))]);
    assert_eq!(next.refused(), [blamed(OTHER, &["e"])]);
}

#[test]
fn what_a_key_is_worth_depends_on_when_it_is_seen() {
    let (day, now) = (86_400_000, 1_796_000_000_000);
    let key = |id: &str| Key { id: id.into(), principals: [MARA.to_owned()].into(), ..Key::default() };
    let mut signers = signers();
    signers.keys = vec![
        key("plain"),
        Key { until_ms: Some(now - 1), ..key("old") },
        Key { from_ms: Some(now + 1), ..key("new") },
        Key { revoked: true, ..key("lost") },
        Key { namespaces: Some(["file".to_owned()].into()), ..key("files") },
        // The same key twice: one line has run out, the other has not.
        Key { until_ms: Some(now - day), ..key("twice") },
        Key { principals: [JAN.to_owned()].into(), ..key("twice") },
    ];
    let made = |key: &str, namespace: &str| {
        let (key, shown, namespace) = (key.into(), "SHA256:x".into(), Some(namespace.into()));
        Proof::Made(Made { key, shown, namespace, ends_ms: None })
    };
    let standing = |proof: Proof| signers.standing(&proof, now);
    assert_eq!(standing(made("plain", "git")), good(MARA));
    assert_eq!(standing(made("twice", "git")), good(JAN));
    assert!(matches!(standing(made("old", "git")), Standing::Expired(_)));
    assert!(matches!(standing(made("new", "git")), Standing::Expired(_)));
    assert!(matches!(standing(made("lost", "git")), Standing::Revoked(_)));
    assert!(matches!(standing(made("files", "git")), Standing::Unknown(_)));
    assert!(matches!(standing(made("nobody's", "git")), Standing::Unknown(_)));
    assert!(matches!(standing(made("plain", "file")), Standing::WrongNamespace(_)));
    let ended = Made { key: "plain".into(), shown: "x".into(), namespace: None, ends_ms: Some(now - 1) };
    assert!(matches!(standing(Proof::Made(ended)), Standing::Expired(_)));
}

#[test]
fn paths_belong_to_what_reads_them() {
    for (path, part) in [
        ("domains/shop/orders/a/b.sql", "product"),
        ("domains/shop/domain.yaml", "domain"),
        ("domains/shop/policies/own.rego", "domain"),
        ("domains/shop/Odd Name/x.sql", "domain"),
        ("mesh.yaml", "mesh"),
        ("policies/own.rego", "mesh"),
        ("mesh.yaml/x", "nothing"),
        ("README.md", "nothing"),
        ("domains/x", "domain"),
        ("domains", "mesh"),
        ("domains/Odd Name/x", "mesh"),
        ("policies", "mesh"),
    ] {
        let found = match scope(path) {
            Scope::Product(_) => "product",
            Scope::Domain(_) => "domain",
            Scope::Mesh => "mesh",
            Scope::Nothing => "nothing",
        };
        assert_eq!(found, part, "{path}");
    }
}

#[test]
fn what_nothing_can_stand_in_for_is_refused_as_a_whole() {
    for path in ["domains", "policies", "domains/Ris\u{212a}/x.sql"] {
        let mut story = Story::new();
        story.add("b", &["a"], Standing::Unsigned, &[(path, from("-", "1"))]);
        let (net, named, again) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        let look = Look { commits: &story.commits, net: &net, named: &named, again: &again };
        let why = judge(&story.line, &look, &signers()).expect_err("refused");
        assert!(why.contains(path), "{why}");
    }
}

#[test]
fn only_whole_ids_are_vouched_for() {
    let id = "0123456789abcdef0123456789abcdef01234567";
    let message = format!(
        "Look at it\n\nvouches-for: {}\nVouches-for: 0123456789ab\nVouches: {id}\n",
        id.to_uppercase()
    );
    assert_eq!(vouches(&message), BTreeSet::from([id.to_owned()]));
}

#[test]
fn what_is_wrong_with_signers_yaml_is_told() {
    let text =
        "apiVersion: hydromesh/v1\nkind: Signer\nsince: abc\nrules:\n  - {paths: '**', singers: [x]}\n";
    let (_, found) = Signers::parse("signers.yaml", text);
    let codes: Vec<&str> = found.iter().map(|it| it.code.id()).collect();
    assert_eq!(codes, ["HM-Y010", "HM-M023", "HM-Y009", "HM-Y007"]);
    assert_eq!(domain_signers("signers: [a@x, b@x]\n"), ["a@x", "b@x"]);
    assert_eq!(domain_signers("signers: [\n"), Vec::<String>::new());
}
