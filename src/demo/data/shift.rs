//! Moves an example mesh in time by whole weeks, so that its fixed history ends where a demo begins.

use std::fs;
use std::io;
use std::path::Path;

use chrono::{Duration, NaiveDate};

/// Rewrites every ISO date of the data files (`domains/*/*/data/`, `seed/`) and the `start:` values of each
/// `pipeline.yaml`, `weeks` weeks later (earlier when negative). Whole weeks keep the weekly season, and nothing but the dates
/// changes: a shift by `n` and then `-n` restores every byte.
///
/// # Errors
/// When a file cannot be read or written, is no UTF-8, or a date would leave the years 0000 to 9999. In the last
/// case no file has been touched.
pub fn shift_weeks(root: &Path, weeks: i64) -> io::Result<()> {
    let mut changed = Vec::new();
    for (path, scope) in files(root)? {
        let text = fs::read_to_string(&path)?;
        let shifted = match scope {
            Scope::Everything => shift_text(&text, weeks)?,
            Scope::Start => shift_starts(&text, weeks)?,
        };
        if shifted != text {
            changed.push((path, shifted));
        }
    }
    changed.into_iter().try_for_each(|(path, text)| fs::write(path, text))
}

#[derive(Debug, Clone, Copy)]
enum Scope {
    Everything,
    Start,
}

fn files(root: &Path) -> io::Result<Vec<(std::path::PathBuf, Scope)>> {
    let mut found = Vec::new();
    let whole = |folder: &Path, found: &mut Vec<_>| -> io::Result<()> {
        for file in entries(folder)?.into_iter().filter(|path| path.is_file()) {
            if matches!(file.extension().and_then(|e| e.to_str()), Some("csv" | "jsonl")) {
                found.push((file, Scope::Everything));
            }
        }
        Ok(())
    };
    whole(&root.join("seed"), &mut found)?;
    for domain in entries(&root.join("domains"))? {
        for product in entries(&domain)? {
            whole(&product.join("data"), &mut found)?;
            let pipeline = product.join("pipeline.yaml");
            if pipeline.is_file() {
                found.push((pipeline, Scope::Start));
            }
        }
    }
    Ok(found)
}

fn entries(folder: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Shifts every `start: DATE` and leaves all other text, comments included.
fn shift_starts(text: &str, weeks: i64) -> io::Result<String> {
    const KEY: &str = "start:";
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let comment = line.find('#').unwrap_or(line.len());
        match line[..comment].find(KEY) {
            Some(at) => {
                let (before, rest) = line.split_at(at + KEY.len());
                // Only the value itself: a flow mapping may go on behind it.
                let end = rest.find([',', '}', '#']).unwrap_or(rest.len());
                out.push_str(before);
                out.push_str(&shift_text(&rest[..end], weeks)?);
                out.push_str(&rest[end..]);
            }
            None => out.push_str(line),
        }
    }
    Ok(out)
}

/// Shifts every `YYYY-MM-DD` that is a real date and stands alone. `2026-13-45` or `12026-01-01` stay.
fn shift_text(text: &str, weeks: i64) -> io::Result<String> {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    let mut at = 0;
    while at + 10 <= bytes.len() {
        let Some(date) = date_at(bytes, at) else {
            at += 1;
            continue;
        };
        out.push_str(&text[copied..at]);
        out.push_str(&moved(date, weeks)?);
        at += 10;
        copied = at;
    }
    out.push_str(&text[copied..]);
    Ok(out)
}

fn date_at(bytes: &[u8], at: usize) -> Option<NaiveDate> {
    let word = bytes.get(at..at + 10)?;
    let shaped =
        word.iter().enumerate().all(|(i, b)| if i == 4 || i == 7 { *b == b'-' } else { b.is_ascii_digit() });
    let joins = |b: &u8| b.is_ascii_digit() || *b == b'-';
    if !shaped || at.checked_sub(1).is_some_and(|i| joins(&bytes[i])) || bytes.get(at + 10).is_some_and(joins)
    {
        return None;
    }
    NaiveDate::parse_from_str(std::str::from_utf8(word).ok()?, "%Y-%m-%d").ok()
}

fn moved(date: NaiveDate, weeks: i64) -> io::Result<String> {
    let text = Duration::try_weeks(weeks)
        .and_then(|delta| date.checked_add_signed(delta))
        .map(|date| date.to_string())
        .filter(|text| text.len() == 10);
    text.ok_or_else(|| {
        let message = format!("{date} moved by {weeks} weeks is outside of the years 0000 to 9999");
        io::Error::new(io::ErrorKind::InvalidInput, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_real_dates_that_stand_alone_move() {
        let text = "a,2026-08-03,2026-08-31T23:59:59Z,2026-13-45,12026-08-03,2026-08-031,x-2026-08-03\n\u{e9}2024-02-29";
        let moved = shift_text(text, 1).unwrap();
        assert_eq!(
            moved,
            "a,2026-08-10,2026-09-07T23:59:59Z,2026-13-45,12026-08-03,2026-08-031,x-2026-08-03\n\u{e9}2024-03-07"
        );
        assert_eq!(shift_text(&moved, -1).unwrap(), text);
        assert_eq!(shift_text(text, 0).unwrap(), text);
    }

    #[test]
    fn a_pipeline_keeps_everything_but_its_start() {
        let text = "# start: 2026-08-03\npartition: {by: d, start: 2026-08-03, until: 2026-12-31} # since 2026-08-03\nend: 2026-08-03\n";
        let expected = "# start: 2026-08-03\npartition: {by: d, start: 2026-08-24, until: 2026-12-31} # since 2026-08-03\nend: 2026-08-03\n";
        assert_eq!(shift_starts(text, 3).unwrap(), expected);
        assert_eq!(shift_starts(expected, -3).unwrap(), text);
    }

    #[test]
    fn leaving_the_four_digit_years_is_an_error_and_touches_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("seed")).unwrap();
        let good = folder.path().join("seed/a.jsonl");
        fs::write(&good, "2026-01-05").unwrap();
        fs::write(folder.path().join("seed/b.jsonl"), "9999-12-31").unwrap();
        assert_eq!(shift_weeks(folder.path(), 1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(fs::read_to_string(&good).unwrap(), "2026-01-05");
        assert!(shift_weeks(folder.path(), i64::MAX).is_err());
    }
}
