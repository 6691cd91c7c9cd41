//! The example's stream and its features, followed through crashes.

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type};
use hydromesh_core::aggregate::Value;
use hydromesh_core::ids::PortId;
use hydromesh_core::ledger::{Entry, ErrorKind, Fact, LedgerState, RunOutcome, StreamRows};
use hydromesh_core::model::{Pipeline, TableFormat};
use hydromesh_core::tile::{SpineRow, TileStore, partial, point_in_time};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::world::*;
use super::super::perform;
use super::*;
use crate::online::{Online, current_values};
use crate::stream::{TopicFolder, TopicOptions};

tokio::task_local! {
    static STOP: Arc<Stop>;
}

/// Freezes a follower at the n-th time it reaches a place, as a crash would leave it.
struct Stop {
    place: &'static str,
    nth: usize,
    count: AtomicUsize,
    reached: Notify,
}

/// Called by the code under test at every place where a crash would be interesting.
pub(super) async fn reached(name: &'static str) {
    let Ok(stop) = STOP.try_with(Arc::clone) else { return };
    if stop.place == name && stop.count.fetch_add(1, Ordering::SeqCst) + 1 == stop.nth {
        stop.reached.notify_one();
        std::future::pending::<()>().await;
    }
}

/// The archive's rows, the rows set aside and the current values, whatever order they were written in.
async fn contents(world: &World) -> [String; 4] {
    let mut hashes = Vec::new();
    for address in [
        CLICKS.to_owned(),
        format!("{CLICKS}__dead_letters"),
        format!("{CLICKS}__quarantine"),
        ACTIVITY.to_owned(),
    ] {
        hashes.push(world.table(&address).content_hash(None, &[]).await.expect("a hash"));
    }
    hashes.try_into().expect("four")
}

async fn counted_and_kept(format: TableFormat) {
    let world = World::of(format).await;
    let made = messages(1_200);
    world.produce(&made);
    let facts = world.archive().await;
    let expected = expected(&made);
    assert!(expected.corrected > 20 && expected.quarantined > 3 && expected.dead > 20, "{expected:?}");
    assert_eq!(total(&facts), expected);
    let epochs = facts.iter().filter(|fact| matches!(fact, Fact::Epoch(_))).count();
    assert!(epochs > 5, "{epochs} epochs show nothing about chaining");
    let archive = world.table(CLICKS);
    let kept = i64::try_from(expected.accepted + expected.corrected).expect("few");
    assert_eq!(world.count(&archive, "true").await, kept);
    assert_eq!(
        world.count(&archive, "event_id IN (SELECT event_id FROM t GROUP BY 1 HAVING count(*) > 1)").await,
        0
    );
    assert_eq!(world.count(&archive, "_offset IS NULL OR _partition IS NULL OR _available_at < ts").await, 0);
    let quarantine = world.table(&format!("{CLICKS}__quarantine"));
    assert_eq!(
        world.count(&quarantine, "_reason LIKE '%later%'").await,
        i64::try_from(expected.quarantined).expect("few")
    );
    let dead = world.table(&format!("{CLICKS}__dead_letters"));
    assert_eq!(
        world.count(&dead, "reason <> '' AND payload <> ''").await,
        i64::try_from(expected.dead).expect("few")
    );
    let told: Vec<(&PortId, u64)> = facts
        .iter()
        .filter_map(|fact| match fact {
            Fact::Quarantined { port, rows, reasons, .. } => {
                assert!(
                    !reasons.is_empty() && reasons.iter().all(|reason| reason.contains('@')),
                    "{reasons:?}"
                );
                Some((port, *rows))
            }
            _ => None,
        })
        .collect();
    let sum = |name: &str| {
        told.iter().filter(|(port, _)| port.to_string() == name).map(|(_, rows)| rows).sum::<u64>()
    };
    assert_eq!(sum("commerce/clickstream.raw_clicks"), expected.dead);
    assert_eq!(sum(CLICKS), expected.quarantined);
    // A second start finds nothing to do and commits nothing.
    let version = archive.commits(1).await.expect("commits")[0].0;
    let again = world.archive().await;
    assert_eq!(total(&again), StreamRows::default());
    assert_eq!(archive.commits(1).await.expect("commits")[0].0, version);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_is_kept_set_aside_or_counted_in_delta() {
    counted_and_kept(TableFormat::Delta).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_is_kept_set_aside_or_counted_in_iceberg() {
    counted_and_kept(TableFormat::Iceberg).await;
}

/// The features by their definition, from the messages alone.
fn brute_force(
    made: &[Made],
    customer: usize,
    as_of_ms: i64,
    window_ms: i64,
    step: i64,
) -> (i64, Option<f64>) {
    let from = (as_of_ms - window_ms).div_euclid(step) * step;
    let counts: Vec<&Made> = made
        .iter()
        .filter(|one| matches!(one.kind, Kind::Plain | Kind::Late))
        .filter(|one| one.customer == customer && (from..as_of_ms).contains(&one.at_ms))
        .collect();
    let views = i64::try_from(counts.len()).expect("few");
    (views, (views > 0).then(|| counts.iter().map(|one| one.amount.unwrap_or(0.0)).sum()))
}

/// The ledger of a mesh in which everything is deployed, with the data fingerprint of the features.
fn deployed(world: &World, data: &str) -> Arc<LedgerState> {
    let job = world.job(FEATURES, data);
    let id = job.start.key.pipeline.product.clone();
    let fact = Fact::Deployed {
        product: Box::new(world.mesh.products[&id].clone()),
        print: job.print,
        generation: 1,
        commit: "c".to_owned(),
        decision: "d".to_owned(),
    };
    Arc::new(LedgerState::replay(&[Entry { seq: 1, at_ms: NOW, fact }]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_follows_nothing_serves_the_same_values_from_the_log() {
    let world = World::new().await;
    let made = messages(900);
    let (first, second) = made.split_at(500);
    world.produce(first);
    world.archive().await;
    let reader = Context { online: Arc::new(Online::new()), ..world.context.clone() };
    let (show, ledger) = watch::channel(deployed(&world, "aaaaaaaa"));
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(keep_online(reader.clone(), ledger, shutdown.clone()));
    // Waits until the reader has what the follower of this process has.
    let caught_up = async |data: &str| {
        let version = world.context.online.freshness(&activity()).expect("followed").version;
        for _ in 0..500 {
            let fresh = reader.online.freshness(&activity());
            if fresh.is_some_and(|fresh| fresh.version == version && fresh.definition == data) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (ours, theirs) = (&reader.online, &world.context.online);
        assert_eq!(ours.freshness(&activity()), theirs.freshness(&activity()));
        let as_of = theirs.port(&activity()).expect("followed").as_of_ms().expect("events");
        let values = current_values(ours, &activity(), as_of);
        assert!(values.len() > 5, "{values:?}");
        assert_eq!(values, current_values(theirs, &activity(), as_of));
    };
    world.features("aaaaaaaa").await;
    caught_up("aaaaaaaa").await;
    // Later epochs are added, each once.
    world.produce(second);
    world.archive().await;
    world.features("aaaaaaaa").await;
    caught_up("aaaaaaaa").await;
    // A changed definition: the old values are served until the new log is there.
    show.send_replace(deployed(&world, "bbbbbbbb"));
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(reader.online.freshness(&activity()).expect("served").definition, "aaaaaaaa");
    world.features("bbbbbbbb").await;
    caught_up("bbbbbbbb").await;
    // A retired product is served no more.
    show.send_replace(Arc::new(LedgerState::default()));
    for _ in 0..500 {
        if reader.online.ports().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(reader.online.ports(), []);
    shutdown.cancel();
    task.await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_values_are_those_of_the_definition() {
    let world = World::new().await;
    let made = messages(900);
    world.produce(&made);
    world.archive().await;
    let facts = world.features("aaaaaaaa").await;
    let expected = expected(&made);
    // What the archive set aside is not part of the port, so the features count what it kept.
    assert_eq!(total(&facts), StreamRows { quarantined: 0, dead: 0, ..expected });
    let newest =
        made.iter().filter(|one| matches!(one.kind, Kind::Plain | Kind::Late)).map(|one| one.at_ms).max();
    let as_of = (newest.expect("some") / MINUTE + 1) * MINUTE;
    let values = world.table(ACTIVITY);
    let rows = world.query(&values, "SELECT customer_id, views_1d, spend_1d, views_7d, spend_7d, arrow_cast(as_of, 'Int64') AS at FROM t ORDER BY customer_id").await;
    let mut seen = 0;
    for batch in &rows {
        for row in 0..batch.num_rows() {
            let name = arrow::util::display::array_value_to_string(batch.column(0), row).expect("text");
            let customer: usize = name[1..].parse().expect("a number");
            let int = |column: usize| batch.column(column).as_primitive::<Int64Type>().value(row);
            let float = |column: usize| batch.column(column).as_primitive::<Float64Type>().value(row);
            for (column, window, step) in [(1, DAY, 60 * MINUTE), (3, 7 * DAY, 60 * MINUTE)] {
                let (views, spend) = brute_force(&made, customer, as_of, window, step);
                assert_eq!(int(column), views, "{name}");
                let spend = spend.unwrap_or(0.0);
                let found = if views == 0 { 0.0 } else { float(column + 1) };
                assert!((found - spend).abs() < 1e-6, "{name}: {found} {spend}");
            }
            assert_eq!(int(5), as_of * 1_000);
            seen += 1;
        }
    }
    assert_eq!(seen, 11);
    // What is served is what is published.
    let served = current_values(&world.context.online, &activity(), as_of);
    assert_eq!(served.len(), 11);
    let (views, _) = brute_force(&made, 0, as_of, 7 * DAY, 60 * MINUTE);
    let of_c0 = world.context.online.lookup(&activity(), "C0", as_of).expect("served");
    assert!(of_c0.contains(&("views_7d".to_owned(), Value::Int(views))), "{of_c0:?}");
    let last = facts.iter().rev().find_map(|fact| match fact {
        Fact::Epoch(epoch) => Some(epoch.clone()),
        _ => None,
    });
    let last = last.expect("an epoch");
    assert_eq!((last.port, last.newest_event_ms), (activity(), newest));
    assert_eq!(last.version, values.commits(1).await.expect("commits")[0].0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_and_stream_together_are_the_stream_alone_to_the_bit() {
    let made = messages(900);
    let (early, late) = made.split_at(500);
    let live = World::new().await;
    live.produce(&made);
    live.features("aaaaaaaa").await;
    let both = World::new().await;
    both.produce(early);
    both.archive().await;
    let running = both.start(both.job(FEATURES, "aaaaaaaa"));
    let log = both.table(&format!("{ACTIVITY}__tiles_aaaaaaaa"));
    both.drained(&log, FEATURES, &running).await;
    assert_eq!(
        log.last_checkpoint(FEATURES).await.expect("readable").expect("one")["epoch"],
        1,
        "all was history"
    );
    both.produce(late);
    both.drained(&log, FEATURES, &running).await;
    running.finish().await;
    assert!(both.served().encode() == live.served().encode(), "the tiles differ");
    // And from the tile log alone: nothing else of the first follower is left.
    std::fs::remove_dir_all(both.table(CLICKS).location()).expect("the archive is not needed");
    let restarted =
        World { context: Context { online: Arc::new(Online::new()), ..both.context.clone() }, ..both };
    restarted.features("aaaaaaaa").await;
    assert!(restarted.served().encode() == live.served().encode(), "the tiles differ");
    // A repeated event is still known after the restart.
    let again: Vec<Made> =
        made.iter().rev().filter(|one| one.kind == Kind::Plain).take(30).cloned().collect();
    restarted.produce(&again);
    restarted.features("aaaaaaaa").await;
    assert!(restarted.served().encode() == live.served().encode(), "the tiles differ");
}

/// Lets the stream pass repetitions and everything late, so that the features' own rules have to hold.
fn loosen(world: &mut World) {
    for product in world.mesh.products.values_mut() {
        for pipeline in product.pipelines.values_mut() {
            if let Pipeline::Stream(stream) = pipeline {
                stream.source.event_id = None;
                stream.source.late.allow = "30d".parse().expect("a span");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn features_judge_for_themselves_in_history_and_stream_alike() {
    let made = messages(900);
    let expected = expected(&made);
    let (early, late) = made.split_at(820);
    let mut live = World::new().await;
    loosen(&mut live);
    live.produce(&made);
    assert_eq!(total(&live.features("aaaaaaaa").await), StreamRows { dead: 0, ..expected });
    let mut both = World::new().await;
    loosen(&mut both);
    both.produce(early);
    let archived = total(&both.archive().await);
    assert_eq!(
        archived.accepted + archived.corrected,
        early.len() as u64 - of(early, Kind::Broken) - of(early, Kind::Visitor)
    );
    let history = total(&both.features("aaaaaaaa").await);
    both.produce(late);
    let stream = total(&both.features("aaaaaaaa").await);
    assert!(history.quarantined > 0 && stream.quarantined > 0, "{history:?} {stream:?}");
    assert_eq!(history.accepted + stream.accepted, expected.accepted);
    assert_eq!(history.quarantined + stream.quarantined, expected.quarantined);
    assert!(both.served().encode() == live.served().encode(), "the tiles differ");
    let quarantine = both.table(&format!("{ACTIVITY}__quarantine"));
    assert_eq!(
        both.count(&quarantine, "_reason LIKE '%later%'").await,
        i64::try_from(expected.quarantined).expect("few")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_definition_starts_a_log_of_its_own_from_the_archive() {
    let world = World::new().await;
    world.produce(&messages(400));
    world.archive().await;
    world.features("aaaaaaaa").await;
    let before = world.table(ACTIVITY).content_hash(None, &[]).await.expect("a hash");
    let facts = world.features("bbbbbbbb").await;
    assert!(total(&facts).accepted > 300);
    assert_eq!(world.table(ACTIVITY).content_hash(None, &[]).await.expect("a hash"), before);
    assert_eq!(world.context.online.freshness(&activity()).expect("served").definition, "bbbbbbbb");
    let old = world.table(&format!("{ACTIVITY}__tiles_aaaaaaaa"));
    assert!(old.last_checkpoint(FEATURES).await.expect("readable").is_some());
}

/// Starts a follower, freezes it at the n-th time it reaches a place, and drops it there.
async fn crash_at(world: &World, job: &Job, place: &'static str, nth: usize) {
    let stop = Arc::new(Stop { place, nth, count: AtomicUsize::new(0), reached: Notify::new() });
    let (send, mut receive) = mpsc::channel(64);
    tokio::spawn(async move { while receive.recv().await.is_some() {} });
    let (context, job, inner) = (world.context.clone(), job.clone(), Arc::clone(&stop));
    let task = tokio::spawn(STOP.scope(inner, async move {
        perform(&context, &job, &Reporter::new(send, CancellationToken::new())).await
    }));
    let reached = tokio::time::timeout(Duration::from_secs(20), stop.reached.notified()).await;
    assert!(reached.is_ok(), "{place} was not reached {nth} times");
    task.abort();
    let _ = task.await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_place_loses_and_doubles_nothing() {
    let made = messages(900);
    let calm = World::new().await;
    calm.produce(&made);
    calm.archive().await;
    calm.features("aaaaaaaa").await;
    let expected = contents(&calm).await;
    let world = World::new().await;
    let mut parts = made.chunks(75);
    let mut produce = || world.produce(parts.next().expect("enough messages"));
    // Further messages come after each crash, so that the epoch is cut elsewhere when it is read again.
    let archive = world.job(ARCHIVE, "stream-1");
    for (place, nth) in
        [("read", 1), ("staged", 1), ("committed", 1), ("aside", 1), ("staged", 2), ("committed", 2)]
    {
        produce();
        crash_at(&world, &archive, place, nth).await;
    }
    world.archive().await;
    let features = world.job(FEATURES, "aaaaaaaa");
    // In the backfill; then in the live stream.
    for place in ["staged", "committed", "values-staged", "values-committed"] {
        crash_at(&world, &features, place, 1).await;
    }
    for place in ["read", "aside", "staged", "committed", "values-committed"] {
        produce();
        crash_at(&world, &features, place, 1).await;
    }
    parts.for_each(|part| world.produce(part));
    world.archive().await;
    world.features("aaaaaaaa").await;
    assert_eq!(contents(&world).await, expected);
    assert!(world.served().encode() == calm.served().encode(), "the tiles differ");
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_dropped_at_random_moments_leave_the_tables_of_an_undisturbed_run() {
    let made = messages(700);
    let calm = World::new().await;
    calm.produce(&made);
    calm.archive().await;
    calm.features("aaaaaaaa").await;
    let expected = contents(&calm).await;
    let world = World::new().await;
    let mut random: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for part in made.chunks(60) {
        world.produce(part);
        for pipeline in [ARCHIVE, FEATURES] {
            let running =
                world.start(world.job(pipeline, if pipeline == ARCHIVE { "stream-1" } else { "aaaaaaaa" }));
            tokio::time::sleep(Duration::from_millis(20 + next(400))).await;
            running.task.abort();
            let _ = running.task.await;
        }
    }
    world.archive().await;
    world.features("aaaaaaaa").await;
    assert_eq!(contents(&world).await, expected);
    assert!(world.served().encode() == calm.served().encode(), "the tiles differ");
}

#[tokio::test(flavor = "multi_thread")]
async fn history_for_training_is_what_the_follower_counted() {
    let world = World::new().await;
    let made = messages(600);
    let (early, late) = made.split_at(400);
    world.produce(early);
    world.archive().await;
    world.features("aaaaaaaa").await;
    world.produce(late);
    world.archive().await;
    world.features("aaaaaaaa").await;
    let job = world.job(FEATURES, "aaaaaaaa");
    let (view, rows) = history_rows(&world.context, &job, &activity()).await.expect("rows");
    let version = world.table(CLICKS).commits(1).await.expect("commits")[0].0.0;
    let mut pinned = job.clone();
    pinned.versions.insert(CLICKS.parse().expect("a port"), 2);
    let before = feature_history(&world.context, &pinned, &activity()).await.expect("rows");
    assert!(version > 2 && !before.rows.is_empty() && before.rows.len() < rows.len());
    assert_eq!(before.versions.into_values().collect::<Vec<_>>(), [2]);
    assert!(rows.windows(2).all(|pair| (&pair[0].entity, pair[0].order) < (&pair[1].entity, pair[1].order)));
    let mut store = TileStore::new(view.clone());
    for delta in partial(&view, &rows).expect("of the view") {
        store.apply(&delta).expect("of the view");
    }
    let as_of = world.served().as_of_ms().expect("events");
    let question = SpineRow { entity: "C3".to_owned(), event_ms: as_of, known_ms: i64::MAX };
    let answer = point_in_time(&view, &rows, &[question]).expect("an answer").remove(0);
    let served: Vec<Value> = world.served().lookup("C3", as_of).into_iter().map(|(_, value)| value).collect();
    assert_eq!(answer, served);
    // Imported events were known ten minutes after they happened, as declared; live ones when the broker had them.
    let (history, live): (Vec<_>, Vec<_>) =
        rows.iter().partition(|row| row.available_ms == row.order.event_ms + 10 * MINUTE);
    assert!(history.len() > 300 && live.len() > 150, "{} {}", history.len(), live.len());
    assert!(live.iter().all(|row| row.available_ms >= row.order.event_ms + 2_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_created_again_stops_the_follower() {
    let world = World::new().await;
    world.produce(&messages(100));
    world.archive().await;
    let path = world.topic().path().to_owned();
    std::fs::remove_dir_all(&path).expect("removed");
    TopicFolder::create(&path, &TopicOptions { partitions: PARTITIONS, ..TopicOptions::default() })
        .expect("a topic");
    let running = world.start(world.job(ARCHIVE, "stream-1"));
    match running.task.await.expect("no panic") {
        // Whose fault it is cannot be told: who put it there may put the other one back.
        RunOutcome::Failed { code, message, kind: ErrorKind::External } => {
            assert_eq!(code, "HM-F001");
            assert!(message.contains("created again"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_away_is_not_made_anew_and_goes_on_when_it_is_back() {
    let world = World::new().await;
    world.produce(&messages(100));
    world.archive().await;
    let path = world.topic().path().to_owned();
    let away = path.with_extension("away");
    std::fs::rename(&path, &away).expect("moved");
    let running = world.start(world.job(ARCHIVE, "stream-1"));
    match running.task.await.expect("no panic") {
        RunOutcome::Failed { code, message, kind: ErrorKind::External } => {
            assert_eq!(code, "HM-F001");
            assert!(message.contains("does not exist"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert!(!path.exists(), "an empty topic is in its place");
    std::fs::rename(&away, &path).expect("moved back");
    world.produce(&messages(100));
    world.archive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_lost_its_lease_is_refused() {
    let world = World::new().await;
    world.produce(&messages(100));
    let newer = World { context: Context { epoch: 5, ..world.context.clone() }, ..world };
    newer.archive().await;
    newer.produce(&messages(100));
    let stale = World { context: Context { epoch: 4, ..newer.context.clone() }, ..newer };
    let running = stale.start(stale.job(ARCHIVE, "stream-1"));
    assert!(matches!(running.task.await.expect("no panic"), RunOutcome::Failed { .. }));
}
