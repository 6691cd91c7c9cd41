//! What steps need, for tests of steps: a lake and a state in one folder, a clock that stands.

use std::path::Path;
use std::sync::Arc;

use hydromesh_core::model::{Environment, Maintenance, StateKind, StepLimits, StreamKind, TableFormat};

use super::{Blobs, Context};
use crate::clock::Clock;
use crate::engine::{Engine, EngineConfig};
use crate::lake::Lake;
use crate::online::Online;
use crate::preview::Offers;

/// 2026-11-02T00:00:00Z, the end of the generated history.
pub const NOW: i64 = 1_793_577_600_000;

/// Returns the surroundings of steps in an empty folder.
pub async fn context(folder: &Path, blobs: Arc<dyn Blobs>) -> Context {
    let engine = EngineConfig { memory_bytes: 256 << 20, spill: folder.join("spill") };
    std::fs::create_dir_all(&engine.spill).expect("a folder");
    Context {
        environment: "test".to_owned(),
        settings: Environment {
            r#ref: "refs/heads/main".to_owned(),
            after: None,
            lake_path: "lake".to_owned(),
            lake_format: TableFormat::Delta,
            state: StateKind::Sqlite,
            stream: StreamKind::TopicFolder,
            smtp: None,
            mail_from: None,
            allow_commands: Vec::new(),
            allow_network: Vec::new(),
            limits: StepLimits::default(),
            cost: None,
            maintenance: Maintenance::default(),
        },
        state: folder.to_owned(),
        lake: Arc::new(Lake::open(folder.join("lake")).await.expect("a lake")),
        engine: Engine::new(&engine).expect("an engine"),
        online: Arc::new(Online::new()),
        previews: Arc::new(Offers::of(folder)),
        blobs,
        clock: Clock::fixed(NOW),
        epoch: 1,
    }
}
