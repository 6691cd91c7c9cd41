//! Previews beside a controller that is at work.

use serde_json::{Value, json};

use super::mesh::{self, Files, SALES_SQL};
use super::world::{State, World};
use super::{DAILY, SALES};
use crate::support::{Ran, run, text};

pub const TOP: &str = "shop/top.top";

pub fn file(path: &str, text: &str) -> Files {
    [(path.to_owned(), Some(text.as_bytes().to_vec()))].into()
}

pub fn daily(condition: &str) -> Files {
    let sql = format!(
        "SELECT sold_on, country, COUNT(*) AS sales, SUM(price) AS takings\nFROM sales\n{condition}GROUP BY sold_on, country\n"
    );
    file("domains/shop/daily/daily.sql", &sql)
}

/// A product that reads the daily sums, whole.
pub fn top() -> Files {
    let swap = |text: Vec<u8>| {
        let text = String::from_utf8(text).expect("UTF-8");
        let text = text.replace(
            "{name: sales, version: 1.0.0, contractId: shop/sales.sales}",
            "{name: daily, version: 1.0.0, contractId: shop/daily.daily}",
        );
        let text = text.replace("COUNT(*) AS sales FROM sales", "SUM(sales) AS sales FROM daily");
        text.into_bytes()
    };
    mesh::reader("top").into_iter().map(|(path, text)| (path, text.map(swap))).collect()
}

pub fn apply(world: &World, state: &State<'_>, name: &str, more: &[&str]) -> Ran {
    let (repo, env, reference) =
        (world.repository(), format!("preview/{name}"), format!("refs/heads/{name}"));
    let mut args =
        vec!["apply", "--repo", text(&repo), "--ref", &reference, "--env", &env, "--format", "json"];
    args.extend(more);
    state.ask(&args)
}

/// Returns what was computed, by port: partitions that are there, those computed now, and rows.
fn built(summary: &Value) -> Vec<(&str, u64, u64, u64)> {
    let number = |it: &Value| it.as_u64().expect("a number");
    let ports = summary["built"].as_array().expect("built").iter();
    ports
        .map(|it| {
            let port = it["port"].as_str().expect("a port");
            (port, number(&it["partitions"]), number(&it["computed"]), number(&it["rows"]))
        })
        .collect()
}

fn rows(state: &State<'_>, sql: &str, more: &[&str]) -> Value {
    let mut args = vec!["query", sql, "--format", "json"];
    args.extend(more);
    state.ask(&args).ends_with(0).json()
}

#[test]
fn a_preview_builds_what_a_branch_changes_and_reads_the_rest_as_it_was() {
    let world = World::new("5d");
    world.commit("A reader", &top());
    let mut state = world.state("parent").with(&["--poll", "0.5", "--observe", "1"]);
    state.start();
    state.settle();
    let before = state.contents();
    let pinned = state.table(SALES).0;
    let first = world.branch("north", None, "Leave Italy out", &daily("WHERE country <> 'IT'\n"));

    // Exactly what differs and who reads it, of that only a week, and nothing of the parent is touched.
    let summary = apply(&world, &state, "north", &["--parent", "dev"]).ends_with(0).json();
    assert_eq!(built(&summary), [(DAILY, 7, 7, 14), (TOP, 1, 1, 2)], "{summary:#}");
    assert_eq!(summary["read"], json!({SALES: pinned}), "{summary:#}");
    assert_eq!(summary["built"][0]["left_out"], 13);
    assert_eq!(summary["built"][1]["reads_part_of"], json!([DAILY]));
    assert_eq!(state.contents(), before);
    let countries = format!("SELECT DISTINCT country FROM \"{DAILY}\" ORDER BY country");
    let north = ["--env", "preview/north"];
    assert_eq!(rows(&state, &countries, &north), json!([{"country": "CH"}, {"country": "FR"}]));
    let all = json!([{"country": "CH"}, {"country": "FR"}, {"country": "IT"}]);
    assert_eq!(rows(&state, &countries, &[]), all);

    // The same again is nothing to do.
    let summary = apply(&world, &state, "north", &[]).ends_with(0).json();
    assert_eq!(built(&summary), [(DAILY, 7, 0, 14), (TOP, 1, 0, 2)], "{summary:#}");

    // The parent moves on; who computes more of the preview still reads what it was pinned to.
    let without = SALES_SQL.replace('\n', " WHERE country <> 'CH'\n");
    world.commit("Leave Switzerland out", &file("domains/shop/sales/sales.sql", &without));
    state.settle();
    let after = state.contents();
    assert_ne!(after[SALES], before[SALES]);
    let summary = apply(&world, &state, "north", &["--partitions", "8"]).ends_with(0).json();
    assert_eq!(built(&summary), [(DAILY, 8, 1, 16), (TOP, 1, 1, 2)], "{summary:#}");
    assert_eq!(summary["read"], json!({SALES: pinned}));
    assert_eq!(rows(&state, &countries, &north), json!([{"country": "CH"}, {"country": "FR"}]));
    let of_sales = format!("SELECT count(DISTINCT country) AS n FROM \"{SALES}\"");
    assert_eq!(rows(&state, &of_sales, &north), json!([{"n": 3}]));
    assert_eq!(rows(&state, &of_sales, &[]), json!([{"n": 2}]));

    // Only what the next push moves is computed.
    let sql = "SELECT country, SUM(sales) + 1 AS sales FROM daily GROUP BY country\n";
    let second =
        world.branch("north", Some(&first), "Count one more", &file("domains/shop/top/top.sql", sql));
    let summary = apply(&world, &state, "north", &[]).ends_with(0).json();
    assert_eq!(built(&summary), [(DAILY, 8, 0, 16), (TOP, 1, 1, 2)], "{summary:#}");
    assert_eq!(state.contents(), after);

    // The other verbs know it; what it reads from its parent hashes as it was pinned.
    let hash = |product: &str, more: &[&str]| {
        let args = [&["show", product, "--hash"], more].concat();
        state.json(&args).expect("shown")["ports"][0]["hash"].as_str().expect("a hash").to_owned()
    };
    assert_eq!(hash("shop/sales", &north), before[SALES]);
    assert_eq!(hash("shop/sales", &[]), after[SALES]);
    assert_ne!(hash("shop/daily", &north), after[DAILY]);
    let listed = state.json(&["list", "--env", "preview/north"]).expect("listed");
    assert_eq!(listed["environment"], "preview/north");
    assert_eq!(listed["products"].as_array().map(Vec::len), Some(4), "{listed:#}");
    state.ask(&["status", "--env", "preview/north"]).ends_with(0).says("applied: Count one more");
    state.ask(&["why", "top", "--env", "preview/north"]).ends_with(0);
    let previews = state.json(&["list", "--previews"]).expect("listed");
    assert_eq!(previews["previews"][0]["preview"], "preview/north");

    // Begun again, with the branch brought up to date, it reads what the parent has now.
    let sales = file("domains/shop/sales/sales.sql", &without);
    world.branch("north", Some(&second), "Follow main", &sales);
    let summary = apply(&world, &state, "north", &["--refresh"]).ends_with(0).json();
    assert_eq!(built(&summary), [(DAILY, 7, 7, 7), (TOP, 1, 1, 1)], "{summary:#}");
    assert_eq!(rows(&state, &of_sales, &north), json!([{"n": 2}]));

    // It goes when it is told to, and by itself.
    state.ask(&["apply", "--drop", "--env", "preview/north"]).ends_with(0).says("preview/north is removed");
    assert!(!state.folder().join("previews/north").exists());
    state.ask(&["apply", "--drop", "--env", "preview/north"]).ends_with(2).says("hydromesh list --previews");
    state.ask(&["list", "--env", "preview/north"]).ends_with(2);
    apply(&world, &state, "north", &["--expires", "1s"]).ends_with(0);
    let folder = state.folder().join("previews/north");
    state.wait("the end of the preview", |_| if folder.exists() { Err("there".to_owned()) } else { Ok(()) });
    assert_eq!(state.contents(), after);
}

#[test]
fn what_a_preview_cannot_build_is_told() {
    let world = World::new("5d");
    let mut state = world.state("parent");
    let nobody = apply(&world, &state, "early", &[]);
    nobody.ends_with(4).says("there is no ledger");
    state.start();
    state.settle();

    let sql = "SELECT event_id, ts, page, number FROM raw_events WHERE number > 1\n";
    world.branch("stream", None, "Fewer events", &file("domains/shop/events/events.sql", sql));
    let summary = apply(&world, &state, "stream", &[]).ends_with(0).json();
    assert_eq!(summary["built"], json!([]), "{summary:#}");
    let why = summary["not_built"]["shop/events"].as_str().expect("told").to_owned();
    assert!(why.contains("follows a topic"), "{why}");
    let repo = world.repository();
    let human = ["apply", "--repo", text(&repo), "--ref", "stream", "--env", "preview/stream"];
    state.ask(&human).ends_with(0).says("not in a preview");

    world.branch("secret", None, "A secret", &mesh::reader("secret"));
    let summary = apply(&world, &state, "secret", &[]).ends_with(3).json();
    assert_eq!(summary["refused"]["shop/secret"]["outcome"], "denied", "{summary:#}");

    world.branch("broken", None, "A mistake", &daily("WHERE contry = 'CH'\n"));
    let summary = apply(&world, &state, "broken", &[]).ends_with(1).json();
    assert_eq!(summary["refused"]["shop/daily"]["outcome"], "broken", "{summary:#}");

    // A rule of the contract keeps back what does not fit, as it would for the parent.
    let twice = "SELECT sold_on, country, 1 AS sales, price AS takings FROM sales\n";
    world.branch("audit", None, "Rows twice", &file("domains/shop/daily/daily.sql", twice));
    let summary = apply(&world, &state, "audit", &["--partitions", "2"]).ends_with(1).json();
    assert_eq!(built(&summary), [(DAILY, 0, 0, 0)], "{summary:#}");
    let failed = summary["built"][0]["failed"].to_string();
    assert!(failed.contains("HM-Q001") && failed.contains("one-row-per-country"), "{failed}");
    let query = format!("SELECT * FROM \"{DAILY}\"");
    state.ask(&["query", &query, "--env", "preview/audit"]).ends_with(2).says("has published nothing yet");

    for bad in ["preview/../../x", "preview/A", "preview/", "dev", "preview/a/b"] {
        let args = ["apply", "--repo", "r", "--ref", "x", "--env", bad];
        state.ask(&args).ends_with(2).says("preview/NAME");
    }
    apply(&world, &state, "stream", &["--parent", "prod"]).ends_with(2).says("is the state folder of dev");
    apply(&world, &state, "nowhere", &[]).ends_with(4);
    run(&["up", "--repo", "r", "--env", "preview/x"]).ends_with(2).says("hydromesh apply");
}
