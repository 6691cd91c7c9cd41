//! Rules that a program of the product's folder measures: `{type: custom, engine: command, implementation: {command: [..]}}`.

use super::pipeline::parse_span;
use crate::diag::codes;
use crate::model::{QualityCheck, RowsFormat, RuleCommand};
use crate::syntax::Map;
use crate::time::Span;

/// The engine of custom rules that are programs.
pub const ENGINE: &str = "command";
/// The longest that a program may be given: a step waits for it.
const MOST_TIMEOUT_MS: i64 = 3_600_000;
/// Memory that a program may be given, MiB.
const MEMORY_MIB: std::ops::RangeInclusive<u32> = 64..=65_536;

/// Reads the implementation of a rule that is a program.
pub fn read(map: &Map<'_>) -> Option<QualityCheck> {
    let Some(rule) = map.map("implementation") else {
        let message =
            "a rule by a command needs `implementation`, such as `{command: [python3, checks/totals.py]}`";
        map.sink().tell(codes::BAD_QUALITY, map.at, message);
        return None;
    };
    let _ = rule.req("command");
    let command: Vec<String> = rule.texts("command").into_iter().map(|(word, _)| word).collect();
    let complain = |key: &str, message: &str| rule.sink().tell(codes::BAD_QUALITY, rule.spot(key), message);
    let mut sound = rule.opt("command").is_some();
    if sound
        && (command.first().is_none_or(String::is_empty) || command.iter().any(|word| word.contains('\0')))
    {
        complain("command", "`command` is a program and its words, such as `[python3, checks/totals.py]`");
        sound = false;
    }
    let outside = |word: &String| word.split('/').any(|part| part == "..");
    if command.first().is_some_and(outside) {
        complain("command", "the program lies in the product's folder, or on the machine's own path");
        sound = false;
    }
    let timeout = rule.text("timeout").and_then(|text| parse_span(&rule, "timeout", &text));
    if timeout.is_some_and(|timeout| timeout.is_zero() || timeout.millis() > MOST_TIMEOUT_MS) {
        complain("timeout", "`timeout` is more than nothing and at most an hour");
        sound = false;
    }
    let memory_mib = rule.count("memory_mib");
    if memory_mib.is_some_and(|memory| !MEMORY_MIB.contains(&memory)) {
        complain("memory_mib", "`memory_mib` is a number of MiB from 64 to 65536");
        sound = false;
    }
    let rows = rule.choice("rows", &[("parquet", RowsFormat::Parquet), ("csv", RowsFormat::Csv)]);
    rule.finish();
    sound.then(|| {
        QualityCheck::Command(RuleCommand {
            command,
            timeout: timeout.unwrap_or(Span::from_millis(RuleCommand::TIMEOUT_MS)),
            memory_mib: memory_mib.unwrap_or(RuleCommand::MEMORY_MIB),
            rows: rows.unwrap_or_default(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Quality;
    use crate::model::read;
    use crate::syntax::{Sink, parse};

    fn rules(implementation: &str) -> (Vec<Quality>, Vec<String>) {
        let text = format!(
            "apiVersion: v3.2.0\nkind: DataContract\nid: a/b.c\nversion: 1.0.0\nstatus: active\nschema:\n- name: c\n  \
             quality: [{{type: custom, engine: command, {implementation}mustBe: 0}}]\n  properties:\n  - {{name: email, logicalType: string}}\n"
        );
        let (documents, found) = parse("c.odcs.yaml", &text);
        assert_eq!(found, []);
        let sink = Sink::new("c.odcs.yaml");
        let contract = read::contract(&documents[0], &sink, Some("a/b.c")).expect("a contract");
        let told = sink.into_found().into_iter().map(|it| format!("{}: {}", it.code.id(), it.message));
        (contract.quality, told.collect())
    }

    #[test]
    fn a_program_has_words_and_bounds() {
        let (found, told) = rules("implementation: {command: [python3, checks/totals.py, --all]}, ");
        assert_eq!(told, Vec::<String>::new());
        let QualityCheck::Command(rule) = &found[0].check else { panic!("{found:?}") };
        assert_eq!((found[0].id.as_str(), rule.command.len()), ("command", 3));
        assert_eq!((rule.timeout.to_string(), rule.memory_mib), ("5m".to_owned(), 1024));
        assert_eq!(rule.program_in_folder(), None, "of the machine");
        let (found, told) = rules("implementation: {command: ./check, timeout: 30s, memory_mib: 256}, ");
        assert_eq!(told, Vec::<String>::new());
        let QualityCheck::Command(rule) = &found[0].check else { panic!("{found:?}") };
        assert_eq!((rule.timeout.to_string(), rule.memory_mib), ("30s".to_owned(), 256));
        assert_eq!(rule.program_in_folder(), Some("check"));
    }

    #[test]
    fn what_is_no_program_is_told() {
        for (implementation, says) in [
            ("", "needs `implementation`"),
            ("implementation: {}, ", "`command`"),
            ("implementation: {command: []}, ", "a program and its words"),
            ("implementation: {command: [../../other/check]}, ", "lies in the product's folder"),
            ("implementation: {command: [a], timeout: 2h}, ", "at most an hour"),
            ("implementation: {command: [a], memory_mib: 1}, ", "from 64 to 65536"),
            ("implementation: {command: [a], network: true}, ", "unknown key `network`"),
        ] {
            let (found, told) = rules(implementation);
            assert!(told.len() == 1 && told[0].contains(says), "{implementation}: {told:?}");
            assert_eq!(found.is_empty(), !says.starts_with("unknown"), "{implementation}");
        }
    }
}
