//! Renderings of core's findings for other programs: GitHub annotations, SARIF, JUnit, Markdown; of audits: OORS.
//!
//! Each takes the same [`CheckReport`] and returns text; nothing here reads, decides or prints.

mod audit;
mod github;
mod junit;
mod markdown;
mod oors;
mod sarif;

use hydromesh_core::diag::{Diagnostic, Severity};

pub use audit::{Audit, RuleResult};
pub use github::github;
pub use junit::junit;
pub use markdown::{cell as markdown_cell, markdown};
pub use oors::oors;
pub use sarif::sarif;

/// What a check found, and about what.
#[derive(Debug)]
pub struct CheckReport<'a> {
    /// Findings in order.
    pub findings: &'a [Diagnostic],
    /// Every product: its address, its folder, and whether it checks.
    pub products: Vec<CheckedProduct>,
    /// Folder of the mesh in its repository, empty at the root: other programs count paths from there.
    pub prefix: String,
}

/// One product that was checked.
#[derive(Debug)]
pub struct CheckedProduct {
    /// Its address.
    pub id: String,
    /// Its folder in the mesh.
    pub folder: String,
    /// It checks.
    pub whole: bool,
}

impl CheckReport<'_> {
    /// Returns a file's path counted from the root of the repository.
    #[must_use]
    pub fn path(&self, file: &str) -> String {
        match (self.prefix.trim_matches('/'), file) {
            ("" | ".", file) => file.to_owned(),
            // A finding about the mesh as a whole.
            (prefix, "") => prefix.to_owned(),
            (prefix, file) => format!("{prefix}/{file}"),
        }
    }

    /// Returns how many findings weigh this much.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

#[cfg(test)]
mod tests {
    use hydromesh_core::diag::{Spot, codes};

    use super::*;

    fn findings() -> Vec<Diagnostic> {
        vec![
            Diagnostic::new(
                codes::SQL_MISSING_COLUMN,
                "domains/a/b/x,y.sql",
                Spot::new(3, 5),
                "100% <bad> & \"worse\"",
            )
            .related("domains/a/c/c.odcs.yaml", Spot::new(7, 0), "declared | here"),
            Diagnostic::new(codes::NO_DOMAIN, "domains/a", Spot::FILE, "first\nsecond"),
            Diagnostic::new(codes::OLD_SPELLING, "domains/a/c/c.odcs.yaml", Spot::new(2, 1), "old"),
        ]
    }

    fn report(findings: &[Diagnostic]) -> CheckReport<'_> {
        let product =
            |id: &str, folder: &str, whole| CheckedProduct { id: id.into(), folder: folder.into(), whole };
        let products = vec![product("a/b", "domains/a/b", false), product("a/c", "domains/a/c", true)];
        CheckReport { findings, products, prefix: "mesh/".to_owned() }
    }

    #[test]
    fn github_annotations_escape_what_would_end_them() {
        insta::assert_snapshot!(github(&report(&findings())), @r#"
        ::error file=mesh/domains/a/b/x%2Cy.sql,line=3,col=5,title=HM-S011::100%25 <bad> & "worse" (use a column of the input's contract)
        ::warning file=mesh/domains/a,title=HM-M017::first%0Asecond (add domains/<domain>/domain.yaml with owners)
        ::notice file=mesh/domains/a/c/c.odcs.yaml,line=2,col=1,title=HM-C015::old (write the newer key that the message names)
        "#);
    }

    #[test]
    fn junit_has_a_case_per_product_and_fails_those_with_errors() {
        insta::assert_snapshot!(junit(&report(&findings())), @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <testsuites name="hydromesh check" tests="3" failures="1">
          <testsuite name="mesh" tests="3" failures="1">
            <testcase classname="mesh" name="mesh">
              <system-out>warning[HM-M017] mesh/domains/a: first
        second</system-out>
            </testcase>
            <testcase classname="mesh" name="a/b">
              <failure type="HM-S011" message="100% &lt;bad&gt; &amp; &quot;worse&quot;">mesh/domains/a/b/x,y.sql:3:5
        100% &lt;bad&gt; &amp; &quot;worse&quot;
        help: use a column of the input&#39;s contract</failure>
            </testcase>
            <testcase classname="mesh" name="a/c">
            </testcase>
          </testsuite>
        </testsuites>
        "#);
    }

    #[test]
    fn markdown_keeps_its_table_whatever_a_message_holds() {
        let mut all = findings();
        all.push(Diagnostic::new(codes::CYCLE, "x", Spot::FILE, "a | b\nc"));
        let text = markdown(&report(&all));
        assert!(text.contains("a \\| b<br>c"), "{text}");
        let columns = |line: &str| line.replace("\\|", "").matches('|').count();
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert!(rows.len() == 5 && rows.iter().all(|row| columns(row) == 5), "{rows:#?}");
    }

    #[test]
    fn sarif_names_each_rule_once_and_points_at_it() {
        let all = findings();
        let value = sarif(&report(&all));
        let run = &value["runs"][0];
        let rules = run["tool"]["driver"]["rules"].as_array().expect("rules");
        assert_eq!(rules.len(), 3);
        for result in run["results"].as_array().expect("results") {
            let index = usize::try_from(result["ruleIndex"].as_u64().expect("index")).expect("small");
            assert_eq!(rules[index]["id"], result["ruleId"]);
        }
        let first = &run["results"][0];
        assert_eq!(first["level"], "error");
        let place = &first["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "mesh/domains/a/b/x,y.sql");
        assert_eq!(place["region"], serde_json::json!({"startLine": 3, "startColumn": 5}));
        // A region without a line is not allowed: a finding about a whole file has none.
        assert!(run["results"][1]["locations"][0]["physicalLocation"].get("region").is_none());
        assert_eq!(first["relatedLocations"][0]["message"]["text"], "declared | here");
        assert_ne!(first["partialFingerprints"], run["results"][1]["partialFingerprints"]);
    }
}
