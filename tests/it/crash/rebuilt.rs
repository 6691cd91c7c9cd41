//! The state folder is lost but for the tables and the topics: it comes back from the lake and the commit.

use std::collections::BTreeMap;

use super::world::World;
use super::{Messages, SALES, mesh, wait_for_sum};

#[test]
fn an_empty_state_folder_is_rebuilt_from_lake_and_commit() {
    let world = World::new("10d");
    let messages = Messages::new(world.now_ms);
    let mut state = world.state("rebuilt");
    state.produce(&messages.lines);
    state.start();
    state.settle();
    messages.wait_for_all(&mut state);
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
    let (before, runs) = (state.contents(), ["shop/sales", "shop/daily"].map(|it| state.runs_of(it)));
    let facts = state.json(&["status"]).expect("a status")["runs"]["succeeded"].clone();

    // Ended in order, nothing is missing: nothing is computed again.
    state.lose_all_but_data();
    state.start();
    state.settle();
    messages.wait_for_all(&mut state);
    assert_eq!(["shop/sales", "shop/daily"].map(|it| state.runs_of(it)), runs, "{}", state.told());
    assert_eq!(state.json(&["status"]).expect("a status")["runs"]["succeeded"], facts);
    assert_eq!(state.contents(), before);

    // Killed in the middle of a change, the copy knows nothing of it; the tables do.
    let sql = "domains/shop/sales/sales.sql".to_owned();
    let doubled = mesh::SALES_SQL.replace("price FROM", "price * 2 AS price FROM");
    let sum = format!("SELECT SUM(price) AS sum FROM \"{SALES}\"");
    let takings = state.json(&["query", &sum]).expect("rows")[0]["sum"].as_f64().expect("a sum");
    let (version, _) = state.table(SALES);
    world.commit("Double the prices", &BTreeMap::from([(sql, Some(doubled.into()))]));
    state.wait("the change", |state| {
        let now = state.table(SALES).0;
        if now > version + 3 { Ok(()) } else { Err(format!("version {now}")) }
    });
    state.kill();
    state.lose_all_but_data();
    state.start();
    state.settle();
    wait_for_sum(&mut state, &sum, 2.0 * takings);
    messages.wait_for_all(&mut state);
    assert_eq!(state.end().0.code(), Some(0), "{}", state.told());
}
