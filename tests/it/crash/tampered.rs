//! Tables that somebody else drops or changes while the controller runs: what was published comes back, and nothing more
//! than that is computed again.

use std::path::{Path, PathBuf};

use deltalake::DeltaTableBuilder;
use serde_json::Value;

use super::mesh;
use super::world::{State, World, wait_for};
use super::{DAILY, SALES};

/// Tables are looked at every second.
const OFTEN: &[&str] = &["--poll", "0.5", "--observe", "1"];

/// Waits until a table's rows are what they were, though it has newer versions.
#[track_caller]
fn wait_for_rows(state: &mut State<'_>, address: &str, version: i64, hash: &str) {
    state.wait(address, |state| {
        // While it is gone or half-way there is nothing to look at.
        let found = state.hash(address)?;
        let (now, rows) = state.table(address);
        if now <= version || found != hash {
            return Err(format!("version {now}, {rows} rows"));
        }
        Ok(())
    });
}

/// Returns a data file of a table.
fn a_data_file(table: &Path) -> PathBuf {
    let mut folders = vec![table.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("_delta_log") {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "parquet") {
                return path;
            }
        }
    }
    panic!("no data file")
}

/// Commits to a Delta table that it has a column no longer, as `ALTER TABLE` of other programs does.
fn drop_column(table: &Path, column: &str) {
    let log = table.join("_delta_log");
    let entries = std::fs::read_dir(&log).expect("a log").map(|entry| entry.expect("an entry").path());
    let mut commits: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|it| it == "json")).collect();
    commits.sort();
    let actions = |path: &PathBuf| -> Vec<Value> {
        let text = std::fs::read_to_string(path).expect("a commit");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let last = commits.iter().rev().flat_map(actions).find(|action| action.get("metaData").is_some());
    let mut action = last.expect("metadata");
    let schema = action["metaData"]["schemaString"].as_str().expect("a schema");
    let mut schema: Value = serde_json::from_str(schema).expect("JSON");
    schema["fields"].as_array_mut().expect("fields").retain(|field| field["name"] != column);
    action["metaData"]["schemaString"] = schema.to_string().into();
    let newest =
        commits.last().and_then(|it| it.file_stem()?.to_str()?.parse::<u64>().ok()).expect("a number");
    let info = serde_json::json!({"commitInfo": {"timestamp": 0, "operation": "DROP COLUMNS"}});
    let next = log.join(format!("{:020}.json", newest + 1));
    std::fs::write(next, format!("{info}\n{action}\n")).expect("committed");
}

#[test]
fn what_somebody_else_does_to_a_table_is_mended() {
    let world = World::new("10d");
    let mut state = world.state("tampered").with(OFTEN);
    state.start();
    state.settle();
    let before = state.contents();
    let daily_runs = state.runs_of("shop/daily");

    // Dropped. Its reader has nothing new to see once it is back.
    let (version, _) = state.table(SALES);
    // In one move: who deletes file by file is seen in the middle of it, and told of file by file.
    let gone = state.table_folder(SALES).with_extension("gone");
    std::fs::rename(state.table_folder(SALES), &gone).expect("dropped");
    std::fs::remove_dir_all(gone).expect("deleted");
    wait_for_rows(&mut state, SALES, version, &before[SALES]);
    state.settle();
    assert_eq!(state.runs_of("shop/daily"), daily_runs, "{}", state.told());
    let why = state.ask(&["why", "shop/sales"]);
    why.says("the table was dropped");
    why.says("published again since");

    // Rows deleted by another program, which commits to the table as it should.
    let (version, _) = state.table(DAILY);
    let url = url::Url::from_directory_path(state.table_folder(DAILY)).expect("a folder");
    let deleted = wait_for(async {
        let table = DeltaTableBuilder::from_url(url).expect("a table").load().await.expect("read");
        let done = table.delete().with_predicate("country = 'CH'").await;
        done.expect("deleted").1.num_deleted_rows
    });
    assert_eq!(deleted, usize::try_from(mesh::DAYS).ok());
    wait_for_rows(&mut state, DAILY, version + 1, &before[DAILY]);
    state.settle();

    // A column dropped by another program. Its values still lie in the files, and no reader sees them.
    let (version, _) = state.table(DAILY);
    drop_column(&state.table_folder(DAILY), "takings");
    state.wait("a look at the columns", |state| {
        let told = state.json(&["why", "shop/daily"])?.to_string();
        if told.contains("its column takings was dropped") { Ok(()) } else { Err(told) }
    });
    wait_for_rows(&mut state, DAILY, version + 1, &before[DAILY]);
    state.settle();

    // A data file is gone, and no log tells of it.
    let (version, _) = state.table(SALES);
    std::fs::remove_file(a_data_file(&state.table_folder(SALES))).expect("deleted");
    let old = |state: &State<'_>| state.json(&["why", "shop/sales"]).map(|it| it.to_string());
    state.wait("a look at the files", |state| {
        let told = old(state)?;
        if told.contains("1 data file is gone") { Ok(()) } else { Err(told) }
    });
    wait_for_rows(&mut state, SALES, version, &before[SALES]);
    state.settle();
    assert_eq!(state.contents(), before);
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
}

#[test]
fn a_lake_that_is_not_there_is_not_taken_for_dropped_tables() {
    let world = World::new("10d");
    let mut state = world.state("unmounted").with(OFTEN);
    state.start();
    state.settle();
    let before = state.contents();
    let runs_before = state.runs_of("shop/sales");
    let lake = state.table_folder("");
    let away = lake.with_file_name("away");
    std::fs::rename(&lake, &away).expect("moved");
    state.wait("a warning", |state| {
        if state.told().contains("none of the tables is there") { Ok(()) } else { Err(state.told()) }
    });
    std::fs::rename(&away, &lake).expect("moved back");
    state.settle();
    assert_eq!((state.contents(), state.runs_of("shop/sales")), (before, runs_before), "{}", state.told());
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
}

#[test]
fn with_self_heal_off_people_are_told_and_decide() {
    let world = World::new("10d");
    let path = "domains/shop/sales/pipeline.yaml".to_owned();
    let mut pipeline = mesh::files(mesh::today(), "10d")[&path].clone().expect("text");
    pipeline.extend_from_slice(b"self_heal: false\n");
    world.commit("Keep hands off", &[(path, Some(pipeline))].into());
    let mut state = world.state("told").with(OFTEN);
    state.start();
    state.settle();
    let before = state.contents();
    let (version, _) = state.table(SALES);
    std::fs::remove_file(a_data_file(&state.table_folder(SALES))).expect("deleted");
    let of_table = |state: &State<'_>, open: &str| -> Result<(), String> {
        let list = state.json(&["alerts", "list"])?;
        let found =
            list["alerts"].as_array().expect("alerts").iter().any(|it: &Value| {
                it["product"] == "shop/sales" && it["kind"] == "table" && it["state"] == open
            });
        if found { Ok(()) } else { Err(list.to_string()) }
    };
    state.wait("an alert", |state| of_table(state, "firing"));
    assert_eq!(state.table(SALES).0, version, "nothing is done by itself");
    state.ask(&["run", "shop/sales", "--reason", "repaired", "--wait"]).ends_with(0);
    wait_for_rows(&mut state, SALES, version, &before[SALES]);
    state.wait("its end", |state| of_table(state, "resolved"));
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
}
