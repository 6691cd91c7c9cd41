//! What a message says, once, as plain data; every rendering shows exactly this.

use hydromesh_core::ledger::{Alert, AlertKind, AlertState};
use serde::Serialize;

use super::context::MailContext;
use super::page::{incident_page, product_page};
use crate::clock::rfc3339;
use crate::text::line;

/// Version of the machine-readable block.
const FORMAT: u32 = 1;
/// Longest text of one fact, in characters: a screen of a phone.
const LONGEST: usize = 300;
/// Most details of one section that are shown. With [`LONGEST`] this keeps a message below 100 KB, renderings and all.
const MOST_ROWS: usize = 8;
/// Longest subject, in characters: what mail programs show of one.
const LONGEST_SUBJECT: usize = 140;

/// What the reader should do, in the order of worry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Urgency {
    /// Now, also at night.
    Page,
    /// Within working hours.
    Ticket,
    /// Nothing.
    Fyi,
}

/// Everything that a message says.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Facts {
    pub format: u32,
    pub outbox: String,
    pub episode: String,
    pub transition: u32,
    pub state: AlertState,
    pub urgency: Urgency,
    pub kind: AlertKind,
    pub product: String,
    pub subject: String,
    pub mesh: String,
    pub environment: String,
    /// The subject's tag: `PAGE`, `TICKET`, `FYI` or `RESOLVED`.
    pub tag: &'static str,
    pub summary: String,
    /// Since when, and for how long: the second line on a phone.
    pub since: String,
    pub sections: Vec<Section>,
    pub actions: Vec<Action>,
    pub links: Vec<Link>,
    /// Why this address gets the message and how to change that.
    pub routing: String,
}

/// A heading with its facts.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Section {
    pub title: &'static str,
    pub rows: Vec<(String, String)>,
}

/// A command line and why to type it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Action {
    pub why: &'static str,
    pub command: String,
}

/// An address worth opening.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Link {
    pub label: &'static str,
    pub url: String,
}

impl Facts {
    pub fn of(outbox: &str, alert: &Alert, context: &MailContext) -> Self {
        let resolved = alert.state == AlertState::Resolved;
        let urgency = urgency(alert.kind, context.history.tier);
        let tag = match (resolved, urgency) {
            (true, _) => "RESOLVED",
            (_, Urgency::Page) => "PAGE",
            (_, Urgency::Ticket) => "TICKET",
            (_, Urgency::Fyi) => "FYI",
        };
        let summary = line(&alert.summary, LONGEST);
        let summary = summary.strip_prefix("resolved: ").unwrap_or(&summary).to_owned();
        Self {
            format: FORMAT,
            outbox: outbox.to_owned(),
            episode: line(&alert.episode, LONGEST),
            transition: alert.transition,
            state: alert.state,
            urgency,
            kind: alert.kind,
            product: alert.product.to_string(),
            subject: line(&alert.subject, LONGEST),
            mesh: line(&context.mesh, 120),
            environment: line(&context.environment, 60),
            tag,
            summary,
            since: since(context, resolved),
            sections: sections(alert, context),
            actions: if resolved { Vec::new() } else { actions(alert, context.history.follows) },
            links: links(alert, context),
            routing: format!(
                "The alert routes of mesh.yaml (or, without one, the owners of {}) name this address. Change them in git.",
                alert.product
            ),
        }
    }

    /// Returns the subject line. What follows the tag begins alike in every message of an episode.
    pub fn subject_line(&self) -> String {
        let story = format!("{} {}", self.product, self.kind.as_str());
        // The story names the product already.
        let rest = self.summary.strip_prefix(&self.product).filter(|rest| rest.starts_with(['.', ':', ' ']));
        let rest = rest.map_or(self.summary.as_str(), |rest| rest.trim_start_matches(['.', ':', ' ']));
        line(&format!("[{}] {story}: {rest}", self.tag), LONGEST_SUBJECT)
    }
}

fn urgency(kind: AlertKind, tier: Option<u8>) -> Urgency {
    match (kind, tier.unwrap_or(2)) {
        // A refused commit and drift change nothing that already serves: nobody is woken for them.
        (AlertKind::Deploy, 3..) => Urgency::Fyi,
        (AlertKind::Deploy | AlertKind::Drift | AlertKind::Policy, _) => Urgency::Ticket,
        (_, 0..=1) => Urgency::Page,
        (_, 2) => Urgency::Ticket,
        _ => Urgency::Fyi,
    }
}

/// Returns the word for a state, as the ledger spells it.
pub(super) fn state_name(state: AlertState) -> &'static str {
    match state {
        AlertState::Firing => "firing",
        AlertState::Held => "held",
        AlertState::Resolved => "resolved",
    }
}

fn since(context: &MailContext, resolved: bool) -> String {
    let Some(since_ms) = context.history.since_ms else {
        return format!("as of {}", instant(context.now_ms));
    };
    let length = length(context.now_ms - since_ms);
    if resolved {
        format!("from {} to {} ({length})", instant(since_ms), instant(context.now_ms))
    } else {
        format!("since {} ({length})", instant(since_ms))
    }
}

/// Where a detail of an alert belongs, by the label that control gives it.
fn section_of(label: &str) -> &'static str {
    match label {
        "Port" | "Promise" => "What",
        "Data is usable up to" | "What runs" => "Last good",
        _ => "Likely cause",
    }
}

fn sections(alert: &Alert, context: &MailContext) -> Vec<Section> {
    let history = &context.history;
    let mut sections: Vec<Section> = ["What", "Since", "Likely cause", "Blast radius", "Last good"]
        .map(|title| Section { title, rows: Vec::new() })
        .into();
    let mut add = |title: &str, label: &str, text: &str| {
        let row = (line(label, 80), line(text, LONGEST));
        if let Some(section) = sections.iter_mut().find(|section| section.title == title)
            && !section.rows.contains(&row)
        {
            section.rows.push(row);
        }
    };
    add("What", "Product", &alert.product.to_string());
    add("What", "Environment", &context.environment);
    if let Some(since_ms) = history.since_ms {
        add("Since", "Began", &instant(since_ms));
    }
    if history.occurrence > 0 {
        add("Since", "Episode", &format!("{} within 30 days", ordinal(history.occurrence)));
    }
    for (label, text) in &alert.details {
        match label.as_str() {
            // Shown as a link and as a command.
            "Runbook" | "Explain" => {}
            // Told with its author below.
            "Last deploy" if history.last_change.is_some() => {}
            "Blast radius" => add("Blast radius", "Readers", text),
            _ => add(section_of(label), label, text),
        }
    }
    for (step, error) in history.failing.iter().take(5) {
        add("Likely cause", &format!("Failed step {step}"), error);
    }
    if let Some(change) = &history.last_change {
        let text = format!(
            "{} by {}: {} (deployed {})",
            short(&change.commit),
            change.author,
            change.message,
            instant(change.deployed_ms)
        );
        add("Likely cause", "Last change", &text);
    }
    if !history.explains.is_empty() {
        let names: Vec<String> = history.explains.iter().map(ToString::to_string).collect();
        add("Blast radius", "Already late because of this", &names.join(", "));
    }
    if let Some(good) = &history.last_good {
        let what = if good.partition.is_empty() { "the whole table" } else { &good.partition };
        let text =
            format!("{} {what}, {} rows, {} at {}", good.port, good.rows, good.run, instant(good.at_ms));
        add("Last good", "Published", &text);
    }
    sections.retain(|section| !section.rows.is_empty());
    for section in &mut sections {
        let more = section.rows.len().saturating_sub(MOST_ROWS);
        if more > 0 {
            section.rows.truncate(MOST_ROWS);
            section.rows.push(("And".to_owned(), format!("{more} more; see the incident's page")));
        }
    }
    sections
}

/// Returns what to type, most helpful first. Addresses and codes are of a small alphabet, so a line can be pasted into
/// a shell as it is.
fn actions(alert: &Alert, follows: bool) -> Vec<Action> {
    let product = &alert.product;
    let said = || Action {
        why: "See what it said last; it goes on by itself with what it reads",
        command: format!("hydromesh logs {product}"),
    };
    let mut actions = match alert.kind {
        AlertKind::Freshness => vec![
            Action {
                why: "See which input or step holds it back",
                command: format!("hydromesh why {product}"),
            },
            if follows {
                said()
            } else {
                Action {
                    why: "Compute what is due now; safe to repeat",
                    command: format!("hydromesh run {product} --reason \"late\""),
                }
            },
        ],
        AlertKind::Quality => vec![
            Action {
                why: "See the rule and what was measured",
                command: format!("hydromesh runs {product}"),
            },
            Action {
                why: "After the data or the rule is repaired; nothing was published meanwhile",
                command: format!("hydromesh retry {product} --reason \"repaired\""),
            },
        ],
        AlertKind::Run => vec![
            Action { why: "See what each attempt said", command: format!("hydromesh runs {product}") },
            Action {
                why: "Try again once the cause is gone; safe to repeat",
                command: format!("hydromesh retry {product} --reason \"cause is gone\""),
            },
        ],
        AlertKind::Drift => vec![
            Action {
                why: "Compare the champion with its features now",
                command: format!("hydromesh models {product}"),
            },
            Action {
                why: "Fit a challenger now; it serves only if it is not worse",
                command: format!("hydromesh run {product} --reason \"drift\""),
            },
        ],
        AlertKind::Table => vec![
            Action { why: "See what was found, and when", command: format!("hydromesh why {product}") },
            if follows {
                Action {
                    why: "See what to move away: it then begins again with what is still there to read",
                    command: "hydromesh doctor".to_owned(),
                }
            } else {
                Action {
                    why: "Compute it again; readers go on with what was published",
                    command: format!("hydromesh run {product} --reason \"changed by hand\""),
                }
            },
        ],
        AlertKind::Policy | AlertKind::Stopped => vec![
            Action {
                why: "See the rule, what it is about, and what is stopped",
                command: format!("hydromesh why {product}"),
            },
            Action {
                why: "See what satisfies it; a change that does is deployed, a waiver lets it pass until a date",
                command: format!("hydromesh why-not {product}"),
            },
        ],
        AlertKind::Deploy => vec![Action {
            why: "See the rule or the reader that refused it, and how to satisfy it",
            command: format!("hydromesh why-not {product}"),
        }],
    };
    let explain = alert.details.iter().find(|(label, _)| label == "Explain").map(|(_, text)| text.as_str());
    if let Some(code) =
        explain.and_then(|text| text.strip_prefix("hydromesh explain ")).filter(|code| is_code(code))
    {
        actions.insert(
            0,
            Action { why: "Read what the error means", command: format!("hydromesh explain {code}") },
        );
    }
    actions
}

/// `HM-R003`: letters, digits and hyphens of a sane length.
fn is_code(text: &str) -> bool {
    text.len() <= 16 && text.starts_with("HM-") && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

fn links(alert: &Alert, context: &MailContext) -> Vec<Link> {
    let mut links = Vec::new();
    let runbook = alert.details.iter().find(|(label, _)| label == "Runbook").map(|(_, text)| text.as_str());
    if let Some(url) = runbook.and_then(|text| web_address(text, &["https"])) {
        links.push(Link { label: "Runbook", url });
    }
    // A mesh on one machine serves its site on loopback, without TLS.
    if let Some(site) = context.site.as_deref().and_then(|site| web_address(site, &["https", "http"])) {
        let site = site.trim_end_matches('/');
        links.push(Link { label: "Incident", url: format!("{site}/{}", incident_page(&alert.episode)) });
        links.push(Link { label: "Product", url: format!("{site}/{}", product_page(&alert.product)) });
    }
    links
}

/// Returns an address that may become a link: one of the schemes, with a host, without credentials.
fn web_address(text: &str, schemes: &[&str]) -> Option<String> {
    let url = url::Url::parse(text.trim()).ok()?;
    let plain = text.len() <= 2048 && url.has_host() && url.username().is_empty() && url.password().is_none();
    (plain && schemes.contains(&url.scheme())).then(|| url.into())
}

fn short(commit: &str) -> String {
    commit.chars().take(12).collect()
}

/// `2026-11-20 02:10 UTC`: to the minute, with its zone, never relative to a reader's clock.
fn instant(ms: i64) -> String {
    let text = rfc3339(ms);
    match (text.get(..10), text.get(11..16)) {
        (Some(day), Some(time)) => format!("{day} {time} UTC"),
        _ => text,
    }
}

/// A length of time in its two greatest units.
fn length(ms: i64) -> String {
    let minutes = ms.max(0) / 60_000;
    match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
        (0, 0, 0) => "less than a minute".to_owned(),
        (0, 0, m) => format!("{m} min"),
        (0, h, m) => format!("{h} h {m} min"),
        (d, h, _) => format!("{d} d {h} h"),
    }
}

fn ordinal(count: u64) -> String {
    let ending = match (count % 10, count % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{count}{ending}")
}
