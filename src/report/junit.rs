//! JUnit XML: one case per product, so that a CI server shows which product broke and since when.

use std::fmt::Write as _;

use hydromesh_core::diag::{Diagnostic, Severity};

use super::CheckReport;

/// Returns the report. What belongs to no product is in the case `mesh`.
#[must_use]
pub fn junit(report: &CheckReport<'_>) -> String {
    let of = |finding: &Diagnostic| {
        // The longest folder wins, should one product's folder begin like another's.
        let owners = report.products.iter().filter(|product| within(&finding.file, &product.folder));
        owners.max_by_key(|product| product.folder.len()).map_or("mesh", |product| product.id.as_str())
    };
    let names: Vec<&str> =
        std::iter::once("mesh").chain(report.products.iter().map(|product| product.id.as_str())).collect();
    let mut cases = String::new();
    let mut failures = 0;
    for name in &names {
        let mine: Vec<&Diagnostic> = report
            .findings
            .iter()
            .filter(|finding| finding.severity != Severity::Note && of(finding) == *name)
            .collect();
        let _ = writeln!(cases, "    <testcase classname=\"mesh\" name=\"{}\">", escape(name));
        let errors: Vec<&&Diagnostic> = mine.iter().filter(|it| it.severity == Severity::Error).collect();
        if let Some(first) = errors.first() {
            failures += 1;
            let text: Vec<String> = errors
                .iter()
                .map(|it| format!("{}\n{}\nhelp: {}", place(report, it), it.message, it.help))
                .collect();
            let _ = writeln!(
                cases,
                "      <failure type=\"{}\" message=\"{}\">{}</failure>",
                first.code,
                escape(&first.message),
                escape(&text.join("\n\n"))
            );
        }
        let warnings: Vec<String> = mine
            .iter()
            .filter(|it| it.severity == Severity::Warning)
            .map(|it| format!("warning[{}] {}: {}", it.code, place(report, it), it.message))
            .collect();
        if !warnings.is_empty() {
            let _ = writeln!(cases, "      <system-out>{}</system-out>", escape(&warnings.join("\n")));
        }
        cases.push_str("    </testcase>\n");
    }
    let (tests, n) = (names.len(), failures);
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"hydromesh check\" tests=\"{tests}\" \
         failures=\"{n}\">\n  <testsuite name=\"mesh\" tests=\"{tests}\" failures=\"{n}\">\n{cases}  </testsuite>\n</testsuites>"
    )
}

fn within(file: &str, folder: &str) -> bool {
    file.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn place(report: &CheckReport<'_>, finding: &Diagnostic) -> String {
    let file = report.path(&finding.file);
    match (finding.line, finding.column) {
        (0, _) => file,
        (line, 0) => format!("{file}:{line}"),
        (line, column) => format!("{file}:{line}:{column}"),
    }
}

/// Escapes for text and attributes, and drops control characters, which XML cannot hold in any form.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
