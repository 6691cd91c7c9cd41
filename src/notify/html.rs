//! The rendering with markup: the same facts, no script, no picture, nothing fetched from anywhere.

use super::facts::Facts;
use super::text::capital;

/// Escapes foreign text for elements and quoted attributes alike.
fn escape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 16);
    tera::escape_html(text, &mut out).expect("writing to memory cannot fail");
    String::from_utf8(out).expect("whole characters in, whole characters out")
}

pub(super) fn render(facts: &Facts, json: &str) -> String {
    let colour = match facts.tag {
        "PAGE" => "#b42318",
        "TICKET" => "#93500b",
        "RESOLVED" => "#1a7340",
        _ => "#3b5573",
    };
    let mut out = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    out.push_str("<meta name=\"viewport\" content=\"width=device-width\"><title>");
    out.push_str(&escape(&facts.subject_line()));
    out.push_str("</title></head>\n<body style=\"margin:0;padding:16px;background:#ffffff;color:#1c2430;font:15px/1.5 system-ui,sans-serif\">\n");
    out.push_str("<div style=\"max-width:640px;margin:0 auto\">\n");
    out.push_str(&format!(
        "<p style=\"margin:0 0 8px;font-size:18px\"><b style=\"color:{colour}\">[{}]</b> <b>{}</b></p>\n",
        facts.tag,
        escape(&facts.summary)
    ));
    out.push_str(&format!(
        "<p style=\"margin:0 0 8px\">{}, {} {}.</p>\n",
        escape(&capital(&facts.since)),
        escape(&facts.mesh),
        escape(&facts.environment)
    ));
    if let Some(first) = facts.actions.first() {
        out.push_str(&format!(
            "<p style=\"margin:0 0 8px\">First: <code>{}</code></p>\n",
            escape(&first.command)
        ));
    }
    for section in &facts.sections {
        heading(&mut out, section.title);
        out.push_str("<table role=\"presentation\" cellpadding=\"0\" cellspacing=\"0\">\n");
        for (label, text) in &section.rows {
            out.push_str(&format!(
                "<tr><td style=\"padding:2px 12px 2px 0;color:#5b6675;vertical-align:top\">{}</td><td style=\"padding:2px 0\">{}</td></tr>\n",
                escape(label),
                escape(text)
            ));
        }
        out.push_str("</table>\n");
    }
    if !facts.actions.is_empty() {
        heading(&mut out, "Suggested action");
        for action in &facts.actions {
            out.push_str(&format!(
                "<p style=\"margin:0 0 8px\">{}:<br><code style=\"background:#eef1f5;padding:2px 6px\">{}</code></p>\n",
                escape(action.why),
                escape(&action.command)
            ));
        }
    }
    if !facts.links.is_empty() {
        heading(&mut out, "Links");
        for link in &facts.links {
            let url = escape(&link.url);
            out.push_str(&format!(
                "<p style=\"margin:0 0 4px\">{}: <a href=\"{url}\">{url}</a></p>\n",
                escape(link.label)
            ));
        }
    }
    heading(&mut out, "Why you got this");
    out.push_str(&format!("<p style=\"margin:0 0 8px\">{}</p>\n", escape(&facts.routing)));
    heading(&mut out, "For machines");
    out.push_str(&format!(
        "<pre style=\"font-size:12px;color:#5b6675;white-space:pre-wrap\">{}</pre>\n</div></body></html>\n",
        escape(json)
    ));
    out
}

fn heading(out: &mut String, title: &str) {
    out.push_str(&format!("<h2 style=\"margin:20px 0 4px;font-size:15px\">{title}</h2>\n"));
}
