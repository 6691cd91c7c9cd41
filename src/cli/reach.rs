//! What a controller needs beside its state folder: topics, a mail server, room on the disks.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use hydromesh_core::ledger::LedgerState;
use hydromesh_core::model::{Environment, InputSource, StreamKind};

use super::book::Book;
use super::doctor::{Check, failed, ok, warning};
use super::output::counted;
use super::{Failure, runtime};
use crate::control::Kept;
use crate::notify::Mailer;
use crate::stream::{KafkaSettings, ProduceTarget, open_source};

/// How long a broker may take to say where its topics are.
const BROKER: Duration = Duration::from_secs(5);
/// Free bytes below which steps are likely to be refused by the disk.
const ROOM: u64 = 1 << 30;

/// Checks what the environment of a state folder names.
pub(super) fn reach(book: &Book) -> Result<Vec<Check>, Failure> {
    let mut checks = room(book);
    // Without its commit nothing is known of an environment; a preview reads from its parent's topics and sends no mail.
    let Some(mut settings) = book.settings() else { return Ok(checks) };
    if let Ok(Some(kept)) = Kept::of(&book.state)
        && let Some(brokers) = kept.note.brokers
    {
        settings.stream = StreamKind::Kafka { brokers };
    }
    let runtime = runtime()?;
    checks.extend(runtime.block_on(topics(&book.ledger, &book.state, &settings)));
    checks.extend(runtime.block_on(mail(&book.state, &settings)));
    Ok(checks)
}

/// Looks how much room is left where the state folder and the lake are.
fn room(book: &Book) -> Vec<Check> {
    let lake = book.lake().ok().filter(|lake| lake.is_dir());
    let mut checks: Vec<Check> = Vec::new();
    let mut seen = Vec::new();
    for folder in [Some(book.state.clone()), lake].into_iter().flatten() {
        let Ok(disk) = rustix::fs::statvfs(&folder) else { continue };
        // One line for each disk.
        if seen.contains(&disk.f_fsid) {
            continue;
        }
        seen.push(disk.f_fsid);
        checks.push(room_of(&folder, disk.f_bavail.saturating_mul(disk.f_frsize)));
    }
    checks
}

fn room_of(folder: &Path, free: u64) -> Check {
    let (whole, tenths) = (free >> 30, ((free & (ROOM - 1)) * 10) >> 30);
    let says = format!("{whole}.{tenths} GiB are free at {}", folder.display());
    if free < ROOM {
        let fix = "make room: steps that a disk refuses are tried again every minute and lose nothing";
        return warning("disk", says, fix);
    }
    ok("disk", says)
}

/// Asks for the topics that deployed products read.
async fn topics(ledger: &LedgerState, state: &Path, settings: &Environment) -> Vec<Check> {
    let mut read: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for deployed in ledger.deployed.values() {
        for input in deployed.product.inputs.values() {
            if let InputSource::Topic { topic, .. } = &input.source {
                read.entry(topic).or_default().push(deployed.product.id.to_string());
            }
        }
    }
    if read.is_empty() {
        return Vec::new();
    }
    let at = match &settings.stream {
        StreamKind::Kafka { brokers } => format!("Kafka at {brokers}"),
        StreamKind::TopicFolder => format!("folders in {}", state.join("topics").display()),
    };
    let mut checks = Vec::new();
    let mut there = 0;
    for (topic, readers) in read {
        let target = match &settings.stream {
            StreamKind::Kafka { brokers } => {
                let settings =
                    KafkaSettings { timeout: BROKER, ..KafkaSettings::new(brokers.clone(), topic) };
                ProduceTarget::Kafka(settings)
            }
            StreamKind::TopicFolder => ProduceTarget::TopicFolder(state.join("topics").join(topic)),
        };
        let found = match open_source(&target) {
            Ok(source) => source.bounds().await.map(drop),
            Err(error) => Err(error),
        };
        match found {
            Ok(()) => there += 1,
            Err(error) => {
                let says =
                    format!("{topic}, which {} reads: {}", readers.join(", "), crate::text::chain(&error));
                checks.push(failed(
                    "topics",
                    says,
                    "bring it back; it is looked for again by itself (HM-F001)",
                ));
            }
        }
    }
    if there > 0 {
        checks.insert(0, ok("topics", format!("{} can be read ({at})", counted(there, "topic"))));
    }
    checks
}

/// Greets the mail server, if there is one.
async fn mail(state: &Path, settings: &Environment) -> Option<Check> {
    let server = settings.smtp.as_deref()?;
    let greeted = match Mailer::from_settings(settings, state) {
        Ok(mailer) => mailer.greets().await,
        Err(error) => Err(error),
    };
    let fix = "messages wait until it answers; check `mail` of the environment in mesh.yaml";
    Some(match greeted {
        Ok(true) => ok("mail", format!("{server} answers")),
        Ok(false) => failed("mail", format!("{server} does not answer as a mail server does"), fix),
        Err(error) => failed("mail", format!("{server}: {}", crate::text::chain(&error)), fix),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_room_is_told_before_a_disk_refuses() {
        let said = |free| serde_json::to_value(room_of(Path::new("state"), free)).unwrap();
        assert_eq!(said(ROOM)["verdict"], "ok");
        let little = said(ROOM - 1);
        assert_eq!(little["verdict"], "warning");
        assert!(little["says"].as_str().unwrap().starts_with("0.9 GiB are free"), "{little}");
    }
}
