//! How text looks: colour only where a person sees it, tables that line up, times and lengths in words.

use std::io::IsTerminal as _;

use crate::clock::rfc3339;
pub use crate::text::counted;

/// What a text says beside its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Nothing more.
    Plain,
    /// All is well.
    Good,
    /// Worth a look.
    Odd,
    /// Someone must act.
    Bad,
    /// Less important than its neighbours.
    Faint,
    /// A heading.
    Strong,
}

/// Colours texts, or leaves them as they are.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// Returns the paint for stdout: none unless it is a terminal, and none where `NO_COLOR` is set to anything.
    #[must_use]
    pub fn stdout() -> Self {
        Self::of(std::io::stdout().is_terminal())
    }

    /// Returns the paint for stderr, by the same rules.
    #[must_use]
    pub fn stderr() -> Self {
        Self::of(std::io::stderr().is_terminal())
    }

    fn of(terminal: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self { on: !refused && !dumb && terminal }
    }

    /// Returns whether anything is coloured.
    #[must_use]
    pub fn is_on(self) -> bool {
        self.on
    }

    /// Returns the text in its colour.
    #[must_use]
    pub fn text(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Odd => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
            Tone::Strong => "1",
        };
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A table for people: columns line up, the last one is as long as it is.
#[derive(Debug)]
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<(Tone, String)>>,
}

impl Table {
    /// Returns an empty table with these headings.
    #[must_use]
    pub fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [(Tone, String); N]) {
        self.rows.push(cells.into());
    }

    /// Returns the table as lines without trailing blanks.
    #[must_use]
    pub fn render(&self, paint: Paint) -> String {
        let width = |column: usize| {
            let cells =
                self.rows.iter().filter_map(|row| row.get(column)).map(|(_, text)| text.chars().count());
            cells.chain([self.head[column].len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let line = |cells: &[(Tone, String)]| {
            let mut line = String::new();
            for (index, (tone, text)) in cells.iter().enumerate() {
                line.push_str(&paint.text(*tone, text));
                if index + 1 < cells.len() {
                    let gap = widths[index].saturating_sub(text.chars().count()) + 2;
                    line.extend(std::iter::repeat_n(' ', gap));
                }
            }
            line.trim_end().to_owned()
        };
        let head: Vec<(Tone, String)> =
            self.head.iter().map(|text| (Tone::Faint, (*text).to_owned())).collect();
        let lines: Vec<String> =
            std::iter::once(line(&head)).chain(self.rows.iter().map(|row| line(row))).collect();
        lines.join("\n")
    }
}

/// Returns a text without a tone.
pub fn plain(text: impl Into<String>) -> (Tone, String) {
    (Tone::Plain, text.into())
}

/// Returns a length of time in its two largest units, such as `2d 4h`.
#[must_use]
pub fn length(millis: i64) -> String {
    const UNITS: [(i64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let millis = millis.max(0);
    let Some(first) = UNITS.iter().position(|(unit, _)| millis >= *unit) else {
        return format!("{millis}ms");
    };
    let (unit, name) = UNITS[first];
    let whole = format!("{}{name}", millis / unit);
    match UNITS.get(first + 1).map(|(next, name)| (millis % unit / next, name)) {
        // Beyond ten of the larger unit nobody asks for the smaller.
        Some((rest, name)) if rest > 0 && millis / unit < 10 => format!("{whole} {rest}{name}"),
        _ => whole,
    }
}

/// Returns how long ago an instant was.
#[must_use]
pub fn ago(at_ms: i64, now_ms: i64) -> String {
    if at_ms > now_ms {
        format!("in {}", length(at_ms - now_ms))
    } else {
        format!("{} ago", length(now_ms - at_ms))
    }
}

/// Returns an instant for people: UTC, to the minute.
#[must_use]
pub fn instant(at_ms: i64) -> String {
    let text = rfc3339(at_ms);
    match (text.get(..10), text.get(11..16)) {
        (Some(day), Some(minute)) => format!("{day} {minute}"),
        _ => text,
    }
}

/// Returns the first digits of a commit or digest, for people.
#[must_use]
pub fn short(id: &str) -> &str {
    id.get(..10).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_name_two_units_at_most() {
        let cases =
            [(0, "0ms"), (999, "999ms"), (61_000, "1m 1s"), (3_600_000, "1h"), (187_200_000, "2d 4h")];
        for (millis, text) in cases {
            assert_eq!(length(millis), text);
        }
        assert_eq!(length(11 * 86_400_000 + 3_600_000), "11d");
        assert_eq!(ago(5_000, 65_000), "1m ago");
        assert_eq!(ago(65_000, 5_000), "in 1m");
    }

    #[test]
    fn columns_line_up_whatever_their_colour() {
        let mut table = Table::new(&["A", "LONG"]);
        table.row([(Tone::Bad, "xxx".to_owned()), plain("y")]);
        table.row([plain("é"), plain("")]);
        assert_eq!(table.render(Paint { on: false }), "A    LONG\nxxx  y\né");
        assert_eq!(
            table.render(Paint { on: true }),
            "\x1b[2mA\x1b[0m    \x1b[2mLONG\x1b[0m\n\x1b[31mxxx\x1b[0m  y\né"
        );
    }
}
