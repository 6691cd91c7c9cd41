//! The model with the questions the pages ask of it: neighbours, worst first, one bar for several objectives.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{Days, NaiveDate};

use super::SiteError;
use super::model::{
    AlertLevel, ColumnEdge, DayState, Domain, Episode, EpisodeState, Objective, Product, SiteModel, Status,
};
use super::svg::BAR_DAYS;

/// The model, indexed.
pub struct Mesh<'a> {
    pub model: &'a SiteModel,
    /// Worst first, then by address.
    pub products: Vec<&'a Product>,
    by_id: BTreeMap<&'a str, &'a Product>,
    /// Declared ones and those that only appear in an address; worst first, then by name.
    pub domains: Vec<DomainView<'a>>,
    upstream: BTreeMap<&'a str, BTreeSet<&'a str>>,
    downstream: BTreeMap<&'a str, BTreeSet<&'a str>>,
    columns: BTreeMap<&'a str, Vec<&'a ColumnEdge>>,
    /// Open first, then newest first.
    pub incidents: Vec<&'a Episode>,
}

/// A domain and its products.
pub struct DomainView<'a> {
    pub name: &'a str,
    pub declared: Option<&'a Domain>,
    /// Worst first.
    pub products: Vec<&'a Product>,
    /// The worst status within; healthy if there is nothing in it.
    pub status: Status,
}

impl<'a> Mesh<'a> {
    /// Indexes the model.
    pub fn new(model: &'a SiteModel) -> Result<Self, SiteError> {
        unique("products", model.products.iter().map(|p| p.id.as_str()))?;
        unique("domains", model.domains.iter().map(|d| d.name.as_str()))?;
        unique("incidents", model.incidents.iter().map(|i| i.id.as_str()))?;

        let mut products: Vec<&Product> = model.products.iter().collect();
        products.sort_by_key(|p| (p.status, p.id.as_str()));
        let by_id: BTreeMap<&str, &Product> = products.iter().map(|p| (p.id.as_str(), *p)).collect();

        let mut upstream: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut downstream: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for edge in model.lineage.products.iter().filter(|e| e.from != e.to) {
            if by_id.contains_key(edge.from.as_str()) && by_id.contains_key(edge.to.as_str()) {
                upstream.entry(&edge.to).or_default().insert(&edge.from);
                downstream.entry(&edge.from).or_default().insert(&edge.to);
            }
        }
        let mut columns: BTreeMap<&str, Vec<&ColumnEdge>> = BTreeMap::new();
        for edge in &model.lineage.columns {
            columns.entry(&edge.to).or_default().push(edge);
        }
        for edges in columns.values_mut() {
            edges.sort();
            edges.dedup();
        }

        let mut incidents: Vec<&Episode> = model.incidents.iter().collect();
        incidents.sort_by(|a, b| {
            let key = |e: &Episode| (e.state == EpisodeState::Resolved, std::cmp::Reverse(e.started_at));
            key(a).cmp(&key(b)).then_with(|| a.id.cmp(&b.id))
        });

        let domains = group(model, &products);
        Ok(Self { model, products, by_id, domains, upstream, downstream, columns, incidents })
    }

    /// Returns a product by its address.
    pub fn product(&self, id: &str) -> Option<&'a Product> {
        self.by_id.get(id).copied()
    }

    /// Returns the products a product reads, by address.
    pub fn upstream(&self, id: &str) -> impl Iterator<Item = &'a Product> + '_ {
        self.upstream.get(id).into_iter().flatten().filter_map(|id| self.product(id))
    }

    /// Returns the products that read a product, by address.
    pub fn downstream(&self, id: &str) -> impl Iterator<Item = &'a Product> + '_ {
        self.downstream.get(id).into_iter().flatten().filter_map(|id| self.product(id))
    }

    /// Returns product edges whose two ends exist, once each.
    pub fn edges(&self) -> impl Iterator<Item = (&'a Product, &'a Product)> + '_ {
        self.downstream
            .iter()
            .flat_map(|(from, to)| to.iter().filter_map(|to| Some((self.product(from)?, self.product(to)?))))
    }

    /// Returns what a column is made from.
    pub fn column_sources(&self, column: &str) -> &[&'a ColumnEdge] {
        self.columns.get(column).map_or(&[], Vec::as_slice)
    }

    /// Returns the episodes whose cause is this product, or whose blast reaches it.
    pub fn incidents_of(&self, id: &str) -> impl Iterator<Item = &'a Episode> + '_ {
        let id = id.to_owned();
        self.incidents.iter().copied().filter(move |e| e.product == id || e.blast_radius.contains(&id))
    }

    /// Returns the number of open episodes of a level.
    pub fn open(&self, level: AlertLevel) -> usize {
        self.incidents.iter().filter(|e| e.level == level && e.state.is_loud()).count()
    }

    /// Returns the number of products in a status.
    pub fn in_status(&self, status: Status) -> usize {
        self.products.iter().filter(|p| p.status == status).count()
    }

    /// Returns the dates a bar shows, oldest first, today last.
    pub fn dates(&self) -> Vec<NaiveDate> {
        let today = self.model.generated_at.date_naive();
        (0..BAR_DAYS as u64).rev().filter_map(|back| today.checked_sub_days(Days::new(back))).collect()
    }

    /// Returns per date of the bar the worst day of the given objectives; a date nobody speaks of is excluded.
    pub fn worst_days<'b>(&self, objectives: impl IntoIterator<Item = &'b Objective>) -> Vec<DayState> {
        let mut worst: BTreeMap<NaiveDate, DayState> = BTreeMap::new();
        for day in objectives.into_iter().flat_map(|o| &o.days) {
            worst.entry(day.date).and_modify(|s| *s = day.state.min(*s)).or_insert(day.state);
        }
        self.dates().iter().map(|d| worst.get(d).copied().unwrap_or(DayState::Excluded)).collect()
    }
}

/// Returns the objective that sums a product up: the worst now, then the one with the least budget.
///
/// Never a mean: an average of promises is a promise nobody made.
pub fn headline(product: &Product) -> Option<&Objective> {
    product.objectives.iter().min_by(|a, b| {
        let budget = |o: &Objective| o.budget_remaining.unwrap_or(f64::INFINITY);
        a.status.cmp(&b.status).then(budget(a).total_cmp(&budget(b))).then_with(|| a.id.cmp(&b.id))
    })
}

fn group<'a>(model: &'a SiteModel, products: &[&'a Product]) -> Vec<DomainView<'a>> {
    let mut groups: BTreeMap<&str, Vec<&Product>> =
        model.domains.iter().map(|d| (d.name.as_str(), Vec::new())).collect();
    for product in products {
        groups.entry(&product.domain).or_default().push(product);
    }
    let mut domains: Vec<DomainView> = groups
        .into_iter()
        .map(|(name, products)| DomainView {
            name,
            declared: model.domains.iter().find(|d| d.name == name),
            status: products.iter().map(|p| p.status).min().unwrap_or(Status::Healthy),
            products,
        })
        .collect();
    domains.sort_by_key(|d| (d.status, d.name));
    domains
}

fn unique<'a>(what: &'static str, names: impl Iterator<Item = &'a str>) -> Result<(), SiteError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(SiteError::Duplicate { what, name: name.to_owned() });
        }
    }
    Ok(())
}
