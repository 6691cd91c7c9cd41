//! The same suite for every kind of topic, then what is particular to each.

mod decode;
mod folder;
#[cfg(feature = "kafka")]
mod kafka;
mod produce;
mod properties;
mod suite;
