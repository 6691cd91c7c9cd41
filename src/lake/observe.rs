//! Looking at a table as it lies there, whoever wrote it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use arrow::datatypes::{Field, Schema};
use hydromesh_core::observe::{Seen, SeenPartition};

use super::{LakeError, Table, TableFormat, Version, fs};

impl Table {
    /// Looks at the newest version: rows and files of each partition, by which keys the files are named, and whether
    /// they are there; whether it has the version that was published last, and still all its columns. A table that cannot be looked at is an error, never
    /// [`Seen::Absent`] or [`Seen::Damaged`].
    pub async fn observe(&self, published: Version) -> Result<Seen, LakeError> {
        let set = match self.file_set(None).await {
            Err(LakeError::Absent { .. }) => return Ok(Seen::Absent),
            Err(LakeError::Damaged { .. }) => return Ok(Seen::Damaged),
            set => set?,
        };
        // Most often the newest version is the one that was published, and is not read twice.
        let (readable, reshaped) = if set.version == Some(published) {
            (true, Vec::new())
        } else {
            match self.file_set(Some(published)).await {
                Err(LakeError::UnknownVersion { .. }) => (false, Vec::new()),
                was => (true, differences(&was?.schema, &set.schema)),
            }
        };
        fs::blocking(move || {
            let mut partitions: BTreeMap<String, SeenPartition> = BTreeMap::new();
            for file in &set.files {
                let key = file.partition.clone().unwrap_or_default();
                let seen = partitions
                    .entry(key)
                    .or_insert_with(|| SeenPartition { rows: Some(0), ..SeenPartition::default() });
                seen.rows = seen.rows.zip(file.rows).map(|(sum, rows)| sum + rows);
                seen.keys.insert(key_of(&file.path).unwrap_or_default().to_owned());
                let path = set.dir.join(&file.path);
                match std::fs::metadata(&path) {
                    Ok(found) => seen.cut += u64::from(found.len() != file.bytes),
                    Err(source) if source.kind() == std::io::ErrorKind::NotFound => seen.gone += 1,
                    Err(source) => return Err(LakeError::io("look at", &path, source)),
                }
            }
            Ok(Seen::Known { readable, reshaped, partitions })
        })
        .await
    }

    /// Returns the bytes of the newest version, and in how many partitions they are (one for a table without).
    ///
    /// # Errors
    /// When there is no table, or it cannot be read.
    pub async fn weight(&self) -> Result<(u64, u64), LakeError> {
        let set = self.file_set(None).await?;
        let bytes = set.files.iter().map(|file| file.bytes).sum();
        let partitions: BTreeSet<Option<&str>> =
            set.files.iter().map(|file| file.partition.as_deref()).collect();
        Ok((bytes, partitions.len() as u64))
    }

    /// Returns a mark that changes with every commit to the table, at the price of one look at a folder: `None` when
    /// there is no table.
    ///
    /// # Errors
    /// When the folder cannot be looked at, which says nothing about the table.
    pub fn stamp(&self) -> std::io::Result<Option<SystemTime>> {
        let log = self.dir.join(match self.format {
            TableFormat::Delta => "_delta_log",
            TableFormat::Iceberg => "metadata",
        });
        match std::fs::metadata(log) {
            Ok(found) => found.modified().map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Returns in what the columns of a table are no longer what they were. More of them take nothing from anybody.
fn differences(was: &Schema, is: &Schema) -> Vec<String> {
    let difference = |was: &Arc<Field>| match is.field_with_name(was.name()) {
        Err(_) => Some(format!("its column {} was dropped", was.name())),
        Ok(is) if is.data_type() == was.data_type() => None,
        Ok(is) => Some(format!("its column {} is {}, was {}", was.name(), is.data_type(), was.data_type())),
    };
    was.fields().iter().filter_map(difference).collect()
}

/// Returns the digest of the key that a file of ours is named by: `part-<digest>-e<epoch>-...`.
pub(super) fn key_of(path: &str) -> Option<&str> {
    let name = Path::new(path).file_name()?.to_str()?;
    let (digest, rest) = name.strip_prefix("part-")?.split_once("-e")?;
    let hex = digest.len() == 16 && digest.chars().all(|c| c.is_ascii_hexdigit());
    (hex && rest.starts_with(|c: char| c.is_ascii_digit())).then_some(digest)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;

    #[test]
    fn columns_that_are_gone_or_other_are_told_and_more_of_them_are_not() {
        let schema = |columns: &[(&str, DataType)]| {
            let field = |(name, of): &(&str, DataType)| Field::new(*name, of.clone(), true);
            Schema::new(columns.iter().map(field).collect::<Vec<_>>())
        };
        let was = schema(&[("id", DataType::Int64), ("amount", DataType::Int64), ("day", DataType::Date32)]);
        let is = schema(&[("day", DataType::Utf8), ("id", DataType::Int64), ("note", DataType::Utf8)]);
        assert_eq!(
            differences(&was, &is),
            ["its column amount was dropped", "its column day is Utf8, was Date32"]
        );
        assert_eq!(differences(&was, &was), [""; 0]);
    }

    #[test]
    fn files_of_others_have_no_key() {
        assert_eq!(key_of("data/part-0123456789abcdef-e7-00000-aabbcc.parquet"), Some("0123456789abcdef"));
        // As Spark, delta-rs and pyiceberg name theirs.
        for other in [
            "part-00000-7c4d9a52-3f0e-4b1c-8f63-9e2f0f1f5c11-c000.snappy.parquet",
            "day=2026-01-01/part-00001-e5c2f3a8-5d7d-4f1e-9a43-0f4a1b2c3d4e-c000.zstd.parquet",
            "data/00000-0-3f1c0a0e-9a52-4b1c-8f63-9e2f0f1f5c11.parquet",
        ] {
            assert_eq!(key_of(other), None, "{other}");
        }
    }
}
