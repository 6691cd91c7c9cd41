//! Reading a fixed set of the lake's Parquet files as a table.
//!
//! One reader serves both formats and the files staged but not published, so the three can never
//! read a row differently, and column types are the plain ones of the contract. It claims only
//! statistics that are exact (row counts and partition values); everything else DataFusion takes
//! from the files' own footers.

use std::{any::Any, collections::BTreeMap, path::Path, path::PathBuf, sync::Arc};

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::{
    catalog::{Session, TableProvider},
    common::{ColumnStatistics, Statistics, stats::Precision},
    datasource::{
        TableType,
        listing::PartitionedFile,
        object_store::ObjectStoreUrl,
        physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource},
        source::DataSourceExec,
        table_schema::TableSchema,
    },
    error::{DataFusionError, Result as QueryResult},
    logical_expr::Expr,
    physical_plan::{ExecutionPlan, empty::EmptyExec},
};

use super::{
    PartitionInfo, Version,
    stage::{PartitionColumn, Staged, partition_scalar},
};

#[derive(Debug)]
pub(super) struct FileSet {
    pub dir: PathBuf,
    /// `None` for files that are staged.
    pub version: Option<Version>,
    /// The table's columns, in its order and plain.
    pub schema: SchemaRef,
    pub partition_by: Option<String>,
    pub partition_column: PartitionColumn,
    pub files: Vec<FileEntry>,
}

#[derive(Debug, Clone)]
pub(super) struct FileEntry {
    /// Relative to the table's folder.
    pub path: String,
    pub partition: Option<String>,
    /// `None` when the writer did not say.
    pub rows: Option<u64>,
    pub bytes: u64,
}

impl FileSet {
    pub fn of_staged(dir: &Path, staged: &Staged) -> FileSet {
        let files = staged.files.iter().map(|file| FileEntry {
            path: file.path.clone(),
            partition: file.partition.clone(),
            rows: Some(file.rows),
            bytes: file.bytes,
        });
        FileSet {
            dir: dir.to_path_buf(),
            version: None,
            schema: staged.schema.clone(),
            partition_by: staged.partition_by.clone(),
            partition_column: staged.partition_column,
            files: files.collect(),
        }
    }

    pub fn partitions(&self) -> BTreeMap<String, PartitionInfo> {
        let mut partitions: BTreeMap<String, PartitionInfo> = BTreeMap::new();
        for file in &self.files {
            let Some(value) = &file.partition else { continue };
            let info = partitions.entry(value.clone()).or_default();
            info.rows += file.rows.unwrap_or(0);
            info.files += 1;
            info.bytes += file.bytes;
        }
        partitions
    }

    /// The columns inside the files, and the partition column where it is not.
    fn split_schema(&self) -> (SchemaRef, Option<Arc<Field>>) {
        match (&self.partition_by, self.partition_column) {
            (Some(by), PartitionColumn::InLog) => {
                let (outside, inside): (Vec<_>, Vec<_>) =
                    self.schema.fields().iter().cloned().partition(|field| field.name() == by);
                (Arc::new(Schema::new(inside)), outside.into_iter().next())
            }
            _ => (self.schema.clone(), None),
        }
    }

    fn partitioned_file(
        &self,
        file: &FileEntry,
        inside: &Schema,
        outside: Option<&Arc<Field>>,
    ) -> QueryResult<PartitionedFile> {
        let path = object_store::path::Path::from_absolute_path(self.dir.join(&file.path))
            .map_err(|source| DataFusionError::External(Box::new(source)))?;
        let value = match (&self.partition_by, &file.partition) {
            (Some(by), Some(value)) => Some((
                by,
                partition_scalar(&self.schema, by, value)
                    .map_err(|source| DataFusionError::External(Box::new(source)))?,
            )),
            _ => None,
        };
        let mut statistics = Statistics::new_unknown(inside);
        if let Some(rows) = file.rows.and_then(|rows| usize::try_from(rows).ok()) {
            statistics.num_rows = Precision::Exact(rows);
        }
        let mut partitioned = PartitionedFile::new(String::new(), file.bytes);
        partitioned.object_meta.location = path;
        match (value, outside) {
            (Some((_, value)), Some(_)) => partitioned = partitioned.with_partition_values(vec![value]),
            (Some((by, value)), None) => {
                if let Ok(index) = inside.index_of(by) {
                    statistics.column_statistics[index] = ColumnStatistics::new_unknown()
                        .with_null_count(Precision::Exact(0))
                        .with_min_value(Precision::Exact(value.clone()))
                        .with_max_value(Precision::Exact(value));
                }
            }
            _ => {}
        }
        Ok(partitioned.with_statistics(Arc::new(statistics)))
    }
}

#[async_trait::async_trait]
impl TableProvider for FileSet {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> QueryResult<Arc<dyn ExecutionPlan>> {
        let (inside, outside) = self.split_schema();
        let wanted: Vec<usize> =
            projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        // A file without rows only marks its partition as known; there is nothing in it to read.
        let full: Vec<&FileEntry> = self.files.iter().filter(|file| file.rows != Some(0)).collect();
        if full.is_empty() {
            return Ok(Arc::new(EmptyExec::new(Arc::new(self.schema.project(&wanted)?))));
        }
        let table_schema = TableSchema::new(inside.clone(), outside.iter().cloned().collect());
        let positions = wanted
            .iter()
            .map(|index| table_schema.table_schema().index_of(self.schema.field(*index).name()))
            .collect::<Result<Vec<usize>, _>>()?;
        let files = full
            .iter()
            .map(|file| self.partitioned_file(file, &inside, outside.as_ref()))
            .collect::<QueryResult<Vec<_>>>()?;
        let mut statistics = Statistics::new_unknown(table_schema.table_schema());
        let rows: Option<u64> = full.iter().map(|file| file.rows).sum();
        if let Some(rows) = rows.and_then(|rows| usize::try_from(rows).ok()) {
            statistics.num_rows = Precision::Exact(rows);
        }
        let source = ParquetSource::new(table_schema)
            .with_table_parquet_options(session.table_options().parquet.clone());
        let groups = FileGroup::new(files).split_files(session.config().target_partitions().max(1));
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(Some(positions))?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}
