//! Every place of a query that could read something is walked; what is not known to be harmless is refused.

use sqlparser::ast::{
    AccessExpr, Distinct, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArguments, GroupByExpr, GroupByWithModifier, Ident, Join, JoinConstraint, JoinOperator,
    LimitClause, NamedWindowExpr, ObjectName, ObjectNamePart, OrderBy, OrderByExpr, OrderByKind, Query,
    Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Spanned, Subscript, TableFactor,
    TableWithJoins, WindowFrameBound, WindowSpec, WindowType,
};

use super::{SqlFault, location};
use crate::diag::{Code, Spot, codes};

/// What a walk over a query has met.
#[derive(Default)]
pub struct Walk {
    /// Tables that are no WITH name, as the SQL means them (unquoted names in lower case), and where they stand.
    pub tables: Vec<(String, Spot)>,
    /// What is refused.
    pub faults: Vec<SqlFault>,
    /// How much of a plan the query becomes: SELECTs and tables, once every WITH name stands for what it names.
    pub weight: u64,
    /// WITH names, each with the weight of what it names.
    scopes: Vec<(String, u64)>,
}

fn spot(node: &impl Spanned) -> Spot {
    let start = node.span().start;
    location(start.line, start.column)
}

fn meaning(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

impl Walk {
    fn refuse(&mut self, code: Code, at: Spot, message: impl Into<String>) {
        self.faults.push(SqlFault::new(code, at, message));
    }

    fn foreign(&mut self, node: &impl Spanned, what: &str) {
        self.refuse(codes::SQL_UNSUPPORTED, spot(node), format!("{what} is outside the portable subset"));
    }

    /// Walks a query; WITH names are known in it and in what follows them, not outside.
    pub fn query(&mut self, query: &Query) {
        let outer = self.scopes.len();
        if let Some(with) = &query.with {
            for cte in &with.cte_tables {
                let name = meaning(&cte.alias.name);
                let before = std::mem::take(&mut self.weight);
                if with.recursive {
                    self.scopes.push((name.clone(), 1));
                }
                self.query(&cte.query);
                // It weighs where it is read, as often as it is read.
                let weight = std::mem::replace(&mut self.weight, before);
                if with.recursive {
                    self.scopes.pop();
                }
                self.scopes.push((name, weight));
            }
        }
        self.set(&query.body);
        if let Some(order) = &query.order_by {
            self.order(order);
        }
        match &query.limit_clause {
            None => {}
            Some(LimitClause::LimitOffset { limit, offset, limit_by }) => {
                limit.iter().chain(limit_by).for_each(|expr| self.expr(expr));
                if let Some(offset) = offset {
                    self.expr(&offset.value);
                }
            }
            Some(LimitClause::OffsetCommaLimit { offset, limit }) => {
                self.expr(offset);
                self.expr(limit);
            }
        }
        if let Some(quantity) = query.fetch.as_ref().and_then(|fetch| fetch.quantity.as_ref()) {
            self.expr(quantity);
        }
        if !query.locks.is_empty() {
            self.refuse(codes::SQL_INTO, spot(query), "the query locks rows (FOR UPDATE or FOR SHARE)");
        }
        if query.for_clause.is_some()
            || query.settings.is_some()
            || query.format_clause.is_some()
            || !query.pipe_operators.is_empty()
        {
            self.foreign(query, "a closing FOR, SETTINGS, FORMAT or `|>` clause");
        }
        self.scopes.truncate(outer);
    }

    fn set(&mut self, set: &SetExpr) {
        // A chain of UNIONs nests to the left.
        let mut set = set;
        while let SetExpr::SetOperation { left, right, .. } = set {
            self.set(right);
            set = left;
        }
        match set {
            SetExpr::Select(select) => self.select(select),
            SetExpr::Query(query) => self.query(query),
            SetExpr::Values(values) => values.rows.iter().flatten().for_each(|expr| self.expr(expr)),
            SetExpr::SetOperation { .. } => {}
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                self.refuse(codes::SQL_NOT_A_QUERY, spot(set), "the statement changes data");
            }
            SetExpr::Table(_) => self.foreign(set, "TABLE"),
        }
    }

    /// A query within an expression. Whoever describes it looks at it twice: for its text, and for what it reads.
    fn subquery(&mut self, query: &Query) {
        let before = std::mem::take(&mut self.weight);
        self.query(query);
        self.weight = before.saturating_add(self.weight.saturating_mul(2));
    }

    fn select(&mut self, select: &Select) {
        self.weight = self.weight.saturating_add(1);
        if select.into.is_some() {
            self.refuse(codes::SQL_INTO, spot(select), "SELECT INTO writes a table");
        }
        if !select.lateral_views.is_empty()
            || select.prewhere.is_some()
            || !select.connect_by.is_empty()
            || !select.cluster_by.is_empty()
            || !select.distribute_by.is_empty()
            || !select.sort_by.is_empty()
            || select.value_table_mode.is_some()
            || select.top.is_some()
            || select.select_modifiers.is_some()
        {
            self.foreign(select, "a clause of one vendor's dialect");
        }
        // FROM first: what it names is what readers look for.
        select.from.iter().for_each(|table| self.joined(table));
        for item in &select.projection {
            match item {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => self.expr(expr),
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::Expr(expr), _) => {
                    self.expr(expr);
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(_), _) => {}
                SelectItem::Wildcard(options) => {
                    for replaced in options.opt_replace.iter().flat_map(|replace| &replace.items) {
                        self.expr(&replaced.expr);
                    }
                }
            }
        }
        if let Some(Distinct::On(exprs)) = &select.distinct {
            for expr in exprs {
                self.expr(expr);
            }
        }
        select.selection.iter().chain(&select.having).chain(&select.qualify).for_each(|expr| self.expr(expr));
        let modifiers = match &select.group_by {
            GroupByExpr::All(modifiers) => modifiers,
            GroupByExpr::Expressions(exprs, modifiers) => {
                for expr in exprs {
                    self.expr(expr);
                }
                modifiers
            }
        };
        for modifier in modifiers {
            if let GroupByWithModifier::GroupingSets(expr) = modifier {
                self.expr(expr);
            }
        }
        for window in &select.named_window {
            if let NamedWindowExpr::WindowSpec(spec) = &window.1 {
                self.window(spec);
            }
        }
    }

    fn joined(&mut self, table: &TableWithJoins) {
        use JoinOperator as J;
        self.factor(&table.relation);
        for Join { relation, join_operator, .. } in &table.joins {
            self.factor(relation);
            match join_operator {
                J::Join(on)
                | J::Inner(on)
                | J::Left(on)
                | J::LeftOuter(on)
                | J::Right(on)
                | J::RightOuter(on)
                | J::FullOuter(on)
                | J::CrossJoin(on)
                | J::Semi(on)
                | J::LeftSemi(on)
                | J::RightSemi(on)
                | J::Anti(on)
                | J::LeftAnti(on)
                | J::RightAnti(on) => {
                    if let JoinConstraint::On(expr) = on {
                        self.expr(expr);
                    }
                }
                J::CrossApply | J::OuterApply | J::AsOf { .. } | J::StraightJoin(_) => {
                    self.foreign(relation, "this kind of join");
                }
            }
        }
    }

    fn factor(&mut self, factor: &TableFactor) {
        match factor {
            TableFactor::Table {
                name,
                args,
                version,
                sample,
                json_path,
                partitions,
                with_hints,
                index_hints,
                ..
            } => {
                if args.is_some() {
                    let message = format!("`{name}` is called as a table function");
                    self.refuse(codes::SQL_TABLE_FUNCTION, spot(name), message);
                    return;
                }
                if version.is_some() || sample.is_some() || json_path.is_some() {
                    self.foreign(factor, "a table version, sample or path");
                }
                if !(partitions.is_empty() && with_hints.is_empty() && index_hints.is_empty()) {
                    self.foreign(factor, "a table hint");
                }
                self.table(name);
            }
            TableFactor::Derived { subquery, sample, .. } => {
                if sample.is_some() {
                    self.foreign(factor, "a sample");
                }
                self.query(subquery);
            }
            TableFactor::NestedJoin { table_with_joins, .. } => self.joined(table_with_joins),
            TableFactor::UNNEST { array_exprs, .. } => array_exprs.iter().for_each(|expr| self.expr(expr)),
            TableFactor::TableFunction { .. } | TableFactor::Function { .. } => {
                self.refuse(codes::SQL_TABLE_FUNCTION, spot(factor), "a table function is called");
            }
            _ => self.foreign(factor, "this kind of table"),
        }
    }

    fn table(&mut self, name: &ObjectName) {
        let at = spot(name);
        let [ObjectNamePart::Identifier(ident)] = name.0.as_slice() else {
            let path = name.0.iter().any(|part| match part {
                ObjectNamePart::Identifier(ident) => {
                    ident.value.contains(['/', '\\']) || ident.quote_style == Some('\'')
                }
                ObjectNamePart::Function(_) => false,
            });
            if path {
                self.refuse(codes::SQL_FILE_PATH, at, format!("`{name}` is a path"));
            } else {
                self.tables.push((name.to_string(), at));
            }
            return;
        };
        let is_path = ident.quote_style == Some('\'') || ident.value.contains(['/', '\\', ':', '.']);
        if is_path {
            self.refuse(codes::SQL_FILE_PATH, at, format!("`{}` is a path", ident.value));
            return;
        }
        let table = meaning(ident);
        let named = self.scopes.iter().rev().find(|(name, _)| *name == table).map(|(_, weight)| *weight);
        self.weight = self.weight.saturating_add(named.unwrap_or(1).max(1));
        if named.is_none() {
            self.tables.push((table, at));
        }
    }

    fn order(&mut self, order: &OrderBy) {
        if order.interpolate.is_some() {
            self.foreign(order, "INTERPOLATE");
        }
        if let OrderByKind::Expressions(exprs) = &order.kind {
            for by in exprs {
                self.order_expr(by);
            }
        }
    }

    fn order_expr(&mut self, by: &OrderByExpr) {
        if by.with_fill.is_some() {
            self.foreign(&by.expr, "WITH FILL");
        }
        self.expr(&by.expr);
    }

    fn window(&mut self, spec: &WindowSpec) {
        spec.partition_by.iter().for_each(|expr| self.expr(expr));
        spec.order_by.iter().for_each(|by| self.order_expr(by));
        let Some(frame) = &spec.window_frame else { return };
        for bound in std::iter::once(&frame.start_bound).chain(&frame.end_bound) {
            if let WindowFrameBound::Preceding(Some(expr)) | WindowFrameBound::Following(Some(expr)) = bound {
                self.expr(expr);
            }
        }
    }

    fn function(&mut self, function: &Function) {
        self.arguments(&function.parameters);
        self.arguments(&function.args);
        function.filter.iter().for_each(|expr| self.expr(expr));
        function.within_group.iter().for_each(|by| self.order_expr(by));
        if let Some(WindowType::WindowSpec(spec)) = &function.over {
            self.window(spec);
        }
    }

    fn arguments(&mut self, arguments: &FunctionArguments) {
        let list = match arguments {
            FunctionArguments::None => return,
            FunctionArguments::Subquery(query) => return self.subquery(query),
            FunctionArguments::List(list) => list,
        };
        for argument in &list.args {
            let value = match argument {
                FunctionArg::Named { arg, .. } | FunctionArg::Unnamed(arg) => arg,
                FunctionArg::ExprNamed { name, arg, .. } => {
                    self.expr(name);
                    arg
                }
            };
            if let FunctionArgExpr::Expr(expr) = value {
                self.expr(expr);
            }
        }
        for clause in &list.clauses {
            match clause {
                FunctionArgumentClause::OrderBy(order) => order.iter().for_each(|by| self.order_expr(by)),
                FunctionArgumentClause::Limit(expr) => self.expr(expr),
                FunctionArgumentClause::Having(bound) => self.expr(&bound.1),
                FunctionArgumentClause::IgnoreOrRespectNulls(_)
                | FunctionArgumentClause::OnOverflow(_)
                | FunctionArgumentClause::Separator(_)
                | FunctionArgumentClause::JsonNullClause(_)
                | FunctionArgumentClause::JsonReturningClause(_) => {}
            }
        }
    }

    fn expr(&mut self, expr: &Expr) {
        // A chain of operators nests to the left, as deep as the query is long.
        let mut expr = expr;
        while let Expr::BinaryOp { left, right, .. } = expr {
            self.expr(right);
            expr = left;
        }
        match expr {
            Expr::Identifier(_)
            | Expr::CompoundIdentifier(_)
            | Expr::Value(_)
            | Expr::TypedString(_)
            | Expr::Wildcard(_)
            | Expr::QualifiedWildcard(..)
            | Expr::BinaryOp { .. } => {}
            Expr::CompoundFieldAccess { root, access_chain } => {
                self.expr(root);
                for access in access_chain {
                    match access {
                        AccessExpr::Dot(expr) | AccessExpr::Subscript(Subscript::Index { index: expr }) => {
                            self.expr(expr);
                        }
                        AccessExpr::Subscript(Subscript::Slice { lower_bound, upper_bound, stride }) => {
                            lower_bound
                                .iter()
                                .chain(upper_bound)
                                .chain(stride)
                                .for_each(|expr| self.expr(expr));
                        }
                    }
                }
            }
            Expr::IsFalse(inner)
            | Expr::IsNotFalse(inner)
            | Expr::IsTrue(inner)
            | Expr::IsNotTrue(inner)
            | Expr::IsNull(inner)
            | Expr::IsNotNull(inner)
            | Expr::IsUnknown(inner)
            | Expr::IsNotUnknown(inner)
            | Expr::Nested(inner)
            | Expr::UnaryOp { expr: inner, .. }
            | Expr::Cast { expr: inner, .. }
            | Expr::Extract { expr: inner, .. }
            | Expr::Ceil { expr: inner, .. }
            | Expr::Floor { expr: inner, .. }
            | Expr::Collate { expr: inner, .. }
            | Expr::Named { expr: inner, .. }
            | Expr::IsNormalized { expr: inner, .. } => self.expr(inner),
            Expr::IsDistinctFrom(left, right)
            | Expr::IsNotDistinctFrom(left, right)
            | Expr::Like { expr: left, pattern: right, .. }
            | Expr::ILike { expr: left, pattern: right, .. }
            | Expr::SimilarTo { expr: left, pattern: right, .. }
            | Expr::RLike { expr: left, pattern: right, .. }
            | Expr::AnyOp { left, right, .. }
            | Expr::AllOp { left, right, .. }
            | Expr::InUnnest { expr: left, array_expr: right, .. }
            | Expr::AtTimeZone { timestamp: left, time_zone: right }
            | Expr::Position { expr: left, r#in: right } => {
                self.expr(left);
                self.expr(right);
            }
            Expr::InList { expr, list, .. } => {
                self.expr(expr);
                for expr in list {
                    self.expr(expr);
                }
            }
            Expr::InSubquery { expr, subquery, .. } => {
                self.expr(expr);
                self.subquery(subquery);
            }
            Expr::Between { expr, low, high, .. } => {
                self.expr(expr);
                self.expr(low);
                self.expr(high);
            }
            Expr::Substring { expr, substring_from, substring_for, .. } => {
                self.expr(expr);
                substring_from.iter().chain(substring_for).for_each(|expr| self.expr(expr));
            }
            Expr::Trim { expr, trim_what, trim_characters, .. } => {
                self.expr(expr);
                if let Some(expr) = trim_what {
                    self.expr(expr);
                }
                trim_characters.iter().flatten().for_each(|expr| self.expr(expr));
            }
            Expr::Overlay { expr, overlay_what, overlay_from, overlay_for } => {
                [expr, overlay_what, overlay_from]
                    .into_iter()
                    .chain(overlay_for)
                    .for_each(|expr| self.expr(expr));
            }
            Expr::Function(function) => self.function(function),
            Expr::Case { operand, conditions, else_result, .. } => {
                operand.iter().chain(else_result).for_each(|expr| self.expr(expr));
                for when in conditions {
                    self.expr(&when.condition);
                    self.expr(&when.result);
                }
            }
            Expr::Exists { subquery, .. } | Expr::Subquery(subquery) => self.subquery(subquery),
            Expr::GroupingSets(sets) | Expr::Cube(sets) | Expr::Rollup(sets) => {
                sets.iter().flatten().for_each(|expr| self.expr(expr));
            }
            Expr::Tuple(exprs) => exprs.iter().for_each(|expr| self.expr(expr)),
            Expr::Array(array) => array.elem.iter().for_each(|expr| self.expr(expr)),
            Expr::Interval(interval) => self.expr(&interval.value),
            Expr::Dictionary(fields) => fields.iter().for_each(|field| self.expr(&field.value)),
            Expr::Map(map) => map.entries.iter().for_each(|entry| {
                self.expr(&entry.key);
                self.expr(&entry.value);
            }),
            _ => self.foreign(expr, "this expression"),
        }
    }
}
