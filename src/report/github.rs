//! Workflow commands of GitHub Actions, which become annotations on the lines of a pull request.

use hydromesh_core::diag::Severity;

use super::CheckReport;

/// Returns one annotation per finding, or an empty text.
#[must_use]
pub fn github(report: &CheckReport<'_>) -> String {
    let line = |finding: &hydromesh_core::diag::Diagnostic| {
        let level = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "notice",
        };
        let mut place = format!("file={}", property(&report.path(&finding.file)));
        if finding.line > 0 {
            place.push_str(&format!(",line={}", finding.line));
        }
        if finding.line > 0 && finding.column > 0 {
            place.push_str(&format!(",col={}", finding.column));
        }
        let message = data(&format!("{} ({})", finding.message, finding.help));
        format!("::{level} {place},title={}::{message}", finding.code)
    };
    report.findings.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Escapes as the runner's toolkit does: it ends a command at a line break, and `%` begins an escape.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
