//! Quality rules as texts: placeholders of queries, operators and their operands, thresholds for people.

use hydromesh_core::model::Threshold;

use crate::engine::describe::{SqlProblem, SqlProblemKind};

pub(super) fn spoken_problem(problem: SqlProblem) -> String {
    match problem.kind {
        SqlProblemKind::MissingTable { name } => {
            format!("the query reads {name}; a quality rule reads its own object, {{object}}, alone")
        }
        SqlProblemKind::MissingColumn { name, .. } => format!("column {name} is not in the table"),
        SqlProblemKind::Refused | SqlProblemKind::Other => problem.message,
    }
}

/// The two things that a query may name, as ODCS 3.0 to 3.2 and its tools spell them.
const OBJECT: [&str; 3] = ["{object}", "{table}", "{model}"];
const PROPERTY: [&str; 3] = ["{property}", "{column}", "{field}"];

pub(super) fn names_property(sql: &str) -> bool {
    PROPERTY.iter().any(|name| sql.contains(name))
}

/// Returns the query with its placeholders as quoted identifiers, in one pass: a name that looks like a placeholder
/// stays a name.
pub(super) fn replaced(sql: &str, object: &str, column: Option<&str>) -> String {
    let identifier = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let mut text = String::with_capacity(sql.len() + object.len());
    let mut rest = sql;
    while let Some(at) = rest.find(['$', '{']) {
        let (before, from) = rest.split_at(at);
        text.push_str(before);
        let braced = from.strip_prefix('$').unwrap_or(from);
        let after = |names: &[&str]| names.iter().find_map(|name| braced.strip_prefix(name));
        if let Some(after) = after(&OBJECT) {
            text.push_str(&identifier(object));
            rest = after;
        } else if let (Some(after), Some(column)) = (after(&PROPERTY), column) {
            text.push_str(&identifier(column));
            rest = after;
        } else {
            text.push_str(&from[..1]);
            rest = &from[1..];
        }
    }
    text.push_str(rest);
    text
}

pub(super) fn check_operands(threshold: &Threshold) -> Result<(), String> {
    let wanted = match threshold.operator.as_str() {
        "mustBe"
        | "mustNotBe"
        | "mustBeGreaterThan"
        | "mustBeGreaterOrEqualTo"
        | "mustBeLessThan"
        | "mustBeLessOrEqualTo" => 1,
        "mustBeBetween" | "mustNotBeBetween" => 2,
        other => return Err(format!("{other} is no operator of a quality rule")),
    };
    let given = threshold.operands.len();
    if given != wanted || threshold.operands.iter().any(|operand| operand.is_nan()) {
        return Err(format!("{} takes {wanted} numbers and the rule gives {given}", threshold.operator));
    }
    Ok(())
}
