//! Verbs that ask the controller for something: `run`, `retry`, `backfill`, `cancel`, `pause`, `resume`. They put a command
//! in the ledger's mailbox; the active controller performs it and answers. Where none runs, the first three stand in for it
//! until nothing is left to do.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use clap::Args;
use hydromesh_core::diag::did_you_mean;
use hydromesh_core::ids::ProductId;
use hydromesh_core::ledger::{Command, Fact, Verb};
use hydromesh_core::model::{Partitioning, Pipeline, Product, Values};
use hydromesh_core::plan::Wanted;
use hydromesh_core::time::{Partition, Span};
use serde_json::json;

use super::book::{Book, first_fact, open_ledger};
use super::{DONE, FINDINGS, Failure, Format, OUTSIDE, clock, cost, once, print, print_json, runtime, say};
use crate::control::Kept;
use crate::store::{OpenMode, Store, StoreError, Submission};
use crate::text::run_id;

/// The longest pause and silence: what is meant for longer is a change of the mesh, and a slip is told.
const LONGEST_DAYS: i64 = 366;
/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;
/// How long people wait for the answer of a controller that runs, unless they say: it looks twice a second, and asks its rules.
const SOON: Duration = Duration::from_secs(3);
/// How often an answer is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What every asking verb takes.
#[derive(Debug, Args)]
pub struct AskArgs {
    /// The state folder of the controller (`hydromesh up --state`).
    #[arg(long, env = "HYDROMESH_STATE", default_value = ".hydromesh", value_name = "FOLDER")]
    state: std::path::PathBuf,
    /// Who asks; it stays in the ledger.
    #[arg(long, env = "USER", default_value = "unknown")]
    actor: String,
    /// Why; it stays in the ledger.
    #[arg(long, default_value = "")]
    reason: String,
    /// Idempotency key: asking again under the same key does nothing more.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Wait until the controller has answered; without, people wait three seconds.
    #[arg(long)]
    wait: bool,
    /// How long to wait at most, such as `30s`.
    #[arg(long, default_value = "60s", value_name = "DURATION")]
    timeout: String,
    /// How to print.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

impl AskArgs {
    /// Returns the deployed product that a person means.
    ///
    /// # Errors
    /// When there is none.
    pub fn product(&self, text: &str) -> Result<ProductId, Failure> {
        Book::read(&self.state)?.product(text)
    }

    /// Returns the instant that a value of `--for` means, by the controller's clock where it is ahead.
    ///
    /// # Errors
    /// When the value is no duration, or none at all.
    pub fn after(&self, span: &str) -> Result<i64, Failure> {
        let span: Span = span.parse().map_err(|error| Failure::usage(format!("--for: {error}")))?;
        if span.is_zero() {
            return Err(Failure::usage("--for must be longer than nothing"));
        }
        if span.millis() > LONGEST_DAYS * DAY_MS {
            return Err(Failure::usage(format!("--for {span} is longer than {LONGEST_DAYS}d, the longest")));
        }
        let now_ms = Book::read(&self.state)?.now_ms.max(clock(None)?.now_ms());
        Ok(now_ms.saturating_add(span.millis()))
    }
}

/// Whether a verb may stand in for the controller.
#[derive(Debug, Args)]
pub struct StandIn {
    /// While no controller runs, leave it to the next one instead of computing here.
    #[arg(long)]
    later: bool,
    /// While no controller runs, let time stand still at this instant (RFC 3339).
    #[arg(long, value_name = "INSTANT", conflicts_with = "later")]
    clock: Option<String>,
}

/// Arguments of `run` and `retry`.
#[derive(Debug, Args)]
pub struct ActArgs {
    /// The product: `domain/product`, or its name alone where one domain has it.
    product: String,
    #[command(flatten)]
    stand_in: StandIn,
    #[command(flatten)]
    ask: AskArgs,
}

/// Arguments of `resume`.
#[derive(Debug, Args)]
pub struct ProductArgs {
    /// The product: `domain/product`, or its name alone where one domain has it.
    product: String,
    #[command(flatten)]
    ask: AskArgs,
}

/// Arguments of `cancel`.
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// The run, as `hydromesh runs` names it (`run-00000012`, or `run-12`).
    run: String,
    #[command(flatten)]
    ask: AskArgs,
}

/// Arguments of `pause`.
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// The product: `domain/product`, or its name alone where one domain has it.
    product: String,
    /// For how long, such as `30m`, `2h` or `1d`; until somebody resumes it, without this.
    #[arg(long = "for", value_name = "DURATION")]
    span: Option<String>,
    /// Only its backfills: what is newest, and readers wait for, goes on.
    #[arg(long)]
    backfills: bool,
    #[command(flatten)]
    ask: AskArgs,
}

/// Arguments of `backfill`.
#[derive(Debug, Args)]
pub struct BackfillArgs {
    /// The product: `domain/product`, or its name alone where one domain has it.
    product: String,
    /// First partition, spelled like the grain: 2026-08-01 (day), 2026-08 (month), 2026-08-01T00 (hour).
    #[arg(long, value_name = "PARTITION", requires = "to", required_unless_present = "partitions")]
    from: Option<String>,
    /// Last partition; it is computed too.
    #[arg(long, value_name = "PARTITION", requires = "from")]
    to: Option<String>,
    /// Partitions of a product that is cut by a list of values: de,at.
    #[arg(long, value_name = "VALUE", value_delimiter = ',', conflicts_with_all = ["from", "to"])]
    partitions: Vec<String>,
    /// Only say what it would take: partitions, chunks, rows, bytes, time, and money where mesh.yaml names a price.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    stand_in: StandIn,
    #[command(flatten)]
    ask: AskArgs,
}

/// Runs `run`.
pub fn run(args: &ActArgs) -> Result<u8, Failure> {
    let product = args.ask.product(&args.product)?;
    act(&args.ask, &args.stand_in, Verb::Run { product })
}

/// Runs `retry`.
pub fn retry(args: &ActArgs) -> Result<u8, Failure> {
    let book = Book::read(&args.ask.state)?;
    let product = book.product(&args.product)?;
    // A retry that was killed has forgotten the failures already, and goes on under its key.
    let asked = args.ask.key.as_ref().is_some_and(|key| book.asked.contains_key(key));
    if asked || book.ledger.failed.keys().any(|step| step.pipeline.product == product) {
        return act(&args.ask, &args.stand_in, Verb::Retry { product });
    }
    let answer = format!("no step of {product} has failed since it was last well: there is nothing to retry");
    if args.ask.format == Format::Json {
        let answer = json!({"accepted": true, "answer": answer});
        print_json(
            &json!({"id": null, "repeated": false, "controller_running": book.is_led, "answer": answer}),
        );
    } else {
        say(&answer);
    }
    Ok(DONE)
}

/// Runs `cancel`.
pub fn cancel(args: &CancelArgs) -> Result<u8, Failure> {
    let book = Book::read(&args.ask.state)?;
    let run = run_id(&args.run);
    let Some(step) = book.ledger.running.get(&run) else {
        let message = format!("{run} is not under way; `hydromesh runs` lists what is");
        return Err(Failure::usage(message));
    };
    ask(&args.ask, Verb::Cancel { product: step.pipeline.product.clone(), run })
}

/// Runs `pause`.
pub fn pause(args: &PauseArgs) -> Result<u8, Failure> {
    let product = args.ask.product(&args.product)?;
    let until_ms = args.span.as_deref().map(|span| args.ask.after(span)).transpose()?;
    ask(&args.ask, Verb::Pause { product, until_ms, backfills: args.backfills })
}

/// Runs `resume`.
pub fn resume(args: &ProductArgs) -> Result<u8, Failure> {
    let product = args.ask.product(&args.product)?;
    ask(&args.ask, Verb::Resume { product })
}

/// Runs `backfill`.
pub fn backfill(args: &BackfillArgs) -> Result<u8, Failure> {
    let book = Book::read(&args.ask.state)?;
    let product = book.product(&args.product)?;
    let deployed = book.ledger.deployed.get(&product).map(|it| &it.product);
    let deployed = deployed.ok_or_else(|| Failure::usage(format!("{product} is not deployed")))?;
    let cuts: Vec<_> = deployed.outputs.keys().filter_map(|name| deployed.cut_of(name)).collect();
    if cuts.is_empty() {
        return Err(Failure::usage(format!("{product} has no partitions; {}", again(deployed))));
    }
    let (Some(from), Some(to)) = (&args.from, &args.to) else {
        let values = listed(&product, &cuts, &args.partitions)?;
        if args.dry_run {
            return cost::dry_run(&book, &product, Wanted::Values(&values), args.ask.format);
        }
        return act(&args.ask, &args.stand_in, Verb::BackfillValues { product, values });
    };
    let Some(grain) = cuts.iter().find_map(|cut| cut.calendar()).map(|calendar| calendar.every) else {
        let values: Vec<String> = cuts.iter().filter_map(|it| it.values()).map(ToString::to_string).collect();
        let values = match values.join("; ") {
            none if none.is_empty() => "none was found yet".to_owned(),
            some => format!("they are {some}"),
        };
        let message = format!(
            "the partitions of {product} are values and have no order: name them with --partitions; {values}"
        );
        return Err(Failure::usage(message));
    };
    let parse = |name: &str, text: &str| {
        Partition::parse(grain, text).map_err(|error| Failure::usage(format!("--{name}: {error}")))
    };
    let (from, to) = (parse("from", from)?, parse("to", to)?);
    if from > to {
        return Err(Failure::usage(format!("--from {from} comes after --to {to}")));
    }
    let (from, to) = (from.to_string(), to.to_string());
    if args.dry_run {
        return cost::dry_run(&book, &product, Wanted::Range { from: &from, to: &to }, args.ask.format);
    }
    act(&args.ask, &args.stand_in, Verb::Backfill { product, from, to })
}

/// Says how a product comes to be computed again that has no partitions to ask for.
pub fn again(product: &Product) -> String {
    if product.pipelines.values().all(Pipeline::follows) {
        return "it follows what it reads, event by event; once its table is moved away or gone, it begins again by itself with \
                what is still there to read"
            .to_owned();
    }
    format!("`hydromesh run {}` computes it whole", product.id)
}

/// Returns the values that somebody named, in order and each once, if all of them are partitions of the product.
fn listed(product: &ProductId, cuts: &[&Partitioning], named: &[String]) -> Result<Vec<String>, Failure> {
    let lists: Vec<&Values> = cuts.iter().filter_map(|cut| cut.values()).collect();
    if lists.is_empty() {
        let message =
            format!("the partitions of {product} are those of a calendar: name them with --from and --to");
        return Err(Failure::usage(message));
    }
    let all = || lists.iter().flat_map(|values| values.iter().map(String::as_str));
    if let Some(unknown) = named.iter().find(|value| !all().any(|it| it == **value)) {
        let hint =
            did_you_mean(unknown, all()).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        return Err(Failure::usage(format!("--partitions: {product} has no partition `{unknown}`{hint}")));
    }
    let named: BTreeSet<&String> = named.iter().collect();
    Ok(named.into_iter().cloned().collect())
}

/// A command that lies in the mailbox.
struct Put {
    id: String,
    /// The same was asked before.
    repeated: bool,
    answer: Option<(bool, String)>,
    /// A controller runs.
    running: bool,
}

/// Puts a command in the mailbox, and waits for its answer if that was asked for.
///
/// # Errors
/// When the ledger cannot be written, the key was used for something else, or no answer comes in time.
pub fn ask(args: &AskArgs, verb: Verb) -> Result<u8, Failure> {
    let put = put(args, &command(args, verb), |running| patience(args, running))?;
    report(args, &put)
}

/// Returns how long an answer is waited for: as long as was asked for, or shortly by people where a controller runs.
fn patience(args: &AskArgs, running: bool) -> Result<Option<Duration>, Failure> {
    if args.wait {
        return timeout(args).map(Some);
    }
    Ok((running && args.format == Format::Human).then_some(SOON))
}

/// Puts a command in the mailbox; while no controller runs, stands in for it until nothing is left to do.
fn act(args: &AskArgs, stand_in: &StandIn, verb: Verb) -> Result<u8, Failure> {
    let kept = Kept::of(&args.state).map_err(|error| Failure::outside(&error))?;
    let kept = kept.filter(|_| !stand_in.later);
    let command = command(args, verb);
    // Whoever stands in answers it.
    let standing_in = kept.is_some();
    let soon = |running: bool| if standing_in && !running { Ok(None) } else { patience(args, running) };
    let first = put(args, &command, soon)?;
    let Some(kept) = kept.filter(|_| !first.running) else {
        if stand_in.clock.is_some() && first.running {
            say("a controller runs, and its clock counts; --clock is for when none does");
        }
        return report(args, &first);
    };
    say("no controller runs on this state folder; computing here until nothing is left to do");
    let clock = clock(stand_in.clock.as_deref())?;
    match once::stand_in(&args.state, kept, clock, &command, args.format)? {
        Some(code) => Ok(code),
        // A controller began meanwhile, and has the command.
        None => report(args, &put(args, &command, |running| patience(args, running))?),
    }
}

fn command(args: &AskArgs, verb: Verb) -> Command {
    let id = args.key.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    Command { id, actor: args.actor.clone(), reason: args.reason.clone(), verb }
}

/// Puts a command in the mailbox; `waits` says how long for an answer, told whether a controller runs.
fn put(
    args: &AskArgs,
    command: &Command,
    waits: impl Fn(bool) -> Result<Option<Duration>, Failure>,
) -> Result<Put, Failure> {
    timeout(args)?;
    let id = command.id.clone();
    let body = serde_json::to_string(command).map_err(|error| Failure::outside(&error))?;
    let now_ms = clock(None)?.now_ms();
    runtime()?.block_on(async {
        let store = open_ledger(&args.state, OpenMode::ReadWrite).await?;
        let submitted = store.submit_command(&id, &body, now_ms).await.map_err(|error| match error {
            StoreError::KeyReused { .. } | StoreError::BadCommand => {
                Failure::usage(crate::text::chain(&error))
            }
            other => Failure::outside(&other),
        })?;
        let repeated = submitted.submission == Submission::Repeated;
        let is_led = async || store.is_led().await.map_err(|error| Failure::outside(&error));
        let answer = match waits(is_led().await?)? {
            Some(wait) => answer(&store, &id, wait).await?,
            None => None,
        };
        let running = is_led().await?;
        store.close().await;
        Ok(Put { id, repeated, answer, running })
    })
}

fn timeout(args: &AskArgs) -> Result<Duration, Failure> {
    let span: Span = args.timeout.parse().map_err(|error| Failure::usage(format!("--timeout: {error}")))?;
    Ok(Duration::from_millis(u64::try_from(span.millis()).unwrap_or(u64::MAX)))
}

/// Tells what became of a command, as far as that is known.
fn report(args: &AskArgs, put: &Put) -> Result<u8, Failure> {
    let Put { id, repeated, answer, running } = put;
    if args.format == Format::Json {
        let answer = answer.as_ref().map(|(accepted, text)| json!({"accepted": accepted, "answer": text}));
        print_json(&json!({"id": id, "repeated": repeated, "controller_running": running, "answer": answer}));
    } else {
        print(id);
    }
    match answer {
        Some((accepted, text)) => {
            say(&format!("{}: {text}", if *accepted { "accepted" } else { "refused" }));
            Ok(if *accepted { DONE } else { FINDINGS })
        }
        None if args.wait => {
            let hint = if *running { "" } else { "; no controller runs on this state folder" };
            Err(Failure {
                code: OUTSIDE,
                message: format!("no answer within {}{hint}; the command stays in the mailbox", args.timeout),
            })
        }
        None => {
            if *repeated {
                say("the same was asked before under this key; nothing more happens");
            } else if !running {
                say("no controller runs on this state folder; the command waits for the next one");
            } else if args.format == Format::Human {
                say(
                    "the controller has the command and has not answered yet; with --wait, this waits for its answer",
                );
            }
            Ok(DONE)
        }
    }
}

async fn answer(store: &Store, id: &str, wait: Duration) -> Result<Option<(bool, String)>, Failure> {
    let deadline = Instant::now() + wait;
    let of = |fact| match fact {
        Fact::CommandAnswered { id: of, accepted, answer } if of == id => Some((accepted, answer)),
        _ => None,
    };
    // From the start: a repeated command may have been answered long ago.
    let mut next = 1;
    loop {
        let answer = first_fact(store, &mut next, "command_answered", of).await?;
        if answer.is_some() || Instant::now() >= deadline {
            return Ok(answer);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
