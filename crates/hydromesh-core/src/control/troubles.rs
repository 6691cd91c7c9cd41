//! What is wrong now, and how it is told.

use std::collections::BTreeMap;

use super::Control;
use super::alerts::About;
use crate::condition::HYDRATION_MS;
use crate::ids::{PortId, ProductId};
use crate::ledger::{AlertKind, Attempts, Deployed, FeatureDrift, Finding, Outcome, ProductVerdict};
use crate::model::Pipeline;
use crate::plan::{StepKey, Work, expire, retry_of, worth_telling};
use crate::time::Span;

/// A stream that is followed for so long since its last failure goes on.
const STEADY_MS: i64 = 10 * 60_000;

/// A sign of trouble: enough to know that it is there; it is put into words only when someone is told.
pub(super) enum Sign {
    /// A port's data is older than promised.
    Late { port: PortId, most: Span, newest_ms: Option<i64>, age_ms: i64 },
    /// A step failed, and no attempt follows by itself.
    Failed { step: StepKey, others: usize },
    /// Features moved away.
    Drifted { confirmed: usize, of: usize },
    /// A commit was refused.
    Refused,
    /// A table was changed by somebody else and stays so.
    Altered { port: PortId, what: String, partitions: usize, follows: bool },
    /// A rule denies what is deployed.
    Denied { rule: Finding },
}

/// What is wrong with one product, by kind and by what of it.
pub(super) type Signs = BTreeMap<(AlertKind, String), Sign>;

impl Control {
    /// Returns everything that is wrong with a product now, and when time alone may change that.
    pub(super) fn signs(&self, id: &ProductId) -> (Signs, Option<i64>) {
        let (mut signs, mut until_ms) = (BTreeMap::new(), None);
        if let Some(deployed) = self.ledger.deployed.get(id) {
            self.late(deployed, &mut signs, &mut until_ms);
            self.failing(deployed, &mut signs, &mut until_ms);
            self.drifted(deployed, &mut signs);
            self.altered(deployed, &mut signs);
            self.denied(deployed, &mut signs);
        }
        self.refused(id, &mut signs);
        (signs, until_ms)
    }

    fn late(&self, deployed: &Deployed, signs: &mut Signs, until_ms: &mut Option<i64>) {
        for (name, output) in &deployed.product.outputs {
            let Some(most) = output.contract.data_age() else { continue };
            let port = deployed.product.port(name);
            let newest_ms = self.ledger.ports.get(&port).and_then(|state| state.newest_data_ms);
            // A product that has published nothing yet is as old as its deploy.
            let from_ms = newest_ms.unwrap_or(deployed.since_ms);
            let grace_ms = deployed.since_ms.saturating_add(most.millis().max(HYDRATION_MS));
            let late_ms = from_ms.saturating_add(most.millis()).max(grace_ms);
            if self.now_ms > late_ms {
                let age_ms = self.now_ms.saturating_sub(from_ms);
                signs.insert(
                    (AlertKind::Freshness, name.to_string()),
                    Sign::Late { port, most, newest_ms, age_ms },
                );
            } else {
                expire(until_ms, late_ms.saturating_add(1));
            }
        }
    }

    /// One trouble per pipeline: what failed together is one incident.
    fn failing(&self, deployed: &Deployed, signs: &mut Signs, until_ms: &mut Option<i64>) {
        let id = &deployed.product.id;
        for (step, attempts) in self.ledger.failed.iter().filter(|(step, _)| step.pipeline.product == *id) {
            let retry = retry_of(deployed.product.pipelines.get(&step.pipeline.name), &step.work);
            if !worth_telling(attempts, &retry) {
                continue;
            }
            // A silent topic commits nothing; that it is followed for a while is as good a sign.
            if let (Work::Follow, Some(flight)) = (&step.work, self.flights.get(step)) {
                let steady_ms = flight.began_ms.saturating_add(STEADY_MS);
                if self.now_ms >= steady_ms {
                    continue;
                }
                expire(until_ms, steady_ms);
            }
            if !self.due.wants(step) && !self.flights_of(&step.pipeline).any(|key| key.overlaps(step)) {
                continue;
            }
            let kind = if attempts.code.starts_with("HM-Q") { AlertKind::Quality } else { AlertKind::Run };
            let about = (kind, step.pipeline.name.to_string());
            let sign = signs.entry(about).or_insert_with(|| Sign::Failed { step: step.clone(), others: 0 });
            if let Sign::Failed { step: first, others } = sign {
                *others += usize::from(first != step);
            }
        }
    }

    fn drifted(&self, deployed: &Deployed, signs: &mut Signs) {
        let id = &deployed.product.id;
        let Some(history) = self.ledger.drift.get(id) else { return };
        let rule = deployed.product.pipelines.values().find_map(|pipeline| match pipeline {
            Pipeline::Training(training) => training.retrain_on.drift.as_ref(),
            _ => None,
        });
        let Some(rule) = rule else { return };
        let trained = self.ledger.models.get(id).and_then(|models| models.trained.last());
        let trained_ms = trained.map_or(i64::MIN, |(at, _)| *at);
        let window = history.iter().rev().take_while(|(at, ..)| *at > trained_ms).take(rule.of as usize);
        let (of, confirmed) = window
            .fold((0, 0), |(of, confirmed), (_, _, drifted)| (of + 1, confirmed + usize::from(*drifted)));
        if confirmed > 0 && confirmed >= rule.confirm as usize {
            signs.insert((AlertKind::Drift, "features".to_owned()), Sign::Drifted { confirmed, of });
        }
    }

    /// The product was refused in the last commit that was decided about.
    ///
    /// The subject is what was refused and why, not the commit: the next commit that still carries it is no news.
    fn refused(&self, id: &ProductId, signs: &mut Signs) {
        let (Some(concluded), Some(verdict)) = (&self.ledger.concluded, self.ledger.verdicts.get(id)) else {
            return;
        };
        let refused = matches!(verdict.outcome, Outcome::Held | Outcome::Denied | Outcome::Broken);
        if refused && verdict.commit == *concluded {
            signs.insert((AlertKind::Deploy, verdict.mark.clone()), Sign::Refused);
        }
    }

    /// Tables that do not show what was published, and that nothing puts right by itself.
    fn altered(&self, deployed: &Deployed, signs: &mut Signs) {
        if self.ledger.altered.is_empty() {
            return;
        }
        for name in deployed.product.outputs.keys() {
            let port = deployed.product.port(name);
            let Some(partitions) = self.ledger.altered.get(&port).map(BTreeMap::len) else { continue };
            let mut pipelines = deployed.product.pipelines.values();
            let pipeline = pipelines.find(|pipeline| pipeline.output() == name);
            if pipeline.is_some_and(Pipeline::self_heals) {
                continue;
            }
            let follows = pipeline.is_some_and(Pipeline::follows);
            let what = self.ledger.alterations.get(&port).map(|it| it.what.clone()).unwrap_or_default();
            signs.insert(
                (AlertKind::Table, name.to_string()),
                Sign::Altered { port, what, partitions, follows },
            );
        }
    }

    /// Rules that deny what is deployed, each by itself: one more of them is news.
    fn denied(&self, deployed: &Deployed, signs: &mut Signs) {
        for rule in self.ledger.objections(&deployed.product.id) {
            let kind = if rule.running { AlertKind::Stopped } else { AlertKind::Policy };
            let about = (kind, rule.rule.clone());
            signs.entry(about).or_insert_with(|| Sign::Denied { rule: rule.clone() });
        }
    }

    /// Puts a trouble into words: one line, and facts for the message.
    pub(super) fn describe(&self, about: &About, sign: &Sign) -> (String, Vec<(String, String)>) {
        let id = &about.0;
        let (summary, mut details) = match sign {
            Sign::Late { port, most, newest_ms, age_ms } => {
                let oldest = self.ledger.oldest_value(port);
                lateness(port, *most, *newest_ms, *age_ms, oldest)
            }
            Sign::Failed { step, others } => match self.ledger.failed.get(step) {
                Some(attempts) => failure(step, attempts, *others),
                None => (format!("{step} failed"), Vec::new()),
            },
            Sign::Drifted { confirmed, of } => {
                let verdicts = self.ledger.drift.get(id).and_then(|history| history.back());
                drift(id, verdicts.map_or(&[], |(_, verdicts, _)| verdicts.as_slice()), *confirmed, *of)
            }
            Sign::Altered { port, what, partitions, follows } => altered(port, what, *partitions, *follows),
            Sign::Denied { rule } => denied(id, rule),
            Sign::Refused => match self.ledger.verdicts.get(id) {
                Some(verdict) => refusal(verdict),
                None => (format!("{id} was refused"), Vec::new()),
            },
        };
        if !matches!(sign, Sign::Refused) {
            self.context(id, &mut details);
        }
        (summary, details)
    }

    /// Adds what everyone who is woken needs: blast radius, last deploy, runbook.
    fn context(&self, id: &ProductId, details: &mut Vec<(String, String)>) {
        let readers = self.due.downstream(id);
        let names: Vec<String> = readers.iter().map(ToString::to_string).collect();
        let radius = if names.is_empty() {
            "no reader".to_owned()
        } else {
            format!("{}: {}", names.len(), names.join(", "))
        };
        details.push(("Blast radius".to_owned(), radius));
        if let Some(deployed) = self.ledger.deployed.get(id) {
            let commit = short(&deployed.commit);
            details.push(("Last deploy".to_owned(), format!("{commit} at {}", instant(deployed.at_ms))));
            if let Some(runbook) = &deployed.product.runbook {
                details.push(("Runbook".to_owned(), runbook.clone()));
            }
        }
    }
}

type Words = (String, Vec<(String, String)>);

/// Returns a duration as people say it: in minutes, from three hours on in hours, from three days on in days.
fn coarse(ms: i64) -> Span {
    const MINUTE_MS: i64 = 60_000;
    let unit = match ms {
        ms if ms >= 3 * 24 * 60 * MINUTE_MS => 24 * 60 * MINUTE_MS,
        ms if ms >= 3 * 60 * MINUTE_MS => 60 * MINUTE_MS,
        _ => MINUTE_MS,
    };
    Span::from_millis(ms - ms % unit)
}

fn lateness(
    port: &PortId,
    most: Span,
    newest_ms: Option<i64>,
    age_ms: i64,
    oldest: Option<(&str, Option<i64>)>,
) -> Words {
    let age = coarse(age_ms);
    let over = coarse((age_ms - most.millis()).max(60_000));
    let mut details = vec![
        ("Port".to_owned(), port.to_string()),
        ("Promise".to_owned(), format!("data at most {most} old")),
        (
            "Data is usable up to".to_owned(),
            newest_ms.map_or_else(|| "nothing published yet".to_owned(), instant),
        ),
    ];
    details.extend(oldest.map(|(value, _)| ("Oldest partition".to_owned(), value.to_owned())));
    let summary = match (newest_ms, oldest) {
        (_, Some((value, None))) => {
            format!(
                "{port} is late by {over}: its partition {value} was never published, the promise is {most}"
            )
        }
        (Some(_), Some((value, Some(_)))) => format!(
            "{port} is late by {over}: the data of its oldest partition, {value}, is {age} old, the promise is {most}"
        ),
        (Some(_), None) => {
            format!("{port} is late by {over}: its newest data is {age} old, the promise is {most}")
        }
        (None, _) => {
            format!("{port} has published nothing since its deploy {age} ago, the promise is {most}")
        }
    };
    (summary, details)
}

fn failure(step: &StepKey, attempts: &Attempts, others: usize) -> Words {
    let mut details = vec![
        ("Step".to_owned(), step.to_string()),
        ("Error".to_owned(), format!("{} {}", attempts.code, attempts.message)),
        ("Attempts".to_owned(), attempts.count.to_string()),
        ("Explain".to_owned(), format!("hydromesh explain {}", attempts.code)),
    ];
    if others > 0 {
        details.push(("Other failed steps of the pipeline".to_owned(), others.to_string()));
    }
    (format!("{step} failed: {}", attempts.message), details)
}

fn drift(id: &ProductId, verdicts: &[FeatureDrift], confirmed: usize, of: usize) -> Words {
    let drifted = || verdicts.iter().filter(|verdict| verdict.verdict == "drifted");
    let details = drifted()
        .map(|it| {
            let text = format!(
                "{} {:.3}, p {:.2e}, effect {:.2} ({} now against {} in the snapshot)",
                it.test, it.statistic, it.p_value, it.effect, it.samples.1, it.samples.0
            );
            (it.feature.clone(), text)
        })
        .collect();
    let worst = drifted().max_by(|left, right| left.statistic.total_cmp(&right.statistic));
    let which = worst.or(verdicts.first()).map_or_else(String::new, |worst| {
        format!(": {} ({} {:.3}, p {:.1e})", worst.feature, worst.test, worst.statistic, worst.p_value)
    });
    let summary = format!(
        "features of {id} moved away from the training snapshot{which}, {confirmed} of {of} comparisons"
    );
    (summary, details)
}

fn altered(port: &PortId, what: &str, partitions: usize, follows: bool) -> Words {
    let again = if follows {
        (
            "To have it anew",
            "move its table away: it begins again with what is still there to read".to_owned(),
        )
    } else {
        ("To compute it again", format!("hydromesh run {}", port.product))
    };
    let details = vec![
        ("Port".to_owned(), port.to_string()),
        ("Found".to_owned(), what.to_owned()),
        ("Partitions".to_owned(), partitions.max(1).to_string()),
        ("Readers".to_owned(), "go on with the versions that were published".to_owned()),
        (again.0.to_owned(), again.1),
    ];
    (format!("{port} was changed by somebody else: {what}"), details)
}

fn denied(id: &ProductId, rule: &Finding) -> Words {
    let mut details =
        vec![("Rule".to_owned(), rule.rule.clone()), ("Found".to_owned(), rule.message.clone())];
    let about = [("About", &rule.path), ("What to do", &rule.remediation)];
    details.extend(
        about.into_iter().filter(|(_, it)| !it.is_empty()).map(|(name, it)| (name.to_owned(), it.clone())),
    );
    let (stops, steps) = if rule.running {
        ("stops", "none begins, and those under way are stopped, until the rule allows it")
    } else {
        ("no longer allows", "go on; what is published stays")
    };
    details.push(("Steps".to_owned(), steps.to_owned()));
    (format!("{} {stops} what is deployed of {id}: {}", rule.rule, rule.message), details)
}

fn refusal(verdict: &ProductVerdict) -> Words {
    let word = match verdict.outcome {
        Outcome::Denied => "denied",
        Outcome::Held => "held",
        Outcome::Broken => "broken",
        Outcome::Applied | Outcome::Superseded => "not applied",
    };
    let commit = short(&verdict.commit);
    let details = vec![
        ("Commit".to_owned(), commit.clone()),
        ("Why".to_owned(), verdict.why.clone()),
        ("What runs".to_owned(), "the last good generation stays deployed".to_owned()),
    ];
    (format!("{word} in {commit}: {}", verdict.why), details)
}

fn short(commit: &str) -> String {
    commit.chars().take(12).collect()
}

/// Returns an instant for people, RFC 3339 to the minute.
fn instant(ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(ms)
        .map_or_else(|| ms.to_string(), |at| at.format("%Y-%m-%d %H:%M UTC").to_string())
}
