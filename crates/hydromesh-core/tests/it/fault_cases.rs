//! `docs/fault-cases.md` names a test for every case. This keeps it from naming one that is gone.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support;

/// The cases that the page is about.
const CASES: [std::ops::RangeInclusive<u32>; 3] = [51..=54, 61..=63, 69..=95];
/// Commit signatures have a page of their own.
const ELSEWHERE: [u32; 2] = [77, 78];

/// A row of a table: its number, and its proof.
fn rows(page: &str) -> Vec<(&str, &str)> {
    page.lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
            let (first, last) = (cells.first()?, cells.last()?);
            first.starts_with(|c: char| c.is_ascii_digit()).then_some((*first, *last))
        })
        .collect()
}

/// Returns what is wrong with a proof: a file that is not there, a file without the function, no test at all.
fn misfits(proof: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    if proof == "not yet" {
        return Vec::new();
    }
    let (mut wrong, mut tests, mut file) = (Vec::new(), 0, None);
    for word in proof.split('`').skip(1).step_by(2) {
        if word.ends_with(".rs") {
            file = read(word).map(|text| (word, text));
            if file.is_none() {
                wrong.push(format!("there is no file {word}"));
            }
        } else if let Some((path, text)) = &file {
            tests += 1;
            let is_test = text.find(&format!("fn {word}(")).is_some_and(|at| {
                let above = text[..at].lines().rev().take(4);
                above.into_iter().any(|line| line.contains("#[test]") || line.contains("#[tokio::test"))
            });
            if !is_test {
                wrong.push(format!("{path} has no test {word}"));
            }
        }
    }
    if tests == 0 {
        wrong.push(format!("`{proof}` names no test and does not say `not yet`"));
    }
    wrong
}

#[test]
fn every_test_that_the_page_of_fault_cases_names_is_there() {
    let root = support::root();
    let page = std::fs::read_to_string(root.join("docs/fault-cases.md")).expect("the page");
    let read = |path: &str| std::fs::read_to_string(root.join(Path::new(path))).ok();
    let rows = rows(&page);
    let wrong: Vec<String> = rows
        .iter()
        .flat_map(|(number, proof)| misfits(proof, read).into_iter().map(move |it| format!("{number}: {it}")))
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
    let told: BTreeSet<u32> = rows
        .iter()
        .map(|(number, _)| number.trim_end_matches(|c: char| c.is_ascii_lowercase()).parse().expect(number))
        .collect();
    let all: BTreeSet<u32> = CASES.into_iter().flatten().filter(|it| !ELSEWHERE.contains(it)).collect();
    assert_eq!(told, all, "cases that the page leaves out, or has too many");
    // What has no proof is explained.
    for (number, _) in rows.iter().filter(|(_, proof)| *proof == "not yet") {
        assert!(page.contains(&format!("* **{number}**: ")), "{number} is not explained");
    }
}

#[test]
fn a_page_that_names_nothing_is_noticed() {
    let read = |path: &str| {
        (path == "a/b.rs").then(|| "#[test]\nfn there() {}\n\n\n\n\n\n\n\n\n\n\nfn helper() {}\n".to_owned())
    };
    assert_eq!(
        rows("| no. | case |\n| --- | --- |\n| 7a | x | y | `a/b.rs` `there` |\n"),
        [("7a", "`a/b.rs` `there`")]
    );
    assert!(misfits("`a/b.rs` `there`", read).is_empty() && misfits("not yet", read).is_empty());
    for bad in ["`a/b.rs` `helper`", "`a/b.rs` `gone`", "`a/c.rs` `there`", "`a/b.rs`", "", "soon"] {
        assert!(!misfits(bad, read).is_empty(), "{bad}");
    }
}
