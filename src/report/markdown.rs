//! Markdown, for the comment on a pull request.

use std::fmt::Write as _;

use hydromesh_core::diag::Severity;

use super::CheckReport;
use crate::text::counted;

/// Returns the report: a summary, and a table of what someone has to look at.
#[must_use]
pub fn markdown(report: &CheckReport<'_>) -> String {
    let (errors, warnings) = (report.count(Severity::Error), report.count(Severity::Warning));
    let broken: Vec<&str> =
        report.products.iter().filter(|product| !product.whole).map(|product| product.id.as_str()).collect();
    let mut text = format!(
        "### Hydromesh check\n\n{}, {}, {}.",
        counted(report.products.len(), "product"),
        counted(errors, "error"),
        counted(warnings, "warning")
    );
    if !broken.is_empty() {
        let names: Vec<String> = broken.iter().map(|id| format!("`{id}`")).collect();
        let _ = write!(text, " Left out until mended: {}.", names.join(", "));
    }
    let told: Vec<_> = report.findings.iter().filter(|finding| finding.severity != Severity::Note).collect();
    if told.is_empty() {
        return text;
    }
    text.push_str("\n\n| | Code | Place | Finding |\n| --- | --- | --- | --- |");
    for finding in told {
        let line = if finding.line == 0 { String::new() } else { format!(":{}", finding.line) };
        let place = cell(&format!("{}{line}", report.path(&finding.file)));
        let what = format!("{}<br>_{}_", cell(&finding.message), cell(&finding.help));
        let _ = write!(text, "\n| {} | {} | {place} | {what} |", finding.severity, finding.code);
    }
    text
}

/// Returns a text that stays within one cell of a table and shows as it is.
#[must_use]
pub fn cell(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('\\', "\\\\")
        .replace('|', "\\|")
        .replace(['\r'], "")
        .replace('\n', "<br>")
}
