//! `hydromesh produce --topic T [FILE]`: lines of a file, or of standard input, become messages.

use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::{DONE, FINDINGS, Failure, Format, OUTSIDE, clock, print, print_json, runtime};
use crate::stream::{
    KafkaSettings, ProduceError, ProduceTarget, TimestampFrom, TopicFolder, TopicOptions, produce,
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
    let target = match &args.kafka {
        Some(brokers) => ProduceTarget::Kafka(KafkaSettings::new(brokers, &args.topic)),
        None => {
            let folder = args.state.join("topics").join(&args.topic);
            let options = TopicOptions { partitions: args.partitions, ..TopicOptions::default() };
            TopicFolder::open_or_create(&folder, &options).map_err(|error| Failure::outside(&error))?;
            ProduceTarget::TopicFolder(folder)
        }
    };
    let timestamp = match &args.timestamp_field {
        Some(field) => TimestampFrom::Field(field.clone()),
        None => TimestampFrom::Given(clock(None)?.now_ms()),
    };
    let lines = lines(args.file.as_deref())?;
    let produced = runtime()?.block_on(produce(&target, lines, args.key_field.as_deref(), timestamp));
    let produced = produced.map_err(|error| {
        let code = if matches!(error, ProduceError::Line { .. }) { FINDINGS } else { OUTSIDE };
        Failure { code, message: crate::text::chain(&error) }
    })?;
    if args.format == Format::Json {
        let ranges: Vec<_> = produced
            .ranges
            .iter()
            .map(|(partition, (from, to))| json!({"partition": partition, "from": from, "to": to}))
            .collect();
        print_json(&json!({"topic": args.topic, "messages": produced.messages, "ranges": ranges}));
    } else {
        print(&format!("{} messages in {}", produced.messages, args.topic));
    }
    Ok(DONE)
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
