//! Manifest text to a spanned generic tree, and typed reading of that tree.
//!
//! Nothing here fails: a text yields what could be read of it and the diagnostics on the rest.

mod plain;
mod reader;
mod yaml;

pub use reader::{Map, Sink};
pub use yaml::{Key, Node, NodeKind, parse};
