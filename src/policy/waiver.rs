//! Waivers: a dated permission to pass in spite of one rule. They are applied by the host, never by a rule, so that no rule
//! can forget them and none can widen them.

use chrono::{DateTime, FixedOffset};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::decision::{Violation, Waived};

/// One waiver as it stands in git.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Waiver {
    pub id: String,
    /// The one rule it is about.
    pub rule: String,
    /// A product, port or column address; `*` stands for any characters except `/`.
    pub scope: String,
    pub reason: String,
    pub approver: String,
    /// RFC 3339; the waiver no longer counts at this instant.
    pub expires: String,
}

/// A waiver that would cover the product and no longer counts, or never did.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExpiredWaiver {
    pub waiver: Waiver,
    pub why: String,
}

/// Rules of the gate itself. A waiver for one of these would switch the gate off, so it is never honoured.
pub(super) const UNWAIVABLE: [&str; 3] =
    [super::gate::POLICY_ERROR, super::gate::POLICY_INPUT, super::gate::POLICY_UNANSWERED];

/// Splits violations into those that stand and those that a waiver covers, and lists the waivers for this product that do
/// not count. `now` is the input's `request.time`.
pub(super) fn apply(
    violations: Vec<Violation>,
    input: &Value,
    now: Option<DateTime<FixedOffset>>,
) -> (Vec<Violation>, Vec<Waived>, Vec<ExpiredWaiver>) {
    let waivers: Vec<Waiver> = input
        .get("waivers")
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(|item| Waiver::deserialize(item).ok()).collect())
        .unwrap_or_default();
    let product = input.pointer("/product/id").and_then(Value::as_str).unwrap_or_default();
    let (mut live, mut ended) = (Vec::new(), Vec::new());
    for waiver in waivers {
        match objection(&waiver, now) {
            None => live.push(waiver),
            Some(why) if concerns(&waiver.scope, product) => ended.push(ExpiredWaiver { waiver, why }),
            Some(_) => {}
        }
    }
    ended.sort();
    live.sort();
    let (mut standing, mut waived) = (Vec::new(), Vec::new());
    for violation in violations {
        let cover = live.iter().find(|waiver| {
            waiver.rule == violation.rule
                && !UNWAIVABLE.contains(&violation.rule.as_str())
                && (matches(&waiver.scope, product)
                    || violation.path.as_deref().is_some_and(|path| matches(&waiver.scope, path)))
        });
        match cover {
            Some(waiver) => waived.push(Waived { violation, waiver: waiver.clone() }),
            None => standing.push(violation),
        }
    }
    (standing, waived, ended)
}

fn objection(waiver: &Waiver, now: Option<DateTime<FixedOffset>>) -> Option<String> {
    let Ok(expires) = DateTime::parse_from_rfc3339(&waiver.expires) else {
        return Some(format!("its expiry {:?} is not an RFC 3339 time", waiver.expires));
    };
    match now {
        None => Some("the time of the request is unknown".to_owned()),
        Some(now) if expires <= now => Some(format!("it expired at {}", waiver.expires)),
        Some(_) if waiver.reason.trim().is_empty() => Some("it gives no reason".to_owned()),
        Some(_) if waiver.approver.trim().is_empty() => Some("nobody approved it".to_owned()),
        Some(_) if UNWAIVABLE.contains(&waiver.rule.as_str()) => {
            Some(format!("{} cannot be waived", waiver.rule))
        }
        Some(_) => None,
    }
}

/// Returns true when the scope covers the product or something inside it.
#[must_use]
pub fn concerns(scope: &str, product: &str) -> bool {
    let whole = scope.split(['.', '#']).next().unwrap_or(scope);
    matches(scope, product) || matches(whole, product)
}

/// Returns true when `*` in the pattern can be replaced by characters other than `/` to give the text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == text };
    let Some(rest) = text.strip_prefix(head) else { return false };
    let reach = rest.find('/').unwrap_or(rest.len());
    rest.char_indices()
        .map(|(at, _)| at)
        .chain([rest.len()])
        .take_while(|at| *at <= reach)
        .any(|at| matches(tail, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::decision::{Enforce, Severity, SourceSet};
    use super::*;

    #[test]
    fn a_star_stays_between_slashes() {
        for (pattern, text, expected) in [
            ("customer/*", "customer/customer-360", true),
            ("customer/*", "customer/customer-360.out#email", true),
            ("customer/*", "commerce/orders", false),
            ("*", "commerce/orders", false),
            ("*/*", "commerce/orders", true),
            ("*/orders", "commerce/orders", true),
            ("c*e/o*s", "commerce/orders", true),
            ("c*e/o*x", "commerce/orders", false),
            ("commerce/orders", "commerce/orders", true),
            ("commerce/order", "commerce/orders", false),
            ("commerce/ö*", "commerce/öl", true),
            ("", "commerce/orders", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
        }
    }

    fn violation(rule: &str, path: &str) -> Violation {
        Violation {
            rule: rule.to_owned(),
            message: "m".to_owned(),
            path: Some(path.to_owned()),
            severity: Severity::High,
            remediation: None,
            enforce: Enforce::Deploy,
            source_file: None,
            source_set: SourceSet::Central,
        }
    }

    #[test]
    fn only_a_live_waiver_of_the_rule_and_scope_covers() {
        let now = DateTime::parse_from_rfc3339("2026-08-10T12:00:00Z").ok();
        let waiver = |rule: &str, scope: &str, expires: &str, reason: &str| json!({"id": "w", "rule": rule, "scope": scope, "reason": reason, "approver": "a@b.example", "expires": expires});
        let run = |waiver: Value, now| {
            let input = json!({"product": {"id": "customer/c360"}, "waivers": [waiver]});
            let found = vec![violation("pii-exposed", "customer/c360.out#email")];
            let (standing, waived, expired) = apply(found, &input, now);
            (standing.len(), waived.len(), expired.len())
        };
        let later = "2026-08-10T14:00:01+02:00"; // one second after `now`
        let sooner = "2026-08-10T14:00:00+02:00"; // the same instant as `now`
        assert_eq!(run(waiver("pii-exposed", "customer/*", later, "r"), now), (0, 1, 0));
        assert_eq!(run(waiver("pii-exposed", "customer/c360.out#email", later, "r"), now), (0, 1, 0));
        assert_eq!(run(waiver("pii-exposed", "customer/c360.out#name", later, "r"), now), (1, 0, 0));
        assert_eq!(run(waiver("owners-present", "customer/*", later, "r"), now), (1, 0, 0));
        assert_eq!(run(waiver("pii-exposed", "commerce/*", later, "r"), now), (1, 0, 0));
        assert_eq!(run(waiver("pii-exposed", "customer/*", sooner, "r"), now), (1, 0, 1));
        assert_eq!(run(waiver("pii-exposed", "commerce/*", sooner, "r"), now), (1, 0, 0));
        assert_eq!(run(waiver("pii-exposed", "customer/*", "soon", "r"), now), (1, 0, 1));
        assert_eq!(run(waiver("pii-exposed", "customer/*", later, " "), now), (1, 0, 1));
        assert_eq!(run(waiver("pii-exposed", "customer/*", later, "r"), None), (1, 0, 1));
    }

    #[test]
    fn the_gates_own_rules_cannot_be_waived() {
        let input = json!({"product": {"id": "a/b"}, "waivers": [{"id": "w", "rule": "policy-error", "scope": "a/*",
            "reason": "r", "approver": "x", "expires": "2027-01-01T00:00:00Z"}]});
        let now = DateTime::parse_from_rfc3339("2026-08-10T12:00:00Z").ok();
        let (standing, waived, expired) = apply(vec![violation("policy-error", "x")], &input, now);
        assert_eq!((standing.len(), waived.len(), expired.len()), (1, 0, 1));
    }
}
