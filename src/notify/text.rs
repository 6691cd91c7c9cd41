//! The plain rendering. Its first 200 characters are what a phone shows: what, since when, what to type.

use super::facts::Facts;

/// Width to which headings are underlined.
const RULE: usize = 60;

pub(super) fn render(facts: &Facts, json: &str) -> String {
    let mut out = format!(
        "[{}] {}\n{}, {} {}.\n",
        facts.tag,
        facts.summary,
        capital(&facts.since),
        facts.mesh,
        facts.environment
    );
    if let Some(first) = facts.actions.first() {
        out.push_str(&format!("First: {}\n", first.command));
    }
    for section in &facts.sections {
        heading(&mut out, section.title);
        for (label, text) in &section.rows {
            out.push_str(&format!("{label}: {text}\n"));
        }
    }
    if !facts.actions.is_empty() {
        heading(&mut out, "Suggested action");
        for action in &facts.actions {
            out.push_str(&format!("{}:\n    {}\n", action.why, action.command));
        }
    }
    if !facts.links.is_empty() {
        heading(&mut out, "Links");
        for link in &facts.links {
            out.push_str(&format!("{}: {}\n", link.label, link.url));
        }
    }
    heading(&mut out, "Why you got this");
    out.push_str(&format!("{}\n", facts.routing));
    heading(&mut out, "For machines");
    out.push_str(json);
    out.push('\n');
    out
}

pub(super) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn heading(out: &mut String, title: &str) {
    out.push_str(&format!("\n-- {title} {}\n", "-".repeat(RULE.saturating_sub(title.len() + 4))));
}
