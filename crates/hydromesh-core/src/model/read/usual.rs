//! Rules that compare a partition with those before it: `{type: custom, engine: hydromesh, implementation: {usual: ..}}`.

use crate::band::MOST_HISTORY;
use crate::diag::codes;
use crate::model::{QualityCheck, Season, Threshold, Usual, UsualOf};
use crate::syntax::{Map, Node};

/// The engine of custom rules that are ours.
pub const ENGINE: &str = "hydromesh";

/// Reads the implementation of a rule of ours.
pub fn read(map: &Map<'_>, column: Option<&str>) -> Option<QualityCheck> {
    let Some(rule) = map.map("implementation") else {
        let message = "a rule of hydromesh needs `implementation`, such as `{usual: rowCount}`";
        map.sink().tell(codes::BAD_QUALITY, map.at, message);
        return None;
    };
    let words = [("rowCount", UsualOf::RowCount), ("nullValues", UsualOf::NullValues)];
    let _ = rule.req("usual");
    let of = rule.choice("usual", &words);
    let season = rule.choice("season", &[("week", Season::Week), ("none", Season::None)]);
    let history = rule.count("history");
    let (width, slack) = (rule.number("width"), rule.number("slack"));
    let complain = |key: &str, message: &str| {
        rule.sink().tell(codes::BAD_QUALITY, rule.spot(key), message);
    };
    let mut sound = true;
    if history.is_some_and(|history| !(12..=MOST_HISTORY).contains(&history)) {
        complain("history", &format!("`history` is a number of partitions from 12 to {MOST_HISTORY}"));
        sound = false;
    }
    if width.is_some_and(|width| !(width > 0.0 && width.is_finite())) {
        complain("width", "`width` is a number of standard deviations above 0");
        sound = false;
    }
    if slack.is_some_and(|slack| !(slack >= 0.0 && slack.is_finite())) {
        complain("slack", "`slack` is a percentage that is not negative");
        sound = false;
    }
    match (of, column) {
        (Some(UsualOf::NullValues), None) => {
            complain("usual", "`nullValues` is measured of a column; put the rule under one");
            sound = false;
        }
        (Some(UsualOf::RowCount), Some(_)) => {
            complain("usual", "`rowCount` is measured of the whole object; put the rule under it");
            sound = false;
        }
        _ => {}
    }
    rule.finish();
    let usual = Usual::new(of.filter(|_| sound)?);
    Some(QualityCheck::Usual(Usual {
        season: season.unwrap_or(usual.season),
        history,
        width: width.unwrap_or(usual.width),
        slack: slack.unwrap_or(usual.slack),
        ..usual
    }))
}

/// Returns the threshold of a rule of ours, which says in what unit it measures; what else it must be follows from what was
/// published.
pub fn threshold(map: &Map<'_>, usual: &Usual, operators: &[&'static str]) -> Option<Threshold> {
    let given: Option<(&str, &Node)> =
        operators.iter().find_map(|operator| map.opt(operator).map(|node| (*operator, node)));
    if let Some((operator, node)) = given {
        let message = format!("a rule about what is usual has no `{operator}`: what is usual is the bound");
        map.sink().tell(codes::BAD_QUALITY, node.at, message);
        return None;
    }
    let percent = usual.of == UsualOf::NullValues;
    Some(Threshold { operator: "usual".to_owned(), operands: Vec::new(), percent })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Diagnostic;
    use crate::model::Quality;
    use crate::model::read;
    use crate::syntax::{Sink, parse};

    /// Reads a contract with a rule of the object and one of its column.
    fn contract(of_object: &str, of_column: &str) -> (Vec<Quality>, Vec<Diagnostic>) {
        let text = format!(
            "apiVersion: v3.2.0\nkind: DataContract\nid: a/b.c\nversion: 1.0.0\nstatus: active\nschema:\n- name: c\n  \
             quality: [{of_object}]\n  properties:\n  - {{name: email, logicalType: string, quality: [{of_column}]}}\n"
        );
        let (documents, found) = parse("c.odcs.yaml", &text);
        assert_eq!(found, []);
        let sink = Sink::new("c.odcs.yaml");
        let contract = read::contract(&documents[0], &sink, Some("a/b.c")).expect("a contract");
        (contract.quality, sink.into_found())
    }

    fn custom(implementation: &str) -> String {
        format!("{{type: custom, engine: hydromesh, implementation: {implementation}}}")
    }

    #[test]
    fn one_line_is_enough_and_every_number_can_be_said() {
        let (rules, found) = contract(&custom("{usual: rowCount}"), &custom("{usual: nullValues}"));
        assert_eq!(found, []);
        let seen: Vec<_> = rules.iter().map(|it| (it.id.as_str(), &it.check, it.threshold.percent)).collect();
        let (rows, nulls) = (Usual::new(UsualOf::RowCount), Usual::new(UsualOf::NullValues));
        assert_eq!(
            seen,
            [
                ("usual_null_values_email", &QualityCheck::Usual(nulls), true),
                ("usual_row_count", &QualityCheck::Usual(rows.clone()), false),
            ]
        );
        let said = custom("{usual: rowCount, season: none, history: 40, width: 3.5, slack: 0}");
        let (rules, found) = contract(&said, "");
        assert_eq!(found, []);
        let said = Usual { season: Season::None, history: Some(40), width: 3.5, slack: 0.0, ..rows };
        assert_eq!(rules[0].check, QualityCheck::Usual(said));
    }

    #[test]
    fn what_cannot_be_meant_is_told() {
        let told = |of_object: &str, of_column: &str| {
            let (rules, found) = contract(of_object, of_column);
            assert_eq!(rules, [], "a rule that is not understood is not evaluated");
            found.iter().map(|it| format!("{} {}", it.code.id(), it.message)).collect::<Vec<_>>().join("; ")
        };
        let of_object = |implementation: &str| told(&custom(implementation), "");
        insta::assert_snapshot!([
            of_object("{}"),
            of_object("{usual: rows}"),
            of_object("{usual: nullValues}"),
            told("", &custom("{usual: rowCount}")),
            of_object("{usual: rowCount, history: 11}"),
            of_object("{usual: rowCount, width: 0}"),
            of_object("{usual: rowCount, slack: -1}"),
            of_object("row counts as usual"),
            told("{type: custom, engine: hydromesh}", ""),
            told("{type: custom, engine: hydromesh, implementation: {usual: rowCount}, mustBe: 5}", ""),
        ].join("\n"), @r"
        HM-Y009 `usual` is missing
        HM-Y010 `usual` is `rows`, allowed are rowCount, nullValues
        HM-C004 `nullValues` is measured of a column; put the rule under one
        HM-C004 `rowCount` is measured of the whole object; put the rule under it
        HM-C004 `history` is a number of partitions from 12 to 5000
        HM-C004 `width` is a number of standard deviations above 0
        HM-C004 `slack` is a percentage that is not negative
        HM-Y008 a mapping is wanted here, this is text
        HM-C004 a rule of hydromesh needs `implementation`, such as `{usual: rowCount}`
        HM-C004 a rule about what is usual has no `mustBe`: what is usual is the bound
        ");
        let (_, found) = contract(&custom("{usual: rowCount, sesson: none}"), "");
        assert_eq!((found[0].code.id(), found[0].help.as_str()), ("HM-Y007", "did you mean `season`?"));
    }
}
