//! Every endpoint over real sockets, on a ledger of the example mesh.

mod api;
mod metrics;
mod rows;
mod webhooks;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, RwLock};

use hydromesh_core::checkpoint::CheckpointRecord;
use hydromesh_core::ids::{PortId, ProductId};
use hydromesh_core::ledger::{
    Alert, AlertKind, AlertState, Decision, Entry, Epoch, Fact, FeatureDrift, LedgerState, Outcome,
    Published, RunOutcome, StreamRows, Trained,
};
use hydromesh_core::model::{self, Loaded, Mesh};
use hydromesh_core::plan::Print;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;

/// 2026-11-20 02:26 UTC.
pub(super) const NOW: i64 = 1_795_141_560_000;
pub(super) const TOKEN: &str = "correct-horse-battery";

/// Returns the example mesh as it lies in the repository.
pub(super) fn example() -> Mesh {
    fn walk(root: &Path, folder: &Path, files: &mut BTreeMap<String, Loaded>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, files);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                let text = std::fs::read_to_string(&path).map_err(|error| error.to_string());
                files.insert(name.clone(), Loaded { text, oid: name });
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("mesh-repo-example");
    let mut files = BTreeMap::new();
    walk(&root, &root, &mut files);
    model::load(&files).mesh
}

/// Facts as a controller would append them.
pub(super) struct Story {
    pub state: LedgerState,
}

impl Story {
    pub fn new() -> Self {
        Self { state: LedgerState::default() }
    }

    pub fn tell(&mut self, at_ms: i64, fact: Fact) {
        let entry = Entry { seq: self.state.seq + 1, at_ms, fact };
        self.state.apply(&entry);
    }

    pub fn deploy(&mut self, mesh: &Mesh) {
        let seen = Fact::CommitSeen {
            commit: "c0ffee".into(),
            r#ref: "refs/heads/main".into(),
            message: "Begin".into(),
            author: "Lena".into(),
        };
        self.tell(NOW - 9_000_000, seen);
        for product in mesh.products.values() {
            let print = Print {
                all: "p".into(),
                ports: BTreeMap::new(),
                reads: BTreeMap::new(),
                aligned: BTreeSet::new(),
            };
            let deployed = Fact::Deployed {
                generation: 1,
                commit: "c0ffee".into(),
                decision: "d1".into(),
                product: Box::new(product.clone()),
                print,
            };
            self.tell(NOW - 8_000_000, deployed);
        }
    }

    pub fn publish(&mut self, port: &str, partition: Option<&str>, version: i64, data_time_ms: i64) {
        let published = Published {
            port: port.parse().unwrap(),
            partition: partition.map(str::to_owned),
            version,
            rows: 3,
            data_time_ms: Some(data_time_ms),
            data: "p".into(),
            inputs: BTreeMap::new(),
            run: format!("run-{version}"),
            key: String::new(),
            taken: None,
        };
        self.tell(data_time_ms + 60_000, Fact::Published(published));
    }

    /// Something of everything that a metric speaks of.
    pub fn everything(&mut self) {
        self.publish("customer/customer-360.customer_360", Some("2026-11-19"), 7, NOW - 3_600_000);
        let step: hydromesh_core::plan::StepKey = "commerce/orders:orders-daily@whole".parse().unwrap();
        let finished = |run: &str, outcome| Fact::RunFinished {
            run: run.into(),
            step: step.clone(),
            outcome,
            took_ms: 5,
        };
        self.tell(NOW - 5_000_000, finished("run-1", RunOutcome::Succeeded { rows: 1 }));
        self.tell(NOW - 4_900_000, finished("run-2", RunOutcome::Cancelled));
        self.tell(NOW - 4_000_000, Fact::Decided(decision("d9", "commerce/orders", false)));
        self.tell(NOW - 3_000_000, Fact::Epoch(epoch()));
        let verdict = FeatureDrift {
            feature: "spend_7d".into(),
            test: "ks".into(),
            statistic: 0.25,
            p_value: 1e-9,
            effect: 0.4,
            verdict: "drifted".into(),
            samples: (100, 100),
        };
        let risk: ProductId = "risk/churn-model".parse().unwrap();
        self.tell(NOW, Fact::Drift { product: risk.clone(), verdicts: vec![verdict], drifted: true });
        let trained = Trained {
            product: risk.clone(),
            version: 3,
            run: "run-9".into(),
            metric: "auc".into(),
            value: 0.81,
            champion_value: None,
            metrics: BTreeMap::from([("log_loss".into(), 0.4)]),
            rows: (80, 20),
            inputs: BTreeMap::new(),
            path: "m".into(),
            reason: "first".into(),
            algorithm: None,
        };
        self.tell(NOW, Fact::Trained(trained));
        self.tell(NOW, Fact::Promoted { product: risk, version: 3, reason: "first".into() });
        self.tell(NOW, Fact::Alert(alert("commerce/orders", AlertKind::Freshness)));
        let denied = Fact::CommitOutcome {
            commit: "c0ffee".into(),
            product: Some("support/articles".parse().unwrap()),
            outcome: Outcome::Denied,
            why: "pii".into(),
        };
        self.tell(NOW, denied);
    }
}

pub(super) fn decision(id: &str, product: &str, allow: bool) -> Decision {
    Decision {
        id: id.into(),
        product: product.parse().unwrap(),
        action: "deploy".into(),
        commit: "c0ffee".into(),
        fingerprint: "p".into(),
        allow,
        violations: Vec::new(),
        warnings: Vec::new(),
        waived: Vec::new(),
        policy_digest: "x".into(),
        rules: String::new(),
        input_hash: "y".into(),
    }
}

fn epoch() -> Epoch {
    let pipeline = "customer/activity:activity";
    Epoch {
        pipeline: pipeline.parse().unwrap(),
        port: "customer/activity.features".parse().unwrap(),
        checkpoint: CheckpointRecord {
            pipeline: pipeline.into(),
            epoch: 4,
            fence: 1,
            topic_id: "t".into(),
            ranges: Vec::new(),
            definition: "p".into(),
            watermark_ms: Some(NOW - 30_000),
            format: 1,
        },
        version: 12,
        rows: StreamRows { accepted: 90, corrected: 5, quarantined: 3, dead: 2 },
        newest_event_ms: Some(NOW - 1_000),
        data: "p".into(),
    }
}

fn alert(product: &str, kind: AlertKind) -> Alert {
    Alert {
        episode: format!("{product}:e"),
        product: product.parse().unwrap(),
        kind,
        subject: "orders".into(),
        transition: 1,
        state: AlertState::Firing,
        summary: "late".into(),
        details: Vec::new(),
        caused_by: None,
        targets: Vec::new(),
    }
}

/// Live features of one customer.
struct Live;

impl FeatureStore for Live {
    fn lookup(&self, product: &ProductId, entity: &str, now_ms: i64) -> Result<FeatureAnswer, LookupError> {
        assert_eq!(product.to_string(), "customer/activity");
        match entity {
            "loading" => return Err(LookupError::NotReady("features are being loaded".into())),
            "broken" => return Err(LookupError::Failed("disk /secret/path is gone".into())),
            _ => {}
        }
        let value = |value: Value| FeatureValue { value, as_of_ms: Some(now_ms - 5_000), version: Some(12) };
        let features = BTreeMap::from([
            ("sessions_1h".into(), value(json!(2))),
            ("spend_7d".into(), value(json!(31.5))),
        ]);
        Ok(FeatureAnswer { found: entity.starts_with("c-"), features, watermark_ms: Some(now_ms - 30_000) })
    }
}

/// Batch rows of one customer.
struct Rows;

#[async_trait::async_trait]
impl BatchLookup for Rows {
    async fn row(&self, port: &PortId, key: &str) -> Result<Option<BatchRow>, LookupError> {
        assert_eq!(port.to_string(), "customer/customer-360.customer_360");
        if key == "slow" {
            std::future::pending::<()>().await;
        }
        Ok((key == "c-1").then(|| BatchRow {
            values: vec![("orders_90d".into(), json!(4)), ("as_of_date".into(), json!("2026-11-19"))],
            partition: Some("2026-11-19".into()),
            as_of_ms: Some(NOW - 3_600_000),
            version: 7,
        }))
    }
}

struct Texts;

#[async_trait::async_trait]
impl Search for Texts {
    async fn search(&self, _: &ProductId, query: &str, limit: usize) -> Result<Vec<SearchHit>, LookupError> {
        let hit = |n: usize| SearchHit {
            id: format!("a-{n}"),
            score: 1.0 / (f64::from(u32::try_from(n).unwrap()) + 1.0),
            text: query.into(),
            version: 2,
        };
        Ok((0..limit).map(hit).collect())
    }
}

/// A served application.
pub(super) struct Served {
    pub base: String,
    pub state: Arc<ServeState>,
    pub client: reqwest::Client,
    pub site: tempfile::TempDir,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    pub task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Served {
    pub async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.client.get(format!("{}{path}", self.base)).send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or(Value::Null))
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let response = self
            .client
            .post(format!("{}{path}", self.base))
            .bearer_auth(TOKEN)
            .json(body)
            .send()
            .await
            .unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or(Value::Null))
    }

    pub fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }
}

/// Serves the example's ledger on loopback.
pub(super) async fn served(story: Story) -> (Served, mpsc::Receiver<CommandRequest>) {
    served_by(story, check_bind("127.0.0.1:0".parse().unwrap(), Some(TOKEN)).unwrap()).await
}

pub(super) async fn served_by(story: Story, guard: Guard) -> (Served, mpsc::Receiver<CommandRequest>) {
    served_with(story, guard, None).await
}

pub(super) async fn served_with(
    story: Story,
    guard: Guard,
    webhooks: Option<Webhooks>,
) -> (Served, mpsc::Receiver<CommandRequest>) {
    let (commands, received) = mpsc::channel(2);
    let site = tempfile::tempdir().unwrap();
    let state = Arc::new(ServeState {
        environment: "dev".into(),
        clock: Clock::fixed(NOW),
        ledger: Arc::new(RwLock::new(Arc::new(story.state))),
        features: Arc::new(Live),
        rows: Arc::new(Rows),
        search: Arc::new(Texts),
        commands,
        site: site.path().join("current"),
        guard,
        webhooks,
        metrics: Metrics::new(&LedgerState::default()),
        readiness: Readiness::default(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let shutdown = async move {
        let _ = stopped.await;
    };
    let task = tokio::spawn(serve(listener, router(Arc::clone(&state)), shutdown));
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    (Served { base, state, client, site, stop: Some(stop), task }, received)
}

pub(super) fn deployed_story() -> Story {
    let mut story = Story::new();
    story.deploy(&example());
    story
}
