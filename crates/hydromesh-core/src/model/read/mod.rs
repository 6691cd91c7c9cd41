//! Spanned trees to what one file says, before names of other files are looked up.

mod command;
mod contract;
mod custom;
mod enclosing;
mod features;
mod learning;
mod pipeline;
mod product;
mod quality;
mod retire;
mod servers;
mod sla;
mod usual;
mod values;
mod window;

pub use contract::{contract, declared_id};
pub use enclosing::{domain, humanise, implied_domain, mesh};
pub use pipeline::{Around, RawPipeline, SqlFile, pipeline};
pub use product::{Feed, RawPort, RawProduct, product};
pub(super) use sla::length;

use crate::syntax::Map;

/// The `apiVersion` of the mesh's own kinds.
pub const API_VERSION: &str = "hydromesh/v1";

/// Reads the head of one of the mesh's own documents.
fn own_head(map: &Map<'_>, kind: &'static str) {
    map.known(&["apiVersion", "kind"]);
    if let Some(version) = map.req_text("apiVersion")
        && version != API_VERSION
    {
        map.bad_choice("apiVersion", map.spot("apiVersion"), &version, &[API_VERSION]);
    }
    if let Some(found) = map.req_text("kind")
        && found != kind
    {
        map.bad_choice("kind", map.spot("kind"), &found, &[kind]);
    }
}
