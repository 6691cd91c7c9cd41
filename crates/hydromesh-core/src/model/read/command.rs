//! Programs of a product's folder: rules (`{type: custom, engine: command, implementation: {command: [..]}}`) and trainers
//! (`train: {command: [..]}`).

use super::pipeline::parse_span;
use crate::diag::{Code, codes};
use crate::model::{Program, QualityCheck, RowsFormat, TrainerCommand};
use crate::syntax::Map;
use crate::time::Span;

/// The engine of custom rules that are programs.
pub const ENGINE: &str = "command";
const MINUTE_MS: i64 = 60_000;
/// Memory that a program may be given, MiB.
const MEMORY_MIB: std::ops::RangeInclusive<u32> = 64..=65_536;

/// What a kind of program is bounded by, and how its findings are told.
struct Kind {
    code: Code,
    /// Such as one would write it.
    example: &'static str,
    timeout_ms: i64,
    most_timeout_ms: i64,
    most_timeout: &'static str,
    memory_mib: u32,
}

/// A table of some million rows in a data frame takes a gigabyte; a step waits for its rules.
const RULE: Kind = Kind {
    code: codes::BAD_QUALITY,
    example: "[python3, checks/totals.py]",
    timeout_ms: 5 * MINUTE_MS,
    most_timeout_ms: 60 * MINUTE_MS,
    most_timeout: "an hour",
    memory_mib: 1024,
};

/// Fitting takes longer than counting, and holds its rows more than once. Half a day is less than the age at which what programs left
/// behind is swept away.
const TRAINER: Kind = Kind {
    code: codes::BAD_VALUE,
    example: "[python3, train.py]",
    timeout_ms: 30 * MINUTE_MS,
    most_timeout_ms: 12 * 60 * MINUTE_MS,
    most_timeout: "12 hours",
    memory_mib: 2048,
};

/// Reads the implementation of a rule that is a program.
pub fn read(map: &Map<'_>) -> Option<QualityCheck> {
    let Some(rule) = map.map("implementation") else {
        let message =
            "a rule by a command needs `implementation`, such as `{command: [python3, checks/totals.py]}`";
        map.sink().tell(codes::BAD_QUALITY, map.at, message);
        return None;
    };
    let program = program(&rule, &RULE);
    rule.finish();
    program.map(QualityCheck::Command)
}

/// Reads a trainer that is a program.
pub fn trainer(map: &Map<'_>) -> Option<TrainerCommand> {
    let network = map.flag("network");
    let program = program(map, &TRAINER)?;
    Some(TrainerCommand { program, network: network.unwrap_or(false) })
}

fn program(map: &Map<'_>, kind: &Kind) -> Option<Program> {
    let _ = map.req("command");
    let command: Vec<String> = map.texts("command").into_iter().map(|(word, _)| word).collect();
    let complain = |key: &str, message: String| map.sink().tell(kind.code, map.spot(key), message);
    let mut sound = map.opt("command").is_some();
    if sound
        && (command.first().is_none_or(String::is_empty) || command.iter().any(|word| word.contains('\0')))
    {
        let message = format!("`command` is a program and its words, such as `{}`", kind.example);
        complain("command", message);
        sound = false;
    }
    let outside = |word: &String| word.split('/').any(|part| part == "..");
    if command.first().is_some_and(outside) {
        let message = "the program lies in the product's folder, or on the machine's own path".to_owned();
        complain("command", message);
        sound = false;
    }
    let timeout = map.text("timeout").and_then(|text| parse_span(map, "timeout", &text));
    if timeout.is_some_and(|timeout| timeout.is_zero() || timeout.millis() > kind.most_timeout_ms) {
        complain("timeout", format!("`timeout` is more than nothing and at most {}", kind.most_timeout));
        sound = false;
    }
    let memory_mib = map.count("memory_mib");
    if memory_mib.is_some_and(|memory| !MEMORY_MIB.contains(&memory)) {
        complain("memory_mib", "`memory_mib` is a number of MiB from 64 to 65536".to_owned());
        sound = false;
    }
    let rows = map.choice("rows", &[("parquet", RowsFormat::Parquet), ("csv", RowsFormat::Csv)]);
    sound.then(|| Program {
        command,
        timeout: timeout.unwrap_or(Span::from_millis(kind.timeout_ms)),
        memory_mib: memory_mib.unwrap_or(kind.memory_mib),
        rows: rows.unwrap_or_default(),
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
        assert_eq!(rule.in_folder(), None, "of the machine");
        let (found, told) = rules("implementation: {command: ./check, timeout: 30s, memory_mib: 256}, ");
        assert_eq!(told, Vec::<String>::new());
        let QualityCheck::Command(rule) = &found[0].check else { panic!("{found:?}") };
        assert_eq!((rule.timeout.to_string(), rule.memory_mib), ("30s".to_owned(), 256));
        assert_eq!(rule.in_folder(), Some("check"));
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
