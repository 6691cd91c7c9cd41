//! Models that a program of the repository fits, from the commit to the champion; and programs that do what they should not.

use std::fmt::Write as _;

use serde_json::Value;

use super::mesh::{self, Files};
use super::world::{State, World};

const HOUR_MS: i64 = 3_600_000;
const PAGES: i64 = 60;
/// Days of events, the last of which is yesterday.
const DAYS: i64 = 8;
const MODEL: &str = "shop/leaving";
const FOLDER: &str = "domains/shop/leaving";

/// The trainer of the documentation, which is what people begin with.
fn documented() -> String {
    let text = std::fs::read_to_string(crate::support::root().join("docs/pipelines.md")).expect("the docs");
    let (_, code) = text.split_once("```python\n").expect("a trainer");
    code.split_once("```").expect("its end").0.to_owned()
}

/// Does what a program should, whatever the task; what is put in the places of `FITTING` and `SCORING` comes first.
const GUESSES: &str = "import csv, os, socket, sys\nenv = os.environ\nrows = list(csv.DictReader(open(env['HYDROMESH_ROWS'])))\n\
                       model = env['HYDROMESH_MODEL']\nif env['HYDROMESH_TASK'] == 'train':\n    FITTING\n    \
                       open(model + '/a.txt', 'w').write('a')\nelse:\n    SCORING\n    \
                       open(env['HYDROMESH_SCORES'], 'w').write('0.5\\n' * len(rows))\n";

fn misbehaves(train: &str, score: &str) -> String {
    GUESSES.replace("FITTING", train).replace("SCORING", score)
}

/// How often a page was looked at a day: what the labels follow from.
fn visits(page: i64) -> i64 {
    page % 12 + 1
}

/// Returns events of all pages in order of time, up to the last midnight.
fn events(midnight_ms: i64) -> String {
    let mut events = Vec::new();
    for page in 0..PAGES {
        let every = 24 * HOUR_MS / visits(page);
        for number in 0..DAYS * visits(page) {
            events.push((midnight_ms - DAYS * 24 * HOUR_MS + number * every + page * 1_000, page, number));
        }
    }
    events.sort_unstable();
    let line = |(at, page, number): (i64, i64, i64)| {
        let ts = hydromesh::clock::rfc3339(at);
        format!(
            "{{\"event_id\": \"E{page}-{number}\", \"ts\": \"{ts}\", \"page\": \"P{page}\", \"number\": {number}}}\n"
        )
    };
    events.into_iter().map(line).collect()
}

/// Labels that follow from the visits of the day before, but for every ninth.
fn labels(midnight_ms: i64) -> String {
    let mut text = "page,ts,left\n".to_owned();
    for number in 0..360 {
        let page = number * 7 % PAGES;
        let at = midnight_ms - (360 - number) * 24 * HOUR_MS / 60;
        let left = (visits(page) < 6) != (number % 9 == 0);
        let _ = writeln!(text, "P{page},{},{}", hydromesh::clock::rfc3339(at), u8::from(left));
    }
    text
}

fn contract(port: &str, columns: &[(&str, &str, &str)]) -> String {
    let mut text = format!(
        "apiVersion: v3.2.0\nkind: DataContract\nid: shop/{port}\nversion: 1.0.0\nstatus: active\nschema:\n  - name: {}\n    \
         logicalType: object\n    physicalType: table\n    properties:\n",
        port.split_once('.').expect("a port").1
    );
    for (name, logical, more) in columns {
        let _ = writeln!(
            text,
            "      - {{name: {name}, logicalType: {logical}, physicalType: any, classification: internal{more}}}"
        );
    }
    text.push_str("slaProperties:\n  - {property: qualityPassRate, value: 99, unit: percent}\n");
    text
}

/// Returns the features of pages, and a model that learns from them.
fn learning(midnight_ms: i64) -> Files {
    let product = |name: &str, port: &str, input: &str| {
        format!(
            "apiVersion: v1.1.0\nkind: DataProduct\nid: shop/{name}\nname: {name}\nversion: 1.0.0\nstatus: active\ndomain: shop\n\
             description:\n  purpose: To be learnt from.\ninputPorts:\n{input}outputPorts:\n  - name: {port}\n    description: Its rows.\n    \
             version: 1.0.0\n    contractId: shop/{name}.{port}\n    customProperties:\n      \
             - {{property: hydromesh.access, value: {{table: true}}}}\ncustomProperties:\n  - {{property: hydromesh.tier, value: 3}}\n"
        )
    };
    let required = ", required: true";
    let files = [
        (
            "habits/product.odps.yaml",
            product("habits", "habits", "  - {name: events, version: 1.0.0, contractId: shop/events.events}\n"),
        ),
        (
            "habits/pipeline.yaml",
            "apiVersion: hydromesh/v1\nkind: FeaturePipeline\nname: habits\noutput: habits\nentity: page\n\
             source: {port: events, event_time: ts, event_id: event_id, watermark: {bound: 30s, idle: 30s}, \
             late: {allow: 1h, beyond: quarantine}}\nselect: SELECT page, ts, event_id, number FROM events\nfeatures:\n  \
             - {name: views, agg: count(), windows: [1d]}\n  - {name: most, agg: max(number), windows: [1h]}\n"
                .to_owned(),
        ),
        (
            "habits/habits.odcs.yaml",
            contract(
                "habits.habits",
                &[
                    ("page", "string", required),
                    ("as_of", "timestamp", required),
                    ("views_1d", "integer", ""),
                    ("most_1h", "integer", ""),
                ],
            ),
        ),
        (
            "leaving/product.odps.yaml",
            product(
                "leaving",
                "model",
                "  - {name: labels, version: 1.0.0, contractId: shop/leaving.labels, customProperties: \
                 [{property: hydromesh.files, value: \"data/*.csv\"}]}\n  \
                 - {name: habits, version: 1.0.0, contractId: shop/habits.habits}\n",
            ),
        ),
        ("leaving/labels.sql", "SELECT page, CAST(ts AS TIMESTAMP) AS ts, \"left\" FROM labels\n".to_owned()),
        (
            "leaving/labels.odcs.yaml",
            contract(
                "leaving.labels",
                &[("page", "string", required), ("ts", "string", required), ("left", "integer", required)],
            ),
        ),
        (
            "leaving/model.odcs.yaml",
            contract(
                "leaving.model",
                &[
                    ("model_version", "string", required),
                    ("trained_at", "timestamp", required),
                    ("auc", "number", required),
                    ("is_champion", "boolean", required),
                ],
            ),
        ),
        ("leaving/data/labels.csv", labels(midnight_ms)),
    ];
    files.into_iter().map(|(path, text)| (format!("domains/shop/{path}"), Some(text.into_bytes()))).collect()
}

fn trained_by(train: &str, program: &str) -> Files {
    let pipeline = format!(
        "apiVersion: hydromesh/v1\nkind: TrainingPipeline\nname: leaving\noutput: model\ntraining_set: {{spine: labels.sql, features: \
         [shop/habits.habits], as_of: {{event: ts, knowledge: ts}}}}\ntrain: {train}\n\
         gate: {{metric: auc, non_inferiority: 0.2}}\n"
    );
    [("pipeline.yaml", pipeline), ("train.py", program.to_owned())]
        .into_iter()
        .map(|(path, text)| (format!("{FOLDER}/{path}"), Some(text.into_bytes())))
        .collect()
}

/// A world with events of pages and models of them; no program may run yet.
fn world() -> (World, i64) {
    let world = World::new("10d");
    world.commit("Events alone", &mesh::without("daily"));
    world.commit("No sales", &mesh::without("sales"));
    let midnight_ms = world.now_ms - world.now_ms.rem_euclid(24 * HOUR_MS);
    (world, midnight_ms)
}

/// Produces the events as they came, before anybody follows them.
fn produce(world: &World, state: &State<'_>, midnight_ms: i64) {
    let path = world.folder("events").join("events.jsonl");
    std::fs::write(&path, events(midnight_ms)).expect("written");
    let path = crate::support::text(&path).to_owned();
    state.ask(&["produce", &path, "--topic", "events", "--timestamp-field", "ts"]).ends_with(0);
}

/// Returns the newest model, and the number of the champion.
fn models(state: &State<'_>) -> Result<(Value, Value), String> {
    let models = state.json(&["models", MODEL])?;
    let product = &models["products"][0];
    let newest = product["trained"].as_array().and_then(|all| all.last()).map(|it| it["model"].clone());
    Ok((newest.unwrap_or_default(), product["champion"]["version"].clone()))
}

/// Waits until a version is the champion, and returns its model.
#[track_caller]
fn champion(state: &mut State<'_>, version: u64) -> Value {
    state.wait("a champion", |state| match models(state)? {
        (newest, champion) if newest["version"] == version && champion == version => Ok(newest),
        other => Err(format!("{other:?} {:?}", state.json(&["runs", MODEL, "--failed"]))),
    })
}

/// Waits until an attempt at a training has failed with a text, and returns what is told of it.
#[track_caller]
fn fails(state: &mut State<'_>, says: &str) -> String {
    state.wait(says, |state| {
        let runs = state.json(&["runs", MODEL, "--failed"])?["runs"].to_string();
        if runs.contains(says) { Ok(runs) } else { Err(format!("{runs} {:?}", models(state))) }
    })
}

/// Whether this system can confine a program; where it cannot, there is nothing to look at.
fn can_confine() -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    for part in ["product", "rows", "own"] {
        std::fs::create_dir(folder.path().join(part)).expect("a folder");
    }
    let folder = crate::support::text(folder.path());
    let ran = crate::support::run(&[
        "command-worker",
        "--folder",
        folder,
        "--memory-mib",
        "256",
        "--",
        "/bin/true",
    ]);
    ran.code != 125
}

const COMMAND: &str = "{command: [python3, train.py], rows: csv}";

#[test]
fn a_program_trains_and_is_measured_beside_the_champion() {
    if !can_confine() {
        return;
    }
    let (world, midnight_ms) = world();
    let mut files = learning(midnight_ms);
    files.extend(trained_by("{builtin: logistic_regression}", ""));
    world.commit("Learn", &files);
    let mut state = world.state("trainers");
    produce(&world, &state, midnight_ms);
    state.start();
    let built_in = champion(&mut state, 1);
    assert!(built_in["value"].as_f64().expect("a number") > 0.8, "{built_in}");
    assert_eq!(built_in.get("algorithm"), None, "{built_in}");
    assert!(state.end().0.success(), "{}", state.told());

    // Nobody has allowed it: it is told before, and nothing begins.
    world.commit("Let a program learn", &trained_by(COMMAND, &documented()));
    let repository = world.repository();
    crate::support::run(&["check", crate::support::text(&repository), "--rev", "main"]).says("HM-M044");
    state.start();
    let denied = fails(&mut state, "HM-T013");
    assert!(denied.contains("does not allow commands of the domain shop"), "{denied}");
    assert!(state.end().0.success(), "{}", state.told());

    world.set("ref: refs/heads/main", "ref: refs/heads/main\n    allow_commands: [shop]");
    state.start();
    state.wait("a controller", State::is_ready);
    state.ask(&["retry", MODEL]).ends_with(0);
    let second = champion(&mut state, 2);
    assert_eq!(second["algorithm"], "command: python3 train.py");
    assert_eq!(second["champion_value"], built_in["value"], "on the same rows: {second}");
    assert!(second["value"].as_f64().expect("a number") > 0.8, "{second}");
    state.ask(&["models", MODEL]).says("command: python3 train.py");

    // A changed program is a changed definition; the champion is scored by what fitted it.
    let lazier = documented().replace("range(60)", "range(1)");
    world.commit("Try less", &trained_by(COMMAND, &lazier));
    let third = champion(&mut state, 3);
    assert_eq!(third["champion_value"], second["value"], "{third}");
    assert!(third["reason"].as_str().expect("why").contains("its definition changed"), "{third}");
    // And the other way round.
    world.commit("Learn as before", &trained_by("{builtin: logistic_regression}", &lazier));
    let fourth = champion(&mut state, 4);
    assert_eq!((&fourth["champion_value"], &fourth["value"]), (&third["value"], &built_in["value"]));
    state.settle();
    let lake = state.folder().join("lake");
    let artefact = std::fs::read(lake.join(third["path"].as_str().expect("a path"))).expect("an artefact");
    let artefact: Value = serde_json::from_slice(&artefact).expect("JSON");
    assert_eq!(artefact["algorithm"], "command");
    let shown = artefact["program"]["shown"].as_object().expect("files");
    assert_eq!(shown.keys().collect::<Vec<_>>(), ["train.py"], "neither labels nor manifests");
    let folder = lake.join(artefact["program"]["folder"].as_str().expect("a folder"));
    assert!(folder.join("model.json").is_file(), "{}", folder.display());
    let left = std::fs::read_dir(state.folder().join("scratch")).expect("there").count();
    assert_eq!(left, 0, "nothing is left of what ran");
}

#[test]
fn a_program_that_does_what_it_should_not_makes_no_model() {
    if !can_confine() {
        return;
    }
    let (world, midnight_ms) = world();
    let allowed = "ref: refs/heads/main\n    allow_commands: [shop]\n    allow_network: [shop]";
    world.set("ref: refs/heads/main", allowed);
    let mut files = learning(midnight_ms);
    let silent = misbehaves("raise SystemExit(0)", "pass");
    files.extend(trained_by(COMMAND, &silent));
    world.commit("Learn", &files);
    let mut state = world.state("misbehaving");
    produce(&world, &state, midnight_ms);
    state.start();
    fails(&mut state, "it wrote no file below HYDROMESH_MODEL");
    let find = "found = [os.path.join(f, n) for part in ('product', 'rows', 'own', 'model') for f, _, names in os.walk('/work/' + part) \
                for n in names]; told = [it for it in found if not it.endswith('train.py') and 'label' in open(it).read()]; \
                sys.exit(40 + len(found) + 10 * len(told))";
    for (train, score, says) in [
        ("os.symlink(env['HYDROMESH_ROWS'], model + '/latest')", "pass", "latest is a symbolic link"),
        (
            "pass",
            "rows.pop(); print('lost one', file=sys.stderr)",
            "89 lines for 90 rows; what it complained of is in",
        ),
        ("pass", "rows = rows + [rows[0]]", "91 lines for 90 rows"),
        (
            "pass",
            "open(env['HYDROMESH_SCORES'], 'w').write('1.01\\n' * 90); sys.exit()",
            "line 1 is no number from 0 to 1",
        ),
        ("sys.exit(7)", "pass", "ended with exit code 7 at its task train"),
        ("pass", "open(model + '/a.txt', 'w')", "ended with exit code 1 at its task score"),
        ("socket.create_connection(('127.0.0.1', 1), 2)", "pass", "at its task train; what it complained of"),
        // Everything that it can read is looked through for labels and for the rows that it fitted.
        ("pass", find, "ended with exit code 43"),
    ] {
        world.commit("Misbehave", &trained_by(COMMAND, &misbehaves(train, score)));
        fails(&mut state, says);
    }
    assert_eq!(models(&state).expect("none").0, Value::Null);
    let complaint = state.folder().join("complaints/shop/leaving.leaving@train.txt");
    let complaint = std::fs::read_to_string(complaint).expect("kept");
    assert!(complaint.contains("unreachable") || complaint.contains("refused"), "{complaint}");

    // A program that behaves is the first model, and what failed before is nobody's champion. It has the network because it asks for it
    // and the environment grants it.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let online =
        format!("import socket\nsocket.create_connection(('127.0.0.1', {port}), 5)\n{}", documented());
    let asking = COMMAND.replace('}', ", network: true}");
    world.commit("Behave", &trained_by(&asking, &online));
    assert_eq!(champion(&mut state, 1)["champion_value"], Value::Null);
    listener.accept().expect("it came");
    // A champion whose program fails is tried again, and after that nobody waits for it.
    drop(listener);
    world.commit("Learn offline", &trained_by(COMMAND, &documented()));
    fails(
        &mut state,
        "the champion cannot be measured: the trainer ended with exit code 1 at its task score",
    );
    let second = champion(&mut state, 2);
    assert_eq!(second["champion_value"], Value::Null);
    let why = second["reason"].as_str().expect("why");
    assert!(why.contains("not compared with the champion, whose program failed"), "{why}");
    // Policies see that it asks, and every file beside it.
    let rule = "# METADATA\n# title: Networks\npackage mesh.networks\n\ndeny contains {\n\t\"rule\": \"no-network\",\n\t\"msg\": \
                sprintf(\"%s asks for the network\", [command.command[1]]),\n\t\"path\": \"product.commands\",\n} if {\n\t\
                some command in input.product.commands\n\tcommand.rule == \"@train\"\n\tcommand.network\n\t\
                input.product.files[\"domains/shop/leaving/train.py\"]\n}\n";
    let judging = [("policies/networks.rego".to_owned(), Some(rule.as_bytes().to_vec()))].into();
    let judged = world.commit("Judge networks", &judging);
    state.outcome(&judged);
    let denied = world.commit("Change it once more", &trained_by(&asking, &format!("{online}# more\n")));
    assert_ne!(state.outcome(&denied), "applied");
    state.ask(&["why-not", MODEL]).says("train.py asks for the network");
}

#[test]
fn a_training_that_is_killed_is_begun_again_and_nothing_is_doubled() {
    if !can_confine() {
        return;
    }
    let (world, midnight_ms) = world();
    world.set("ref: refs/heads/main", "ref: refs/heads/main\n    allow_commands: [shop]");
    let mut files = learning(midnight_ms);
    let slow = documented().replace("env = os.environ\n", "import time\ntime.sleep(3)\nenv = os.environ\n");
    files.extend(trained_by(COMMAND, &slow));
    world.commit("Learn", &files);
    let mut state = world.state("killed");
    produce(&world, &state, midnight_ms);
    state.start();
    let runs = state.folder().join("scratch");
    // Once in the middle of fitting, and once after that.
    for _ in 0..2 {
        state.wait("a program", |_| {
            let begun = std::fs::read_dir(&runs).is_ok_and(|mut it| it.next().is_some());
            if begun { Ok(()) } else { Err("none".to_owned()) }
        });
        std::thread::sleep(std::time::Duration::from_secs(1));
        state.kill();
        let _ = std::fs::remove_dir_all(&runs);
        state.start();
    }
    let first = champion(&mut state, 1);
    state.settle();
    assert!(first["value"].as_f64().expect("a number") > 0.8, "{first}");
    assert_eq!(state.table("shop/leaving.model").1, 1, "one model, one row");
    let place = state.folder().join("lake/models/shop/leaving");
    let mut there: Vec<String> = std::fs::read_dir(place)
        .expect("models")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    there.sort();
    assert!(there.len() == 2 && there[0].starts_with("v0001-") && there[1] == "v0001.json", "{there:?}");
}
