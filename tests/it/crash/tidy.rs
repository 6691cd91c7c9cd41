//! Tables that are looked after while a stream fills them: its many files become few, whenever the process dies.

use hydromesh::fault::VARIABLE;
use serde_json::json;

use super::world::{State, World};
use super::{DAILY, EVENTS};

/// Returns how many data files a Delta table has that its newest version shows.
fn files(state: &State<'_>) -> u64 {
    let url = url::Url::from_directory_path(state.table_folder(EVENTS)).expect("a folder");
    super::world::wait_for(async {
        let table = deltalake::DeltaTableBuilder::from_url(url).expect("a table").load().await.expect("read");
        table.get_file_uris().expect("loaded").count() as u64
    })
}

#[test]
fn small_files_of_a_stream_are_put_together_and_a_death_on_the_way_costs_nothing() {
    let with = "ref: refs/heads/main\n    maintenance: {every: 1s}";
    let world = World::new("10d").with_setting("ref: refs/heads/main", with);
    let mut state = world.state("tidy");
    state.start();
    state.settle();
    // An epoch for each: the stream waits for more before it commits, but not for long.
    for number in 0..9_u64 {
        let event = |number: u64| {
            let ts = chrono::DateTime::from_timestamp_millis(world.now_ms).expect("a time").to_rfc3339();
            json!({"event_id": format!("E{number}"), "ts": ts, "page": "home", "number": number}).to_string()
        };
        state.produce(&[event(2 * number), event(2 * number + 1)]);
        state.wait("the next epoch", |state| {
            let rows = state.table(EVENTS).1;
            if rows == 2 * (number + 1) { Ok(()) } else { Err(format!("{rows} rows")) }
        });
    }
    let (before, daily) = (state.contents(), state.table(DAILY));
    assert!(files(&state) >= 9, "{} files", files(&state));
    assert!(state.end().0.success(), "{}", state.told());

    // The first commit of the next process is that of the files that were put together; it dies before it can tell.
    state.start_with(VARIABLE, "lake.after-commit:1");
    let died = loop {
        if let Some(died) = state.ended() {
            break died;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    assert!(!died.success(), "{}", state.told());
    assert_eq!(state.contents(), before);
    state.start();
    // What the process did that died was not told of, and is not done again.
    state.wait("a look at the table", |state| {
        let shown = state.json(&["show", "shop/events"])?["ports"][0]["looked_after"].clone();
        if shown["at"].is_string() { Ok(()) } else { Err(shown.to_string()) }
    });
    state.ask(&["show", "shop/events"]).says("looked after");
    assert_eq!(files(&state), 1);
    state.settle();
    assert_eq!(state.contents(), before);
    // To readers it is no newer version of the rows.
    assert_eq!(state.table(DAILY), daily);
    // And the stream goes on behind it.
    let event = json!({"event_id": "E99", "ts": chrono::DateTime::from_timestamp_millis(world.now_ms).expect("a time").to_rfc3339(),
        "page": "home", "number": 99});
    state.produce(&[event.to_string()]);
    state.wait("one more", |state| {
        let rows = state.table(EVENTS).1;
        if rows == 19 { Ok(()) } else { Err(format!("{rows} rows")) }
    });
}
