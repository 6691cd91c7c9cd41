//! What can go wrong with a table.

use std::path::{Path, PathBuf};

use super::{TableFormat, Version};

#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    #[error("table address {address:?}: {why}")]
    BadAddress { address: String, why: &'static str },
    #[error("the lake folder {} has characters that table paths cannot carry", .root.display())]
    BadRoot { root: PathBuf },
    #[error("table {address} does not exist")]
    Absent { address: String },
    #[error("table {address} is {found:?}, not {wanted:?}")]
    OtherFormat { address: String, wanted: TableFormat, found: TableFormat },
    #[error("column {column}: type {data_type} cannot be stored")]
    UnsupportedType { column: String, data_type: String },
    #[error("column {column}: {why}")]
    IncompatibleSchema { column: String, why: String },
    #[error("rows lack the required column {column}")]
    MissingColumn { column: String },
    #[error("rows have the column {column}, which the table lacks")]
    UnknownColumn { column: String },
    #[error("column {column} requires a value and a row has none")]
    NullInRequired { column: String },
    #[error("partition column {column} is null or empty in a row")]
    NullPartition { column: String },
    #[error("{value:?} is not a value of the partition column {column}")]
    BadPartition { column: String, value: String },
    #[error("table {address} is not partitioned")]
    NotPartitioned { address: String },
    #[error("rows of partition {found:?} were staged to replace partition {expected:?}")]
    WrongPartition { expected: String, found: String },
    #[error("table {address} has no version {}", .version.0)]
    UnknownVersion { address: String, version: Version },
    #[error(
        "table {address} is another than it was: its newest version is {}, {} was seen before; move its folder away and retry",
        .newest.0,
        .above.0
    )]
    Replaced { address: String, newest: Version, above: Version },
    #[error(
        "HM-L006: version {} of {address}, which this preview reads from its parent, is no longer there; begin it again \
         with `hydromesh apply --refresh`",
        .version.0
    )]
    Unpinned { address: String, version: Version, source: Option<Box<LakeError>> },
    #[error("writer epoch {offered} is stale: the table was committed by epoch {current}")]
    Fenced { offered: u64, current: u64 },
    #[error(
        "checkpoint chain of {pipeline} is broken: the table is at {found}, the commit follows {expected}"
    )]
    ChainBroken { pipeline: String, expected: String, found: String },
    #[error("table {address} changed during each of {attempts} attempts")]
    Contended { address: String, attempts: usize },
    /// Another commit won; the caller of one attempt loads the table again. Never leaves this module.
    #[error("another commit was first")]
    Conflict,
    /// A commit replaced what was to be put together. Never leaves this module.
    #[error("files of {address} that were to be put together are not part of it any longer")]
    Overtaken { address: String },
    /// The disk was read, and what it holds says nothing.
    #[error("the log of {address} is damaged: {why}")]
    Damaged { address: String, why: String },
    /// Of a format whose own books hold where it lies.
    #[error("table {address} cannot be used: it was written at {}; Iceberg tables cannot be moved", .location.display())]
    Moved { address: String, location: PathBuf },
    #[error("table {address} cannot be used: {why}")]
    Unusable { address: String, why: String },
    /// What another table has is not taken over: then it is computed. Never leaves a step.
    #[error("{} {why}", .path.display())]
    Untaken { path: PathBuf, why: String },
    #[error("could not {doing} {}", .path.display())]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
    #[error("delta table")]
    Delta(#[source] Box<deltalake::DeltaTableError>),
    #[error("iceberg table")]
    Iceberg(#[source] Box<iceberg_rust::error::Error>),
    #[error("iceberg metadata")]
    IcebergSpec(#[source] Box<iceberg_rust::spec::error::Error>),
    #[error("parquet file")]
    Parquet(#[from] parquet::errors::ParquetError),
    #[error("record batch")]
    Arrow(#[from] arrow::error::ArrowError),
    #[error("query")]
    Query(#[source] Box<datafusion::error::DataFusionError>),
    #[error("table log")]
    Json(#[from] serde_json::Error),
}

impl LakeError {
    pub(super) fn io(doing: &'static str, path: &Path, source: std::io::Error) -> LakeError {
        LakeError::Io { doing, path: path.to_path_buf(), source }
    }
}

impl From<deltalake::DeltaTableError> for LakeError {
    fn from(source: deltalake::DeltaTableError) -> Self {
        LakeError::Delta(Box::new(source))
    }
}

impl From<iceberg_rust::error::Error> for LakeError {
    fn from(source: iceberg_rust::error::Error) -> Self {
        LakeError::Iceberg(Box::new(source))
    }
}

impl From<iceberg_rust::spec::error::Error> for LakeError {
    fn from(source: iceberg_rust::spec::error::Error) -> Self {
        LakeError::IcebergSpec(Box::new(source))
    }
}

impl From<datafusion::error::DataFusionError> for LakeError {
    fn from(source: datafusion::error::DataFusionError) -> Self {
        LakeError::Query(Box::new(source))
    }
}
