//! The ledger as the read-only verbs see it: folded, with what the fold leaves out and people ask for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use hydromesh_core::cost::Costs;
use hydromesh_core::diag::did_you_mean;
use hydromesh_core::ids::{PortId, ProductId};
use hydromesh_core::ledger::{Entry, Fact, LedgerState, RuleOutcome, RunOutcome};
use hydromesh_core::model::Environment;

use super::{Failure, Format, OUTSIDE, clock, runtime, state_of};
use crate::control::environments;
use crate::lake::Lake;
use crate::preview::lake_below;
use crate::repo::{CommitId, Repository};
use crate::store::{OpenMode, Place, Store};

/// Records read at once.
const PAGE: u32 = 5_000;

/// Where the ledger is, when to look at it, and how to print.
#[derive(Debug, Args)]
pub struct BookArgs {
    /// The state folder of a controller (`hydromesh up --state`).
    #[arg(long, env = "HYDROMESH_STATE", default_value = ".hydromesh", value_name = "FOLDER")]
    pub state: PathBuf,
    /// A preview of the state folder's environment instead: preview/NAME.
    #[arg(long, value_name = "preview/NAME")]
    pub env: Option<String>,
    /// Judge ages and due work as of this instant (RFC 3339) instead of now.
    #[arg(long, value_name = "INSTANT")]
    pub clock: Option<String>,
    /// How to print.
    #[arg(long, value_enum, default_value = "human")]
    pub format: Format,
}

/// A run as it began.
#[derive(Debug, Clone)]
pub struct Begun {
    /// When.
    pub at_ms: i64,
    /// Attempt, from 1.
    pub attempt: u32,
    /// The decision that it runs under.
    pub decision: String,
}

/// One evaluation of a port's quality rules.
#[derive(Debug, Clone, Copy, Default)]
pub struct Audit {
    /// When.
    pub at_ms: i64,
    /// Rules that held.
    pub passed: u32,
    /// Rules that could be evaluated.
    pub executed: u32,
    /// Rules.
    pub required: u32,
}

/// The ledger, read.
#[derive(Debug, Default)]
pub struct Book {
    /// The state folder: of a preview, its own.
    pub state: PathBuf,
    /// Folded.
    pub ledger: LedgerState,
    /// The environment that the last controller ran.
    pub environment: String,
    /// The instant that ages are judged by.
    pub now_ms: i64,
    /// Runs as they began.
    pub begun: BTreeMap<String, Begun>,
    /// Evaluations of quality rules in order, by port.
    pub audits: BTreeMap<PortId, Vec<Audit>>,
    /// Receipts of messages by outbox id.
    pub receipts: BTreeMap<String, String>,
    /// A controller is at work on it.
    pub is_led: bool,
    /// When each command was asked for.
    pub asked: BTreeMap<String, i64>,
    /// Runs that were stopped before their end.
    pub cancelled: usize,
    /// What runs and backfills took, and were expected to.
    pub costs: Costs,
    /// Records of a newer version that this one cannot read.
    pub unknown: u64,
    /// The run and partition of the last audit by port: facts of one evaluation follow each other.
    last_audit: BTreeMap<PortId, (String, Option<String>)>,
}

impl Book {
    /// Reads the ledger of a state folder.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn open(args: &BookArgs) -> Result<Self, Failure> {
        Self::open_with(args, |_| {})
    }

    /// Reads the ledger of a state folder and shows every entry to somebody who keeps what the book does not.
    ///
    /// # Errors
    /// See [`Book::open`].
    pub fn open_with(args: &BookArgs, visit: impl FnMut(&Entry)) -> Result<Self, Failure> {
        let mut book = Self::read_with(&state_of(&args.state, args.env.as_deref())?, visit)?;
        if args.clock.is_some() {
            book.now_ms = clock(args.clock.as_deref())?.now_ms();
        }
        Ok(book)
    }

    /// Reads the ledger of a state folder, as of now.
    ///
    /// # Errors
    /// See [`Book::open`].
    pub fn read(state: &Path) -> Result<Self, Failure> {
        Self::read_with(state, |_| {})
    }

    fn read_with(state: &Path, mut visit: impl FnMut(&Entry)) -> Result<Self, Failure> {
        let mut book = runtime()?.block_on(async {
            let store = open_ledger(state, OpenMode::ReadOnly).await?;
            let led = store.is_led().await.map_err(|error| Failure::outside(&error))?;
            let mut book = Self { is_led: led, state: state.to_path_buf(), ..Self::default() };
            let mut next = 1;
            loop {
                let records = store.read(next, PAGE).await.map_err(|error| Failure::outside(&error))?;
                let Some(last) = records.last() else { break };
                next = last.seq + 1;
                for record in records {
                    match serde_json::from_str::<Fact>(&record.body) {
                        Ok(fact) => {
                            let entry = Entry { seq: record.seq, at_ms: record.at_ms, fact };
                            visit(&entry);
                            book.enter(&entry);
                        }
                        // A newer version wrote it; what this one knows is still worth showing.
                        Err(_) => {
                            book.unknown += 1;
                            book.ledger.seq = record.seq;
                        }
                    }
                }
            }
            store.close().await;
            Ok::<Self, Failure>(book)
        })?;
        // A controller whose clock is ahead of ours, as the demo's is, must not seem to live in the future.
        book.now_ms = clock(None)?.now_ms().max(book.ledger.at_ms);
        Ok(book)
    }

    fn enter(&mut self, entry: &Entry) {
        match &entry.fact {
            Fact::Opened { environment, .. } => self.environment.clone_from(environment),
            Fact::RunStarted { run, attempt, decision, .. } => {
                let begun = Begun { at_ms: entry.at_ms, attempt: *attempt, decision: decision.clone() };
                self.begun.insert(run.clone(), begun);
            }
            Fact::Quality { port, partition, run, passed, measure, band, .. } => {
                let this = (run.clone(), partition.clone());
                let audits = self.audits.entry(port.clone()).or_default();
                if self.last_audit.get(port) != Some(&this) || audits.is_empty() {
                    audits.push(Audit { at_ms: entry.at_ms, ..Audit::default() });
                    self.last_audit.insert(port.clone(), this);
                }
                // What neither held nor failed is no part of a rate.
                let outcome = RuleOutcome::of(*passed, *measure, band.as_ref());
                if let Some(audit) = audits.last_mut().filter(|_| outcome != RuleOutcome::Unknown) {
                    audit.required += 1;
                    audit.executed += u32::from(measure.is_some());
                    audit.passed += u32::from(outcome == RuleOutcome::Held);
                }
            }
            Fact::Command(command) => {
                self.asked.entry(command.id.clone()).or_insert(entry.at_ms);
            }
            Fact::RunFinished { outcome: RunOutcome::Cancelled, .. } => self.cancelled += 1,
            Fact::Sent { outbox, receipt, .. } => {
                self.receipts.insert(outbox.clone(), receipt.clone());
            }
            _ => {}
        }
        self.costs.enter(entry, &self.ledger);
        self.ledger.apply(entry);
    }

    /// Returns every product that the ledger speaks of: deployed ones, and those that the head commit could not deploy.
    #[must_use]
    pub fn products(&self) -> Vec<ProductId> {
        let head = self.ledger.head.as_deref().unwrap_or_default();
        let named = self.ledger.outcomes.iter().filter(|(commit, ..)| commit == head);
        let mut ids: Vec<ProductId> = named
            .filter(|(_, id, outcome, _)| {
                // A retired product was applied and is deployed no more.
                id.as_ref().is_some_and(|id| self.ledger.deployed.contains_key(id))
                    || *outcome != hydromesh_core::ledger::Outcome::Applied
            })
            .filter_map(|(_, id, ..)| id.clone())
            .chain(self.ledger.deployed.keys().cloned())
            .chain(self.ledger.retired.keys().cloned())
            .collect();
        ids.sort();
        ids.dedup();
        ids
    }

    /// Returns the product that a person means: an address, or a name that only one domain uses.
    ///
    /// # Errors
    /// When there is none; the message names the nearest.
    pub fn product(&self, text: &str) -> Result<ProductId, Failure> {
        find_product(&self.products(), text)
    }

    /// Returns the lake's folder: what the environment says at the commit last seen, else `lake`.
    ///
    /// # Errors
    /// When the lake is not a folder of this machine.
    pub fn lake(&self) -> Result<PathBuf, Failure> {
        let path = self.settings().map_or_else(|| "lake".to_owned(), |it| it.lake_path);
        if path.contains("://") {
            let message = format!(
                "the lake of {} is {path}; only lakes in a folder can be read here",
                self.environment
            );
            return Err(Failure { code: OUTSIDE, message });
        }
        Ok(self.state.join(path))
    }

    /// Opens the lake; that of a preview lies over its parent's.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub async fn open_lake(&self) -> Result<Lake, Failure> {
        let lake = Lake::open(self.lake()?).await.map_err(|error| Failure::outside(&error))?;
        Ok(match lake_below(&self.state) {
            Some(below) => lake.over(&below),
            None => lake,
        })
    }

    /// Returns the environment's settings at the commit last seen, if the state folder's mirror has it.
    #[must_use]
    pub fn settings(&self) -> Option<Environment> {
        let head = CommitId::parse(self.ledger.head.as_deref()?).ok()?;
        let mirrors = std::fs::read_dir(self.state.join("repo")).ok()?;
        mirrors.filter_map(Result::ok).find_map(|mirror| {
            let (repository, _) = Repository::discover(&mirror.path()).ok()?;
            environments(&repository.snapshot(&head).ok()?).remove(&self.environment)
        })
    }
}

/// Opens the ledger of a state folder, wherever it is.
///
/// # Errors
/// When there is none, with what to do about it, or it cannot be opened.
pub async fn open_ledger(state: &Path, mode: OpenMode) -> Result<Store, Failure> {
    match Place::found(state).map_err(|error| Failure::outside(&error))? {
        Some(place) => Store::open_at(&place, mode).await.map_err(|error| Failure::outside(&error)),
        None => {
            let message = format!(
                "there is no ledger in {}: name the state folder of a controller with --state, or start one with \
                 `hydromesh up --repo REPOSITORY --state {}`",
                state.display(),
                state.display()
            );
            Err(Failure { code: OUTSIDE, message })
        }
    }
}

/// Returns the first fact of a kind that is looked for, from a position on, which moves on to what was not looked at yet.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn first_fact<T>(
    store: &Store,
    next: &mut u64,
    kind: &str,
    wanted: impl Fn(Fact) -> Option<T>,
) -> Result<Option<T>, Failure> {
    loop {
        let records = store.read(*next, PAGE).await.map_err(|error| Failure::outside(&error))?;
        let Some(last) = records.last() else { return Ok(None) };
        *next = last.seq + 1;
        let of_kind = records.iter().filter(|record| record.kind == kind);
        let mut found = of_kind.filter_map(|record| wanted(serde_json::from_str(&record.body).ok()?));
        if let Some(found) = found.next() {
            return Ok(Some(found));
        }
    }
}

/// Returns the product of a list that a person means.
///
/// # Errors
/// When there is none; the message names the nearest.
pub fn find_product(known: &[ProductId], text: &str) -> Result<ProductId, Failure> {
    if let Some(exact) = known.iter().find(|id| id.to_string() == text) {
        return Ok(exact.clone());
    }
    let mut named = known.iter().filter(|id| id.name.as_str() == text);
    if let (Some(only), None) = (named.next(), named.next()) {
        return Ok(only.clone());
    }
    let addresses: Vec<String> = known.iter().map(ToString::to_string).collect();
    let names = known.iter().map(|id| id.name.as_str());
    let near = did_you_mean(text, addresses.iter().map(String::as_str)).map(str::to_owned).or_else(|| {
        let name = did_you_mean(text, names)?;
        known.iter().find(|id| id.name.as_str() == name).map(ToString::to_string)
    });
    let hint = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "nothing is deployed yet".to_owned(),
        None => "`hydromesh list` names them all".to_owned(),
    };
    Err(Failure::usage(format!("there is no product `{text}`; {hint}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_is_found_by_its_name_and_a_slip_is_told() {
        let known: Vec<ProductId> =
            ["commerce/orders", "commerce/clicks", "risk/clicks"].map(|id| id.parse().expect("legal")).into();
        assert_eq!(find_product(&known, "commerce/orders").expect("exact").to_string(), "commerce/orders");
        assert_eq!(find_product(&known, "orders").expect("one domain has it").to_string(), "commerce/orders");
        let says = |text: &str| find_product(&known, text).expect_err("unknown").message;
        assert!(
            says("commerce/order").contains("did you mean `commerce/orders`?"),
            "{}",
            says("commerce/order")
        );
        assert!(says("ordrs").contains("did you mean `commerce/orders`?"));
        assert!(says("clicks").contains("hydromesh list"));
        assert_eq!(find_product(&known, "x").expect_err("unknown").code, super::super::USAGE);
    }
}
