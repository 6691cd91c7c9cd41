//! `hydromesh logs [PRODUCT|RUN]`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use hydromesh_core::diag::did_you_mean;
use hydromesh_core::ids::ProductId;
use hydromesh_core::ledger::Fact;
use hydromesh_core::time::Span;

use super::book::{Book, find_product, first_fact, open_ledger};
use super::output::{Paint, Tone};
use super::{DONE, Failure, Format, clock, runtime, say};
use crate::runlog::{Level, Line, RunFiles, Tail};
use crate::store::OpenMode;
use crate::text::run_id;

/// Between two looks for new lines.
const LOOK: Duration = Duration::from_millis(200);
/// Between two looks whether the ledger says that a run has ended.
const LOOK_LEDGER: Duration = Duration::from_secs(1);
/// Runs of a product that are watched for new lines; older ones only while the ledger says that they are under way.
const WATCHED: usize = 50;

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// A product, or a run as `hydromesh runs` names it (`run-00000012`, or `run-12`); all products without.
    #[arg(value_name = "PRODUCT|RUN")]
    what: Option<String>,
    /// Go on with new lines as they come, of new runs too, until interrupted; of one run until it has ended.
    #[arg(short, long)]
    follow: bool,
    /// Only lines that are not older, such as `30m`, `1h` or `2d`.
    #[arg(long, value_name = "DURATION")]
    since: Option<String>,
    /// At most so many runs, the newest; with --since all that said something.
    #[arg(long, default_value_t = 5, value_name = "N")]
    runs: usize,
    /// The state folder of a controller (`hydromesh up --state`).
    #[arg(long, env = "HYDROMESH_STATE", default_value = ".hydromesh", value_name = "FOLDER")]
    state: PathBuf,
    /// How to print: for people, or one JSON object a line.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// Whose lines are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    All,
    Product(ProductId),
    Run(ProductId, String),
}

/// Runs the verb.
pub fn run(args: &LogsArgs) -> Result<u8, Failure> {
    let files = RunFiles::of(&args.state);
    let book = match Book::read(&args.state) {
        Ok(book) => book,
        // The ledger may be on a server that is away; what was said is here.
        Err(failure) if files.products().is_empty() => return Err(failure),
        Err(failure) => {
            say(&format!("without the ledger: {}", failure.message));
            Book::default()
        }
    };
    let wanted = match &args.what {
        None => Wanted::All,
        Some(text) => find(text, &book, &files)?,
    };
    let since = args.since.as_deref().map(since).transpose()?;
    let mut printer = Printer { format: args.format, paint: Paint::stdout(), wanted: wanted.clone(), since };
    let all = since.is_some();
    let mut tails = Tails::new(&wanted, &book, &files, if all { usize::MAX } else { args.runs.max(WATCHED) });
    let shown = tails.first(&files, args.runs, all);
    tails.leave_old(&files);
    let lines = shown.len();
    let ended = shown.iter().any(Line::is_last);
    if !printer.print(shown) {
        return Ok(DONE);
    }
    if !args.follow {
        if lines == 0 {
            say("nothing was said; lines are kept for two weeks after a run's last one");
        }
        return Ok(DONE);
    }
    if let Wanted::Run(_, run) = &wanted {
        if ended || book.ledger.runs.iter().any(|it| it.run == *run) {
            return Ok(DONE);
        }
        return follow_run(args, &files, &mut tails, &mut printer, run);
    }
    while printer.print(tails.more(&files)) {
        std::thread::sleep(LOOK);
    }
    Ok(DONE)
}

/// Follows one run until its last line, or until the ledger says that it has ended: a line may have found no room.
fn follow_run(
    args: &LogsArgs,
    files: &RunFiles,
    tails: &mut Tails,
    printer: &mut Printer,
    run: &str,
) -> Result<u8, Failure> {
    let runtime = runtime()?;
    let store = runtime.block_on(open_ledger(&args.state, OpenMode::ReadOnly))?;
    let (mut next, mut looked) = (1, Instant::now());
    let mut over = false;
    loop {
        let lines = tails.more(files);
        let last = lines.iter().any(Line::is_last);
        if !printer.print(lines) || last || over {
            runtime.block_on(store.close());
            return Ok(DONE);
        }
        if looked.elapsed() >= LOOK_LEDGER {
            // The line is written after the fact: once more before the end.
            let ends = |fact| matches!(fact, Fact::RunFinished { run: it, .. } if it == run).then_some(());
            over = runtime.block_on(first_fact(&store, &mut next, "run_finished", ends))?.is_some();
            looked = Instant::now();
        }
        std::thread::sleep(if over { LOOK_LEDGER } else { LOOK });
    }
}

/// Returns the instant before which nothing is wanted, milliseconds UTC.
fn since(text: &str) -> Result<i64, Failure> {
    let span: Span = text.parse().map_err(|error| Failure::usage(format!("--since: {error}")))?;
    Ok(clock(None)?.now_ms().saturating_sub(span.millis()))
}

/// Returns what a person means: a run by its number, or a product.
fn find(text: &str, book: &Book, files: &RunFiles) -> Result<Wanted, Failure> {
    let run = run_id(text);
    if text.strip_prefix("run-").unwrap_or(text).parse::<u64>().is_ok() {
        let known = book.ledger.running.iter();
        let mut known = known.chain(book.ledger.runs.iter().map(|it| (&it.run, &it.step)));
        let found = known.find(|(it, _)| **it == run).map(|(_, step)| step.pipeline.product.clone());
        let kept = || files.products().into_iter().find(|product| files.runs(product).contains(&run));
        return match found.or_else(kept) {
            Some(product) => Ok(Wanted::Run(product, run)),
            None => Err(no_run(text, &run, book)),
        };
    }
    let mut known = book.products();
    known.extend(files.products());
    known.sort();
    known.dedup();
    match find_product(&known, text) {
        Err(_) if text.starts_with("run-") => Err(no_run(text, text, book)),
        found => found.map(Wanted::Product),
    }
}

fn no_run(text: &str, run: &str, book: &Book) -> Failure {
    let known = book.ledger.running.keys().chain(book.ledger.runs.iter().rev().map(|it| &it.run));
    let near = did_you_mean(run, known.map(String::as_str));
    let hint = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`hydromesh runs` lists them".to_owned(),
    };
    Failure::usage(format!("there is no run `{text}`; {hint}"))
}

/// The runs that are watched.
struct Tails {
    wanted: Wanted,
    running: Vec<String>,
    tails: BTreeMap<(ProductId, String), Tail>,
}

impl Tails {
    fn new(wanted: &Wanted, book: &Book, files: &RunFiles, most: usize) -> Self {
        let running = book.ledger.running.keys().cloned().collect();
        let mut tails = Self { wanted: wanted.clone(), running, tails: BTreeMap::new() };
        tails.look(files, most);
        tails
    }

    /// Finds runs that were not there before, among the newest of each product.
    fn look(&mut self, files: &RunFiles, most: usize) {
        let products = match &self.wanted {
            Wanted::All => files.products(),
            Wanted::Product(product) => vec![product.clone()],
            Wanted::Run(product, run) => {
                let key = (product.clone(), run.clone());
                self.tails.entry(key).or_insert_with(|| Tail::new(product.clone(), run.clone()));
                return;
            }
        };
        for product in products {
            let runs = files.runs(&product);
            let newest = runs.len().saturating_sub(most);
            for (index, run) in runs.into_iter().enumerate() {
                if index >= newest || self.running.contains(&run) {
                    let key = (product.clone(), run.clone());
                    self.tails.entry(key).or_insert_with(|| Tail::new(product.clone(), run));
                }
            }
        }
    }

    /// Returns what was said so far: of the newest runs, or of all.
    fn first(&mut self, files: &RunFiles, most: usize, all: bool) -> Vec<Line> {
        let mut runs: Vec<(ProductId, String)> = self.tails.keys().cloned().collect();
        runs.sort_by(|a, b| (a.1.len(), &a.1).cmp(&(b.1.len(), &b.1)));
        let older = if all { 0 } else { runs.len().saturating_sub(most) };
        let mut lines = Vec::new();
        for (index, key) in runs.iter().enumerate() {
            let said = self.tails.get_mut(key).map(|tail| tail.more(files)).unwrap_or_default();
            if index >= older || matches!(self.wanted, Wanted::Run(..)) {
                lines.extend(said);
            }
        }
        sorted(lines)
    }

    /// Watches no longer what has been shown of old runs.
    fn leave_old(&mut self, files: &RunFiles) {
        let (wanted, running) = (self.wanted.clone(), self.running.clone());
        let mut newest = Self { wanted, running, tails: BTreeMap::new() };
        newest.look(files, WATCHED);
        self.tails.retain(|run, _| newest.tails.contains_key(run));
    }

    /// Returns what is new.
    fn more(&mut self, files: &RunFiles) -> Vec<Line> {
        self.look(files, WATCHED);
        sorted(self.tails.values_mut().flat_map(|tail| tail.more(files)).collect())
    }
}

/// Control and workers write at the same time.
fn sorted(mut lines: Vec<Line>) -> Vec<Line> {
    lines.sort_by(|a, b| a.at.cmp(&b.at));
    lines
}

struct Printer {
    format: Format,
    paint: Paint,
    wanted: Wanted,
    since: Option<i64>,
}

impl Printer {
    /// Prints lines; returns whether somebody still reads.
    fn print(&mut self, lines: Vec<Line>) -> bool {
        let mut out = std::io::stdout().lock();
        for line in lines {
            if self.since.is_some_and(|since| line.at_ms().is_some_and(|at| at < since)) {
                continue;
            }
            let text = match self.format {
                Format::Json => serde_json::to_string(&line).unwrap_or_default(),
                Format::Human => self.human(&line),
            };
            if writeln!(out, "{text}").is_err() {
                return false;
            }
        }
        out.flush().is_ok()
    }

    fn human(&self, line: &Line) -> String {
        let at = line.at.get(..23).unwrap_or(&line.at).replace('T', " ");
        let (tone, level) = match line.level {
            Level::Info => (Tone::Good, "info "),
            Level::Warn => (Tone::Odd, "warn "),
            Level::Error => (Tone::Bad, "error"),
        };
        let whose = match &self.wanted {
            Wanted::All => format!("{} {} ", line.run, line.product),
            Wanted::Product(_) => format!("{} ", line.run),
            Wanted::Run(..) => String::new(),
        };
        let trace = match (&line.trace, line.event.as_deref()) {
            (Some(trace), Some("started")) => self.paint.text(Tone::Faint, &format!("  trace {trace}")),
            _ => String::new(),
        };
        let (at, level) = (self.paint.text(Tone::Faint, &at), self.paint.text(tone, level));
        // What was said may hold what others wrote.
        let message = crate::text::line(&line.message, 4_000);
        format!("{at} {level} {}{message}{trace}", self.paint.text(Tone::Strong, &whose))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_by_their_number_and_slips_are_told() {
        let home = tempfile::tempdir().expect("a folder");
        let files = RunFiles::of(home.path());
        let folder = home.path().join("logs/shop/orders");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("run-00000012.jsonl"), "").expect("written");
        let product: ProductId = "shop/orders".parse().expect("an id");
        let book = Book::default();
        let run = Wanted::Run(product.clone(), "run-00000012".to_owned());
        for text in ["run-00000012", "run-12", "12"] {
            assert_eq!(find(text, &book, &files).expect(text), run);
        }
        assert_eq!(find("orders", &book, &files).expect("a product"), Wanted::Product(product));
        let says = |text: &str| find(text, &book, &files).expect_err("unknown").message;
        assert!(says("ordrs").contains("did you mean `shop/orders`?"), "{}", says("ordrs"));
        assert!(says("run-13").contains("there is no run `run-13`"), "{}", says("run-13"));
        assert!(says("run-x").contains("`hydromesh runs` lists them"), "{}", says("run-x"));
    }

    #[test]
    fn as_many_runs_are_shown_as_were_asked_for_and_the_newest_are_watched() {
        let home = tempfile::tempdir().expect("a folder");
        let files = RunFiles::of(home.path());
        let folder = home.path().join("logs/shop/orders");
        std::fs::create_dir_all(&folder).expect("a folder");
        for number in 1..=60 {
            let line = format!(
                r#"{{"at":"2026-11-30T10:00:{:02}Z","level":"info","run":"run-{number:08}","product":"shop/orders","event":"started","message":"m"}}"#,
                number - 1
            );
            std::fs::write(folder.join(format!("run-{number:08}.jsonl")), line + "\n").expect("written");
        }
        let wanted = Wanted::Product("shop/orders".parse().expect("an id"));
        let book = Book::default();
        for (runs, all, shown) in [(5, false, 5), (57, false, 57), (1_000, false, 60), (5, true, 60)] {
            let most = if all { usize::MAX } else { runs.max(WATCHED) };
            let mut tails = Tails::new(&wanted, &book, &files, most);
            assert_eq!(tails.first(&files, runs, all).len(), shown, "{runs} {all}");
            tails.leave_old(&files);
            assert_eq!((tails.tails.len(), tails.more(&files).len()), (WATCHED, 0));
        }
    }

    #[test]
    fn lines_for_people_name_what_was_not_asked_for() {
        let line: Line = serde_json::from_str(
            r#"{"at":"2026-11-30T10:00:00.123Z","level":"warn","run":"run-00000012","product":"shop/orders","event":"started","message":"odd\u001b[2J","trace":"ab"}"#,
        )
        .expect("a line");
        let product: ProductId = "shop/orders".parse().expect("an id");
        let says = |wanted: Wanted| {
            let paint = Paint::stdout();
            Printer { format: Format::Human, paint, wanted, since: None }.human(&line)
        };
        if !std::io::IsTerminal::is_terminal(&std::io::stdout()) {
            assert_eq!(
                says(Wanted::All),
                "2026-11-30 10:00:00.123 warn  run-00000012 shop/orders odd [2J  trace ab"
            );
            assert_eq!(
                says(Wanted::Product(product.clone())),
                "2026-11-30 10:00:00.123 warn  run-00000012 odd [2J  trace ab"
            );
        }
        let one = says(Wanted::Run(product, "run-00000012".to_owned()));
        assert!(!one.contains("run-00000012") && !one.contains("\u{1b}[2J"), "{one}");
    }
}
