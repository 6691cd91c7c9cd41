//! The files in which OpenSSH keeps who may sign, as `ssh-keygen -Y verify` reads them.

use std::collections::BTreeSet;

use chrono::NaiveDateTime;

use super::Key;

/// What is wrong with a line: its number, from 1, and what.
pub type Misfit = (u32, String);

/// Reads an `allowed_signers` file. Lines that do not fit are told, and name nobody.
///
/// Two things of the format are refused, because a line that is half understood would trust too many: certificate
/// authorities, and excluded principals (`!name`). Times without `Z` count as UTC, so that a file means the same everywhere.
#[must_use]
pub fn parse_allowed(text: &str) -> (Vec<Key>, Vec<Misfit>) {
    let (mut keys, mut misfits) = (Vec::new(), Vec::new());
    for (number, line) in lines(text) {
        match allowed(line) {
            Ok(key) => keys.push(key),
            Err(why) => misfits.push((number, why)),
        }
    }
    (keys, misfits)
}

/// Reads a file of revoked keys, one public key in a line; returns their ids.
#[must_use]
pub fn parse_revoked(text: &str) -> (BTreeSet<String>, Vec<Misfit>) {
    let (mut ids, mut misfits) = (BTreeSet::new(), Vec::new());
    for (number, line) in lines(text) {
        let mut words = line.split_whitespace();
        match (words.next().filter(|word| is_key_type(word)), words.next()) {
            (Some(_), Some(id)) => _ = ids.insert(id.to_owned()),
            _ => misfits
                .push((number, "a public key is wanted here, such as `ssh-ed25519 AAAA...`".to_owned())),
        }
    }
    (ids, misfits)
}

fn lines(text: &str) -> impl Iterator<Item = (u32, &str)> {
    (1..)
        .zip(text.lines())
        .map(|(number, line)| (number, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

fn is_key_type(word: &str) -> bool {
    ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"].iter().any(|kind| word.starts_with(kind))
}

fn allowed(line: &str) -> Result<Key, String> {
    let mut words = words(line)?.into_iter();
    if words.as_slice().first().is_some_and(|word| is_key_type(word)) {
        return Err("the line names nobody before the key".to_owned());
    }
    let principals: BTreeSet<String> = words
        .next()
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    if principals.is_empty() {
        return Err("the line names nobody".to_owned());
    }
    if principals.iter().any(|name| name.starts_with('!')) {
        return Err("excluded principals (`!name`) are not supported".to_owned());
    }
    let mut key = Key { principals, ..Key::default() };
    let mut word = words.next().ok_or("a key is missing")?;
    if !is_key_type(&word) {
        options(&word, &mut key)?;
        word = words.next().filter(|word| is_key_type(word)).ok_or("a key is missing")?;
    }
    key.kind = word;
    key.id = words.next().ok_or("the key itself is missing behind its type")?;
    Ok(key)
}

fn options(text: &str, key: &mut Key) -> Result<(), String> {
    for option in separated(text, ',')? {
        let (name, value) = option.split_once('=').unwrap_or((&option, ""));
        match name.to_ascii_lowercase().as_str() {
            "namespaces" => {
                key.namespaces = Some(value.split(',').map(|name| name.trim().to_owned()).collect());
            }
            "valid-after" => key.from_ms = Some(instant(value)?),
            // The second that is named still counts.
            "valid-before" => key.until_ms = Some(instant(value)?.saturating_add(999)),
            "cert-authority" => return Err("certificate authorities are not supported".to_owned()),
            _ => return Err(format!("the option `{name}` is not known")),
        }
    }
    Ok(())
}

/// Returns an instant written as `YYYYMMDD`, `YYYYMMDDHHMM` or `YYYYMMDDHHMMSS`, milliseconds UTC.
fn instant(text: &str) -> Result<i64, String> {
    let digits = text.trim_end_matches(['Z', 'z']);
    let whole = match digits.len() {
        8 => format!("{digits}000000"),
        12 => format!("{digits}00"),
        _ => digits.to_owned(),
    };
    NaiveDateTime::parse_from_str(&whole, "%Y%m%d%H%M%S")
        .ok()
        .filter(|_| whole.len() == 14 && whole.bytes().all(|byte| byte.is_ascii_digit()))
        .map(|at| at.and_utc().timestamp_millis())
        .ok_or_else(|| format!("`{text}` is no time such as 20261130 or 202611301200Z"))
}

/// Splits at white space outside quotes.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = separated(&line.replace('\t', " "), ' ')?;
    words.retain(|word| !word.is_empty());
    Ok(words)
}

/// Splits outside double quotes, and takes the quotes away where nothing more is to be split within them.
fn separated(text: &str, by: char) -> Result<Vec<String>, String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    for letter in text.chars() {
        if letter == '"' {
            quoted = !quoted;
        }
        if letter == by && !quoted {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(letter);
        }
    }
    if quoted {
        return Err("a quote is not closed".to_owned());
    }
    // Options are split twice: by white space first, then by commas, and only then do quotes go.
    let strip = |part: String| if by == ',' || part.starts_with('"') { part.replace('"', "") } else { part };
    Ok(parts.into_iter().map(strip).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_openssh_reads_it() {
        let text = "# who may sign\n\n\
            mara@example.com ssh-ed25519 AAAA1 Mara's key\n\
            \"jan@example.com,*@ops.example.com\" namespaces=\"git,file\",valid-after=20260101,valid-before=\"20270101Z\" ecdsa-sha2-nistp256 AAAA2\n\
            eve@example.com\tnamespaces=\"file\" ssh-rsa AAAA3\n";
        let (keys, misfits) = parse_allowed(text);
        assert_eq!(misfits, []);
        assert_eq!((keys[0].id.as_str(), keys[0].kind.as_str()), ("AAAA1", "ssh-ed25519"));
        assert_eq!(keys[0].namespaces, None);
        assert_eq!(keys[1].principals.iter().collect::<Vec<_>>(), ["*@ops.example.com", "jan@example.com"]);
        let both = ["file".to_owned(), "git".to_owned()].into();
        assert_eq!(keys[1].namespaces, Some(both));
        assert_eq!(keys[1].from_ms, Some(1_767_225_600_000));
        assert_eq!(keys[1].until_ms, Some(1_798_761_600_999));
        assert_eq!(keys[2].id, "AAAA3");
    }

    #[test]
    fn what_is_not_understood_trusts_nobody() {
        for (line, says) in [
            ("mara@example.com", "a key is missing"),
            ("ssh-ed25519 AAAA1", "names nobody"),
            ("mara@example.com ssh-ed25519", "the key itself"),
            ("* cert-authority ssh-ed25519 AAAA1", "authorities"),
            ("*,!eve@example.com ssh-ed25519 AAAA1", "excluded"),
            ("m@example.com no-touch-required ssh-ed25519 AAAA1", "`no-touch-required` is not known"),
            ("m@example.com valid-before=2027 ssh-ed25519 AAAA1", "no time"),
            ("m@example.com valid-before=20271301 ssh-ed25519 AAAA1", "no time"),
            ("m@example.com valid-before=\"20270101 ssh-ed25519 AAAA1", "not closed"),
        ] {
            let (keys, misfits) = parse_allowed(line);
            assert!(keys.is_empty() && misfits[0].1.contains(says), "{line}: {misfits:?}");
        }
        let (ids, misfits) = parse_revoked("# lost\nssh-ed25519 AAAA1 laptop\nSSHKRL\0\n");
        assert_eq!(ids.into_iter().collect::<Vec<_>>(), ["AAAA1"]);
        assert_eq!(misfits.len(), 1);
    }
}
