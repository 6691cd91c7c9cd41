//! Column lineage out of a logical plan: for each output column its expression over source columns, and what decides
//! the rows.
//!
//! The text is independent of formatting, aliases and CTE names, because every reference is replaced by what it stands
//! for. What is not understood is described as a whole: every column then rests on everything the node reads, so that
//! a reader rebuilds rather than misses a change.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use datafusion::common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::expr::{Sort, WindowFunction};
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan};
use hydromesh_core::model::SourceColumn;

/// What a node yields.
#[derive(Debug, Clone, Default)]
pub(super) struct Traced {
    /// Its columns in order.
    pub columns: Vec<TracedColumn>,
    /// What decides its rows.
    pub rows: String,
    /// Source columns that decide its rows.
    pub indirect: BTreeSet<SourceColumn>,
    /// Tables with the number of scans.
    pub tables: BTreeMap<String, u32>,
}

/// One column of a node.
#[derive(Debug, Clone, Default)]
pub(super) struct TracedColumn {
    /// Its expression over source columns.
    pub expression: String,
    /// Source columns whose values reach it.
    pub direct: BTreeSet<SourceColumn>,
    /// Those that reach it without passing a masking function.
    pub unmasked: BTreeSet<SourceColumn>,
}

/// Aggregates that return a value of their input; every other one condenses.
const PASSING_AGGREGATES: [&str; 8] =
    ["min", "max", "first_value", "last_value", "nth_value", "array_agg", "string_agg", "mode"];
/// Functions whose result does not give their input away.
const DIGESTS: [&str; 6] = ["digest", "md5", "sha224", "sha256", "sha384", "sha512"];

/// Most nodes that a description looks at, and how deep they may lie in one another.
const MOST_NODES: usize = 20_000;
const MOST_DEPTH: usize = 400;
/// Nodes that one costs which is described as a whole: all that is below it is written out, and looked at once more.
const WHOLE: usize = 100;
/// Most bytes of text that a description makes. A name stands for its whole expression, so that thirty lines of
/// `x || x AS x`, each over the one before, would make more than there is memory.
const MOST_BYTES: usize = 64 << 20;

/// What is left of what a description may cost. Once it is spent nothing is looked at any more, and the description is void.
#[derive(Debug)]
pub(super) struct Budget {
    nodes: Cell<usize>,
    bytes: Cell<usize>,
    depth: Cell<usize>,
    spent: Cell<bool>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            nodes: Cell::new(MOST_NODES),
            bytes: Cell::new(MOST_BYTES),
            depth: Cell::new(MOST_DEPTH),
            spent: Cell::new(false),
        }
    }
}

impl Budget {
    /// Whether a description made with it is not whole.
    pub(super) fn is_spent(&self) -> bool {
        self.spent.get()
    }

    /// Takes from what is left, and returns whether there was enough.
    fn take(&self, left: &Cell<usize>, many: usize) -> bool {
        match left.get().checked_sub(many).filter(|_| !self.is_spent()) {
            Some(rest) => left.set(rest),
            None => self.spent.set(true),
        }
        !self.is_spent()
    }
}

/// Returns what a plan yields.
pub(super) fn trace(plan: &LogicalPlan, budget: &Budget) -> Traced {
    if !budget.take(&budget.nodes, 1) || !budget.take(&budget.depth, 1) {
        return Traced::default();
    }
    let traced = trace_node(plan, budget);
    budget.depth.set(budget.depth.get() + 1);
    let expressions: usize = traced.columns.iter().map(|column| column.expression.len()).sum();
    budget.take(&budget.bytes, expressions + traced.rows.len());
    traced
}

fn trace_node(plan: &LogicalPlan, budget: &Budget) -> Traced {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let table = scan.table_name.table().to_owned();
            let columns = scan
                .projected_schema
                .fields()
                .iter()
                .map(|field| {
                    let source = SourceColumn { table: table.clone(), column: field.name().clone() };
                    let direct = BTreeSet::from([source]);
                    TracedColumn {
                        expression: format!("{table}.{}", field.name()),
                        unmasked: direct.clone(),
                        direct,
                    }
                })
                .collect();
            let rows = format!("Scan({table})");
            Traced { columns, rows, indirect: BTreeSet::new(), tables: BTreeMap::from([(table, 1)]) }
        }
        LogicalPlan::Projection(node) => {
            let input = trace(&node.input, budget);
            let scope = Scope::new(node.input.schema(), &input, budget);
            let columns = node.expr.iter().map(|expression| scope.column(expression)).collect();
            Traced { columns, ..input }
        }
        LogicalPlan::SubqueryAlias(node) => trace(&node.input, budget),
        LogicalPlan::Subquery(node) => trace(&node.subquery, budget),
        LogicalPlan::Filter(node) => {
            let mut input = trace(&node.input, budget);
            let predicate = Scope::new(node.input.schema(), &input, budget).column(&node.predicate);
            input.rows = format!("Filter({}, {})", predicate.expression, input.rows);
            input.indirect.extend(predicate.direct);
            input
        }
        LogicalPlan::Aggregate(node) => {
            let input = trace(&node.input, budget);
            let scope = Scope::new(node.input.schema(), &input, budget);
            let groups: Vec<TracedColumn> = node.group_expr.iter().map(|group| scope.column(group)).collect();
            let aggregates = node.aggr_expr.iter().map(|aggregate| scope.column(aggregate));
            let columns: Vec<TracedColumn> = groups.iter().cloned().chain(aggregates).collect();
            let mut keys: Vec<&str> = groups.iter().map(|group| group.expression.as_str()).collect();
            keys.sort_unstable();
            let rows = format!("Aggregate([{}], {})", keys.join(", "), input.rows);
            // Grouping sets add a column of their own; then the plan is described as a whole.
            if columns.len() != node.schema.fields().len() {
                return opaque(plan, budget);
            }
            let mut indirect = input.indirect;
            indirect.extend(groups.into_iter().flat_map(|group| group.direct));
            Traced { columns, rows, indirect, tables: input.tables }
        }
        LogicalPlan::Join(node) => join(plan, node, budget),
        LogicalPlan::Sort(node) => {
            let mut input = trace(&node.input, budget);
            if let Some(fetch) = node.fetch {
                let order = order(&Scope::new(node.input.schema(), &input, budget), &node.expr);
                input.rows = format!("Limit({fetch}, Sort({}, {}))", order.expression, input.rows);
                input.indirect.extend(order.direct);
            } else {
                let order = order(&Scope::new(node.input.schema(), &input, budget), &node.expr);
                input.rows = format!("Sort({}, {})", order.expression, input.rows);
                input.indirect.extend(order.direct);
            }
            input
        }
        LogicalPlan::Limit(node) => {
            let mut input = trace(&node.input, budget);
            let text = |bound: &Option<Box<Expr>>| bound.as_ref().map_or("-".to_owned(), ToString::to_string);
            input.rows = format!("Limit({}, {}, {})", text(&node.skip), text(&node.fetch), input.rows);
            input
        }
        LogicalPlan::Distinct(Distinct::All(inner)) => {
            let mut input = trace(inner, budget);
            let keys: Vec<&str> = input.columns.iter().map(|column| column.expression.as_str()).collect();
            input.rows = format!("Distinct([{}], {})", keys.join(", "), input.rows);
            let direct: Vec<SourceColumn> =
                input.columns.iter().flat_map(|column| column.direct.clone()).collect();
            input.indirect.extend(direct);
            input
        }
        LogicalPlan::Union(node) => {
            union(&node.inputs.iter().map(|input| trace(input, budget)).collect::<Vec<_>>())
        }
        LogicalPlan::Window(node) => {
            let mut input = trace(&node.input, budget);
            let scope = Scope::new(node.input.schema(), &input, budget);
            let added: Vec<TracedColumn> =
                node.window_expr.iter().map(|window| scope.column(window)).collect();
            input.columns.extend(added);
            input
        }
        LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_) => {
            let expression =
                |name: &str| TracedColumn { expression: format!("constant {name}"), ..Default::default() };
            let columns = plan.schema().fields().iter().map(|field| expression(field.name())).collect();
            Traced { columns, rows: plan.display_indent().to_string(), ..Default::default() }
        }
        LogicalPlan::Repartition(node) => trace(&node.input, budget),
        _ => opaque(plan, budget),
    }
}

fn join(plan: &LogicalPlan, node: &datafusion::logical_expr::Join, budget: &Budget) -> Traced {
    use datafusion::common::JoinType;
    let (left, right) = (trace(&node.left, budget), trace(&node.right, budget));
    let (left_scope, right_scope) =
        (Scope::new(node.left.schema(), &left, budget), Scope::new(node.right.schema(), &right, budget));
    let mut indirect: BTreeSet<SourceColumn> = left.indirect.union(&right.indirect).cloned().collect();
    let mut keys: Vec<String> = Vec::new();
    for (one, other) in &node.on {
        let (one, other) = (left_scope.column(one), right_scope.column(other));
        keys.push(format!("{} = {}", one.expression, other.expression));
        indirect.extend(one.direct.into_iter().chain(other.direct));
    }
    keys.sort_unstable();
    let both: Vec<TracedColumn> = left.columns.iter().chain(&right.columns).cloned().collect();
    let mut filter = String::new();
    if let Some(condition) = &node.filter {
        let Ok(schema) = node.left.schema().join(node.right.schema()) else { return opaque(plan, budget) };
        let joined = Traced { columns: both.clone(), ..Default::default() };
        let condition = Scope::new(&schema, &joined, budget).column(condition);
        filter = condition.expression;
        indirect.extend(condition.direct);
    }
    let columns = match node.join_type {
        JoinType::LeftSemi | JoinType::LeftAnti => left.columns,
        JoinType::RightSemi | JoinType::RightAnti => right.columns,
        JoinType::LeftMark => {
            let mut columns = left.columns;
            columns
                .push(TracedColumn { expression: format!("exists({})", right.rows), ..Default::default() });
            columns
        }
        _ => both,
    };
    if columns.len() != node.schema.fields().len() {
        return opaque(plan, budget);
    }
    let rows =
        format!("Join({}, [{}], {filter}, {}, {})", node.join_type, keys.join(", "), left.rows, right.rows);
    let mut tables = left.tables;
    for (table, scans) in right.tables {
        *tables.entry(table).or_default() += scans;
    }
    Traced { columns, rows, indirect, tables }
}

fn union(inputs: &[Traced]) -> Traced {
    let mut result = Traced::default();
    let width = inputs.first().map_or(0, |input| input.columns.len());
    for index in 0..width {
        let parts: Vec<&TracedColumn> = inputs.iter().filter_map(|input| input.columns.get(index)).collect();
        let expressions: Vec<&str> = parts.iter().map(|part| part.expression.as_str()).collect();
        result.columns.push(TracedColumn {
            expression: format!("either({})", expressions.join(", ")),
            direct: parts.iter().flat_map(|part| part.direct.clone()).collect(),
            unmasked: parts.iter().flat_map(|part| part.unmasked.clone()).collect(),
        });
    }
    let rows: Vec<&str> = inputs.iter().map(|input| input.rows.as_str()).collect();
    result.rows = format!("Union({})", rows.join(", "));
    for input in inputs {
        result.indirect.extend(input.indirect.clone());
        for (table, scans) in &input.tables {
            *result.tables.entry(table.clone()).or_default() += scans;
        }
    }
    result
}

/// Describes a node as a whole: every column rests on all that it reads.
fn opaque(plan: &LogicalPlan, budget: &Budget) -> Traced {
    if !budget.take(&budget.nodes, WHOLE) {
        return Traced::default();
    }
    let mut all = BTreeSet::new();
    let mut tables: BTreeMap<String, u32> = BTreeMap::new();
    for input in plan.inputs() {
        let input = trace(input, budget);
        all.extend(input.indirect);
        all.extend(input.columns.into_iter().flat_map(|column| column.direct));
        for (table, scans) in input.tables {
            // Whatever it does with a table, it may look at it more than once.
            *tables.entry(table).or_default() += scans + 1;
        }
    }
    let text = plan.display_indent().to_string();
    if !budget.take(&budget.bytes, text.len().saturating_mul(plan.schema().fields().len())) {
        return Traced::default();
    }
    let column = |name: &str| TracedColumn {
        expression: format!("{name} of {text}"),
        direct: all.clone(),
        unmasked: all.clone(),
    };
    let columns = plan.schema().fields().iter().map(|field| column(field.name())).collect();
    Traced { columns, rows: format!("Window or other({text})"), indirect: all, tables }
}

fn order(scope: &Scope<'_>, sorts: &[Sort]) -> TracedColumn {
    let mut combined = TracedColumn::default();
    for sort in sorts {
        let column = scope.column(&sort.expr);
        let direction = if sort.asc { "asc" } else { "desc" };
        let nulls = if sort.nulls_first { "nulls first" } else { "nulls last" };
        combined.expression.push_str(&format!("{} {direction} {nulls};", column.expression));
        combined.direct.extend(column.direct);
        combined.unmasked.extend(column.unmasked);
    }
    combined
}

/// The columns that an expression may refer to.
struct Scope<'a> {
    schema: &'a DFSchema,
    columns: &'a [TracedColumn],
    budget: &'a Budget,
}

/// Whether a value is on its way through a masking function.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passage {
    Open,
    Masked,
}

impl<'a> Scope<'a> {
    fn new(schema: &'a DFSchema, input: &'a Traced, budget: &'a Budget) -> Self {
        Self { schema, columns: &input.columns, budget }
    }

    fn resolve(&self, column: &Column) -> Option<&TracedColumn> {
        self.columns.get(self.schema.maybe_index_of_column(column)?)
    }

    fn column(&self, expression: &Expr) -> TracedColumn {
        // Before it is made: what every reference in it stands for.
        let mut size = 0_usize;
        let visited = expression.apply(|part| {
            if let Expr::Column(column) = part
                && let Some(known) = self.resolve(column)
            {
                size = size.saturating_add(known.expression.len() + 64 * known.direct.len());
            }
            Ok(TreeNodeRecursion::Continue)
        });
        // The closure returns no error.
        let _ = visited;
        if !self.budget.take(&self.budget.bytes, size) {
            return TracedColumn::default();
        }
        let mut traced = TracedColumn { expression: self.text(expression), ..Default::default() };
        self.sources(expression, Passage::Open, &mut traced);
        traced
    }

    /// Returns the expression with every reference replaced by what it stands for.
    fn text(&self, expression: &Expr) -> String {
        if let Expr::Alias(alias) = expression {
            return self.text(&alias.expr);
        }
        if let Expr::Column(column) = expression {
            return self
                .resolve(column)
                .map_or_else(|| column.name.clone(), |known| known.expression.clone());
        }
        let replaced = expression.clone().transform_up(|part| {
            Ok(match part {
                Expr::Column(column) => {
                    let text =
                        self.resolve(&column).map_or(column.name.clone(), |known| known.expression.clone());
                    Transformed::yes(Expr::Column(Column::new_unqualified(text)))
                }
                Expr::OuterReferenceColumn(_, column) => {
                    Transformed::yes(Expr::Column(Column::new_unqualified(format!("outer {}", column.name))))
                }
                Expr::Alias(alias) => Transformed::yes(*alias.expr),
                Expr::ScalarSubquery(subquery)
                | Expr::Exists(datafusion::logical_expr::expr::Exists { subquery, .. }) => {
                    let inner = trace(&subquery.subquery, self.budget);
                    let values: Vec<String> =
                        inner.columns.into_iter().map(|column| column.expression).collect();
                    let text = format!("subquery([{}], {})", values.join(", "), inner.rows);
                    Transformed::yes(Expr::Column(Column::new_unqualified(text)))
                }
                Expr::InSubquery(within) => {
                    let inner = trace(&within.subquery.subquery, self.budget);
                    let values: Vec<String> =
                        inner.columns.into_iter().map(|column| column.expression).collect();
                    let negated = if within.negated { "not in" } else { "in" };
                    let text = format!(
                        "{} {negated} subquery([{}], {})",
                        within.expr,
                        values.join(", "),
                        inner.rows
                    );
                    Transformed::yes(Expr::Column(Column::new_unqualified(text)))
                }
                other => Transformed::no(other),
            })
        });
        let text = replaced.map_or_else(|_| expression.to_string(), |replaced| replaced.data.to_string());
        if matches!(expression, Expr::WindowFunction(_)) { format!("Window: {text}") } else { text }
    }

    fn sources(&self, expression: &Expr, passage: Passage, into: &mut TracedColumn) {
        match expression {
            Expr::Column(column) => {
                if let Some(known) = self.resolve(column) {
                    into.direct.extend(known.direct.clone());
                    if passage == Passage::Open {
                        into.unmasked.extend(known.unmasked.clone());
                    }
                }
            }
            Expr::AggregateFunction(call) => {
                let passes = PASSING_AGGREGATES.contains(&call.func.name());
                self.children(expression, if passes { passage } else { Passage::Masked }, into);
            }
            Expr::ScalarFunction(call) => {
                let masks = DIGESTS.contains(&call.func.name());
                self.children(expression, if masks { Passage::Masked } else { passage }, into);
            }
            Expr::WindowFunction(window) => self.window(window, passage, into),
            Expr::ScalarSubquery(subquery) => {
                subquery_sources(&subquery.subquery, passage, into, self.budget);
            }
            Expr::Exists(exists) => {
                subquery_sources(&exists.subquery.subquery, Passage::Masked, into, self.budget);
            }
            Expr::InSubquery(within) => {
                self.sources(&within.expr, passage, into);
                subquery_sources(&within.subquery.subquery, passage, into, self.budget);
            }
            other => self.children(other, passage, into),
        }
    }

    fn children(&self, expression: &Expr, passage: Passage, into: &mut TracedColumn) {
        let visited = expression.apply_children(|child| {
            self.sources(child, passage, into);
            Ok(TreeNodeRecursion::Continue)
        });
        // The closure returns no error.
        let _ = visited;
    }

    fn window(&self, window: &WindowFunction, passage: Passage, into: &mut TracedColumn) {
        for argument in &window.params.args {
            self.sources(argument, passage, into);
        }
        // What the window is cut and ordered by shapes the value without being in it.
        let shaping =
            window.params.partition_by.iter().chain(window.params.order_by.iter().map(|sort| &sort.expr));
        for part in shaping {
            self.sources(part, Passage::Masked, into);
        }
    }
}

fn subquery_sources(plan: &LogicalPlan, passage: Passage, into: &mut TracedColumn, budget: &Budget) {
    let inner = trace(plan, budget);
    for column in inner.columns {
        into.direct.extend(column.direct);
        if passage == Passage::Open {
            into.unmasked.extend(column.unmasked);
        }
    }
    into.direct.extend(inner.indirect);
}
