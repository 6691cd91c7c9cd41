//! Lineage as a picture: boxes that are links, left to right, drawn on the server.

use super::layout::{Layout, lay_out};
use super::model::Status;
use super::svg::{Svg, number};
use super::words;

const BOX_WIDTH: f64 = 184.0;
const BOX_HEIGHT: f64 = 48.0;
const COLUMN: f64 = BOX_WIDTH + 68.0;
const ROW: f64 = BOX_HEIGHT + 18.0;
const MARGIN: f64 = 6.0;
/// Room the arrow head takes before a box.
const HEAD: f64 = 7.0;

/// A box.
#[derive(Debug, Clone)]
pub struct Node {
    pub label: String,
    pub sub: String,
    /// Absent for a box that stands for several things.
    pub status: Option<Status>,
    /// Page, relative to the root of the site.
    pub page: String,
    pub role: Role,
}

/// How a box stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Plain,
    /// The subject of the page.
    Focus,
    /// Stands for what is left out.
    Stub,
}

/// An arrow between boxes, by index.
#[derive(Debug, Clone, Copy)]
pub struct Arrow {
    pub from: usize,
    pub to: usize,
    /// Number of relations it stands for; thicker from two on.
    pub weight: usize,
}

/// Draws boxes and arrows for a page whose way to the root is `root`.
#[must_use]
pub fn draw(root: &str, title: &str, description: &str, nodes: &[Node], arrows: &[Arrow]) -> String {
    let edges: Vec<(usize, usize)> = arrows.iter().map(|a| (a.from, a.to)).collect();
    let layout = lay_out(nodes.len(), &edges);
    #[expect(clippy::cast_precision_loss, reason = "columns of a picture")]
    let width = layout.layers.max(1) as f64 * COLUMN - (COLUMN - BOX_WIDTH) + 2.0 * MARGIN;
    let height = layout.rows.max(1.0) * ROW - (ROW - BOX_HEIGHT) + 2.0 * MARGIN;
    let view_box = format!("0 0 {} {}", number(width), number(height));
    let mut svg = Svg::default();
    // A group and not an image: the boxes inside are links and must stay reachable.
    svg.start(
        "svg",
        &[
            ("class", "lineage"),
            ("viewBox", &view_box),
            ("width", &number(width)),
            ("height", &number(height)),
            ("role", "group"),
            ("aria-label", title),
        ],
    );
    svg.text("title", &[], title).text("desc", &[], description);
    for (i, arrow) in arrows.iter().enumerate() {
        draw_arrow(&mut svg, &layout, i, *arrow, nodes);
    }
    // Reading order is the order of the data flow, which is also the order of the tab key.
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    order.sort_by(|a, b| {
        let (a, b) = (layout.nodes[*a], layout.nodes[*b]);
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    for i in order {
        draw_node(&mut svg, root, &nodes[i], layout.nodes[i]);
    }
    svg.finish()
}

#[expect(clippy::cast_precision_loss, reason = "columns of a picture")]
fn corner((layer, row): (usize, f64)) -> (f64, f64) {
    (MARGIN + layer as f64 * COLUMN, MARGIN + row * ROW)
}

fn draw_arrow(svg: &mut Svg, layout: &Layout, index: usize, arrow: Arrow, nodes: &[Node]) {
    if arrow.from == arrow.to {
        return;
    }
    let (x, y) = corner(layout.nodes[arrow.from]);
    let (mut x, mut y) = (x + BOX_WIDTH, y + BOX_HEIGHT / 2.0);
    let mut d = format!("M{} {}", number(x), number(y));
    let mut curve_to = |to_x: f64, to_y: f64, d: &mut String| {
        let bend = ((to_x - x) / 2.0).abs().max(24.0);
        d.push_str(&format!(
            "C{} {} {} {} {} {}",
            number(x + bend),
            number(y),
            number(to_x - bend),
            number(to_y),
            number(to_x),
            number(to_y)
        ));
        (x, y) = (to_x, to_y);
    };
    for bend in &layout.bends[index] {
        let (left, top) = corner(*bend);
        let middle = top + BOX_HEIGHT / 2.0;
        curve_to(left, middle, &mut d);
        curve_to(left + BOX_WIDTH, middle, &mut d);
    }
    let (end_x, end_y) = corner(layout.nodes[arrow.to]);
    let end_y = end_y + BOX_HEIGHT / 2.0;
    curve_to(end_x - HEAD, end_y, &mut d);
    let class =
        match (arrow.weight, nodes[arrow.from].role == Role::Stub || nodes[arrow.to].role == Role::Stub) {
            (_, true) => "l-edge l-faint",
            (0 | 1, _) => "l-edge",
            (2..=4, _) => "l-edge l-wide",
            _ => "l-edge l-widest",
        };
    svg.empty("path", &[("class", class), ("d", &d)]);
    let head = format!("M{} {}l-{h} -4v8z", number(end_x - 1.0), number(end_y), h = number(HEAD));
    svg.empty("path", &[("class", "l-head"), ("d", &head)]);
}

fn draw_node(svg: &mut Svg, root: &str, node: &Node, place: (usize, f64)) {
    let (x, y) = corner(place);
    let word = node.status.map(words::status);
    let spoken = match word {
        Some(word) => format!("{}, {}: {word}", node.label, node.sub),
        None => format!("{}, {}", node.label, node.sub),
    };
    let class = match node.role {
        Role::Plain => "l-node",
        Role::Focus => "l-node l-focus",
        Role::Stub => "l-node l-stub",
    };
    let place = format!("translate({} {})", number(x), number(y));
    let href = format!("{root}{}", node.page);
    svg.start("a", &[("href", &href), ("class", class), ("transform", &place), ("aria-label", &spoken)]);
    svg.text("title", &[], &spoken);
    svg.empty("rect", &[("width", &number(BOX_WIDTH)), ("height", &number(BOX_HEIGHT)), ("rx", "7")]);
    let mut left = 14.0;
    if let Some(status) = node.status {
        mark(svg, status);
        left = 36.0;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "letters that fit into a box"
    )]
    let room = ((BOX_WIDTH - left - 8.0) / 7.0) as usize;
    svg.text("text", &[("class", "l-label"), ("x", &number(left)), ("y", "21")], &cut(&node.label, room));
    svg.text("text", &[("class", "l-sub"), ("x", &number(left)), ("y", "36.5")], &cut(&node.sub, room + 3));
    svg.end();
}

/// Draws the sign of a status in the left of a box; each has its own shape.
fn mark(svg: &mut Svg, status: Status) {
    let (class, d) = status_mark(status);
    svg.empty(
        "path",
        &[("class", class), ("transform", "translate(12 16)"), ("fill-rule", "evenodd"), ("d", d)],
    );
}

/// Returns class and outline (in a square of 16) of the sign of a status: a tick in a disc, a warning triangle, an
/// octagon with a bar, a ring with a question, a barred disc, a disc with pause bars.
#[must_use]
pub fn status_mark(status: Status) -> (&'static str, &'static str) {
    match status {
        Status::Healthy => {
            ("m m-healthy", "M8 0a8 8 0 1 0 0 16a8 8 0 0 0 0-16zM7 11.6L3.6 8.2l1.3-1.3L7 9l4.2-4.2l1.3 1.3z")
        }
        Status::Degraded => ("m m-degraded", "M8 .6L16 15.2H0zM7.1 5.6v5h1.8v-5zM7.1 11.8v1.8h1.8v-1.8z"),
        Status::Breaching => (
            "m m-breaching",
            "M4.7 0h6.6L16 4.7v6.6L11.3 16H4.7L0 11.3V4.7zM7.1 3.4v5.8h1.8V3.4zM7.1 10.8v1.8h1.8v-1.8z",
        ),
        Status::Unknown => (
            "m m-unknown",
            "M8 0a8 8 0 1 0 0 16a8 8 0 0 0 0-16zM8 1.7a6.3 6.3 0 1 1 0 12.6a6.3 6.3 0 0 1 0-12.6zM7.1 10.6h1.8v1.8H7.1zM5.2 6.4a2.8 2.8 0 1 1 3.7 2.6v.7H7.1V7.8H8a1.2 1.2 0 1 0-1.2-1.4z",
        ),
        Status::Denied => ("m m-denied", "M8 0a8 8 0 1 0 0 16a8 8 0 0 0 0-16zM3.4 7v2h9.2V7z"),
        Status::Held => ("m m-held", "M8 0a8 8 0 1 0 0 16a8 8 0 0 0 0-16zM5 4.6v6.8h2V4.6zM9 4.6v6.8h2V4.6z"),
    }
}

/// Shortens by characters; the full text is in the title of the box.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(label: &str) -> Node {
        Node {
            label: label.into(),
            sub: "shop".into(),
            status: Some(Status::Healthy),
            page: "p/shop/x/index.html".into(),
            role: Role::Plain,
        }
    }

    #[test]
    fn boxes_are_links_with_words_and_nothing_raw() {
        let evil = "\"><script>alert(1)</script>";
        let picture =
            draw("../", evil, evil, &[node(evil), node("b")], &[Arrow { from: 0, to: 1, weight: 1 }]);
        assert!(!picture.contains("<script"));
        assert_eq!(picture.matches(r#"<a href="../p/shop/x/index.html""#).count(), 2);
        assert_eq!(picture.matches("<desc>").count(), 1);
        assert!(picture.contains("b, shop: Healthy"));
    }

    #[test]
    fn an_arrow_to_itself_is_not_drawn() {
        let picture = draw("", "t", "d", &[node("a")], &[Arrow { from: 0, to: 0, weight: 1 }]);
        assert!(!picture.contains("l-edge"));
    }
}
