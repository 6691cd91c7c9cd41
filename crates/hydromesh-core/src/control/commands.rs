//! What people ask for by hand.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::gate::denial;
use super::{Control, Question};
use crate::ids::{PortId, ProductId};
use crate::ledger::{Command, Decision, Fact, Verb};
use crate::model::{Partitioning, Pipeline, Values};
use crate::plan::{Work, ended_partitions};
use crate::planted::{self, Bug};

impl Control {
    /// Takes a command in; the same one twice is one.
    pub(super) fn asked(&mut self, command: Command) {
        let answered = self.ledger.answers.contains_key(&command.id) && !planted::is(Bug::CommandTwice);
        if self.ledger.pending.contains_key(&command.id) || answered {
            return;
        }
        self.commands.push_back(command.id.clone());
        self.record(Fact::Command(command));
    }

    /// Answers waiting commands, or asks the gate about them: one at a time of each product, in the order of arrival.
    pub(super) fn ask_about_commands(&mut self) {
        for id in std::mem::take(&mut self.commands) {
            let Some(command) = self.ledger.pending.get(&id).cloned() else { continue };
            let product = command.verb.product().clone();
            if self.is_asked(&product, "backfill") {
                self.commands.push_back(id);
                continue;
            }
            match self.weigh_command(&command) {
                Err(why) => self.answer_command(&id, Err(why)),
                Ok(None) => self.answer_command(&id, Ok(done(&command.verb))),
                Ok(Some(question)) => {
                    self.commands.push_back(id);
                    self.ask("backfill", question);
                }
            }
        }
    }

    /// Returns the question to ask before a command is obeyed, if it needs one, or why it makes no sense.
    fn weigh_command(&self, command: &Command) -> Result<Option<Question>, String> {
        let id = command.verb.product();
        let Some(deployed) = self.ledger.deployed.get(id) else {
            return self.weigh_of_retired(command);
        };
        let partitions = match &command.verb {
            Verb::Backfill { from, to, .. } if from > to => return Err(format!("{from} comes after {to}")),
            Verb::Backfill { from, to, .. } => {
                let found = self.backfilled(id, from, to);
                if found.is_empty() {
                    return Err(format!("{id} has no partition from {from} to {to} that has ended"));
                }
                found
            }
            Verb::BackfillValues { values, .. } => self.backfilled_values(id, values)?,
            Verb::Run { .. } => {
                if deployed.product.pipelines.values().all(Pipeline::follows) {
                    return Err(format!("{id} follows its topic all the time; there is nothing to run"));
                }
                self.published(id)
            }
            Verb::Pause { until_ms: Some(until_ms), .. } if *until_ms <= self.now_ms => {
                return Err("the pause would be over already".to_owned());
            }
            Verb::Pause { backfills: true, .. } if !self.has_backlog(id) => {
                return Err(format!(
                    "{id} is not cut by a calendar, so that it has no backlog; pause it as a whole"
                ));
            }
            Verb::Cancel { run, .. } => match self.ledger.running.get(run) {
                Some(step) if step.pipeline.product == *id && step.work == Work::Follow => {
                    return Err(format!("{run} follows its topic; `hydromesh pause {id}` stops it"));
                }
                Some(step) if step.pipeline.product == *id => return Ok(None),
                _ => return Err(format!("{run} is no run of {id} under way")),
            },
            Verb::Resume { .. } if self.ledger.pause_of(id, self.now_ms).is_none() => {
                return Err(format!("{id} is not paused"));
            }
            Verb::Retry { .. } | Verb::Silence { .. } | Verb::Pause { .. } | Verb::Resume { .. } => {
                return Ok(None);
            }
        };
        Ok(Some(Question {
            product: id.clone(),
            action: "backfill".to_owned(),
            commit: deployed.commit.clone(),
            fingerprint: deployed.print.all.clone(),
            change: json!({
                "product": id,
                "kind": "update",
                "reasons": [format!("{} asks: {}", command.actor, command.reason)],
                "fingerprint": deployed.print.all,
                "partitions": partitions,
                "command": command.id,
            }),
        }))
    }

    /// Returns whether a product has partitions of which the newest come first.
    fn has_backlog(&self, id: &ProductId) -> bool {
        let pipelines = self.ledger.deployed.get(id).into_iter().flat_map(|it| it.product.pipelines.values());
        pipelines.into_iter().any(|pipeline| match pipeline {
            Pipeline::Batch(batch) => batch.partition.as_ref().is_some_and(|cut| cut.calendar().is_some()),
            _ => false,
        })
    }

    /// Returns whether something may be asked about a product that is not deployed: to hold the end of its tables, and to let go.
    fn weigh_of_retired(&self, command: &Command) -> Result<Option<Question>, String> {
        let id = command.verb.product();
        let ends = self.ledger.retired.get(id).is_some_and(|retired| retired.due().is_some());
        match &command.verb {
            Verb::Pause { until_ms: Some(until_ms), .. } if ends && *until_ms <= self.now_ms => {
                Err("the pause would be over already".to_owned())
            }
            Verb::Resume { .. } if ends && self.ledger.pause_of(id, self.now_ms).is_none() => {
                Err(format!("{id} is not paused"))
            }
            Verb::Pause { backfills: false, .. } | Verb::Resume { .. } if ends => Ok(None),
            _ => Err(format!("{id} is not deployed")),
        }
    }

    /// Returns how many partitions of each port lie within a range and have ended.
    fn backfilled(&self, id: &ProductId, from: &str, to: &str) -> BTreeMap<PortId, u64> {
        let deployed = self.ledger.deployed.get(id);
        let pipelines =
            deployed.into_iter().flat_map(|it| it.product.pipelines.values().map(move |one| (it, one)));
        pipelines
            .filter_map(|(deployed, pipeline)| match pipeline {
                Pipeline::Batch(batch) => {
                    let cut = batch.partition.as_ref()?.calendar()?;
                    let count = ended_partitions(cut, self.now_ms).count_within(from, to);
                    (count > 0).then(|| (deployed.product.port(&batch.output), count))
                }
                _ => None,
            })
            .collect()
    }

    /// Returns how many partitions of each port are among some values, or why one of those is no partition of any.
    fn backfilled_values(&self, id: &ProductId, values: &[String]) -> Result<BTreeMap<PortId, u64>, String> {
        let asked: BTreeSet<&String> = values.iter().collect();
        let outputs = self.ledger.deployed.get(id).map(|it| &it.product).into_iter().flat_map(|product| {
            product.outputs.keys().filter_map(|name| {
                Some((product.port(name), product.cut_of(name).and_then(Partitioning::values)?))
            })
        });
        let outputs: Vec<(PortId, &Values)> = outputs.collect();
        if outputs.is_empty() {
            return Err(format!("{id} is not cut by values"));
        }
        let listed = |value: &String| outputs.iter().any(|(_, values)| values.index(value).is_some());
        if asked.is_empty() {
            return Err("no partition is named".to_owned());
        }
        if let Some(unknown) = asked.iter().find(|value| !listed(value)) {
            let lists: Vec<String> = outputs.iter().map(|(_, values)| values.to_string()).collect();
            let all =
                if lists.iter().all(String::is_empty) { "none yet".to_owned() } else { lists.join("; ") };
            return Err(format!("{id} has no partition `{unknown}`; it has {all}"));
        }
        let count =
            |values: &Values| asked.iter().filter(|value| values.index(value).is_some()).count() as u64;
        let counts = outputs.iter().map(|(port, values)| (port.clone(), count(values)));
        Ok(counts.filter(|(_, count)| *count > 0).collect())
    }

    /// Returns how many partitions of each port of a product are published.
    fn published(&self, id: &ProductId) -> BTreeMap<PortId, u64> {
        let ports = self.ledger.ports.iter().filter(|(port, _)| port.product == *id);
        ports.map(|(port, state)| (port.clone(), state.partitions.len() as u64)).collect()
    }

    /// Obeys or refuses the command that a question was about.
    pub(super) fn command_decided(&mut self, question: &Question, decision: &Decision) {
        let Some(id) = question.change.get("command").and_then(|id| id.as_str()).map(str::to_owned) else {
            return;
        };
        let Some(command) = self.ledger.pending.get(&id).cloned() else { return };
        let current = self.ledger.deployed.get(&question.product).map(|deployed| deployed.print.all.as_str());
        if current.is_some_and(|current| current != question.fingerprint) {
            // Another definition was deployed meanwhile: the command is still queued and asked about anew.
            return;
        }
        let answer = match (current, decision.allow) {
            (None, _) => Err(format!("{} is not deployed", question.product)),
            (Some(_), false) => Err(denial(decision)),
            (Some(_), true) => Ok(done(&command.verb)),
        };
        self.answer_command(&id, answer);
    }

    fn answer_command(&mut self, id: &str, answer: Result<String, String>) {
        let accepted = answer.is_ok();
        self.wake_all();
        let answer = answer.unwrap_or_else(|why| why);
        self.record(Fact::CommandAnswered { id: id.to_owned(), accepted, answer });
    }
}

fn done(verb: &Verb) -> String {
    match verb {
        Verb::Backfill { product, from, to } => format!("{product} is computed again from {from} to {to}"),
        Verb::BackfillValues { product, values } => {
            format!("{product} is computed again: {}", values.join(", "))
        }
        Verb::Run { product } => format!("{product} is computed again"),
        Verb::Retry { product } => format!("failed steps of {product} are tried again"),
        Verb::Cancel { product, run } => {
            format!("{run} is stopped; what it would have computed waits for `hydromesh retry {product}`")
        }
        Verb::Pause { product, backfills: true, .. } => {
            format!("nothing but the newest of {product} begins; what is under way ends")
        }
        Verb::Pause { product, .. } => {
            format!("nothing of {product} begins; what is under way ends, and what follows a topic stops")
        }
        Verb::Resume { product } => format!("{product} goes on"),
        Verb::Silence { product, .. } => {
            format!("nothing new is sent about {product}; what fired still resolves")
        }
    }
}
