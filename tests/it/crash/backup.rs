//! Copies of a state folder while its controller works, put back: at the same place, at another one, and where it must not be.

use std::path::{Path, PathBuf};

use hydromesh::fault::VARIABLE;
use serde_json::{Value, json};

use super::world::{State, World};
use super::{DAILY, EVENTS, Messages, SALES, like_others, mesh};
use crate::support::{Ran, copy, edit, hydromesh, run, text};

/// Backs up a state folder, and returns what was printed.
#[track_caller]
fn back_up(state: &State<'_>, folder: &Path) -> Value {
    let ran = state.ask(&["backup", text(folder), "--format", "json"]).ends_with(0);
    assert!(ran.stderr.contains("the ledger, "), "{}", ran.stderr);
    ran.json()["backup"].clone()
}

/// Puts a backup back into a state folder.
fn restore(state: &State<'_>, folder: &Path) -> Ran {
    state.ask(&["restore", text(folder)])
}

/// Takes a state folder out of its place.
fn wipe(state: &State<'_>) {
    std::fs::remove_dir_all(state.folder()).expect("removed");
}

/// Waits until a controller has nothing to do, and returns what it came to.
#[track_caller]
fn run_to_the_end(state: &mut State<'_>, messages: &Messages) -> std::collections::BTreeMap<String, String> {
    state.start();
    state.settle();
    messages.wait_for_all(state);
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
    state.contents()
}

#[test]
fn a_backup_of_a_controller_at_work_is_where_another_goes_on() {
    let (world, messages, calm) = like_others("delta", "1d");
    let backups = world.folder("backups");
    let mut state = world.state("source");
    state.produce(messages.part(0));
    state.start();
    state.wait("the backfill", |state| {
        let now = state.table(SALES).0;
        if now > 4 { Ok(()) } else { Err(format!("version {now}")) }
    });
    let early = backup_of(&state, &backups.join("early"));
    assert_eq!((&early["environment"], &early["ledger"]["from_server"]), (&json!("dev"), &json!(false)));
    // While the backfill and the stream are at it.
    (1..5).for_each(|part| state.produce(messages.part(part)));
    backup_of(&state, &backups.join("busy"));
    state.settle();
    messages.wait_for_all(&mut state);
    let quiet = backup_of(&state, &backups.join("quiet"));
    let tables = |backup: &Value| {
        let tables = backup["lake"]["tables"].as_array().expect("tables").iter();
        tables.map(|it| it["address"].as_str().expect("an address").to_owned()).collect::<Vec<_>>()
    };
    // Readers before what they read.
    let order = tables(&quiet);
    let at = |address: &str| order.iter().position(|it| it == address).expect(address);
    assert!(at(DAILY) < at(SALES), "{order:?}");
    let runs = ["shop/sales", "shop/daily"].map(|it| state.runs_of(it));
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
    assert_eq!(state.contents(), calm);

    // At another place, where the events come that the backup did not see.
    let mut other = world.state("other");
    restore(&other, &backups.join("early")).ends_with(0).says("start a controller on it");
    (1..5).for_each(|part| other.produce(messages.part(part)));
    assert_eq!(run_to_the_end(&mut other, &messages), calm);
    // At the same place.
    wipe(&state);
    restore(&state, &backups.join("busy")).ends_with(0);
    assert_eq!(run_to_the_end(&mut state, &messages), calm);
    // What was whole is not computed again.
    wipe(&state);
    restore(&state, &backups.join("quiet")).ends_with(0);
    assert_eq!(run_to_the_end(&mut state, &messages), calm);
    assert_eq!(["shop/sales", "shop/daily"].map(|it| state.runs_of(it)), runs, "{}", state.told());
    // A verb that stands in for the controller finds the mirror.
    state.ask(&["run", "shop/daily", "--reason", "to see"]).ends_with(0);
}

/// The same as [`back_up`], and looks at the folder.
#[track_caller]
fn backup_of(state: &State<'_>, folder: &Path) -> Value {
    let backup = back_up(state, folder);
    for name in ["backup.json", "ledger.db", "lake", "topics", "repo", "controller.json"] {
        assert!(folder.join(name).exists(), "{name}");
    }
    backup
}

#[test]
fn iceberg_tables_come_back_where_they_were_and_are_computed_again_elsewhere() {
    let (world, messages, calm) = like_others("iceberg", "10d");
    let mut state = world.state("iceberg");
    state.produce(&messages.lines);
    state.start();
    state.settle();
    messages.wait_for_all(&mut state);
    let folder = world.folder("backups").join("one");
    backup_of(&state, &folder);
    let runs = ["shop/sales", "shop/daily"].map(|it| state.runs_of(it));
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());

    // Elsewhere: nothing is written, and each table's only place is named.
    let mut other = world.state("other");
    let refused = restore(&other, &folder).ends_with(2);
    for address in [SALES, DAILY, EVENTS] {
        let only = format!("{address} can only be restored at {}", state.table_folder(address).display());
        refused.says(&only);
    }
    refused.says("--recompute");
    assert!(!other.folder().exists());
    let restored =
        other.ask(&["restore", text(&folder), "--recompute", "--format", "json"]).ends_with(0).json();
    let to_run: Vec<String> = serde_json::from_value(restored["to_run"].clone()).expect("products");
    assert_eq!(to_run, ["shop/sales", "shop/daily"]);
    for product in &to_run {
        other.ask(&["run", product, "--reason", "restored"]).ends_with(0);
    }
    assert_eq!(run_to_the_end(&mut other, &messages), calm);

    // At the same place.
    wipe(&state);
    restore(&state, &folder).ends_with(0);
    assert_eq!(run_to_the_end(&mut state, &messages), calm);
    assert_eq!(["shop/sales", "shop/daily"].map(|it| state.runs_of(it)), runs, "{}", state.told());

    // Moved by hand: what the doctor says is what helps.
    let mut moved = world.state("moved");
    std::fs::rename(state.folder(), moved.folder()).expect("moved");
    let ill = moved.ask(&["doctor"]).ends_with(1);
    let to_move = moved.table_folder(SALES);
    ill.says("Iceberg tables cannot be moved");
    ill.says(&format!("move {} out of the lake; then `hydromesh run shop/sales`", to_move.display()));
    moved.ask(&["run", "shop/sales", "--reason", "in vain"]).ends_with(1);
    let away = world.folder("away");
    for (number, table) in (0..).zip(iceberg_tables(&moved)) {
        std::fs::rename(table, away.join(format!("{number}"))).expect("moved away");
    }
    ill.says(&format!("move {} out of the lake; then it follows", moved.table_folder(EVENTS).display()));
    for product in ["shop/sales", "shop/daily"] {
        moved.ask(&["run", product, "--reason", "moved"]).ends_with(0);
    }
    assert_eq!(run_to_the_end(&mut moved, &messages), calm);
    let healthy = moved.ask(&["doctor", "--format", "json"]).json();
    assert_eq!(healthy["healthy"], true, "{healthy:#}");
}

/// Returns the folders of all Iceberg tables in the domain of the mesh.
fn iceberg_tables(state: &State<'_>) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(state.table_folder("shop")).expect("tables");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.join("metadata").is_dir()).collect()
}

#[test]
fn what_is_no_place_for_a_backup_or_no_backup_is_refused() {
    let world = World::new("10d");
    let mut state = world.state("refused");
    state.start();
    state.settle();
    let backups = world.folder("backups");
    let good = backups.join("good");
    state.ask(&["backup", text(&good)]).ends_with(0).says("put it back with");

    // Places.
    let ask = |folder: &Path| state.ask(&["backup", text(folder)]).ends_with(2);
    ask(&good).says("holds a backup already");
    ask(&state.folder().join("inside")).says("hold one another");
    ask(world.repository().parent().expect("the home")).says("hold one another");
    // One that died half-way is none.
    for point in ["backup.after-ledger", "backup.before-manifest"] {
        let part = backups.join(point);
        let mut dying = hydromesh();
        dying.args(["backup", text(&part), "--state", text(state.folder())]);
        assert_eq!(dying.env(VARIABLE, format!("{point}:1")).output().expect("starts").status.code(), None);
        ask(&part).says("did not end");
        let target = backups.join("never");
        run(&["restore", text(&part), "--state", text(&target)]).ends_with(2).says("did not end");
        assert!(!target.exists());
    }

    // Targets.
    restore(&state, &good).ends_with(2).says("a controller runs on");
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
    restore(&state, &good).ends_with(2).says("is not empty");
    let bad = |name: &str, change: &dyn Fn(&Path)| {
        let folder = backups.join(name);
        copy(&good, &folder);
        change(&folder);
        let target = backups.join("never");
        let ran = run(&["restore", text(&folder), "--state", text(&target)]);
        assert!(!target.exists(), "{name}");
        ran
    };
    let manifest = |folder: &Path| folder.join("backup.json");
    bad("newer", &|folder| edit(&manifest(folder), "\"version\": 1", "\"version\": 2"))
        .ends_with(2)
        .says("restore with the version of hydromesh that made it");
    bad("other", &|folder| std::fs::write(manifest(folder), "{}").expect("written"))
        .ends_with(2)
        .says("is not the manifest of a backup");
    let cut = bad("cut", &|folder| {
        std::fs::remove_dir_all(folder.join("lake").join(SALES).join("_delta_log")).expect("removed");
    });
    cut.ends_with(4).says("HM-X061");
    bad("lost", &|folder| std::fs::remove_file(folder.join("ledger.db")).expect("removed"))
        .ends_with(4)
        .says("HM-X061");

    // Half a restore is no state folder, whoever comes.
    let mut half = world.state("half");
    let mut dying = hydromesh();
    dying.args(["restore", text(&good), "--state", text(half.folder())]);
    let died = dying.env(VARIABLE, "restore.after-lake:1").output().expect("starts");
    assert_eq!(died.status.code(), None);
    half.ask(&["status"]).ends_with(4).says("HM-X060");
    assert_eq!(half.start_refused(), Some(4), "{}", half.told());
    assert!(half.told().contains("HM-X060"), "{}", half.told());
    restore(&half, &good).ends_with(2).says("HM-X060");
    wipe(&half);
    restore(&half, &good).ends_with(0);
    half.start();
    half.settle();
    assert_eq!(half.table(SALES).1, mesh::DAYS * mesh::SALES_A_DAY);
    assert_eq!(half.end().0.code(), Some(0), "{}", half.told());
}
