//! What may be written of an error.

/// Codes whose messages are an engine's, or come from wherever a panic did, and may quote what stands in a row.
const QUOTING: [&str; 2] = ["HM-X001", "HM-X004"];
/// The code of a failed audit. What each rule wanted is in lines of its own; what it measured can be the value of a row.
const AUDIT: &str = "HM-Q001";
/// The longest message.
const MOST: usize = 2_000;

/// Returns the message of a failed attempt without anything that may be a row's: quoted texts and numbers of messages that are
/// not ours. The ledger has it whole (`hydromesh runs --failed`).
#[must_use]
pub fn safe_message(code: &str, message: &str) -> String {
    let message = crate::text::line(message, MOST);
    if code == AUDIT {
        return message.split(": ").next().unwrap_or_default().to_owned();
    }
    if QUOTING.contains(&code) { masked(&message) } else { message }
}

fn masked(message: &str) -> String {
    let mut kept = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        if matches!(c, '\'' | '"' | '`') {
            // Up to the last one of its kind: a value may hold quotes too, and to keep less is the safe side.
            let end = after.rfind(c).map_or(after.len(), |end| end + c.len_utf8());
            kept.push('…');
            rest = &after[end..];
        } else if c.is_ascii_digit() {
            kept.push('…');
            rest =
                after.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | ':' | '-' | '_'));
        } else {
            kept.push(c);
            rest = after;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engines_words_lose_values_and_ours_stay() {
        let says = |code, text: &str| safe_message(code, text);
        assert_eq!(
            says("HM-X001", "Cast error: Cannot cast string 'it's secret' to value of Int64 type"),
            "Cast error: Cannot cast string … to value of Int… type"
        );
        assert_eq!(
            says("HM-X001", "Overflow happened on: 9223372036854775807 + 17"),
            "Overflow happened on: … + …"
        );
        assert_eq!(says("HM-X004", "a bug of ours: no entry for \"Mara"), "a bug of ours: no entry for …");
        let audit = "a/b.c 2026-11-01 was not published: top: measured 91234.5, wanted at most 5";
        assert_eq!(says("HM-Q001", audit), "a/b.c 2026-11-01 was not published");
        assert_eq!(
            says("HM-X006", "no file of `domains/a` matches *.csv"),
            "no file of `domains/a` matches *.csv"
        );
        assert_eq!(says("HM-L001", "postgres://u:pw@host is away\nnow"), "postgres://…@host is away now");
    }
}
