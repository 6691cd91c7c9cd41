//! `hydromesh produce --topic T [FILE]`: lines of a file, or of standard input, become messages.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::output::counted;
use super::{DONE, FINDINGS, Failure, Format, OUTSIDE, clock, print, print_json, runtime};
use crate::stream::{
    KafkaSettings, ProduceError, ProduceTarget, TimestampFrom, TopicFolder, TopicOptions, look_at, produce,
};

/// Arguments of `produce`.
#[derive(Debug, Args)]
pub struct ProduceArgs {
    /// A file with one JSON object per line; standard input without one, or with `-`.
    file: Option<PathBuf>,
    /// The topic.
    #[arg(long)]
    topic: String,
    /// The state folder that holds the topic; a topic that is not there is created.
    #[arg(long, env = "HYDROMESH_STATE", default_value = ".hydromesh", value_name = "FOLDER")]
    state: PathBuf,
    /// Produce to Apache Kafka instead: `host:port,host:port`. The topic must exist there.
    #[arg(long, value_name = "BROKERS")]
    kafka: Option<String>,
    /// The field whose value is the message's key: equal keys keep their order.
    #[arg(long, value_name = "FIELD")]
    key_field: Option<String>,
    /// The field that says when each message became available; now without it.
    #[arg(long, value_name = "FIELD")]
    timestamp_field: Option<String>,
    /// Partitions of a topic that is created.
    #[arg(long, default_value_t = 1, value_name = "N")]
    partitions: i32,
    /// How to print.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// Runs the verb.
pub fn run(args: &ProduceArgs) -> Result<u8, Failure> {
    let plain = args.topic.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if args.topic.is_empty() || args.topic.starts_with('.') || !plain {
        let message =
            format!("`{}` is not the name of a topic: letters, digits, `-`, `_` and inner `.`", args.topic);
        return Err(Failure::usage(message));
    }
    let timestamp = match &args.timestamp_field {
        Some(field) => TimestampFrom::Field(field.clone()),
        None => TimestampFrom::Given(clock(None)?.now_ms()),
    };
    let key = args.key_field.as_deref();
    // A file can be read twice, so nothing of one with a bad line is written.
    let file = args.file.as_deref().is_some_and(|file| file != Path::new("-") && file.is_file());
    if file && (key.is_some() || args.timestamp_field.is_some()) {
        look_at(lines(args.file.as_deref())?, key, &timestamp).map_err(|error| {
            let Failure { code, message } = stopped(&error);
            Failure { code, message: format!("{message}; nothing was written") }
        })?;
    }
    let target = match &args.kafka {
        Some(brokers) => ProduceTarget::Kafka(KafkaSettings::new(brokers, &args.topic)),
        None => {
            let folder = args.state.join("topics").join(&args.topic);
            let options = TopicOptions { partitions: args.partitions, ..TopicOptions::default() };
            TopicFolder::open_or_create(&folder, &options).map_err(|error| Failure::outside(&error))?;
            ProduceTarget::TopicFolder(folder)
        }
    };
    let read = Cell::new(0_u64);
    let lines = lines(args.file.as_deref())?;
    let lines = lines.inspect(|line| {
        read.set(read.get() + u64::from(line.as_ref().is_ok_and(|line| !line.is_empty())));
    });
    let produced = runtime()?.block_on(produce(&target, lines, key, timestamp));
    let produced = produced.map_err(|error| {
        let Failure { code, message } = stopped(&error);
        // Once more from the start, these would be there twice.
        let told = |written: u64, line: u64| {
            let messages = several(written);
            let topic = &args.topic;
            format!("{message}; {messages} of the lines before it went to {topic}: correct it and go on from line {line}")
        };
        let message = match &error {
            ProduceError::Line { line, .. } => told(read.get().saturating_sub(1), *line),
            ProduceError::Read { line, .. } => told(read.get(), *line),
            ProduceError::Target { .. } => message,
        };
        Failure { code, message }
    })?;
    if args.format == Format::Json {
        let ranges: Vec<_> = produced
            .ranges
            .iter()
            .map(|(partition, (from, to))| json!({"partition": partition, "from": from, "to": to}))
            .collect();
        print_json(&json!({"topic": args.topic, "messages": produced.messages, "ranges": ranges}));
    } else {
        print(&format!("{} in {}", several(produced.messages), args.topic));
    }
    Ok(DONE)
}

fn stopped(error: &ProduceError) -> Failure {
    let code = if matches!(error, ProduceError::Line { .. }) { FINDINGS } else { OUTSIDE };
    Failure { code, message: crate::text::chain(error) }
}

fn several(messages: u64) -> String {
    counted(usize::try_from(messages).unwrap_or(usize::MAX), "message")
}

/// Returns the lines as bytes, without their ends: a message need not be text.
fn lines(file: Option<&Path>) -> Result<Box<dyn Iterator<Item = io::Result<Vec<u8>>>>, Failure> {
    let reader: Box<dyn BufRead> = match file {
        Some(path) if path != Path::new("-") => {
            let file = std::fs::File::open(path).map_err(|error| Failure {
                code: OUTSIDE,
                message: format!("{}: {error}", path.display()),
            })?;
            Box::new(BufReader::new(file))
        }
        _ => Box::new(BufReader::new(io::stdin())),
    };
    let strip = |mut line: Vec<u8>| {
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        line
    };
    Ok(Box::new(reader.split(b'\n').map(move |line| line.map(strip))))
}
