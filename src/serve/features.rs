//! `/v1/features/DOMAIN/PRODUCT`: features of one entity by GET, of several by POST, live and batch values in one answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::Uri;
use futures::{StreamExt as _, TryStreamExt as _};
use hydromesh_core::diag::did_you_mean;
use hydromesh_core::ids::{PortId, PortName};
use hydromesh_core::ledger::{Deployed, LedgerState};
use hydromesh_core::model::Pipeline;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::{FeatureValue, ServeState, request, snapshot};
use crate::clock::rfc3339;

/// Most entities of one request.
const MOST_ENTITIES: usize = 500;
/// Most ports joined to one request.
const MOST_JOINS: usize = 8;
/// Longest key of an entity, in bytes.
const LONGEST_ENTITY: usize = 256;
/// Rows looked up at once within one request: a few hide each other's waits, more would crowd out other requests.
const AT_ONCE: usize = 16;
const EXAMPLE: &str =
    r#"{"entities": ["c-1001", "c-1002"], "features": ["spend_7d"], "join": ["customer/customer-360"]}"#;

/// What is asked of each entity.
#[derive(Debug, Default)]
struct Wish {
    /// Names of features; all of them when empty.
    features: Vec<String>,
    /// Products or ports to join.
    join: Vec<String>,
    /// The port, where a product has several.
    port: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    entities: Vec<Value>,
    #[serde(default)]
    features: Vec<String>,
    #[serde(default)]
    join: Vec<String>,
    port: Option<String>,
}

/// Where the values of a port come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Stream,
    Batch,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Batch => "batch",
        }
    }
}

/// One port that is asked.
#[derive(Debug)]
struct Asked {
    port: PortId,
    key: String,
    source: Source,
    /// Columns that are answered, in the contract's order.
    columns: Vec<String>,
    contract: String,
    generation: u64,
}

pub(super) async fn one(
    State(state): State<Arc<ServeState>>,
    path: Result<Path<(String, String)>, PathRejection>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let begun = Instant::now();
    let Path((domain, product)) = path.map_err(|_| ApiError::no_such_path(uri.path()))?;
    let ledger = snapshot(&state.ledger);
    let deployed = request::deployed(&ledger, &domain, &product)?;
    let (mut wish, mut named) = (Wish::default(), Vec::new());
    for (name, value) in request::query(&uri) {
        let list = || value.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty());
        match name.as_str() {
            "features" => wish.features.extend(list()),
            "join" => wish.join.extend(list()),
            "port" => wish.port = Some(value),
            _ => named.push((name, value)),
        }
    }
    let asked = plan(&ledger, deployed, &wish)?;
    let entity = entity_of(&asked[0], named)?;
    let answer = answer(&state, &asked, &entity).await?;
    state.metrics.looked_up(begun.elapsed());
    let mut body = head(deployed, &asked);
    body.extend(answer);
    Ok(Json(Value::Object(body)))
}

pub(super) async fn many(
    State(state): State<Arc<ServeState>>,
    path: Result<Path<(String, String)>, PathRejection>,
    uri: Uri,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let begun = Instant::now();
    let Path((domain, product)) = path.map_err(|_| ApiError::no_such_path(uri.path()))?;
    let ledger = snapshot(&state.ledger);
    let deployed = request::deployed(&ledger, &domain, &product)?;
    let Body { entities, features, join, port } = request::json(body, EXAMPLE)?;
    if entities.is_empty() || entities.len() > MOST_ENTITIES {
        let message = format!("`entities` has {}, expected 1 to {MOST_ENTITIES}", entities.len());
        return Err(ApiError::entity(message, "ask in several requests"));
    }
    let asked = plan(&ledger, deployed, &Wish { features, join, port })?;
    let entities: Vec<String> = entities.into_iter().map(key_text).collect::<Result<_, _>>()?;
    let (state_ref, asked_ref) = (&state, &asked);
    let results: Vec<Value> = futures::stream::iter(entities)
        .map(|entity| async move { answer(state_ref, asked_ref, &entity).await.map(Value::Object) })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    state.metrics.looked_up(begun.elapsed());
    let mut body = head(deployed, &asked);
    body.insert("results".to_owned(), Value::Array(results));
    Ok(Json(Value::Object(body)))
}

/// Returns the ports to ask, the product's own first, with the columns that are wanted of each.
fn plan(ledger: &LedgerState, deployed: &Deployed, wish: &Wish) -> Result<Vec<Asked>, ApiError> {
    let mut asked = vec![port_of(deployed, wish.port.as_deref())?];
    if wish.join.len() > MOST_JOINS {
        return Err(ApiError::join(format!("more than {MOST_JOINS} joins"), "ask in several requests"));
    }
    for address in &wish.join {
        let (product, port) = match address.split_once('.') {
            Some((product, port)) => (product, Some(port)),
            None => (address.as_str(), None),
        };
        let other = port_of(request::product_at(ledger, product)?, port)?;
        let main = &asked[0];
        if other.key != main.key {
            let message =
                format!("{} is looked up by `{}`, {} by `{}`", other.port, other.key, main.port, main.key);
            return Err(ApiError::join(message, "only ports with the same look-up key can be joined"));
        }
        if asked.iter().any(|before| before.port == other.port) {
            return Err(ApiError::join(format!("{} is asked twice", other.port), "name each port once"));
        }
        asked.push(other);
    }
    choose(&mut asked, &wish.features)?;
    Ok(asked)
}

/// Keeps the wanted columns; a name that two ports share must be told apart by the caller, never by us.
fn choose(asked: &mut [Asked], wanted: &[String]) -> Result<(), ApiError> {
    if !wanted.is_empty() {
        let known: BTreeSet<String> = asked.iter().flat_map(|port| port.columns.iter().cloned()).collect();
        if let Some(odd) = wanted.iter().find(|name| !known.contains(*name)) {
            return Err(ApiError::no_such_feature(odd, known.iter().map(String::as_str).collect::<Vec<_>>()));
        }
        for port in asked.iter_mut() {
            port.columns.retain(|column| wanted.contains(column));
        }
    }
    let mut owner: BTreeMap<&str, &PortId> = BTreeMap::new();
    for port in asked.iter() {
        for column in &port.columns {
            if let Some(other) = owner.insert(column, &port.port) {
                let message = format!("both {other} and {} have `{column}`", port.port);
                return Err(ApiError::join(
                    message,
                    "name the columns that you want with `features`, or ask in two requests",
                ));
            }
        }
    }
    Ok(())
}

/// Returns the port of a product that is looked up.
fn port_of(deployed: &Deployed, name: Option<&str>) -> Result<Asked, ApiError> {
    let product = &deployed.product;
    let served: Vec<(&PortName, &String)> = product
        .outputs
        .iter()
        .filter_map(|(name, port)| Some((name, port.access.lookup.as_ref()?)))
        .collect();
    let names = || served.iter().map(|(name, _)| name.as_str());
    let (name, key) = match (name, served.as_slice()) {
        (_, []) => {
            let help = "a port is looked up when it has `hydromesh.access: {lookup: {key: COLUMN}}`";
            return Err(ApiError::no_access(format!("no port of {} has look-up access", product.id), help));
        }
        (Some(wanted), _) => *served.iter().find(|(name, _)| name.as_str() == wanted).ok_or_else(|| {
            let help = did_you_mean(wanted, names()).map_or_else(
                || format!("there are {}", names().collect::<Vec<_>>().join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            ApiError::no_access(
                format!("{} has no port `{}` with look-up access", product.id, wanted.escape_debug()),
                help,
            )
        })?,
        (None, [only]) => *only,
        (None, _) => {
            let message = format!("{} has several ports with look-up access", product.id);
            return Err(ApiError::request(
                message,
                format!("add `port=`: {}", names().collect::<Vec<_>>().join(", ")),
            ));
        }
    };
    let contract = &product.outputs[name].contract;
    let feature = product.pipelines.values().find_map(|pipeline| match pipeline {
        Pipeline::Feature(feature) if feature.output == *name => Some(feature),
        _ => None,
    });
    let (source, columns) = match feature {
        Some(feature) => {
            (Source::Stream, feature.view.columns().iter().map(|column| column.name.clone()).collect())
        }
        None => {
            let columns = contract.columns.iter().map(|column| column.name.clone());
            (Source::Batch, columns.filter(|column| column != key).collect())
        }
    };
    Ok(Asked {
        port: product.port(name),
        key: key.clone(),
        source,
        columns,
        contract: contract.version.clone(),
        generation: deployed.generation,
    })
}

/// Returns the entity that a query string names.
fn entity_of(asked: &Asked, named: Vec<(String, String)>) -> Result<String, ApiError> {
    let help = format!("ask as `?{}=VALUE`", asked.key);
    let mut found = None;
    for (name, value) in named {
        if name != asked.key {
            let known = [asked.key.as_str(), "features", "join", "port"];
            let help = did_you_mean(&name, known).map_or(help, |near| format!("did you mean `{near}`?"));
            return Err(ApiError::entity(format!("unknown parameter `{}`", name.escape_debug()), help));
        }
        if found.replace(value).is_some() {
            return Err(ApiError::entity(
                format!("`{}` is given twice", asked.key),
                "several entities are asked for by POST",
            ));
        }
    }
    let value = found.ok_or_else(|| ApiError::entity(format!("`{}` is missing", asked.key), help))?;
    key_text(Value::String(value))
}

/// Returns the key of an entity as text.
fn key_text(entity: Value) -> Result<String, ApiError> {
    let help = "a key is a text of 1 to 256 bytes without control characters, or a whole number";
    let text = match entity {
        Value::String(text) => text,
        Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
        _ => return Err(ApiError::entity("an entity is neither a text nor a whole number", help)),
    };
    if text.is_empty() || text.len() > LONGEST_ENTITY || text.chars().any(char::is_control) {
        return Err(ApiError::entity("that is no key of an entity", help));
    }
    Ok(text)
}

/// Returns what holds for every entity of an answer.
fn head(deployed: &Deployed, asked: &[Asked]) -> Map<String, Value> {
    let ports = asked.iter().map(|asked| {
        json!({
            "port": asked.port.to_string(),
            "source": asked.source.name(),
            "contract": asked.contract,
            "generation": asked.generation,
        })
    });
    let mut head = Map::new();
    head.insert("product".to_owned(), deployed.product.id.to_string().into());
    head.insert("ports".to_owned(), ports.collect());
    head
}

/// Asks every port for one entity. The shape of an answer does not depend on what is known of the entity: an unknown
/// one has nulls.
async fn answer(state: &ServeState, asked: &[Asked], entity: &str) -> Result<Map<String, Value>, ApiError> {
    let mut features = Map::new();
    let (mut found, mut watermark_ms) = (Vec::with_capacity(asked.len()), None);
    for ask in asked {
        let mut known: BTreeMap<String, FeatureValue> = match ask.source {
            Source::Stream => {
                let answer = state.features.lookup(&ask.port.product, entity, state.clock.now_ms())?;
                watermark_ms = answer.watermark_ms.or(watermark_ms);
                found.push(answer.found);
                if answer.found { answer.features } else { BTreeMap::new() }
            }
            Source::Batch => {
                let row = state.rows.row(&ask.port, entity).await?;
                found.push(row.is_some());
                row.map(|row| {
                    let (as_of_ms, version) = (row.as_of_ms, Some(row.version));
                    row.values
                        .into_iter()
                        .map(|(name, value)| (name, FeatureValue { value, as_of_ms, version }))
                        .collect()
                })
                .unwrap_or_default()
            }
        };
        for column in &ask.columns {
            let value = known.remove(column).unwrap_or(FeatureValue {
                value: Value::Null,
                as_of_ms: None,
                version: None,
            });
            let told = json!({
                "value": value.value,
                "as_of": value.as_of_ms.map(rfc3339),
                "version": value.version,
                "source": ask.source.name(),
            });
            features.insert(column.clone(), told);
        }
    }
    let mut answer = Map::new();
    answer.insert("entity".to_owned(), json!({ asked[0].key.as_str(): entity }));
    answer.insert("found".to_owned(), found[0].into());
    if asked.len() > 1 {
        let joined =
            asked.iter().zip(&found).skip(1).map(|(ask, found)| (ask.port.to_string(), Value::Bool(*found)));
        answer.insert("joined".to_owned(), Value::Object(joined.collect()));
    }
    answer.insert("features".to_owned(), Value::Object(features));
    answer.insert("watermark".to_owned(), watermark_ms.map(rfc3339).into());
    Ok(answer)
}
