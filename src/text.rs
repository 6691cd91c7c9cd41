//! Texts of others, fit to be shown: errors, and what somebody else wrote.

/// Joins an error with its sources into one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Returns `1 run` or `2 runs`.
#[must_use]
pub fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Returns a run's id as the ledger spells it, of `run-00000012`, `run-12` or `12`; anything else as it is.
#[must_use]
pub fn run_id(text: &str) -> String {
    let number = text.strip_prefix("run-").unwrap_or(text);
    // `parse` takes a sign too.
    match number.parse::<u64>() {
        Ok(known) if number.bytes().all(|byte| byte.is_ascii_digit()) => format!("run-{known:08}"),
        _ => text.to_owned(),
    }
}

/// Returns a foreign text as one line: no control characters, nothing that reorders the text around it, no password
/// in an address, not longer than `most` characters.
pub(crate) fn line(text: &str, most: usize) -> String {
    let mut clean = String::with_capacity(text.len().min(4 * most));
    for c in text.chars() {
        match c {
            c if c.is_whitespace() || c.is_control() => {
                if !clean.ends_with(' ') {
                    clean.push(' ');
                }
            }
            '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => {}
            c => clean.push(c),
        }
        if clean.len() > 8 * most {
            break;
        }
    }
    let clean = without_passwords(clean.trim());
    if clean.chars().count() <= most {
        return clean;
    }
    let mut cut: String = clean.chars().take(most.saturating_sub(1)).collect();
    cut.truncate(cut.trim_end().len());
    cut.push('…');
    cut
}

/// Errors of other systems like to quote the address that they were given: `postgres://user:password@host`.
fn without_passwords(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        kept.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | '<' | '>'))
            .unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(sign) => {
                kept.push('…');
                &after[sign..]
            }
            None => after,
        };
    }
    kept.push_str(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_named_with_or_without_zeros() {
        for text in ["run-00000012", "run-12", "12", "0012"] {
            assert_eq!(run_id(text), "run-00000012", "{text}");
        }
        for text in ["run-", "run-x", "run-+12", "run--1", "orders", ""] {
            assert_eq!(run_id(text), text);
        }
        assert_eq!(run_id("123456789"), "run-123456789", "as the ledger goes on to count");
    }
}
