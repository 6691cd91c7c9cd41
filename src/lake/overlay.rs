//! A preview's lake lies over its parent's: what the preview has not made itself is read from there, at the version that it
//! was pinned to, and nothing is ever written there.
//!
//! A version says which of the two it is of: those of tables that a preview makes begin above every version of the parent's.

use std::path::Path;

use hydromesh_core::ledger::OWN_ABOVE;

use super::{FileSet, Lake, LakeError, Table, Version, fs::blocking};

/// The version above which a preview's own tables begin.
pub(super) const ABOVE: Version = Version(OWN_ABOVE);

impl Lake {
    /// Returns the lake as one over another, of which it need not be there: versions of it are read from it.
    #[must_use]
    pub fn over(self, below: &Path) -> Self {
        // Readers need the whole path; where there is none yet, there is nothing to read.
        let below = below.canonicalize().unwrap_or_else(|_| below.to_path_buf());
        Lake { below: Some(below), ..self }
    }
}

impl Table {
    /// Returns the table in the lake below, if this version is one of its.
    pub(super) fn below_at(&self, at: Option<Version>) -> Option<Table> {
        let dir = self.below.as_ref().filter(|_| at.is_some_and(|at| at <= ABOVE))?;
        Some(Table {
            address: self.address.clone(),
            dir: dir.clone(),
            format: self.format,
            above: None,
            below: None,
        })
    }

    /// Returns the files of a version that somebody is pinned to, all of which must be there.
    pub(super) async fn pinned(&self, at: Option<Version>) -> Result<FileSet, LakeError> {
        let version = at.unwrap_or(ABOVE);
        let gone = |source| LakeError::Unpinned { address: self.address.clone(), version, source };
        let files = match self.own_file_set(at).await {
            Ok(files) => files,
            // The disk may be readable again in a moment.
            Err(error @ LakeError::Io { .. }) => return Err(error),
            Err(error) => return Err(gone(Some(Box::new(error)))),
        };
        let paths: Vec<_> = files.files.iter().map(|file| files.dir.join(&file.path)).collect();
        let lost = blocking(move || Ok(paths.iter().any(|path| !path.exists()))).await?;
        if lost { Err(gone(None)) } else { Ok(files) }
    }
}
