//! Embedding: texts are cut, cuts become vectors, and a query finds the nearest.

mod chunk;
mod exact;
mod hashing;
mod provider;
mod search;
mod table;

pub use chunk::{ChunkSizes, split};
pub use exact::{ExactIndex, IndexError, Neighbour};
pub use hashing::Hashing;
pub use provider::{Model, Provider, ProviderError};
pub use search::{Hit, LoadedIndex, MAX_QUERY, SearchError, VectorIndexes, search};
pub use table::{CHUNK, CONTENT_HASH, Layout, LayoutError, Others, StoredRow, read_rows};
