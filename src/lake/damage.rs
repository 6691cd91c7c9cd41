//! Tables whose log cannot be understood: told from a disk that cannot be read, and mended where nothing is lost by it.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use parquet::file::reader::{FileReader as _, SerializedFileReader};

use super::{LakeError, Table, TableFormat, fs};

/// What is wrong with a Delta log.
#[derive(Debug, Default, PartialEq, Eq)]
struct Damage {
    /// A commit that is missing or makes no sense, and why.
    commit: Option<String>,
    /// Checkpoints that cannot be read. The commits say the same.
    checkpoints: Vec<PathBuf>,
    /// The newest version can be read without the checkpoints that cannot: from the first commit on, or, of a log that was cut,
    /// from another checkpoint.
    whole: bool,
}

/// Returns the damage of a table's log as an error, if there is any: asked when reading it failed, to tell the log's fault from
/// that of the disk or of this version.
pub(super) async fn of_delta(table: &Table) -> Result<Option<LakeError>, LakeError> {
    let log = table.dir.join("_delta_log");
    let damage = fs::blocking(move || inspect(&log)).await?;
    let why = damage.commit.or_else(|| {
        damage.checkpoints.first().map(|path| format!("the checkpoint {} cannot be read", path.display()))
    });
    Ok(why.map(|why| LakeError::Damaged { address: table.address.clone(), why }))
}

impl Table {
    /// Mends what can be mended without a loss: checkpoints of a Delta table that cannot be read are moved out of the way, for
    /// every commit is there to read instead. Returns whether anything was.
    ///
    /// # Errors
    /// When the folder cannot be read or written.
    pub async fn mend(&self) -> Result<bool, LakeError> {
        if self.format != TableFormat::Delta {
            return Ok(false);
        }
        let log = self.dir.join("_delta_log");
        let address = self.address.clone();
        fs::blocking(move || {
            let damage = inspect(&log)?;
            if damage.checkpoints.is_empty() || damage.commit.is_some() || !damage.whole {
                return Ok(false);
            }
            for path in damage.checkpoints.iter().chain([&log.join("_last_checkpoint")]) {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                match std::fs::rename(path, path.with_file_name(format!(".{name}.damaged"))) {
                    Err(source) if source.kind() != ErrorKind::NotFound => {
                        return Err(LakeError::io("move aside", path, source));
                    }
                    _ => tracing::warn!(table = %address, "{} was damaged; moved aside", path.display()),
                }
            }
            fs::sync_dir(&log)?;
            Ok(true)
        })
        .await
    }
}

/// Reads every file of a Delta log.
fn inspect(log: &Path) -> Result<Damage, LakeError> {
    let mut damage = Damage::default();
    let mut versions = Vec::new();
    let mut sound: Vec<u64> = Vec::new();
    let entries = match std::fs::read_dir(log) {
        Err(source) if source.kind() == ErrorKind::NotFound => return Ok(damage),
        listed => listed.map_err(|source| LakeError::io("list", log, source))?,
    };
    for entry in entries {
        let path = entry.map_err(|source| LakeError::io("list", log, source))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some((version, rest)) = name.split_once('.') else { continue };
        let Ok(version) = version.parse::<u64>() else { continue };
        if rest == "json" {
            versions.push(version);
            let bytes = std::fs::read(&path).map_err(|source| LakeError::io("read", &path, source))?;
            if let Some(why) = misread(&bytes) {
                damage.commit = Some(format!("{} {why}", path.display()));
            }
        } else if rest.starts_with("checkpoint") && rest.ends_with("parquet") {
            if is_parquet(&path)? {
                sound.push(version);
            } else {
                damage.checkpoints.push(path);
            }
        }
    }
    versions.sort_unstable();
    let first = versions.first().copied().unwrap_or(0);
    damage.whole = first == 0 || sound.iter().any(|version| version + 1 >= first);
    if !damage.whole && damage.checkpoints.is_empty() {
        damage.commit = Some(format!("version 0 is missing from {}", log.display()));
    }
    if let Some(pair) = versions.windows(2).find(|pair| pair[1] != pair[0] + 1) {
        damage.commit = Some(format!("version {} is missing from {}", pair[0] + 1, log.display()));
    }
    damage.checkpoints.sort();
    Ok(damage)
}

/// Returns why a commit makes no sense, if it does not.
fn misread(commit: &[u8]) -> Option<&'static str> {
    let mut lines =
        commit.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).peekable();
    if lines.peek().is_none() {
        return Some("is empty");
    }
    let is_action = |line: &[u8]| {
        serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(line)
            .is_ok_and(|it| it.len() == 1)
    };
    (!lines.all(is_action)).then_some("is cut, or holds something else")
}

/// Returns whether a file is Parquet and all of its rows can be read.
pub(super) fn is_parquet(path: &Path) -> Result<bool, LakeError> {
    let file = File::open(path).map_err(|source| LakeError::io("open", path, source))?;
    let Ok(reader) = SerializedFileReader::new(file) else { return Ok(false) };
    let readable = reader.get_row_iter(None).is_ok_and(|mut rows| rows.all(|row| row.is_ok()));
    Ok(readable)
}

/// Returns whether an error says that the system could not read, rather than that what was read makes no sense.
pub(super) fn is_of_the_system(error: &(dyn std::error::Error + 'static)) -> bool {
    let text = crate::text::chain(error);
    // Libraries hand the system's word on as text. A file that is missing is the log's fault: the log names it.
    text.contains("(os error ") && !text.contains("(os error 2)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_one_action_a_line() {
        assert_eq!(misread(b"{\"commitInfo\":{}}\n{\"add\":{}}\n"), None);
        for torn in [&b"{\"commitInfo\":{}}\n{\"add\":{"[..], b"\0\0\0\0", b"[]\n", b"{}\n", b"\xff\xfe\n"] {
            assert!(misread(torn).is_some(), "{torn:?}");
        }
        assert_eq!(misread(b""), Some("is empty"));
        assert_eq!(misread(b"\n"), Some("is empty"));
    }
}
