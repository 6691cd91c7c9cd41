//! A gate in a process of its own: what its rules take, they do not take from whoever asks.
//!
//! Rules come from whoever may write to a domain's folder. Their time can be bounded where they are evaluated, their memory cannot:
//! a value that doubles takes all there is between two looks at the clock, and a process that finds none ends. Here it is the
//! worker that ends. Whatever becomes of it, the question that it was asked is denied, and the next one gets a new worker.

mod child;

use std::ffi::OsString;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{
    decision::{Decision, Enforce, Severity, SourceSet, Violation, input_hash},
    gate::POLICY_UNANSWERED,
    rules::Rules,
    wire::{Place, Reply, Request, frame},
};
use child::{Child, Heard};

/// What a worker may take.
#[derive(Clone, Copy, Debug)]
pub struct ProcessLimits {
    /// Memory of the worker, in MiB.
    pub memory_mib: u64,
    /// Time of one question to all layers. A rule that loops is stopped by its engine before, with its place.
    pub question: Duration,
    /// Time to load the rules: a compiled module takes seconds.
    pub loading: Duration,
}

impl Default for ProcessLimits {
    fn default() -> Self {
        // A worker with the central rules and a module takes under 100 MiB, one instance of it at most 256 MiB more.
        Self { memory_mib: 512, question: Duration::from_secs(15), loading: Duration::from_mins(1) }
    }
}

/// A gate that is asked over a pipe. The worker begins with the first question and lives until this is dropped.
pub struct GateProcess {
    program: OsString,
    limits: ProcessLimits,
    child: Option<Child>,
}

impl Default for GateProcess {
    fn default() -> Self {
        // The very file that this process was begun from, also when another lies in its place by now.
        Self::of("/proc/self/exe".into(), ProcessLimits::default())
    }
}

/// Why there is no answer. The words are the same whenever the same happens: they are part of a decision.
#[derive(Debug)]
enum Silence {
    NotStarted(String),
    Memory(Option<Place>, u64),
    Time(Option<Place>, Duration),
    Ended(Option<Place>, String),
    Nonsense,
}

impl GateProcess {
    /// Returns one whose worker is another program: it must know the verb `gate-worker`.
    #[must_use]
    pub fn of(program: OsString, limits: ProcessLimits) -> Self {
        Self { program, limits, child: None }
    }

    /// Returns the number of the process that is ready to be asked, if there is one.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Judges one input document like [`super::Gate::decide`]. It fails closed: without an answer it is denied.
    pub fn decide(&mut self, rules: &Rules, input: &Value) -> Decision {
        match self.ask(rules, input) {
            Ok(decision) => decision,
            Err(silence) => {
                // It may still be busy with what was asked: nobody else waits for that.
                self.child = None;
                unanswered(rules, input, &silence)
            }
        }
    }

    fn ask(&mut self, rules: &Rules, input: &Value) -> Result<Decision, Silence> {
        let (loading, limit) = (self.limits.loading, self.limits.question);
        let digest = || rules.digest().to_owned();
        let child = self.child()?;
        let question = frame(&Request::<(), _>::Decide { digest: digest(), input });
        let question = question.map_err(|_| Silence::Nonsense)?;
        let mut reply = exchange(child, question.clone(), limit)?;
        if matches!(reply, Reply::NotLoaded) {
            let load = frame(&Request::<_, ()>::Load { digest: digest(), rules: rules.texts() });
            let loaded = exchange(child, load.map_err(|_| Silence::Nonsense)?, loading)?;
            if !matches!(loaded, Reply::Loaded) {
                return Err(Silence::Nonsense);
            }
            reply = exchange(child, question, limit)?;
        }
        let Reply::Decided(decision) = reply else { return Err(Silence::Nonsense) };
        let domain = input.pointer("/product/domain").and_then(Value::as_str).unwrap_or_default();
        // It must be about this very question, and by these rules.
        let about_this = decision.input_hash == input_hash(input)
            && decision.policy_digest == rules.digest_for(domain)
            && decision.allow == (decision.violations.is_empty() && decision.error.is_none());
        if about_this { Ok(*decision) } else { Err(Silence::Nonsense) }
    }

    fn child(&mut self) -> Result<&mut Child, Silence> {
        match &mut self.child {
            Some(child) => Ok(child),
            none => {
                let child = Child::start(&self.program, self.limits.memory_mib);
                Ok(none.insert(child.map_err(|error| Silence::NotStarted(error.to_string()))?))
            }
        }
    }
}

/// Sends a request and waits for the end of its answer.
fn exchange(child: &mut Child, request: Vec<u8>, limit: Duration) -> Result<Reply, Silence> {
    let until = Instant::now() + limit;
    let mut place = None;
    child.send(request);
    loop {
        match child.hear(until.saturating_duration_since(Instant::now())) {
            Heard::Said(bytes) => match serde_json::from_slice(&bytes) {
                Ok(Reply::Asking(now)) => place = Some(now),
                Ok(reply) => return Ok(reply),
                Err(_) => return Err(Silence::Nonsense),
            },
            Heard::Nothing => return Err(Silence::Time(place, limit)),
            Heard::Nonsense => return Err(Silence::Nonsense),
            Heard::End => {
                return Err(match child.end() {
                    child::End::Memory => Silence::Memory(place, child.memory_mib()),
                    child::End::Other(how) => Silence::Ended(place, how),
                });
            }
        }
    }
}

/// Returns the denial of what was not answered.
fn unanswered(rules: &Rules, input: &Value, silence: &Silence) -> Decision {
    let domain = input.pointer("/product/domain").and_then(Value::as_str).unwrap_or_default();
    let at = |place: &Option<Place>| {
        place.as_ref().map_or_else(|| "loading the rules".to_owned(), |it| it.question.clone())
    };
    let repair = "Rewrite the rule so that what it builds is bounded by its input; nothing that it concerns is deployed until then.";
    let (what, place, remediation) = match silence {
        Silence::NotStarted(why) => (
            format!("no process could be started to evaluate them ({why})"),
            None,
            "Let this process start another of its own program: it needs /proc and a free process number.",
        ),
        Silence::Memory(place, mib) => (
            format!("{} took more memory than the {mib} MiB that rules may", at(place)),
            place.as_ref(),
            repair,
        ),
        Silence::Time(place, limit) => (
            format!("{} took longer than the {} s that rules may", at(place), limit.as_secs_f64()),
            place.as_ref(),
            repair,
        ),
        Silence::Ended(place, how) => (
            format!("the process that evaluates them ended at {} ({how})", at(place)),
            place.as_ref(),
            repair,
        ),
        Silence::Nonsense => (
            "the process that evaluates them gave an answer that is none".to_owned(),
            None,
            "Look for a rule that denies with megabytes of text; else this is a defect of the program, nothing in the product causes it.",
        ),
    };
    let message = format!("HM-P003: the policies gave no answer: {what}");
    let file = place.map(|it| it.file.clone()).filter(|file| !file.is_empty());
    let violation = Violation {
        rule: POLICY_UNANSWERED.to_owned(),
        message: message.clone(),
        path: file.clone(),
        severity: Severity::Critical,
        remediation: Some(remediation.to_owned()),
        enforce: Enforce::Deploy,
        source_file: file,
        source_set: place.map_or(SourceSet::Central, |it| it.set),
    };
    Decision {
        allow: false,
        violations: vec![violation],
        warnings: Vec::new(),
        waived: Vec::new(),
        expired_waivers: Vec::new(),
        policy_digest: rules.digest_for(domain),
        input_hash: input_hash(input),
        engine: "none".to_owned(),
        error: Some(message),
    }
}
