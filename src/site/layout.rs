//! Where the boxes of a picture go.
//!
//! Layering and crossing reduction are rust-sugiyama's. It takes no deadline and gives no edge routes, so three things
//! are ours: caps on what it is handed, way-points for edges that cross layers, and a plain layered grid for when the
//! caps are exceeded or it fails. Both ways are deterministic.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use rust_sugiyama::configure::{Config, CrossingMinimization, RankingType};

/// Most boxes handed to the layout: 60 nodes take about a millisecond, 1,000 seconds.
pub const MAX_NODES: usize = 80;
/// Most edges, and most boxes together with way-points: crossing reduction is what costs.
const MAX_EDGES: usize = 320;
const MAX_POINTS: usize = 500;

/// Places in a picture read left to right: a column per layer, a place within it.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// Layer and vertical place (in rows; not whole numbers) of each node.
    pub nodes: Vec<(usize, f64)>,
    /// For each edge the places of its way-points in the layers between its ends.
    pub bends: Vec<Vec<(usize, f64)>>,
    /// Number of layers.
    pub layers: usize,
    /// Height in rows.
    pub rows: f64,
}

/// Lays out `nodes` boxes and the edges between them (indices below `nodes`; self-edges are ignored).
#[must_use]
pub fn lay_out(nodes: usize, edges: &[(usize, usize)]) -> Layout {
    let links: BTreeSet<(usize, usize)> =
        edges.iter().copied().filter(|(a, b)| a != b && *a < nodes && *b < nodes).collect();
    let links = without_cycles(nodes, &links);
    let ranks = ranks(nodes, &links);
    let found =
        if nodes <= MAX_NODES && links.len() <= MAX_EDGES { sugiyama(nodes, &links, &ranks) } else { None };
    let (places, bends, layers) = found.unwrap_or_else(|| grid(nodes, &ranks));
    assemble(edges, places, &bends, layers)
}

type Places = Vec<(usize, f64)>;
type Bends = BTreeMap<(usize, usize), Vec<(usize, f64)>>;

/// Drops the edges that close a cycle, in order of their ends: a mesh has none, but a picture must not depend on that.
fn without_cycles(nodes: usize, links: &BTreeSet<(usize, usize)>) -> BTreeSet<(usize, usize)> {
    let mut graph = StableDiGraph::<(), ()>::new();
    let ids: Vec<NodeIndex> = (0..nodes).map(|_| graph.add_node(())).collect();
    for (a, b) in links {
        graph.add_edge(ids[*a], ids[*b], ());
    }
    if !petgraph::algo::is_cyclic_directed(&graph) {
        return links.clone();
    }
    let mut kept = StableDiGraph::<(), ()>::new();
    let ids: Vec<NodeIndex> = (0..nodes).map(|_| kept.add_node(())).collect();
    links
        .iter()
        .copied()
        .filter(|(a, b)| {
            let closes = petgraph::algo::has_path_connecting(&kept, ids[*b], ids[*a], None);
            if !closes {
                kept.add_edge(ids[*a], ids[*b], ());
            }
            !closes
        })
        .collect()
}

/// Longest path from a source, then sources pulled next to their first reader so that edges stay short.
fn ranks(nodes: usize, links: &BTreeSet<(usize, usize)>) -> Vec<usize> {
    let mut rank = vec![0_usize; nodes];
    // An acyclic graph settles within `nodes` passes.
    for _ in 0..nodes {
        let mut moved = false;
        for (a, b) in links {
            if rank[*b] <= rank[*a] {
                rank[*b] = rank[*a] + 1;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    for node in 0..nodes {
        let fed = links.iter().any(|(_, b)| *b == node);
        let nearest = links.iter().filter(|(a, _)| *a == node).map(|(_, b)| rank[*b]).min();
        if let (false, Some(nearest)) = (fed, nearest) {
            rank[node] = nearest.saturating_sub(1);
        }
    }
    rank
}

/// Orders and aligns with rust-sugiyama. Way-points are vertices of their own, so every edge spans one layer and the
/// ranks it computes are ours.
fn sugiyama(
    nodes: usize,
    links: &BTreeSet<(usize, usize)>,
    ranks: &[usize],
) -> Option<(Places, Bends, usize)> {
    let mut graph = StableDiGraph::<(f64, f64), ()>::new();
    let ids: Vec<NodeIndex> = (0..nodes).map(|_| graph.add_node((1.0, 1.0))).collect();
    let mut way: BTreeMap<(usize, usize), Vec<NodeIndex>> = BTreeMap::new();
    for (a, b) in links {
        let mut last = ids[*a];
        for _ in ranks[*a] + 1..ranks[*b] {
            let point = graph.add_node((1.0, 1.0));
            graph.add_edge(last, point, ());
            way.entry((*a, *b)).or_default().push(point);
            last = point;
        }
        graph.add_edge(last, ids[*b], ());
    }
    if graph.node_count() > MAX_POINTS {
        return None;
    }
    let config = Config {
        minimum_length: 1,
        vertex_spacing: 0.0,
        dummy_vertices: false,
        dummy_size: 1.0,
        ranking_type: RankingType::MinimizeEdgeLength,
        c_minimization: CrossingMinimization::Barycenter,
        transpose: true,
    };
    let parts = catch_unwind(AssertUnwindSafe(|| {
        rust_sugiyama::from_graph(&graph, &|_, size: &(f64, f64)| *size, &config)
    }))
    .ok()?;

    let mut row = vec![f64::NAN; graph.node_count()];
    let mut parts: Vec<Vec<(usize, f64)>> = parts
        .into_iter()
        .map(|(part, _, _)| part.into_iter().map(|(id, (x, _))| (id.index(), x)).collect())
        .collect();
    // Big connected parts first, then by least node: an order of our own, not the library's.
    parts.sort_by_key(|part| (std::cmp::Reverse(part.len()), part.iter().map(|(id, _)| *id).min()));
    let mut top = 0.0;
    let (singles, connected): (Vec<_>, Vec<_>) = parts.into_iter().partition(|part| part.len() == 1);
    for part in connected {
        let least = part.iter().map(|(_, x)| *x).fold(f64::INFINITY, f64::min);
        let most = part.iter().map(|(_, x)| *x).fold(f64::NEG_INFINITY, f64::max);
        for (id, x) in part {
            *row.get_mut(id)? = top + x - least;
        }
        top += most - least + 1.0;
    }
    // Boxes without edges fill rows across the layers below the rest.
    let layers = ranks.iter().copied().max().unwrap_or(0) + 1;
    let across = layers.max(if singles.len() > 3 { 4 } else { 1 });
    let mut single_layer = BTreeMap::new();
    for (i, part) in singles.into_iter().enumerate() {
        let (id, _) = part[0];
        #[expect(clippy::cast_precision_loss, reason = "rows of a picture")]
        let below = (i / across) as f64;
        *row.get_mut(id)? = top + below;
        single_layer.insert(id, i % across);
    }
    if row.iter().any(|r| !r.is_finite()) {
        return None;
    }
    let places: Places = (0..nodes)
        .map(|n| (single_layer.get(&ids[n].index()).copied().unwrap_or(ranks[n]), row[ids[n].index()]))
        .collect();
    if overlaps(&places) {
        return None;
    }
    let bends = way
        .into_iter()
        .map(|(link, points)| {
            let first = ranks[link.0] + 1;
            (link, points.iter().enumerate().map(|(i, p)| (first + i, row[p.index()])).collect())
        })
        .collect();
    let used = places.iter().map(|(layer, _)| layer + 1).max().unwrap_or(1);
    Some((places, bends, used))
}

/// Whether two boxes of one layer are closer than a row: then the result is not usable.
fn overlaps(places: &[(usize, f64)]) -> bool {
    let mut sorted = places.to_vec();
    sorted.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    sorted.windows(2).any(|w| w[0].0 == w[1].0 && w[1].1 - w[0].1 < 0.99)
}

/// The fallback: layers as columns, nodes in their given order.
#[expect(clippy::cast_precision_loss, reason = "rows of a picture")]
fn grid(nodes: usize, ranks: &[usize]) -> (Places, Bends, usize) {
    let mut filled: BTreeMap<usize, usize> = BTreeMap::new();
    let places = (0..nodes)
        .map(|n| {
            let place = filled.entry(ranks[n]).or_default();
            *place += 1;
            (ranks[n], (*place - 1) as f64)
        })
        .collect();
    (places, Bends::new(), ranks.iter().max().map_or(0, |m| m + 1))
}

fn assemble(edges: &[(usize, usize)], mut nodes: Places, bends: &Bends, layers: usize) -> Layout {
    let all = || nodes.iter().chain(bends.values().flatten()).map(|(_, row)| *row);
    let least = all().fold(f64::INFINITY, f64::min).min(f64::MAX);
    let most = all().fold(f64::NEG_INFINITY, f64::max);
    let rows = if nodes.is_empty() { 0.0 } else { most - least + 1.0 };
    for (_, row) in &mut nodes {
        *row -= least;
    }
    let bends = edges
        .iter()
        .map(|edge| {
            bends.get(edge).map(|b| b.iter().map(|(l, r)| (*l, r - least)).collect()).unwrap_or_default()
        })
        .collect();
    Layout { nodes, bends, layers, rows }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh_like(nodes: usize) -> Vec<(usize, usize)> {
        // Each node reads one or two earlier ones, chosen by a fixed linear congruence.
        let mut seed = 7_u64;
        let mut next = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        (1..nodes).flat_map(|n| [(next(n), n), (next(n), n)]).collect()
    }

    fn check(nodes: usize, edges: &[(usize, usize)]) -> Layout {
        let layout = lay_out(nodes, edges);
        assert_eq!(layout.nodes.len(), nodes);
        assert_eq!(layout.bends.len(), edges.len());
        assert!(!overlaps(&layout.nodes), "{layout:?}");
        for (layer, row) in &layout.nodes {
            assert!(*layer < layout.layers && (0.0..=layout.rows).contains(row));
        }
        layout
    }

    #[test]
    fn readers_stand_right_of_what_they_read() {
        for nodes in [2, 9, 40, 80, 81, 300] {
            let edges = mesh_like(nodes);
            let layout = check(nodes, &edges);
            for (a, b) in &edges {
                assert!(layout.nodes[*a].0 < layout.nodes[*b].0, "{a} -> {b} of {nodes}");
            }
            assert_eq!(layout, lay_out(nodes, &edges), "two layouts of the same graph");
        }
    }

    #[test]
    fn long_edges_bend_once_per_layer() {
        let layout = check(4, &[(0, 1), (1, 2), (2, 3), (0, 3)]);
        assert_eq!(layout.layers, 4);
        assert_eq!(layout.bends[3].iter().map(|b| b.0).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn odd_graphs_are_survived() {
        check(0, &[]);
        check(1, &[(0, 0)]);
        check(7, &[]);
        check(3, &[(0, 1), (1, 2), (2, 0), (5, 9)]);
        check(80, &(1..80).map(|n| (0, n)).collect::<Vec<_>>());
        let star: Vec<_> = (1..1500).map(|n| (0, n)).collect();
        check(1500, &star);
    }
}
