//! Service levels of a product: the contract's promises, judged by publications and audits.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use chrono_tz::Tz;
use hydromesh_core::ids::PortId;
use hydromesh_core::ledger::{AlertKind, EpisodeRecord, PortState, QualityRecord, RuleOutcome, RunOutcome};
use hydromesh_core::model::{
    Contract, OutputPort, Pipeline, Product, Quality, QualitySeverity, Sla, SlaKind,
};
use hydromesh_core::slo::{
    BurnLevel, Collection, Facts as Evidence, Objective, ObjectiveKind, Publish, QualityResult, SliReport,
    SliceState, Timeline, daily, default_levels, report,
};
use hydromesh_core::time::{Interval, IntervalSet, Span};

use super::{Definition, Facts, filled_by, instant, length};
use crate::site::model::{self as site, Status};

/// The rolling window of a promise whose contract names none: 30 days.
const WINDOW_MS: i64 = 30 * DAY_MS;
const DAY_MS: i64 = 24 * 3_600_000;
/// Days of a bar.
const BAR_DAYS: usize = 90;
/// Broken intervals kept per promise.
const INTERVALS: usize = 20;
/// Bad time below which no level of burn counts: a strict promise would otherwise speak up at every hiccup.
const LEAST_BAD_MS: i64 = 5 * 60_000;
/// How long a new product may take to read its history when its promise is shorter; alerts wait as long.
const HYDRATION_MS: i64 = 3_600_000;

impl Facts<'_> {
    /// Returns the promises of a product that can be judged, by port and contract order.
    pub(super) fn objectives_of(&self, definition: &Definition<'_>) -> Vec<site::Objective> {
        let product = definition.product;
        let levels = default_levels();
        let several = product.outputs.len() > 1;
        let mut objectives = Vec::new();
        for (name, output) in &product.outputs {
            let port = product.port(name);
            let state = self.ledger.ports.get(&port).map(AsRef::as_ref);
            for sla in &output.contract.slas {
                let Some(kind) = kind(sla) else { continue };
                let objective = Objective {
                    id: format!("{name}.{}", sla.id),
                    target: sla.target,
                    window: Span::from_millis(WINDOW_MS),
                    kind,
                };
                let evidence = match objective.kind {
                    ObjectiveKind::Quality { min_pass_rate } => {
                        self.audits(product, &port, output, state, min_pass_rate)
                    }
                    _ => publications(&objective.kind, state, definition.deployed.map(|it| it.since_ms)),
                };
                let timeline = Timeline::of(&objective.kind, &evidence);
                let judged = Judged {
                    facts: self,
                    port: &port,
                    place: if several { format!("{name}: ") } else { String::new() },
                    objective: &objective,
                    timeline: &timeline,
                    evidence: &evidence,
                    report: report(&objective, &timeline, self.now_ms),
                };
                objectives.push(judged.shown(&levels));
            }
        }
        objectives
    }

    /// Returns what is known of a port's audits over time.
    ///
    /// The latest result of each rule is a fact; what was before is inferred and only where it is certain. A batch
    /// publication means that every blocking rule held, and so did every warning that never failed; if that keeps the
    /// promise, it was kept. A failed audit means that at least one rule did not hold; if that breaks the promise, it
    /// was broken.
    fn audits(
        &self,
        product: &Product,
        port: &PortId,
        output: &OutputPort,
        state: Option<&PortState>,
        min_pass_rate: f64,
    ) -> Evidence {
        let contract = &output.contract;
        let required = count(contract.quality.len());
        let records = self.ledger.quality.get(port);
        let latest = records.and_then(|records| latest(contract, records));
        if required == 0 {
            return Evidence::default();
        }
        let doubtful = |rule: &&Quality| {
            let record = records.and_then(|records| records.get(&rule.id));
            rule.severity == QualitySeverity::Warning && record.is_none_or(|record| record.counts.1 > 0)
        };
        let held = required - count(contract.quality.iter().filter(doubtful).count());
        let keeps = |passed: u32| f64::from(passed) >= min_pass_rate * f64::from(required);
        let pipeline = filled_by(product, port);
        let audited = !matches!(pipeline, None | Some(Pipeline::Stream(_) | Pipeline::Feature(_)));
        let mut known: Vec<QualityResult> = Vec::new();
        for (at, _) in state.into_iter().flat_map(|state| &state.publishes).filter(|_| audited) {
            let executed = if keeps(held) { required } else { 0 };
            known.push(QualityResult { at: *at, passed: held.min(executed), executed, required });
        }
        for run in self.runs.get(&product.id).into_iter().flatten() {
            let of_port = pipeline.is_some_and(|pipeline| *pipeline.name() == run.step.pipeline.name);
            let failed = matches!(&run.outcome, RunOutcome::Failed { code, .. } if code.starts_with("HM-Q"));
            if of_port && failed {
                let passed = required - 1;
                let executed = if keeps(passed) { 0 } else { required };
                known.push(QualityResult { at: run.at_ms, passed: passed.min(executed), executed, required });
            }
        }
        known.sort_by_key(|result| result.at);
        if let Some(latest) = latest {
            known.retain(|result| result.at < latest.at);
            known.push(latest);
        }
        Evidence { quality: known, ..Evidence::default() }
    }
}

fn count(rules: usize) -> u32 {
    u32::try_from(rules).unwrap_or(u32::MAX)
}

/// Returns the last execution of a contract's rules as one result.
fn latest(contract: &Contract, records: &BTreeMap<String, QualityRecord>) -> Option<QualityResult> {
    let of: Vec<&QualityRecord> = contract.quality.iter().filter_map(|rule| records.get(&rule.id)).collect();
    // What neither held nor failed is no part of a rate.
    let known = || of.iter().filter(|record| record.outcome() != RuleOutcome::Unknown);
    Some(QualityResult {
        at: of.iter().map(|record| record.at_ms).max()?,
        passed: count(known().filter(|record| record.passed).count()),
        executed: count(known().filter(|record| record.measure.is_some()).count()),
        required: count(contract.quality.len() - (of.len() - known().count())),
    })
}

fn kind(sla: &Sla) -> Option<ObjectiveKind> {
    match &sla.kind {
        SlaKind::DataAge(max) => Some(ObjectiveKind::DataAge { max: *max }),
        SlaKind::Heartbeat(max_gap) => Some(ObjectiveKind::Heartbeat { max_gap: *max_gap }),
        SlaKind::QualityPassRate(percent) => {
            Some(ObjectiveKind::Quality { min_pass_rate: (percent / 100.0).clamp(0.0, 1.0) })
        }
        SlaKind::Other { .. } => None,
    }
}

/// Returns a port's publications. One without a data time says that the pipeline lives, and nothing of the data's age.
///
/// While a new product reads its history, oldest first, its data is old because there is no newer yet: that time does
/// not count, until the data first is as young as promised or the patience that alerts have is over.
fn publications(kind: &ObjectiveKind, state: Option<&PortState>, since_ms: Option<i64>) -> Evidence {
    let publishes: Vec<Publish> = state
        .into_iter()
        .flat_map(|state| &state.publishes)
        .filter_map(|(at, high)| {
            let high = match kind {
                ObjectiveKind::DataAge { .. } => (*high)?,
                _ => high.unwrap_or(*at),
            };
            Some(Publish { at: *at, data_time_high: high })
        })
        .collect();
    let mut exclusions = IntervalSet::new();
    if let (ObjectiveKind::DataAge { max }, Some(first), Some(since_ms)) = (kind, publishes.first(), since_ms)
    {
        let young = publishes.iter().find(|it| it.at < it.data_time_high.saturating_add(max.millis()));
        let patience_ms = since_ms.saturating_add(max.millis().max(HYDRATION_MS));
        let end_ms = young.map_or(patience_ms, |it| it.at.min(patience_ms));
        if first.at < end_ms {
            exclusions = IntervalSet::from(Interval::new(first.at, end_ms));
        }
    }
    Evidence { publishes, exclusions, ..Evidence::default() }
}

/// One promise with its verdict.
struct Judged<'a> {
    facts: &'a Facts<'a>,
    port: &'a PortId,
    /// The port's name where a product has several.
    place: String,
    objective: &'a Objective,
    timeline: &'a Timeline,
    evidence: &'a Evidence,
    report: SliReport,
}

impl Judged<'_> {
    fn shown(&self, levels: &[BurnLevel]) -> site::Objective {
        let Self { objective, report, timeline, .. } = self;
        let now_ms = self.facts.now_ms;
        let started = report.collection != Collection::NotStarted && report.valid_ms > 0;
        let status = match report.state {
            SliceState::Bad => Status::Breaching,
            SliceState::Unknown | SliceState::Excluded => Status::Unknown,
            SliceState::Good => {
                let burns = levels.iter().any(|level| {
                    let least = Span::from_millis(LEAST_BAD_MS);
                    level.is_reachable(objective.target)
                        && level.fires(timeline, objective.target, least, now_ms)
                });
                if burns { Status::Degraded } else { Status::Healthy }
            }
        };
        // A promise of all the time has no budget: it is whole until the first broken minute.
        let budget = if objective.check().is_ok() {
            report.budget_remaining
        } else if report.bad_ms == 0 {
            1.0
        } else {
            0.0
        };
        let since = match report.collection {
            Collection::Collecting { collected_ms } => Some(instant(now_ms - collected_ms)),
            Collection::NotStarted | Collection::Complete => None,
        };
        site::Objective {
            id: objective.id.clone(),
            kind: match objective.kind {
                ObjectiveKind::DataAge { .. } => site::ObjectiveKind::DataAge,
                ObjectiveKind::Heartbeat { .. } => site::ObjectiveKind::Heartbeat,
                ObjectiveKind::Quality { .. } => site::ObjectiveKind::Quality,
            },
            promise: self.promise(),
            target: objective.target,
            window_days: u32::try_from(objective.window.millis() / DAY_MS).unwrap_or(u32::MAX),
            status,
            current: self.current(),
            sli_low: started.then_some(report.sli_low),
            sli_high: started.then_some(report.sli_high),
            since,
            budget_remaining: started.then_some(budget),
            days: self.days(),
            bad_intervals: self.bad_intervals(),
        }
    }

    fn promise(&self) -> String {
        let place = &self.place;
        match &self.objective.kind {
            ObjectiveKind::DataAge { max } => format!("{place}data at most {} old", spoken(*max)),
            ObjectiveKind::Heartbeat { max_gap } => {
                format!("{place}something new at least every {}", spoken(*max_gap))
            }
            ObjectiveKind::Quality { min_pass_rate } => {
                let share = crate::site::words::percent(*min_pass_rate);
                format!("{place}at least {share} of the quality rules hold")
            }
        }
    }

    fn current(&self) -> String {
        let now_ms = self.facts.now_ms;
        let place = &self.place;
        let none = || format!("{place}nothing published yet");
        match &self.objective.kind {
            ObjectiveKind::DataAge { .. } => {
                let newest = self.evidence.publishes.iter().map(|it| it.data_time_high.min(it.at)).max();
                newest.map_or_else(none, |at| format!("{place}data is {} old", length(now_ms - at)))
            }
            ObjectiveKind::Heartbeat { .. } => {
                let last = self.evidence.publishes.iter().map(|it| it.at).max();
                last.map_or_else(none, |at| format!("{place}published {} ago", length(now_ms - at)))
            }
            ObjectiveKind::Quality { .. } => match self.evidence.quality.last() {
                Some(it) if it.executed > 0 => {
                    format!("{place}{} of {} rules hold", it.passed.min(it.required), it.required)
                }
                _ => format!("{place}not audited yet"),
            },
        }
    }

    /// Returns the days since the first fact: a day before it is none of the promise's.
    fn days(&self) -> Vec<site::Day> {
        let now_ms = self.facts.now_ms;
        let Some(first) = self.timeline.first_fact_at().filter(|first| *first <= now_ms) else {
            return Vec::new();
        };
        // One more than the whole days between, for both ends may be cut, and one for the clock's changes.
        let since = usize::try_from((now_ms - first) / DAY_MS).unwrap_or(BAR_DAYS) + 2;
        let allowed = 1.0 - self.objective.target;
        daily(self.timeline, now_ms, since.min(BAR_DAYS), Tz::UTC)
            .into_iter()
            .filter_map(|day| {
                let tally = day.tally;
                let known = tally.valid_ms() + tally.excluded_ms;
                if known == 0 {
                    return None;
                }
                let date: NaiveDate = day.day.start().date();
                #[expect(clippy::cast_precision_loss, reason = "milliseconds of a day")]
                let (state, note) = match day.state {
                    SliceState::Good => (site::DayState::Good, String::new()),
                    SliceState::Excluded => (site::DayState::Excluded, String::new()),
                    SliceState::Unknown => {
                        (site::DayState::Unknown, format!("unknown for {}", length(tally.unknown_ms)))
                    }
                    // Within what the target allows for a day, a failure is told apart from a day that was lost.
                    SliceState::Bad if tally.bad_ms as f64 <= allowed * DAY_MS as f64 => (
                        site::DayState::Degraded,
                        format!("broken for {}, within the day's share", length(tally.bad_ms)),
                    ),
                    SliceState::Bad => (site::DayState::Bad, format!("broken for {}", length(tally.bad_ms))),
                };
                Some(site::Day { date, state, note })
            })
            .collect()
    }

    fn bad_intervals(&self) -> Vec<site::BadInterval> {
        let now_ms = self.facts.now_ms;
        let bar_ms = i64::try_from(BAR_DAYS).unwrap_or(90) * DAY_MS;
        let window = Interval::new(now_ms.saturating_sub(bar_ms), now_ms);
        let bad = self.timeline.slices(window).into_iter().rev();
        bad.filter(|(_, state)| *state == SliceState::Bad)
            .take(INTERVALS)
            .map(|(slice, _)| {
                let (cause, attributed_to) = self.cause(slice);
                let to = (slice.to() < now_ms).then(|| instant(slice.to()));
                site::BadInterval { from: instant(slice.from()), to, cause, attributed_to }
            })
            .collect()
    }

    /// Returns what the alerts of the time say of a broken interval, and which product upstream explains it.
    fn cause(&self, slice: Interval) -> (String, Option<String>) {
        let overlaps = |episode: &&&EpisodeRecord| {
            let from = episode.transitions.first().map_or(i64::MAX, |(at, _)| *at);
            let to =
                if episode.is_open() { i64::MAX } else { episode.transitions.last().map_or(0, |it| it.0) };
            from < slice.to() && slice.from() < to
        };
        let episodes: Vec<_> =
            self.facts.episodes_of(&self.port.product).iter().filter(overlaps).copied().collect();
        let explained = episodes
            .iter()
            .filter(|it| {
                it.last().kind == AlertKind::Freshness && it.last().subject == self.port.port.as_str()
            })
            .find_map(|episode| self.facts.cause_of(episode.last()));
        if let Some(cause) = explained {
            return (cause.summary.clone(), Some(cause.product.to_string()));
        }
        let failed = episodes.iter().find(|it| matches!(it.last().kind, AlertKind::Run | AlertKind::Quality));
        if let Some((_, first)) = failed.and_then(|episode| episode.transitions.first()) {
            return (first.summary.clone(), None);
        }
        let cause = match self.objective.kind {
            ObjectiveKind::Quality { .. } => "the audit failed",
            _ => "no newer data was published",
        };
        (cause.to_owned(), None)
    }
}

/// Returns a length as its author wrote it, with a unit that needs no explanation.
fn spoken(span: Span) -> String {
    let text = span.to_string();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = if unit == "m" { "min" } else { unit };
    format!("{number}\u{a0}{unit}")
}
