//! Performs the effects that core decides.

use hydromesh_core::control::{Control, Disposal, Disposed, Effect, Event, Question};
use hydromesh_core::ledger::{Alert, Entry, Fact, LedgerState, RunOutcome};
use hydromesh_core::model::TableEnd;
use hydromesh_core::time::day_of;
use serde_json::json;
use tokio::sync::mpsc;
use tracing::Instrument as _;

use super::bench::{Bench, Case};
use super::error::UpError;
use super::gate_input::GateInputs;
use super::judges::Judges;
use super::telling::Telling;
use super::views::Views;
use super::{jobs, ledger, preview};
use crate::apply::Context;
use crate::clock::{Clock, rfc3339};
use crate::fault::point;
use crate::lake::{Leave, Version};
use crate::notify::{History, MailContext, Mailer, first_message_id};
use crate::outage::Outage;
use crate::store::{Lease, Store};
use crate::work::Desk;

/// Performs effects.
pub(super) struct Hands<'a> {
    pub store: &'a Store,
    /// What steps use; its epoch is the lease's.
    pub context: Context,
    /// By which rules is judged.
    pub judges: Judges,
    /// Who judges.
    pub bench: Bench,
    pub events: mpsc::Sender<Event>,
    pub desk: Desk,
    pub mailer: Mailer,
    /// Address of the site, for links in mails.
    pub site: Option<String>,
    /// Questions that came before the mesh was read.
    pub deferred: Vec<Question>,
    pub changed: bool,
    /// Something else is deployed than the poll was told.
    pub deployed: bool,
    /// What the gate is shown.
    pub views: Views,
    /// Of the rules in force.
    pub unruled: Outage,
    /// Of the board.
    pub outage: Outage,
    /// What is said of runs and commits.
    pub telling: Telling,
}

impl Hands<'_> {
    /// Lets core decide about events that came together, and performs what it decides.
    pub(super) async fn take(
        &mut self,
        control: &mut Control,
        events: impl IntoIterator<Item = Event>,
    ) -> Result<(), UpError> {
        let effects = self.decide(control, events);
        self.perform(control, effects).await
    }

    /// Keeps the facts that follow from an event and begins nothing: this process is about to end.
    pub(super) async fn take_facts(&mut self, control: &mut Control, event: Event) -> Result<(), UpError> {
        let mut effects = self.decide(control, [event]);
        effects.retain(|effect| matches!(effect, Effect::Append(_)));
        self.perform(control, effects).await
    }

    pub(super) fn decide(
        &mut self,
        control: &mut Control,
        events: impl IntoIterator<Item = Event>,
    ) -> Vec<Effect> {
        let (desk, views) = (&mut self.desk, &mut self.views);
        let events = events.into_iter().inspect(|event| match event {
            Event::Finished { run, .. } => desk.ended(run),
            Event::Commit { .. } => views.read += 1,
            _ => {}
        });
        control.step(self.context.clock.now_ms(), events)
    }

    /// Lets core know which rules are in force, when they may be others than it was told.
    pub(super) async fn rule(&mut self, control: &mut Control) -> Result<(), UpError> {
        if control.desired().is_none() {
            return Ok(());
        }
        let now_ms = self.context.clock.now_ms();
        match self.judges.in_force(&control.ledger, self.views.deploys, now_ms) {
            Ok(rules) => {
                self.unruled.ends();
                self.take(control, rules.map(Event::Ruled)).await
            }
            Err(error) => {
                let why = crate::text::chain(&error);
                if self.unruled.begins(&why) {
                    tracing::warn!("the rules in force cannot be read, tried again: {why}");
                }
                Ok(())
            }
        }
    }

    /// Returns whether core knows which rules are in force, as far as they can be read.
    pub(super) fn is_ruled(&self, control: &Control) -> bool {
        self.unruled.lasts()
            || self.judges.is_told(&control.ledger, self.views.deploys, self.context.clock.now_ms())
    }

    /// Takes what other processes said of their steps, and the ends of those whose process is gone.
    pub(super) async fn hear(&mut self, control: &mut Control, lease: &mut Lease) -> Result<(), UpError> {
        match self.listen(control, lease).await {
            // The disk takes nothing, or too much is open: the next look is a moment away.
            Err(UpError::Board(error)) if error.is_transient() => {
                let why = crate::text::chain(&error);
                if self.outage.begins(&why) {
                    tracing::warn!("the board cannot be used, tried again: {why}");
                }
                Ok(())
            }
            done => {
                self.outage.ends();
                done
            }
        }
    }

    async fn listen(&mut self, control: &mut Control, lease: &mut Lease) -> Result<(), UpError> {
        // Before the reports: what a process said before it ended counts.
        let mut lost = self.desk.lost(Clock::system().now_ms())?;
        let heard = self.desk.heard()?;
        self.take(control, heard).await?;
        lost.retain(|run| self.desk.is_out(run));
        if lost.is_empty() {
            return Ok(());
        }
        match self.store.raise(lease).await {
            // Somebody else writes; the lost are still lost a moment later.
            Err(error) if error.is_transient() => return Ok(()),
            raised => *lease = raised?,
        }
        self.context.epoch = lease.epoch;
        let given_up = self.desk.give_up(lost)?;
        self.take(control, given_up).await
    }

    /// Says once when steps wait for a process that is not there.
    pub(super) fn look_for_workers(&mut self) {
        if let Err(error) = self.desk.look_for_workers(Clock::system().now_ms()) {
            tracing::warn!("the board cannot be read: {}", crate::text::chain(&error));
        }
    }

    /// Performs effects in order; what answers at once is decided about when all are performed.
    pub(super) async fn perform(
        &mut self,
        control: &mut Control,
        mut effects: Vec<Effect>,
    ) -> Result<(), UpError> {
        while !effects.is_empty() {
            let now_ms = self.context.clock.now_ms();
            let mut answers = Vec::new();
            for effect in effects {
                point("control.before-effect");
                answers.extend(self.perform_one(control, effect, now_ms).await?);
                point("control.after-effect");
            }
            effects = control.step(now_ms, answers);
        }
        Ok(())
    }

    /// Performs one effect; returns its answer, if there is one already.
    async fn perform_one(
        &mut self,
        control: &Control,
        effect: Effect,
        now_ms: i64,
    ) -> Result<Option<Event>, UpError> {
        match effect {
            Effect::Append(entries) => {
                let deploys =
                    |entry: &Entry| matches!(entry.fact, Fact::Deployed { .. } | Fact::Retired { .. });
                if entries.iter().any(deploys) {
                    self.deployed = true;
                    self.views.deploys += 1;
                }
                let part = self.telling.deploying(&entries);
                ledger::append(self.store, self.context.epoch, &entries).instrument(part).await?;
                self.telling.appended(&entries, &control.ledger, now_ms);
            }
            Effect::Decide(question) => {
                let Some(desired) = control.desired() else {
                    // Commands wait from before the start: they are judged once the mesh is known.
                    self.deferred.push(question);
                    return Ok(None);
                };
                let judge = match self.judges.of(&question, &control.ledger) {
                    Ok(judge) => judge,
                    Err(denial) => return Ok(Some(Event::Decided(*denial))),
                };
                let refused = preview::refusal(&question, desired, &control.ledger, judge.digest());
                if let Some(decision) = refused {
                    return Ok(Some(Event::Decided(decision)));
                }
                let (desired, lineage) = self.views.of(&question, desired, &control.ledger);
                let inputs = GateInputs::new(desired, lineage, &control.ledger, &self.context.environment);
                let document = judge.document(&inputs, &question, now_ms);
                let rules = judge.rules_for(&question.product, now_ms);
                let span = self.telling.judging(&question);
                self.bench.put(Case { question, document, judge, rules, span });
            }
            Effect::Start(start) => {
                let run = start.run.clone();
                let place = self.telling.begun(&start);
                let Some(job) = jobs::job(start, &control.ledger) else {
                    // Its product was retired in the same breath: it ends before it begins.
                    let outcome = RunOutcome::Cancelled;
                    return Ok(Some(Event::Finished { run, facts: Vec::new(), outcome, took_ms: 0 }));
                };
                self.desk.begin(&self.context, job, place).await?;
            }
            Effect::Cancel { run } => return Ok(self.desk.cancel(&run).await?),
            Effect::Deliver { outbox, to, alert } => self.deliver(control, outbox, to, alert),
            Effect::Dispose(disposal) => self.dispose(control, disposal),
            Effect::Publish => self.changed = true,
        }
        Ok(None)
    }

    /// Takes tables away, off the loop; the answer comes as an event.
    fn dispose(&self, control: &Control, disposal: Disposal) {
        let (lake, events) = (self.context.lake.clone(), self.events.clone());
        let leave = leaving(&control.ledger, &disposal);
        tokio::spawn(async move {
            let Disposal { product, seq, how, at_ms, tables } = disposal;
            let addresses =
                tables.into_iter().map(|(port, version)| (port.to_string(), Version(version))).collect();
            let mark = format!("{}-{seq}", day_of(at_ms));
            let result = match lake.leave(addresses, leave, &mark).await {
                Ok(left) => {
                    let to = left.archive.as_deref().map(|at| format!(" to {at}")).unwrap_or_default();
                    tracing::info!(%product, tables = left.tables, "tables are {}{to}", how.done());
                    Ok(Disposed { tables: left.tables, archive: left.archive })
                }
                Err(error) => {
                    let why = crate::text::chain(&error);
                    tracing::warn!(%product, "its tables could not be {}, tried again: {why}", how.done());
                    Err(why)
                }
            };
            // When the loop is gone, the next controller does it again.
            let _ = events.send(Event::Disposed { product, seq, result }).await;
        });
    }

    /// Hands a message to the mailer, off the loop; its answer comes as an event.
    fn deliver(&self, control: &Control, outbox: String, to: String, alert: Alert) {
        let history = History::of(&control.ledger, &alert);
        let title = control.desired().map_or_else(String::new, |desired| desired.mesh.title.clone());
        let first_message_id = control
            .ledger
            .episodes
            .get(&alert.episode)
            .and_then(|episode| first_message_id(episode, &alert, &to));
        let context = MailContext {
            mesh: title,
            environment: self.context.environment.clone(),
            site: self.site.clone(),
            now_ms: self.context.clock.now_ms(),
            first_message_id,
            history,
        };
        let (mailer, events) = (self.mailer.clone(), self.events.clone());
        tokio::spawn(async move {
            let (episode, transition) = (alert.episode.clone(), alert.transition);
            let event = match mailer.deliver(&outbox, &to, &alert, &context).await {
                Ok(receipt) => Event::Sent { outbox, episode, transition, to, receipt },
                Err(error) => {
                    let why = crate::text::chain(&error);
                    tracing::warn!(%to, "could not deliver a message, tried again: {why}");
                    Event::NotSent { outbox, why }
                }
            };
            // When the loop is gone, the next controller finds the message unsent.
            let _ = events.send(event).await;
        });
    }
}

/// Returns how tables leave; an archive says what it holds and how it is put back.
fn leaving(ledger: &LedgerState, disposal: &Disposal) -> Leave {
    if disposal.how == TableEnd::Drop {
        return Leave::Dropped;
    }
    let retired = ledger.retired.get(&disposal.product);
    Leave::Archived(json!({
        "product": disposal.product,
        "archived": rfc3339(disposal.at_ms),
        "left": retired.map(|it| json!({"at": rfc3339(it.at_ms), "commit": it.commit})),
        "deployed": retired.map(|it| json!({
            "commit": it.deployed.commit, "generation": it.deployed.generation, "decision": it.deployed.decision,
        })),
        "definition": retired.map(|it| &it.deployed.product),
        "tables": disposal.tables,
        "to_put_back": format!(
            "while no controller runs and {} is not deployed, move each folder beside this file back to <lake>/{}/; \
             tables in the Iceberg format are read there and nowhere else",
            disposal.product, disposal.product.domain
        ),
    }))
}
