//! DataFusion: describes SQL offline and executes it over pinned inputs.

mod batch;
mod bounded;
mod describe;
mod files;
mod lineage;
mod quality;
mod types;
mod yielding;

pub use batch::{Engine, EngineConfig, EngineError, Keeps, PartitionFilter, part_of};
pub use describe::{Describer, SqlProblem, SqlProblemKind, describe};
pub use files::{FilesRead, QuarantinedRow, memory_table, read_files};
pub use quality::{Against, FAILING_COUNT, QualityOutcome};
pub use types::{arrow_schema, arrow_type, conform, conform_schema, logical_of};
