//! Rows that several pages share.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::super::mesh::{Mesh, headline};
use super::super::model::{AlertLevel, Episode, EpisodeState, Objective, Product, Status, Sync};
use super::super::{svg, words};

/// What is left of an error budget, as words and as a meter.
#[derive(Serialize)]
pub struct Budget {
    pub text: String,
    /// 0 to 100, for the meter.
    pub percent: u8,
    pub tone: &'static str,
}

impl Budget {
    pub fn of(objective: &Objective) -> Option<Self> {
        let left = objective.budget_remaining.filter(|b| b.is_finite())?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 100")]
        let percent = (left.clamp(0.0, 1.0) * 100.0).floor() as u8;
        let text = if left < 0.0 {
            format!("overspent by {:.0}\u{202f}%", -left * 100.0)
        } else {
            format!("{percent}\u{202f}%")
        };
        // Half and a fifth: the levels at which teams usually slow down and stop deploying.
        let tone = if left > 0.5 {
            "good"
        } else if left > 0.2 {
            "warn"
        } else {
            "bad"
        };
        Some(Self { text, percent, tone })
    }
}

/// A product in a list.
#[derive(Serialize)]
pub struct Row {
    pub id: String,
    pub title: String,
    pub kinds: Vec<&'static str>,
    pub tier: Option<u8>,
    pub status: Status,
    pub word: &'static str,
    pub reason: String,
    pub bar_svg: String,
    /// What the range and the budget speak of.
    pub objective: &'static str,
    pub window_days: u32,
    pub sli: String,
    pub budget: Option<Budget>,
    pub data_through: Option<DateTime<Utc>>,
    pub deployed_at: Option<DateTime<Utc>>,
    pub commit: String,
    /// Open alerts about the product itself.
    pub alerts: usize,
    /// Open alerts of products upstream whose blast reaches it.
    pub reached: usize,
}

impl Row {
    pub fn new(mesh: &Mesh, product: &Product) -> Self {
        let headline = headline(product);
        let open: Vec<_> = mesh.incidents_of(&product.id).filter(|i| i.state.is_loud()).collect();
        Self {
            id: product.id.clone(),
            title: product.title.clone(),
            kinds: product.kinds.iter().map(|k| words::kind(*k)).collect(),
            tier: product.tier,
            status: product.status,
            word: words::status(product.status),
            reason: reason(product),
            bar_svg: if product.objectives.is_empty() {
                String::new()
            } else {
                svg::day_bar(&mesh.worst_days(&product.objectives))
            },
            objective: headline.map_or("", |o| words::objective(o.kind)),
            window_days: headline.map_or(0, |o| o.window_days),
            sli: headline.map(|o| words::range(o.sli_low, o.sli_high)).unwrap_or_default(),
            budget: headline.and_then(Budget::of),
            data_through: product.data_through,
            deployed_at: product.deployed_at,
            commit: product.deployed_commit.clone().unwrap_or_default(),
            alerts: open.iter().filter(|i| i.product == product.id).count(),
            reached: open.iter().filter(|i| i.product != product.id).count(),
        }
    }
}

/// Returns why a product is not healthy; what holds up a deploy if nothing else is said.
pub fn reason(product: &Product) -> String {
    if !product.status_reason.is_empty() {
        return product.status_reason.clone();
    }
    if product.status == Status::Healthy {
        return String::new();
    }
    let short = words::short(commit(&product.sync));
    match &product.sync {
        Sync::InSync { .. } | Sync::Pending { .. } => String::new(),
        Sync::Denied { rule, reason, .. } => format!("{rule} denies {short}: {reason}"),
        Sync::Held { reason, .. } => format!("{short} waits: {reason}"),
        Sync::Broken { reason, .. } => format!("{short} is broken: {reason}"),
    }
}

/// Returns the commit a product's state speaks of.
pub fn commit(sync: &Sync) -> &str {
    match sync {
        Sync::InSync { commit }
        | Sync::Held { commit, .. }
        | Sync::Denied { commit, .. }
        | Sync::Broken { commit, .. }
        | Sync::Pending { commit } => commit,
    }
}

/// An alert episode in a list.
#[derive(Serialize)]
pub struct EpisodeRow {
    pub id: String,
    pub title: String,
    pub kind: String,
    pub level: AlertLevel,
    pub state: EpisodeState,
    pub open: bool,
    pub product: String,
    pub product_title: String,
    pub started_at: DateTime<Utc>,
    pub resolved_at: Option<DateTime<Utc>>,
    /// From start to resolution, or so far.
    pub lasted: String,
    pub affected: usize,
    pub cause: String,
}

impl EpisodeRow {
    pub fn new(mesh: &Mesh, episode: &Episode) -> Self {
        Self {
            id: episode.id.clone(),
            title: episode.title.clone(),
            kind: episode.kind.clone(),
            level: episode.level,
            state: episode.state,
            open: episode.state != EpisodeState::Resolved,
            product: episode.product.clone(),
            product_title: mesh.product(&episode.product).map_or(&episode.product, |p| &p.title).clone(),
            started_at: episode.started_at,
            resolved_at: episode.resolved_at,
            lasted: words::duration(
                episode.started_at,
                episode.resolved_at.unwrap_or(mesh.model.generated_at),
            ),
            affected: episode.blast_radius.len(),
            cause: episode.cause.clone(),
        }
    }
}
