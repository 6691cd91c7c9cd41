//! The thread that writes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use hydromesh_core::ids::ProductId;

use super::files::{KEPT, MOST_BYTES, MOST_IN_ALL, RunFiles};
use super::{Level, Line};
use crate::outage::Outage;

/// Lines that may wait for the disk.
const QUEUE: usize = 4_096;
/// Between two looks for what has grown old.
const SWEEP: Duration = Duration::from_hours(1);
/// The field that says how many lines of the run were left out before.
const LEFT_OUT: &str = "left_out_before";
/// How long a process that ends waits for the last lines.
const LAST: Duration = Duration::from_secs(2);

/// Where lines go: to nobody, until [`keep_in`] names a state folder.
#[derive(Debug, Default)]
pub(super) struct Sink {
    queue: RwLock<Option<SyncSender<Order>>>,
    /// Lines that were left out since the last one of their run that was not.
    missed: Mutex<BTreeMap<String, u64>>,
}

enum Order {
    Write(Box<Line>),
    /// Answer when everything before is written.
    Answer(Sender<()>),
}

/// The sink of this process.
pub(super) static SINK: LazyLock<Arc<Sink>> = LazyLock::new(Arc::default);

/// Keeps what runs say from now on in a state folder; whoever kept it elsewhere does so no more.
///
/// # Errors
/// When a thread cannot be started.
pub fn keep_in(state: &Path) -> std::io::Result<()> {
    SINK.keep_in(RunFiles::of(state))
}

/// Waits for what was said to be written, for a bounded time.
pub fn end() {
    SINK.settle(LAST);
}

impl Sink {
    pub(super) fn keep_in(&self, files: RunFiles) -> std::io::Result<()> {
        let (send, receive) = sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("hydromesh-logs".to_owned())
            .spawn(move || write(&files, &receive))?;
        *self.queue.write().unwrap_or_else(PoisonError::into_inner) = Some(send);
        Ok(())
    }

    /// Hands a line over, or leaves it out: whoever said it does not wait.
    pub(super) fn take(&self, mut line: Line) {
        let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = queue.as_ref() else { return };
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = missed.get(&line.run) {
            left_out(&mut line, *count);
        }
        let run = line.run.clone();
        match queue.try_send(Order::Write(Box::new(line))) {
            Ok(()) => _ = missed.remove(&run),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                *missed.entry(run).or_default() += 1;
            }
        }
    }

    pub(super) fn settle(&self, most: Duration) {
        let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(queue) = queue else { return };
        let (answer, written) = channel();
        let deadline = Instant::now() + most;
        // Where the disk hangs, so does the queue: it is asked for a place as long as there is time.
        let mut order = Order::Answer(answer);
        while let Err(TrySendError::Full(back)) = queue.try_send(order) {
            if Instant::now() >= deadline {
                return;
            }
            order = back;
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

fn write(files: &RunFiles, orders: &Receiver<Order>) {
    let mut outage = Outage::default();
    // What a failed write left may be half a line.
    let mut torn = false;
    // Lines of each run that the disk did not take since its last one.
    let mut lost: BTreeMap<String, u64> = BTreeMap::new();
    let mut sweep = Instant::now();
    let mut trouble = |done: std::io::Result<()>| match done {
        Ok(()) => outage.ends(),
        Err(error) => {
            if outage.begins(&error.kind().to_string()) {
                tracing::warn!("what runs say cannot be kept until the disk takes it: {error}");
            }
        }
    };
    loop {
        match orders.recv_timeout(SWEEP) {
            Ok(Order::Write(mut line)) => {
                let Ok(product) = line.product.parse::<ProductId>() else { continue };
                if !is_name(&line.run) {
                    continue;
                }
                if let Some(before) = lost.get(&line.run) {
                    left_out(&mut line, *before);
                }
                let Ok(text) = serde_json::to_string(&line) else { continue };
                let text = if torn { format!("\n{text}\n") } else { format!("{text}\n") };
                let written = files.append(&product, &line.run, &text, MOST_BYTES);
                torn = written.is_err();
                if torn {
                    *lost.entry(line.run).or_default() += 1;
                } else {
                    lost.remove(&line.run);
                }
                trouble(written);
            }
            Ok(Order::Answer(answer)) => _ = answer.send(()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if Instant::now() >= sweep {
            sweep = Instant::now() + SWEEP;
            trouble(files.sweep(SystemTime::now(), KEPT, MOST_IN_ALL).map(drop));
        }
    }
}

/// Notes on a line how many before it were left out.
fn left_out(line: &mut Line, count: u64) {
    let before = line.fields.get(LEFT_OUT).and_then(serde_json::Value::as_u64).unwrap_or_default();
    line.fields.insert(LEFT_OUT.to_owned(), before.saturating_add(count).into());
}

/// Returns whether a run's id can name a file: steps come off a board that other processes write.
fn is_name(run: &str) -> bool {
    !run.is_empty() && run.len() < 200 && run.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// Returns the level of a line, of what is worth keeping.
pub(super) fn level(of: tracing::Level) -> Option<Level> {
    match of {
        tracing::Level::ERROR => Some(Level::Error),
        tracing::Level::WARN => Some(Level::Warn),
        tracing::Level::INFO => Some(Level::Info),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(run: &str, n: usize) -> Line {
        Line {
            at: super::super::line::stamp(i64::try_from(n).expect("small")),
            level: Level::Info,
            run: run.to_owned(),
            product: "shop/orders".to_owned(),
            pipeline: "make".to_owned(),
            attempt: 1,
            event: None,
            message: n.to_string(),
            fields: serde_json::Map::new(),
            trace: None,
        }
    }

    #[test]
    fn what_is_said_is_written_and_a_foreign_name_writes_nothing_elsewhere() {
        let home = tempfile::tempdir().expect("a folder");
        let (files, sink) = (RunFiles::of(home.path()), Sink::default());
        sink.take(line("run-0", 0));
        sink.keep_in(files.clone()).expect("a thread");
        for n in 1..=50 {
            sink.take(line("run-1", n));
        }
        sink.take(line("../../run-2", 51));
        sink.settle(Duration::from_mins(1));
        let product = "shop/orders".parse().expect("an id");
        assert_eq!(files.runs(&product), ["run-1"], "nobody kept what was said before");
        assert_eq!(files.read(&product, "run-1").len(), 50);
        assert!(!home.path().join("logs/run-2.jsonl").exists());
    }

    #[test]
    fn a_disk_that_takes_nothing_holds_nobody_up_and_is_told_of() {
        let home = tempfile::tempdir().expect("a folder");
        let (files, sink) = (RunFiles::of(home.path()), Sink::default());
        // A folder where the file should be: every write fails until it is gone.
        let product: ProductId = "shop/orders".parse().expect("an id");
        let blocked = files.path(&product, "run-1");
        std::fs::create_dir_all(&blocked).expect("a folder");
        sink.keep_in(files.clone()).expect("a thread");
        sink.take(line("run-1", 1));
        sink.settle(Duration::from_mins(1));
        std::fs::remove_dir(&blocked).expect("removed");
        sink.take(line("run-1", 2));
        sink.settle(Duration::from_mins(1));
        let kept = files.read(&product, "run-1");
        assert_eq!(kept.iter().map(|it| it.message.as_str()).collect::<Vec<_>>(), ["2"]);
        assert_eq!(kept[0].fields["left_out_before"], 1);
    }

    #[test]
    fn lines_without_room_are_counted() {
        let sink = Sink::default();
        let (send, receive) = sync_channel(1);
        *sink.queue.write().expect("a lock") = Some(send);
        let started = Instant::now();
        for n in 0..100 {
            sink.take(line("run-1", n));
        }
        assert!(started.elapsed() < Duration::from_secs(20));
        let next = || match receive.try_recv() {
            Ok(Order::Write(line)) => Some(line),
            _ => None,
        };
        assert_eq!(next().expect("the first").message, "0");
        assert!(next().is_none());
        sink.take(line("run-1", 100));
        let line = next().expect("there is room again");
        assert_eq!((line.message.as_str(), &line.fields["left_out_before"]), ("100", &99.into()));
    }
}
