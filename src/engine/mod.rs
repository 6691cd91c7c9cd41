//! DataFusion: describes SQL offline and executes it over pinned inputs.

mod batch;
mod describe;
mod lineage;
mod types;

pub use batch::{Engine, EngineConfig, EngineError, PartitionFilter};
pub use describe::{SqlProblem, SqlProblemKind, describe};
pub use types::{arrow_schema, arrow_type, conform, conform_schema, logical_of};
