//! A small writer of SVG that cannot forget to escape, and the charts drawn with it.
//!
//! Only strings made here (and in `picture`) may pass a template unescaped. Looks come from classes in the style sheet,
//! because the content security policy forbids inline styles; every state also has a shape of its own.

use std::fmt::Write as _;

use super::escape::escape;
use super::model::{DayState, HistogramBin, Status};

/// Days in a bar.
pub const BAR_DAYS: usize = 90;
/// Width of a day: 8 units of colour and 2 of gap.
const CELL: usize = 10;
const BAR_HEIGHT: usize = 28;

/// Markup in the making. Attribute values and text are escaped on the way in.
#[derive(Debug, Default)]
pub struct Svg {
    out: String,
    open: Vec<&'static str>,
}

impl Svg {
    /// Opens a picture of the given size that scales with its box; `label` is what a screen reader says.
    #[must_use]
    pub fn picture(class: &str, width: f64, height: f64, label: &str) -> Self {
        let mut svg = Self::default();
        let view_box = format!("0 0 {} {}", number(width), number(height));
        svg.start("svg", &[("class", class), ("viewBox", &view_box), ("role", "img"), ("aria-label", label)]);
        svg
    }

    /// Starts an element.
    pub fn start(&mut self, tag: &'static str, attributes: &[(&str, &str)]) -> &mut Self {
        self.tag(tag, attributes);
        self.out.push('>');
        self.open.push(tag);
        self
    }

    /// Ends the element started last.
    pub fn end(&mut self) -> &mut Self {
        if let Some(tag) = self.open.pop() {
            let _ = write!(self.out, "</{tag}>");
        }
        self
    }

    /// Writes an element without content.
    pub fn empty(&mut self, tag: &'static str, attributes: &[(&str, &str)]) -> &mut Self {
        self.tag(tag, attributes);
        self.out.push_str("/>");
        self
    }

    /// Writes an element with text.
    pub fn text(&mut self, tag: &'static str, attributes: &[(&str, &str)], text: &str) -> &mut Self {
        self.tag(tag, attributes);
        let _ = write!(self.out, ">{}</{tag}>", escape(text));
        self
    }

    fn tag(&mut self, tag: &'static str, attributes: &[(&str, &str)]) {
        let _ = write!(self.out, "<{tag}");
        for (name, value) in attributes {
            let _ = write!(self.out, " {name}=\"{}\"", escape(value));
        }
    }

    /// Ends what is open and returns the markup.
    #[must_use]
    pub fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.end();
        }
        self.out
    }
}

/// Returns a coordinate with at most one decimal: small files, and the same text on every machine.
#[must_use]
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "0".into();
    }
    let text = format!("{value:.1}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" { "0".into() } else { text.into() }
}

/// Draws one cell per day, newest at the right; days before the first are excluded.
///
/// One stroked line per run of equal days, its dashes being the cells, keeps a row near 300 bytes. Shapes: good a full
/// cell, degraded the lower half, bad full with a notch, unknown hollow, excluded three thin stripes.
#[must_use]
pub fn day_bar(days: &[DayState]) -> String {
    let days = &days[days.len().saturating_sub(BAR_DAYS)..];
    let missing = BAR_DAYS - days.len();
    let all: Vec<DayState> =
        std::iter::repeat_n(DayState::Excluded, missing).chain(days.iter().copied()).collect();
    let mut svg = Svg::default();
    let view_box = format!("0 0 {} {BAR_HEIGHT}", BAR_DAYS * CELL - 2);
    svg.start(
        "svg",
        &[
            ("class", "bar"),
            ("viewBox", &view_box),
            ("preserveAspectRatio", "none"),
            ("role", "img"),
            ("aria-label", &bar_label(&all)),
        ],
    );
    let full = BAR_HEIGHT / 2;
    for (state, layers) in [
        (DayState::Good, &[("b-good", full)][..]),
        (DayState::Degraded, &[("b-track", full), ("b-degraded", 21)]),
        (DayState::Bad, &[("b-bad", full), ("b-notch", 4)]),
        (DayState::Unknown, &[("b-unknown", full), ("b-hollow", full)]),
        (DayState::Excluded, &[("b-excluded", 4), ("b-excluded", 14), ("b-excluded", 24)]),
    ] {
        for (class, y) in layers {
            let path = runs_of(&all, state, *y);
            if !path.is_empty() {
                svg.empty("path", &[("class", class), ("d", &path)]);
            }
        }
    }
    svg.finish()
}

fn runs_of(days: &[DayState], wanted: DayState, y: usize) -> String {
    let mut path = String::new();
    let mut at = 0;
    while at < days.len() {
        let length = days[at..].iter().take_while(|d| **d == wanted).count();
        if length > 0 {
            let _ = write!(path, "M{} {y}h{}", at * CELL, length * CELL - 2);
        }
        at += length.max(1);
    }
    path
}

fn bar_label(days: &[DayState]) -> String {
    let mut label = format!("Last {BAR_DAYS} days:");
    let states = [
        (DayState::Good, "good"),
        (DayState::Degraded, "degraded"),
        (DayState::Bad, "bad"),
        (DayState::Unknown, "unknown"),
        (DayState::Excluded, "excluded"),
    ];
    let mut first = true;
    for (state, word) in states {
        let count = days.iter().filter(|d| **d == state).count();
        if count > 0 {
            let _ = write!(label, "{} {count} {word}", if first { "" } else { "," });
            first = false;
        }
    }
    label
}

/// Draws a line over its points, evenly spaced, with the threshold dashed.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "points of a picture")]
pub fn sparkline(values: &[f64], threshold: Option<f64>, label: &str) -> String {
    const WIDTH: f64 = 260.0;
    const HEIGHT: f64 = 56.0;
    const PAD: f64 = 5.0;
    let values: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    let threshold = threshold.filter(|t| t.is_finite());
    let top = values.iter().copied().chain(threshold).fold(f64::MIN_POSITIVE, f64::max) * 1.08;
    let bottom = values.iter().copied().fold(0.0, f64::min);
    let y = |v: f64| HEIGHT - PAD - (v - bottom) / (top - bottom) * (HEIGHT - 2.0 * PAD);
    let step = (WIDTH - 2.0 * PAD) / (values.len().max(2) - 1) as f64;
    let mut svg = Svg::picture("spark", WIDTH, HEIGHT, label);
    if let Some(level) = threshold {
        let d = format!("M0 {y}H{WIDTH}", y = number(y(level)));
        svg.empty("path", &[("class", "s-level"), ("d", &d)]);
    }
    let mut line = String::new();
    for (i, v) in values.iter().enumerate() {
        let _ = write!(
            line,
            "{}{} {}",
            if i == 0 { "M" } else { "L" },
            number(PAD + step * i as f64),
            number(y(*v))
        );
    }
    if let Some(last) = values.last() {
        let x = PAD + step * (values.len() - 1) as f64;
        let area = format!("{line}L{} {b}L{} {b}Z", number(x), number(PAD), b = number(HEIGHT - PAD));
        svg.empty("path", &[("class", "s-area"), ("d", &area)]);
        svg.empty("path", &[("class", "s-line"), ("d", &line)]);
        svg.empty(
            "circle",
            &[("class", "s-last"), ("cx", &number(x)), ("cy", &number(y(*last))), ("r", "3.2")],
        );
    }
    svg.finish()
}

/// Draws reference (outline) and current (filled) shares side by side per bin.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "bars of a picture")]
pub fn histogram(bins: &[HistogramBin], label: &str) -> String {
    const WIDTH: f64 = 260.0;
    const HEIGHT: f64 = 72.0;
    let share = |v: f64| if v.is_finite() { v.max(0.0) } else { 0.0 };
    let top =
        bins.iter().flat_map(|b| [share(b.reference), share(b.current)]).fold(f64::MIN_POSITIVE, f64::max);
    let mut svg = Svg::picture("histogram", WIDTH, HEIGHT, label);
    let cell = WIDTH / bins.len().max(1) as f64;
    let bar = (cell - 3.0).max(1.0) / 2.0;
    for (i, bin) in bins.iter().enumerate() {
        svg.start("g", &[]);
        let title = format!(
            "{}: reference {:.1} %, now {:.1} %",
            bin.label,
            bin.reference * 100.0,
            bin.current * 100.0
        );
        svg.text("title", &[], &title);
        for (class, value, offset) in [("h-reference", bin.reference, 0.0), ("h-current", bin.current, bar)] {
            let height = share(value) / top * (HEIGHT - 4.0);
            svg.empty(
                "rect",
                &[
                    ("class", class),
                    ("x", &number(cell * i as f64 + 1.5 + offset)),
                    ("y", &number(HEIGHT - 1.0 - height)),
                    ("width", &number(bar)),
                    ("height", &number(height)),
                ],
            );
        }
        svg.end();
    }
    let d = format!("M0 {y}H{WIDTH}", y = HEIGHT - 0.5);
    svg.empty("path", &[("class", "axis"), ("d", &d)]);
    svg.finish()
}

/// Returns the colour a status has where no style sheet reaches (badges), dark enough for white text at 4.5:1.
#[must_use]
pub fn solid_colour(status: Status) -> &'static str {
    match status {
        Status::Healthy => "#1b7f4d",
        Status::Degraded => "#9a5b00",
        Status::Breaching => "#bf2b23",
        Status::Denied => "#8c2f6b",
        Status::Held => "#4a5aa8",
        Status::Unknown => "#5b6871",
    }
}

/// Draws a badge: what, and how it is, in words as well as colour.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "letters of a badge")]
pub fn badge(subject: &str, status: Status) -> String {
    let word = super::words::status(status);
    // 6.6 units is a generous mean width of 11 px text; `textLength` then fits the text to the box in any font.
    let fit = |text: &str| text.chars().count() as f64 * 6.6;
    let subject: String = subject.chars().take(60).collect();
    let (left, right) = (fit(&subject) + 16.0, fit(word) + 16.0);
    let width = number(left + right);
    let mut svg = Svg::default();
    let label = format!("{subject}: {word}");
    svg.start(
        "svg",
        &[
            ("xmlns", "http://www.w3.org/2000/svg"),
            ("width", &width),
            ("height", "20"),
            ("role", "img"),
            ("aria-label", &label),
        ],
    );
    svg.text("title", &[], &label);
    svg.empty("rect", &[("width", &width), ("height", "20"), ("rx", "4"), ("fill", "#22343f")]);
    let shape =
        format!("M{l} 0h{w}a4 4 0 0 1 4 4v12a4 4 0 0 1-4 4h-{w}z", l = number(left), w = number(right - 4.0));
    svg.empty("path", &[("d", &shape), ("fill", solid_colour(status))]);
    svg.start(
        "g",
        &[
            ("fill", "#fff"),
            ("font-family", "Segoe UI,Roboto,Liberation Sans,Arial,sans-serif"),
            ("font-size", "11"),
        ],
    );
    svg.text("text", &[("x", "8"), ("y", "14"), ("textLength", &number(left - 16.0))], &subject);
    svg.text("text", &[("x", &number(left + 8.0)), ("y", "14"), ("textLength", &number(right - 16.0))], word);
    svg.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_quarter_is_one_short_path() {
        let bar = day_bar(&[DayState::Good; 90]);
        assert!(bar.len() < 320, "{} bytes: {bar}", bar.len());
        assert!(bar.contains("M0 14h898"));
        assert!(bar.contains("90 good"));
    }

    #[test]
    fn states_have_their_own_layers_and_a_young_product_is_padded() {
        let bar = day_bar(&[DayState::Bad, DayState::Unknown]);
        assert!(bar.contains(r#"class="b-notch" d="M880 4h8""#), "{bar}");
        assert!(bar.contains(r#"class="b-hollow" d="M890 14h8""#), "{bar}");
        assert!(bar.contains("1 bad, 1 unknown, 88 excluded"));
    }

    #[test]
    fn charts_survive_odd_numbers() {
        for chart in [
            sparkline(&[], None, "empty"),
            sparkline(&[f64::NAN, f64::INFINITY, 0.0], Some(f64::NAN), "odd"),
            sparkline(&[-1.0, -2.0], Some(0.0), "negative"),
            histogram(&[], "empty"),
            histogram(&[HistogramBin { label: "<b>".into(), reference: f64::NAN, current: -1.0 }], "odd"),
        ] {
            assert!(!chart.contains("NaN\"") && !chart.contains("inf") && !chart.contains("<b>"), "{chart}");
        }
    }

    #[test]
    fn a_badge_escapes_its_subject() {
        let badge = badge("</text><script>alert(1)</script>", Status::Held);
        assert!(!badge.contains("<script") && badge.contains("&lt;script&gt;"));
    }
}
